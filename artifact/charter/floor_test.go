package charter_test

import (
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
)

// TestFloorsNeverSink: a carried security version stays or rises, whoever signs.
func TestFloorsNeverSink(t *testing.T) {
	w := artifacttest.New(t)
	state := func(product string, v int64) charter.Floor {
		return charter.Floor{Product: product, Record: "keyrite/record/1", SecurityVersion: v}
	}
	w.Approve(charter.TypeFloor, state("gw100", 7))
	w.Approve(charter.TypeFloor, state("gw100", 7))
	w.Approve(charter.TypeFloor, state("gw200", charter.MaxSecurityVersion))
	if f := w.State.Floors["gw100"]; f.SecurityVersion != 7 {
		t.Errorf("%+v", f)
	}
	for name, f := range map[string]charter.Floor{
		"lower": state("gw100", 6), "zero": state("gw300", 0), "negative": state("gw300", -1), "too high": state("gw300", charter.MaxSecurityVersion+1),
		"no product": state("", 9), "no record": {Product: "gw100", SecurityVersion: 9},
	} {
		s, err := charter.Fold(w.Charter, w.World, w.State.Vault)
		if err != nil {
			t.Fatal(err)
		}
		payload, err := s.Propose(charter.TypeFloor, f, artifacttest.Now())
		if err != nil {
			t.Fatal(err)
		}
		env, err := envelope.Sign(charter.PayloadType, payload, w.People["approver1"].Signer(), w.People["approver2"].Signer())
		if err != nil {
			t.Fatal(err)
		}
		line, err := env.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(line); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
}
