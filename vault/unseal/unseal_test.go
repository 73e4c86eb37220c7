package unseal_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/artifact/share"
	"keyrite/artifact/trail"
	"keyrite/vault/audit"
	"keyrite/vault/seal"
	"keyrite/vault/unseal"
	"keyrite/vault/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

// holder is who takes what is opened; it keeps the newest.
type holder struct {
	mu     sync.Mutex // guards the rest
	opened *unseal.Opened
	closed int
}

func (h *holder) take(_ context.Context, o *unseal.Opened) (io.Closer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.opened = o
	return h, nil
}

// Close finds the store still open: what uses it is closed first.
func (h *holder) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed++
	return h.opened.Store.View(func(*seal.View) error { return nil })
}

func start(t *testing.T, v *vaulttest.Vault, h *holder) (*unseal.Attempts, unseal.Config) {
	t.Helper()
	c := v.Unsealing(h.take)
	a, err := unseal.NewAttempts(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Seal() })
	return a, c
}

func begin(t *testing.T, a *unseal.Attempts, operation string) *unseal.Begun {
	t.Helper()
	x, err := a.New(t.Context(), unseal.Ask{Operation: operation, By: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// A vault is made, sealed and opened again by another quorum: what was stored is
// there, the keys of the token sign, and the trail says who opened it, in a form that
// anybody can check.
func TestVaultIsMadeSealedAndOpened(t *testing.T) {
	v := vaulttest.New(t)
	h := &holder{}
	a, c := start(t, v, h)
	if err := a.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.New(t.Context(), unseal.Ask{Operation: openrequest.Unseal, By: "test"}); fault.ClassOf(err) != fault.Usage {
		t.Errorf("unseal before create: %v", err)
	}
	v.Open3(t, a, openrequest.Create)
	_, err := h.opened.Store.Update(t.Context(), seal.Strict, func(tx *seal.Tx) (any, error) { return "put", tx.Put("kv", "a", []byte("one")) })
	if err != nil {
		t.Fatal(err)
	}
	if st := a.Status(); st.Sealed || !st.Created || !slices.Equal(st.Holders, []string{"master1", "master2", "master3"}) || st.Operation != openrequest.Create {
		t.Errorf("%+v", st)
	}
	for _, op := range []string{openrequest.Create, openrequest.Unseal} {
		if _, err := a.New(t.Context(), unseal.Ask{Operation: op, By: "test"}); fault.ClassOf(err) != fault.Exists {
			t.Errorf("%s of an open vault: %v", op, err)
		}
	}
	pool := h.opened.Pool
	if err := a.Seal(); err != nil || h.closed != 1 || !a.Sealed() {
		t.Fatalf("seal: %v, closed %d times", err, h.closed)
	}
	if _, err := pool.Random(t.Context(), 1); err == nil {
		t.Error("the token is open after the seal")
	}
	if err := a.Seal(); err != nil || h.closed != 1 {
		t.Errorf("seal again: %v", err)
	}

	again, err := unseal.NewAttempts(c) // as another process
	if err != nil {
		t.Fatal(err)
	}
	x := begin(t, again, openrequest.Unseal)
	for _, n := range []string{"master5", "master4", "master2"} {
		if _, err := again.Answer(t.Context(), v.Answer(t, x.Request, n)); err != nil {
			t.Fatal(err)
		}
	}
	defer again.Seal()
	o := h.opened
	err = o.Store.View(func(w *seal.View) error {
		if got, err := w.Get("kv", "a"); err != nil || string(got) != "one" {
			t.Errorf("%q %v", got, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	k, _, err := o.Token.Signer(t.Context(), "image1")
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(nil)
	if _, err := k.SignContext(t.Context(), sum[:]); err != nil {
		t.Error(err)
	}
	checkTrail(t, v, o.Store, []string{"master2", "master4", "master5"})
}

// checkTrail verifies, from the newest entry alone, who opened the vault.
func checkTrail(t *testing.T, v *vaulttest.Vault, s *seal.Store, holders []string) {
	t.Helper()
	raw, err := s.Entry(uint64(s.Head().Size - 1))
	if err != nil {
		t.Fatal(err)
	}
	var leaf struct {
		Entry struct {
			audit.Entry
			Params struct {
				Openings []*envelope.Envelope `json:"openings"`
				Request  []byte               `json:"request"`
			} `json:"params"`
		} `json:"entry"`
	}
	if err := json.Unmarshal(raw, &leaf); err != nil {
		t.Fatal(err)
	}
	e := leaf.Entry
	if e.Kind != audit.Life || e.Operation != openrequest.Unseal || e.Format != trail.Format || len(e.Params.Openings) != len(holders) {
		t.Fatalf("entry %s", raw)
	}
	r, err := openrequest.Open(e.Params.Request, v.State, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	hash, _, err := r.Hash()
	if err != nil {
		t.Fatal(err)
	}
	for _, env := range e.Params.Openings {
		var o share.Opening
		if err := json.Unmarshal(env.Payload, &o); err != nil {
			t.Fatal(err)
		}
		place, key, err := share.PlaceOf(v.State, vaulttest.Safe, o.Place.Holder)
		if err != nil || !slices.Contains(holders, o.Place.Holder) {
			t.Fatalf("%v %v", o.Place, err)
		}
		if err := share.VerifyOpening(env, place, key, v.People[place.Holder].Public().PublicKey(), hash, r.Attempt); err != nil {
			t.Error(err)
		}
	}
}

// A share that is wrong, old, foreign, swapped, given before or for another attempt
// is told at once, with its holder's name, and the progress stays.
func TestBadSharesAreNamedAtOnce(t *testing.T) {
	v := vaulttest.NewWith(t, nil)
	a, _ := start(t, v, &holder{})
	x, other := begin(t, a, openrequest.Create), begin(t, a, openrequest.Create)
	if _, err := a.Answer(t.Context(), v.Answer(t, x.Request, "master1")); err != nil {
		t.Fatal(err)
	}
	r, err := openrequest.Open(x.Request, v.State, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	good := v.Answer(t, x.Request, "master2")
	foreign := vaulttest.NewWith(t, nil)
	fa, _ := start(t, foreign, &holder{})
	fx := begin(t, fa, openrequest.Create)
	swapped := rework(t, good, func(ans *openrequest.Answer) { ans.Share = parse(t, v.Answer(t, x.Request, "master3")).Share })
	place, _, err := share.PlaceOf(v.State, vaulttest.Safe, "master2")
	if err != nil {
		t.Fatal(err)
	}
	forged, err := share.Seal(make([]byte, share.Bytes), place, r.Recipient)
	if err != nil {
		t.Fatal(err)
	}
	oldPlace := place
	oldPlace.Epoch = 7
	old, err := share.Seal(make([]byte, share.Bytes), oldPlace, r.Recipient)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		data  []byte
		class fault.Class
		says  string
	}{
		{"the share of another", swapped, fault.Verify, "master2"},
		{"a wrong share", rework(t, good, func(ans *openrequest.Answer) { ans.Share = forged }), fault.Verify, "share of master2"},
		{"an old share", rework(t, good, func(ans *openrequest.Answer) { ans.Share = old }), fault.Verify, "another epoch"},
		{"not encrypted to the attempt", rework(t, good, func(ans *openrequest.Answer) { ans.Share = v.Shares["master2"] }), fault.Verify, "share of master2"},
		{"a cut share", rework(t, good, func(ans *openrequest.Answer) { ans.Share = ans.Share[:90] }), fault.Verify, "share of master2"},
		{"one signature", rework(t, good, func(ans *openrequest.Answer) { ans.Opening.Signatures = ans.Opening.Signatures[:1] }), fault.Verify, "master2"},
		{"given before", v.Answer(t, x.Request, "master1"), fault.Quorum, "master1"},
		{"of another vault", foreign.Answer(t, fx.Request, "master2"), fault.Policy, "master2"},
		{"empty", nil, fault.Verify, ""},
		{"the request", x.Request, fault.Verify, ""},
	} {
		from := time.Now()
		_, err := a.Answer(t.Context(), c.data)
		if fault.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v (%s)", c.name, err, fault.ClassOf(err))
		}
		t.Logf("%s: told after %s", c.name, time.Since(from).Round(time.Millisecond))
		for _, p := range a.Progress() {
			if want := p.Attempt == x.Attempt; want != slices.Equal(p.Given, []string{"master1"}) || !want && len(p.Given) != 0 {
				t.Errorf("%s: progress %+v", c.name, p)
			}
		}
	}
	// Shares for one attempt do not count in another: two and two are not three.
	for _, n := range []string{"master1", "master2"} {
		p, err := a.Answer(t.Context(), v.Answer(t, other.Request, n))
		if err != nil || p.Attempt != other.Attempt || p.Open {
			t.Errorf("%s: %+v %v", n, p, err)
		}
	}
	if p, err := a.Answer(t.Context(), good); err != nil || p.Attempt != x.Attempt || len(p.Given) != 2 || p.Open || !a.Sealed() {
		t.Errorf("the good one after all the bad ones: %+v %v", p, err)
	}
	if p, err := a.Answer(t.Context(), v.Answer(t, x.Request, "master5")); err != nil || !p.Open {
		t.Fatalf("%+v %v", p, err)
	}
	if _, err := a.Answer(t.Context(), v.Answer(t, other.Request, "master3")); !errors.Is(err, unseal.ErrNoAttempt) {
		t.Errorf("the other attempt lives on in an open vault: %v", err)
	}
}

// The answers of strangers are refused while an attempt is busy, and do not wait for it;
// nor do they keep the checks from others for longer than one takes.
func TestStrangersHoldNobodyUp(t *testing.T) {
	v := vaulttest.NewWith(t, nil)
	a, _ := start(t, v, &holder{})
	x := begin(t, a, openrequest.Create)
	good := v.Answer(t, x.Request, "master1")
	bad := rework(t, good, func(ans *openrequest.Answer) { ans.Opening.Signatures = ans.Opening.Signatures[:1] })
	release := a.Hold(x.Attempt)
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if _, err := a.Answer(ctx, bad); fault.ClassOf(err) != fault.Verify {
				t.Errorf("a stranger's answer: %v", err)
			}
		})
	}
	refused := make(chan struct{})
	go func() { wg.Wait(); close(refused) }()
	select {
	case <-refused:
	case <-time.After(time.Minute):
		t.Error("strangers wait for the attempt, and hold it up when it is free")
	}
	release()
	<-refused
	if p, err := a.Answer(t.Context(), good); err != nil || len(p.Given) != 1 {
		t.Errorf("an honest answer: %+v %v", p, err)
	}
}

func parse(t *testing.T, data []byte) *openrequest.Answer {
	t.Helper()
	ans, err := openrequest.ParseAnswer(data)
	if err != nil {
		t.Fatal(err)
	}
	return ans
}

func rework(t *testing.T, data []byte, f func(*openrequest.Answer)) []byte {
	t.Helper()
	ans := parse(t, data)
	f(ans)
	out, err := ans.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestAttemptsEnd(t *testing.T) {
	v := vaulttest.NewWith(t, nil)
	var mu sync.Mutex
	now := time.Now()
	c := v.Unsealing(nil)
	c.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	a, err := unseal.NewAttempts(c)
	if err != nil {
		t.Fatal(err)
	}
	x := begin(t, a, openrequest.Create)
	late := v.Answer(t, x.Request, "master1")
	mu.Lock()
	now = now.Add(16 * time.Minute)
	mu.Unlock()
	if _, err := a.Answer(t.Context(), late); fault.ClassOf(err) != fault.Policy || !strings.Contains(err.Error(), "expired") {
		t.Errorf("after its end: %v", err)
	}
	mu.Lock()
	now = time.Now()
	mu.Unlock()
	x = begin(t, a, openrequest.Create)
	if err := a.Drop(x.Attempt); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Answer(t.Context(), v.Answer(t, x.Request, "master1")); !errors.Is(err, unseal.ErrNoAttempt) {
		t.Errorf("a dropped one: %v", err)
	}
	if err := a.Drop(x.Attempt); !errors.Is(err, unseal.ErrNoAttempt) {
		t.Errorf("dropped again: %v", err)
	}
	// One asker has so many, and does not keep another out.
	var last error
	for range 20 {
		_, last = a.New(t.Context(), unseal.Ask{Operation: openrequest.Create, By: "one"})
	}
	if !errors.Is(last, unseal.ErrBusy) || len(a.Progress()) != 4+1 { // one of before, which the clock brought back
		t.Errorf("%v, %d under way", last, len(a.Progress()))
	}
	x = begin(t, a, openrequest.Create)
	answer := v.Answer(t, x.Request, "master1")
	// A change of the charter ends what was asked under the one before.
	v.Approve(charter.TypeFloor, charter.Floor{Product: "gw100", Record: "keyrite/record/test", SecurityVersion: 1})
	if _, err := a.Answer(t.Context(), answer); fault.ClassOf(err) != fault.Policy {
		t.Errorf("after the charter went on: %v", err)
	}
	if err := a.Seal(); err != nil || len(a.Progress()) != 0 {
		t.Errorf("%v, %d under way after the seal", err, len(a.Progress()))
	}
	a.Wait()
	for _, bad := range []unseal.Ask{{}, {Operation: openrequest.Create}, {Operation: "destroy", By: "x"}, {Operation: openrequest.Create, By: "x", Valid: time.Hour}, {Operation: openrequest.Reseal, By: "x"}} {
		if _, err := a.New(t.Context(), bad); err == nil {
			t.Errorf("begun: %+v", bad)
		}
	}
}

// Who takes what is opened may fail; then it is sealed as before.
func TestFailedHandOverSeals(t *testing.T) {
	v := vaulttest.NewWith(t, nil)
	var o *unseal.Opened
	c := v.Unsealing(func(_ context.Context, x *unseal.Opened) (io.Closer, error) {
		o = x
		return nil, fault.New(fault.Verify, "not like this")
	})
	a, err := unseal.NewAttempts(c)
	if err != nil {
		t.Fatal(err)
	}
	x := begin(t, a, openrequest.Create)
	for i, n := range []string{"master1", "master2", "master3"} {
		_, err = a.Answer(t.Context(), v.Answer(t, x.Request, n))
		if i < 2 && err != nil {
			t.Fatal(err)
		}
	}
	if fault.ClassOf(err) != fault.Verify || !a.Sealed() {
		t.Errorf("%v", err)
	}
	if _, err := o.Pool.Random(t.Context(), 1); err == nil {
		t.Error("the token is open")
	}
	if _, err := o.Store.Update(t.Context(), seal.Durable, func(*seal.Tx) (any, error) { return "x", nil }); err == nil {
		t.Error("the store is open")
	}
}

// A token that is not there, or that no report admits, is found out before a share is
// combined; the shares serve again when it is back.
func TestAbsentTokenCanBeTriedAgain(t *testing.T) {
	v := vaulttest.NewWith(t, nil)
	a, c := start(t, v, &holder{})
	x := begin(t, a, openrequest.Create)
	away := v.HSM.TokenDir + ".away"
	if err := os.Rename(v.HSM.TokenDir, away); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(v.HSM.TokenDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.Look(t.Context()); fault.ClassOf(err) != fault.Token {
		t.Errorf("look: %v", err)
	}
	var err error
	for _, n := range []string{"master1", "master2", "master3"} {
		_, err = a.Answer(t.Context(), v.Answer(t, x.Request, n))
	}
	if fault.ClassOf(err) != fault.Token || !a.Sealed() {
		t.Fatalf("%v", err)
	}
	if p := a.Progress(); len(p) != 1 || len(p[0].Given) != 3 {
		t.Errorf("%+v", p)
	}
	if err := errors.Join(os.RemoveAll(v.HSM.TokenDir), os.Rename(away, v.HSM.TokenDir)); err != nil {
		t.Fatal(err)
	}
	if p, err := a.Retry(t.Context(), x.Attempt); err != nil || !p.Open {
		t.Errorf("%+v %v", p, err)
	}
	c.Reports = [][]byte{[]byte("{}")}
	b, err := unseal.NewAttempts(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Look(t.Context()); fault.ClassOf(err) != fault.Token {
		t.Errorf("without a report: %v", err)
	}
}

// Nothing of shares, one-time keys or what they open is in what the vault writes,
// says or answers.
func TestSecretsStayInside(t *testing.T) {
	v := vaulttest.New(t)
	h := &holder{}
	a, c := start(t, v, h)
	var said bytes.Buffer
	var canaries [][]byte
	for name := range v.Shares {
		place, pub, err := share.PlaceOf(v.State, vaulttest.Safe, name)
		if err != nil {
			t.Fatal(err)
		}
		raw, _, err := share.Open(v.Shares[name], v.People[name].Identity(), place, pub)
		if err != nil {
			t.Fatal(err)
		}
		canaries = append(canaries, raw[:32])
	}
	say := func(x any, err error) {
		b, jerr := json.Marshal(x)
		if jerr != nil {
			t.Fatal(jerr)
		}
		said.Write(b)
		if err != nil {
			said.WriteString(err.Error() + fault.HintOf(err))
		}
	}
	x := begin(t, a, openrequest.Create)
	say(x, nil)
	for _, n := range []string{"master1", "master1", "master2", "master3"} {
		data := v.Answer(t, x.Request, n)
		said.Write(data)
		p, err := a.Answer(t.Context(), data)
		say(p, err)
		say(a.Status(), nil)
	}
	for n := range h.opened.Store.Head().Size {
		raw, err := h.opened.Store.Entry(uint64(n))
		if err != nil {
			t.Fatal(err)
		}
		said.Write(raw)
	}
	err := filepath.WalkDir(c.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		said.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(said.Bytes(), []byte("AGE-SECRET-KEY")) {
		t.Error("a one-time key came out")
	}
	for _, c := range canaries {
		for _, form := range forms(c) {
			if bytes.Contains(bytes.ToLower(said.Bytes()), bytes.ToLower(form)) {
				t.Errorf("a share came out as %q", form)
			}
		}
	}
}

// forms are the ways in which a secret may be written.
func forms(b []byte) [][]byte {
	return [][]byte{b, []byte(hex.EncodeToString(b)), []byte(base64.StdEncoding.EncodeToString(b)[:40]), []byte(base64.RawURLEncoding.EncodeToString(b)[:40])}
}
