package inspection_test

import (
	"os"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
	"keyrite/artifact/inspection"
	"keyrite/artifact/record"
)

const vectorDir = "../../testdata/vectors/inspection"

// The vectors are about the token of a genesis that was held for them; they are written
// by TestRecordOfTheInspectionVectors of ceremony/actions, with -update.
func TestVectors(t *testing.T) {
	v, err := record.VerifyOwn(os.DirFS(vectorDir + "/record"))
	if err != nil {
		t.Fatal(err)
	}
	all := artifacttest.Vectors(t, vectorDir)
	if len(all) < 20 {
		t.Errorf("%d vectors", len(all))
	}
	for _, x := range all {
		i, _, err := inspection.Open(x.Body, &v.Charter.People)
		if err == nil {
			err = i.Check(v)
		}
		got := "ok"
		if err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != x.Expect {
			t.Errorf("%s: %s (%v), want %s", x.Name, got, err, x.Expect)
		}
	}
}
