package actions

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/ceremony"
	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
	"keyrite/internal/redact"
	"keyrite/vault/card"
)

// ownToken makes a person with keys in a SoftHSM token of his own.
func ownToken(t *testing.T) (*hsmtest.Env, *person.CardFile) {
	t.Helper()
	e := hsmtest.NewStore(t)
	t.Setenv("SOFTHSM2_CONF", e.Conf)
	if out, err := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "ann", "--so-pin", "officer5", "--pin", "pin of ann").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	id, err := e.Start(t).Find(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	f, data, err := card.Enrol(t.Context(), &card.Enrolment{
		Name: "ann", World: testWorld, Module: e.Config.Module, Token: id, Sign: "02", Derive: "03", Make: true, HSMD: e.Config.HSMD,
	}, redact.New([]byte("pin of ann")))
	if err != nil {
		t.Fatal(err)
	}
	if read, err := person.ParseCard(data); err != nil || !read.Person.Equal(&f.Person) || read.ModuleSHA256 != f.ModuleSHA256 {
		t.Fatalf("the card file that the card signed: %v", err)
	}
	return e, f
}

// Another module than the one that the card file names is not loaded, let alone handed
// the PIN.
func TestAnotherModuleGetsNoPIN(t *testing.T) {
	e, f := ownToken(t)
	module, err := os.ReadFile(e.Config.Module)
	if err != nil {
		t.Fatal(err)
	}
	other := *f
	other.Module = filepath.Join(e.Dir, "updated.so")
	if err := os.WriteFile(other.Module, append(module, 0), 0o755); err != nil {
		t.Fatal(err)
	}
	_, err = card.Open(t.Context(), &other, e.Config.HSMD, redact.New([]byte("pin of ann")))
	hint, ok := errors.AsType[interface {
		error
		FaultHint() string
	}](err)
	if fault.ClassOf(err) != fault.Policy || !ok || !strings.Contains(hint.FaultHint(), "person new") {
		t.Errorf("got %v (%s)", err, fault.ClassOf(err))
	}
	if err := os.WriteFile(other.Module, module, 0o755); err != nil { // the very bytes, elsewhere
		t.Fatal(err)
	}
	k, err := card.Open(t.Context(), &other, e.Config.HSMD, redact.New([]byte("pin of ann")))
	if err != nil {
		t.Fatal(err)
	}
	k.Zero()
}

// A wrong PIN of a card is a planned miss: the person is asked again, and each PIN
// that he gives reaches the card once. A card that is not there is cause card.
func TestWrongPINIsAPlannedMiss(t *testing.T) {
	e, f := ownToken(t)
	c := &cardKey{file: f, hsmd: e.Config.HSMD}
	given := []string{"wrong one", "pin of ann"}
	var wrongs []error
	k, err := c.Unlock(t.Context(), func(_ context.Context, wrong error) (*redact.Secret, error) {
		wrongs = append(wrongs, wrong)
		return redact.New([]byte(given[len(wrongs)-1])), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(wrongs) != 2 || wrongs[0] != nil || !errors.Is(wrongs[1], card.ErrPIN) || !errors.Is(wrongs[1], hsm.ErrPIN) {
		t.Errorf("asked %d times, %v", len(wrongs), wrongs)
	}
	sig, err := envelope.SignBytes(k.Signer(), []byte("m"))
	if err != nil || envelope.CheckBytes(f.Person.PublicKey(), []byte("m"), sig) != nil {
		t.Errorf("signature: %v", err)
	}
	c.Lock()
	c.Lock()
	if _, err := envelope.SignBytes(k.Signer(), []byte("m")); err == nil {
		t.Error("the card signs after Lock")
	}
	gone := *f
	gone.Token.Serial = "0000"
	_, err = (&cardKey{file: &gone, hsmd: e.Config.HSMD}).Unlock(t.Context(), func(context.Context, error) (*redact.Secret, error) {
		return redact.New([]byte("pin of ann")), nil
	})
	var planned *ceremony.Contingency
	if !errors.As(err, &planned) || planned.Cause != ceremony.CauseCard {
		t.Errorf("no card: %v", err)
	}
	other := *f
	other.Sign, other.Derive = f.Derive, f.Sign
	if _, err := card.Open(t.Context(), &other, e.Config.HSMD, redact.New([]byte("pin of ann"))); fault.ClassOf(err) != fault.Token {
		t.Errorf("keys with the uses exchanged: %v", err)
	}
}
