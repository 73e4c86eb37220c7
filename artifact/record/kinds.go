package record

import (
	"slices"

	"keyrite/artifact/charter"
)

// kind says what a record of one kind of ceremony may hold beside what every
// record may. What does not stand here is refused.
type kind struct {
	continues  bool     // an existing vault
	verbs      []string // beside those of every kind
	statements []string // of the charter
}

// everyKind are the verbs that all kinds have.
func everyKind() []string {
	return []string{
		"environment.check", "people.identify", "documents.see", "break", "pause", "medium.in", "medium.out", "paper.print",
		"outputs.write", "read.aloud",
	}
}

// kinds are all kinds of ceremony that this version verifies.
func kinds() map[string]kind {
	fresh := []string{"token.init", "token.admit", "shares.deal", "shares.receipts", "token.pins"}
	making := append([]string{"key.generate", "keys.store", "keys.prove", "cert.issue", "charter.append", "update.root"}, fresh...)
	opening := []string{"vault.load", "safe.open"}
	enrolled := []string{charter.TypePipeline, charter.TypeFactory, charter.TypeStation, charter.TypeRelay}
	made := append([]string{charter.TypeEpoch, charter.TypeKey}, enrolled...)
	ended := []string{charter.TypeKeyRetired, charter.TypeSuccessor, charter.TypeSafeRetired}
	carried := append([]string{charter.TypeFloor}, ended...)
	issuing := []string{"cert.issue", "charter.append", "update.root"}
	return map[string]kind{
		"hsm-lost":     {true, slices.Concat(opening, making, []string{"succession.sign"}), slices.Concat(made, carried)},
		"succession":   {true, slices.Concat(opening, making, []string{"succession.sign", "key.destroy"}), slices.Concat(made, carried)},
		"sign-offline": {true, slices.Concat(opening, issuing, []string{"crl.issue"}), enrolled},
		"enrol":        {true, slices.Concat(opening, issuing), enrolled},
		"retire":       {true, slices.Concat(opening, []string{"key.destroy", "token.destroy", "charter.append", "update.root"}), ended},
		"genesis":      {verbs: append([]string{"genesis.sign"}, making...), statements: append([]string{charter.TypeGenesis}, made...)},
		"new-key":      {true, slices.Concat(opening, making, []string{"succession.sign"}), made},
		"reshare": {
			true, slices.Concat(opening, []string{"people.change", "shares.deal", "shares.receipts", "token.repin", "charter.append", "update.root"}),
			[]string{charter.TypePeople, charter.TypeEpoch},
		},
		"transfer": {
			true, slices.Concat(opening, []string{"key.transfer", "charter.append", "keys.prove"}),
			[]string{charter.TypeReceiver, charter.TypeKeyMoved},
		},
	}
}

func (k *kind) has(verb string) bool {
	return slices.Contains(everyKind(), verb) || slices.Contains(k.verbs, verb)
}
