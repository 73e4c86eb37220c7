package vaulttest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
)

// Standby is the safe whose token has the twins of the keys, after Lose.
const Standby = "work2"

// Lose takes the work token away with its folder, and has the charter say what an
// hsm-lost ceremony has it say: its keys give way to their twins in the token of Standby,
// and its safe is retired. Token, Shares and Report are those of Standby from then on.
func (v *Vault) Lose() {
	t := v.t
	t.Helper()
	people := v.State.People
	work, _ := people.Safe(Safe)
	people.Safes = append(slices.Clone(people.Safes), charter.Safe{Name: Standby, Openers: work.Openers})
	v.Approve(charter.TypePeople, people)
	lost := v.State.Epochs[Safe].Token
	var keys []Key
	for id, k := range v.State.Keys {
		if k.Token == lost {
			keys = append(keys, Key{id, k.Algorithm, k.Domain})
		}
	}
	var err error
	if v.Token, err = v.HSM.Supervisor.InitToken(t.Context(), Standby); err != nil {
		t.Fatal(err)
	}
	v.safe = Standby
	v.deal()
	v.furnish(keys, "-2")
	v.removeToken(lost)
	const record = "keyrite/record/lost"
	for _, k := range keys {
		v.Approve(charter.TypeKeyRetired, charter.KeyRetired{ID: k.ID, Reason: charter.ReasonLost, Record: record})
		v.Approve(charter.TypeSuccessor, charter.Successor{ID: k.ID, Record: record, Successor: k.ID + "-2"})
	}
	v.Approve(charter.TypeSafeRetired, charter.SafeRetired{Reason: charter.ReasonLost, Record: record, Safe: Safe})
}

// removeToken deletes the folder of a token; its name ends with the serial.
func (v *Vault) removeToken(x anchor.Token) {
	v.t.Helper()
	dirs, err := filepath.Glob(filepath.Join(v.HSM.TokenDir, "*"))
	if err != nil {
		v.t.Fatal(err)
	}
	for _, d := range dirs {
		if strings.HasSuffix(strings.ReplaceAll(d, "-", ""), x.Serial) {
			if err := os.RemoveAll(d); err != nil {
				v.t.Fatal(err)
			}
			return
		}
	}
	v.t.Fatalf("no folder of token %s in %v", x.Serial, dirs)
}
