package actions

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/artifact/signrequest"
	"keyrite/artifact/words"
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
	f, err := card.Enrol(t.Context(), &card.Enrolment{
		Name: "ann", World: testWorld, Module: e.Config.Module, Token: id, Sign: "02", Derive: "03", Make: true, HSMD: e.Config.HSMD,
	}, redact.New([]byte("pin of ann")))
	if err != nil {
		t.Fatal(err)
	}
	return e, f
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

// Whoever is elsewhere is asked by files, and only his own signature over the very
// message is taken.
func TestElsewhere(t *testing.T) {
	w := artifacttest.New(t)
	ann, eve := w.People["witness1"], w.People["witness2"]
	payload, err := jcs.Marshal(record.IncidentCall{Format: "keyrite/incident/v1", Reason: "test", Record: "0123456789abcdef", World: w.World})
	if err != nil {
		t.Fatal(err)
	}
	msg := envelope.PAE(record.IncidentType, payload)
	e := &elsewhere{person: ann.Public(), dir: t.TempDir(), limit: time.Minute}
	var told []string
	e.Tell(func(_, text string) { told = append(told, text) })
	k, err := e.Unlock(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	answer := func(n string, edit func(a *signrequest.Answer)) {
		for {
			data, err := os.ReadFile(filepath.Join(e.dir, "witness1-"+n+".request"))
			if err != nil {
				<-time.After(10 * time.Millisecond) // another program writes the file
				continue
			}
			r, err := signrequest.Parse(data)
			if err != nil {
				t.Error(err)
				return
			}
			a, err := signrequest.Sign(r, ann, time.Now())
			if err != nil {
				t.Error(err)
				return
			}
			edit(a)
			b, _ := a.Marshal()
			tmp := filepath.Join(e.dir, "tmp")
			if err := errors.Join(os.WriteFile(tmp, b, 0o600), os.Rename(tmp, filepath.Join(e.dir, "witness1-"+n+".answer"))); err != nil {
				t.Error(err)
			}
			return
		}
	}
	go answer("1", func(*signrequest.Answer) {})
	sig, err := envelope.SignBytes(k.Signer(), msg)
	if err != nil || envelope.CheckBytes(ann.Public().PublicKey(), msg, sig) != nil {
		t.Errorf("%v", err)
	}
	go answer("2", func(a *signrequest.Answer) { a.Signature, _ = envelope.SignBytes(eve.Signer(), msg) })
	if _, err := envelope.SignBytes(k.Signer(), msg); fault.ClassOf(err) != fault.Verify {
		t.Errorf("somebody else's answer: %v", err)
	}
	if _, err := envelope.SignBytes(k.Signer(), []byte("anything")); fault.ClassOf(err) != fault.Policy {
		t.Errorf("a message of no kind: %v", err)
	}
	go func() { <-time.After(300 * time.Millisecond); e.Lock() }()
	if _, err := envelope.SignBytes(k.Signer(), msg); fault.ClassOf(err) != fault.Interrupted {
		t.Errorf("after Lock: %v", err)
	}
	sum := sha256.Sum256(msg)
	if len(told) != 3 || !strings.Contains(told[0], words.Of(sum[:16])) {
		t.Errorf("the room heard %q", told)
	}
}
