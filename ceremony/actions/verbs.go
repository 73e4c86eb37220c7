package actions

import (
	"context"

	"keyrite/artifact/fault"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
)

// verb carries out one step.
type verb func(a *Actions, ctx context.Context, r *ceremony.Run, st *script.Step) error

// verbs bind the closed set of the language.
func verbs() map[string]verb {
	return map[string]verb{
		"environment.check": (*Actions).checkEnvironment,
		"people.identify":   (*Actions).identify,
		"documents.see":     (*Actions).documents,
		"vault.load":        (*Actions).loaded,
		"safe.open":         (*Actions).open,
		"people.change":     (*Actions).changePeople,
		"token.repin":       (*Actions).repin,
		"genesis.sign":      (*Actions).found,
		"token.init":        (*Actions).initToken,
		"token.admit":       (*Actions).admit,
		"shares.deal":       (*Actions).deal,
		"shares.receipts":   (*Actions).receipts,
		"token.pins":        (*Actions).changePINs,
		"key.generate":      (*Actions).generate,
		"key.transfer":      (*Actions).transfer,
		"key.find":          (*Actions).seek,
		"cert.issue":        (*Actions).issue,
		"charter.append":    (*Actions).charter,
		"succession.sign":   (*Actions).signSuccession,
		"key.destroy":       (*Actions).endKey,
		"token.destroy":     (*Actions).endToken,
		"crl.issue":         (*Actions).issueCRL,
		"update.root":       (*Actions).updateRoot,
		"pause":             (*Actions).nothing,
		"break":             (*Actions).rest,
		"medium.in":         (*Actions).mediumIn,
		"medium.out":        (*Actions).mediumOut,
		"paper.print":       (*Actions).print,
		"keys.store":        (*Actions).store,
		"keys.prove":        (*Actions).prove,
		"births.sign":       (*Actions).watch,
		"outputs.write":     (*Actions).outputs,
		"read.aloud":        (*Actions).readAloud,
	}
}

// nothing is a step that only people take.
func (*Actions) nothing(context.Context, *ceremony.Run, *script.Step) error { return nil }

// Do carries out one step.
func (a *Actions) Do(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	do, ok := verbs()[st.Do]
	if !ok {
		return fault.Errorf(fault.Unexpected, "verb %s has no action", st.Do)
	}
	return do(a, ctx, r, st)
}
