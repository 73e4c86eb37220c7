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
	adopts     bool     // may take over what void ceremonies left
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
	making := append([]string{"key.generate", "keys.store", "keys.prove", "births.sign", "cert.issue", "charter.append", "update.root"}, fresh...)
	opening := []string{"vault.load", "safe.open"}
	enrolled := []string{charter.TypePipeline, charter.TypeFactory, charter.TypeStation, charter.TypeRelay}
	made := append([]string{charter.TypeEpoch, charter.TypeKey}, enrolled...)
	ended := []string{charter.TypeKeyRetired, charter.TypeSuccessor, charter.TypeSafeRetired}
	carried := append([]string{charter.TypeFloor}, ended...)
	issuing := []string{"cert.issue", "charter.append", "update.root"}
	return map[string]kind{
		"hsm-lost":     {continues: true, verbs: slices.Concat(opening, making, []string{"succession.sign"}), statements: slices.Concat(made, carried)},
		"succession":   {continues: true, verbs: slices.Concat(opening, making, []string{"succession.sign", "key.destroy"}), statements: slices.Concat(made, carried)},
		"sign-offline": {continues: true, verbs: slices.Concat(opening, issuing, []string{"crl.issue"}), statements: enrolled},
		"enrol":        {continues: true, verbs: slices.Concat(opening, issuing), statements: enrolled},
		"retire":       {continues: true, verbs: slices.Concat(opening, []string{"key.destroy", "token.destroy", "charter.append", "update.root"}), statements: ended},
		"genesis":      {verbs: append([]string{"genesis.sign"}, making...), statements: append([]string{charter.TypeGenesis, charter.TypeVendorRoot}, made...)},
		"new-key":      {continues: true, verbs: slices.Concat(opening, making, []string{"succession.sign"}), statements: made},
		"reshare": {
			continues: true, adopts: true,
			verbs:      slices.Concat(opening, []string{"people.change", "shares.deal", "shares.receipts", "token.repin", "key.find", "charter.append", "update.root"}),
			statements: []string{charter.TypePeople, charter.TypeEpoch, charter.TypeEpochAdopted, charter.TypeKeyAdopted},
		},
		"transfer": {
			continues: true, verbs: slices.Concat(opening, []string{"key.transfer", "charter.append", "keys.prove"}),
			statements: []string{charter.TypeReceiver, charter.TypeKeyMoved},
		},
	}
}

func (k *kind) has(verb string) bool {
	return slices.Contains(everyKind(), verb) || slices.Contains(k.verbs, verb)
}
