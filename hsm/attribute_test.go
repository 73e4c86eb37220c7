package hsm_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
	"keyrite/hsm/keyspec"
)

// The attributes of a key come in few requests; one request that the token is
// not able to answer is an error, never an attribute that is not reported.
func TestAttributesAreReadTogether(t *testing.T) {
	e := hsmtest.NewStore(t)
	f := e.Faults(t)
	e.Config.Module = f.Module
	e.Supervisor = e.Start(t)
	get := slices.Index(hsmtest.Functions(), "C_GetAttributeValue")
	sp := signSpec(t, "k")
	sp.SessionObject = false
	s := e.Token(t, "work")
	if _, err := s.Generate(t.Context(), sp); err != nil {
		t.Fatal(err)
	}
	f.Reset(0, 0, 0)
	want, err := s.Attributes(t.Context(), sp.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	calls, _ := f.Calls()
	if n := calls[get]; n < 4 || n > 12 {
		t.Errorf("%d requests for %d attributes", n, len(want.Attributes.Private)+len(want.Attributes.Public))
	}
	for n := 1; n <= calls[get]; n++ {
		s := e.Open(t, s.Token())
		f.Reset(get, n, hsmtest.Fail)
		if st, err := s.Attributes(t.Context(), sp.KeyID); !errors.Is(err, hsm.ErrLost) {
			t.Errorf("request %d of %d: %+v, %v", n, calls[get], st, err)
		}
		if _, done := f.Calls(); !done {
			t.Errorf("request %d of %d was not spoiled", n, calls[get])
		}
	}
}

// Of an object that has some of the attributes, those and only those are reported.
func TestMissingAttributesStandAlone(t *testing.T) {
	e := hsmtest.New(t)
	id, err := e.Supervisor.InitToken(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	e.SetPINs(t, id, newSO, newUser)
	note := filepath.Join(t.TempDir(), "note")
	if err := os.WriteFile(note, []byte("a data object"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("pkcs11-tool", "--module", e.Config.Module, "--token-label", "work", "--login", "--pin", newUser, "--write-object", note, "--type", "data", "--label", "note", "--private")
	cmd.Env = []string{"SOFTHSM2_CONF=" + e.Conf}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	objs := objects(t, e.Open(t, id))
	if len(objs) != 1 {
		t.Fatalf("%d objects", len(objs))
	}
	got := map[string]string{}
	for _, a := range objs[0].Attributes {
		got[a.Name] = a.Value
	}
	for name, want := range map[string]string{
		"CKA_CLASS": "CKO_DATA", "CKA_LABEL": "note", "CKA_TOKEN": "true", "CKA_PRIVATE": "true", "CKA_MODIFIABLE": "true",
		"CKA_KEY_TYPE": keyspec.Unreported, "CKA_LOCAL": keyspec.Unreported, "CKA_ID": keyspec.Unreported,
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}
