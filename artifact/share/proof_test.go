package share_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/share"
)

// dealt is a world whose safe work has five shares, master5's of a card.
type dealt struct {
	*artifacttest.World
	keys map[string]ed25519.PrivateKey
}

func dealtWorld(t testing.TB) *dealt {
	t.Helper()
	d := &dealt{artifacttest.New(t, "master5"), map[string]ed25519.PrivateKey{}}
	d.deal(1)
	return d
}

func (d *dealt) deal(epoch int) {
	e := charter.Epoch{Epoch: epoch, Need: 3, Safe: "work", Token: anchor.Token{Label: "w", Serial: "1"}}
	for i, n := range []string{"master1", "master2", "master3", "master4", "master5"} {
		raw := make([]byte, share.Bytes)
		rand.Read(raw)
		k, _ := share.Key(raw, share.Place{Epoch: epoch, Holder: n, Index: i + 1, Safe: "work", Vault: d.State.Vault, World: d.World.World})
		d.keys[n] = k
		pub, _ := k.Public().(ed25519.PublicKey)
		e.Shares = append(e.Shares, charter.Share{Holder: n, Index: i + 1, Public: pub})
	}
	d.Approve(charter.TypeEpoch, e)
}

func (d *dealt) challenge(t testing.TB, now time.Time) *share.Challenge {
	t.Helper()
	c, err := share.NewChallenge(d.State, "work", "test", now, share.MaxChallenge)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (d *dealt) proof(t testing.TB, holder string, edit func(p *share.Proof)) []byte {
	return d.proofBy(t, holder, holder, holder, d.challenge(t, artifacttest.Now()), edit)
}

func (d *dealt) proofBy(t testing.TB, holder, shareOf, person string, c *share.Challenge, edit func(p *share.Proof)) []byte {
	t.Helper()
	place, _, err := share.PlaceOf(d.State, "work", holder)
	if err != nil {
		t.Fatal(err)
	}
	p := share.Proof{Challenge: *c, Format: share.ProofFormat, Place: place}
	if edit != nil {
		edit(&p)
	}
	env, err := envelope.SignJSON(share.ProofType, p, d.keys[shareOf], d.People[person].Signer())
	if err != nil {
		t.Fatal(err)
	}
	b, err := env.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestProof(t *testing.T) {
	d := dealtWorld(t)
	now := artifacttest.Now().Add(time.Hour)
	for _, n := range []string{"master1", "master5"} {
		p, err := share.VerifyProof(d.proof(t, n, nil), d.State, now)
		if err != nil || p.Holder != n || p.Place.Epoch != 1 {
			t.Errorf("%s: %+v, %v", n, p, err)
		}
	}
	other := dealtWorld(t)
	tests := []struct {
		name  string
		data  []byte
		at    time.Time
		class fault.Class
	}{
		{"share key of another", d.proofBy(t, "master1", "master2", "master1", d.challenge(t, now), nil), now, fault.Verify},
		{"person key of another", d.proofBy(t, "master1", "master1", "master2", d.challenge(t, now), nil), now, fault.Verify},
		{"place of another", d.proof(t, "master1", func(p *share.Proof) { p.Place.Index = 2 }), now, fault.Verify},
		{"not a holder", d.proof(t, "master1", func(p *share.Proof) { p.Place.Holder = "witness1" }), now, fault.Policy},
		{"expired", d.proof(t, "master1", nil), now.Add(8 * 24 * time.Hour), fault.Policy},
		{"from the future", d.proofBy(t, "master1", "master1", "master1", d.challenge(t, now.Add(time.Hour)), nil), now, fault.Policy},
		{"other vault and world", other.proof(t, "master1", nil), now, fault.Policy},
		{"other epoch", d.proof(t, "master1", func(p *share.Proof) { p.Challenge.Epoch = 2 }), now, fault.Policy},
		{"good for longer than 7 days", d.proof(t, "master1", func(p *share.Proof) { p.Challenge.Expires = "2027-11-22T02:00:00Z" }), now, fault.Verify},
		{"short nonce", d.proof(t, "master1", func(p *share.Proof) { p.Challenge.Nonce = p.Challenge.Nonce[:31] }), now, fault.Verify},
		{"control characters in the purpose", d.proof(t, "master1", func(p *share.Proof) { p.Challenge.Purpose = "a\x1b[2J" }), now, fault.Verify},
		{"other format", d.proof(t, "master1", func(p *share.Proof) { p.Format = share.OpeningFormat }), now, fault.Verify},
		{"empty", nil, now, fault.Verify},
	}
	for _, tt := range tests {
		if _, err := share.VerifyProof(tt.data, d.State, tt.at); fault.ClassOf(err) != tt.class || err == nil {
			t.Errorf("%s: %v (%s)", tt.name, err, fault.ClassOf(err))
		}
	}
	old := d.proof(t, "master1", nil)
	d.deal(2)
	if _, err := share.VerifyProof(old, d.State, now); fault.ClassOf(err) != fault.Policy {
		t.Errorf("after a reshare: %v", err)
	}
}

// A receipt or opening is no proof, and a proof is neither.
func TestOneSignatureOnePurpose(t *testing.T) {
	d := dealtWorld(t)
	env, err := envelope.Parse(d.proof(t, "master1", nil))
	if err != nil {
		t.Fatal(err)
	}
	p, key, _ := share.PlaceOf(d.State, "work", "master1")
	if err := share.VerifyOpening(env, p, key, d.People["master1"].Public().PublicKey(), strings.Repeat("a", 64), make([]byte, 32)); err == nil {
		t.Error("a proof passes for an opening")
	}
	if _, err := share.VerifyReceipt(env, p, key, d.People["master1"].Public().PublicKey()); err == nil {
		t.Error("a proof passes for a receipt")
	}
}

func TestEveryFlippedByteOfAProofIsRefused(t *testing.T) {
	d := dealtWorld(t)
	good := d.proof(t, "master5", nil)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 7)
		if _, err := share.VerifyProof(bad, d.State, artifacttest.Now()); err == nil {
			t.Errorf("byte %d", i)
		}
	}
}

func TestLedgerAcceptsOnce(t *testing.T) {
	d := dealtWorld(t)
	now := artifacttest.Now()
	ch := d.challenge(t, now)
	var lines [][]byte
	ledger := func() *share.Ledger {
		l, err := share.ReadLedger(lines)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	prove := func(n string) *share.Proven {
		p, err := share.VerifyProof(d.proofBy(t, n, n, n, ch, nil), d.State, now)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if _, err := ledger().Accept(prove("master1"), now); !errors.Is(err, share.ErrNotOurs) {
		t.Errorf("a challenge of nobody: %v", err)
	}
	line, err := ledger().Issue(ch)
	if err != nil {
		t.Fatal(err)
	}
	lines = append(lines, line)
	for _, n := range []string{"master1", "master2", "master3", "master4"} {
		line, err := ledger().Accept(prove(n), now)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, line)
		if _, err := ledger().Accept(prove(n), now); !errors.Is(err, share.ErrReplay) {
			t.Errorf("%s a second time: %v", n, err)
		}
	}
	alive := func(since time.Time, receipts map[share.Place]time.Time) share.Alive {
		for _, a := range ledger().Alive(d.State, receipts, since) {
			if a.Safe == "work" {
				return a
			}
		}
		return share.Alive{}
	}
	if a := alive(now.Add(-time.Hour), nil); len(a.Proven) != 4 || a.Of != 5 || !a.Low() || a.Lost() || !a.Last.Equal(now) {
		t.Errorf("%+v", a)
	}
	p5, _, _ := share.PlaceOf(d.State, "work", "master5")
	if a := alive(now.Add(-time.Hour), map[share.Place]time.Time{p5: now}); len(a.Proven) != 5 || a.Low() {
		t.Errorf("with a receipt: %+v", a)
	}
	if a := alive(now.Add(time.Hour), nil); len(a.Proven) != 0 || !a.Lost() {
		t.Errorf("later: %+v", a)
	}
	d.deal(2)
	if a := alive(now.Add(-time.Hour), nil); len(a.Proven) != 0 || a.Epoch != 2 {
		t.Errorf("proofs of the old epoch count: %+v", a)
	}
	for i := range lines {
		bad := bytes.Clone(lines[i])
		bad[len(bad)/2] ^= 1
		if l, err := share.ReadLedger([][]byte{bad[:len(bad)-1]}); err == nil {
			t.Errorf("line %d: %+v", i, l)
		}
	}
}

func FuzzProof(f *testing.F) {
	d := dealtWorld(f)
	f.Add(d.proof(f, "master1", nil))
	b, _ := d.challenge(f, artifacttest.Now()).Marshal()
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := share.ParseChallenge(data); err == nil {
			if again, err := c.Marshal(); err != nil || !bytes.Equal(again, data) {
				t.Errorf("accepted %q, writes %q", data, again)
			}
		}
		_, _ = share.VerifyProof(data, d.State, artifacttest.Now())
		_, _ = share.ReadLedger(bytes.Split(data, []byte("\n")))
	})
}

// Another file named as the ledger must be left alone: opened as one, it would lose
// its last line, which for a key or anchors is all of it.
func TestOnlyALedgerLooksLikeOne(t *testing.T) {
	d := dealtWorld(t)
	ch := d.challenge(t, artifacttest.Now())
	l, err := share.ReadLedger(nil)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := l.Issue(ch)
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := l.Accept(&share.Proven{Challenge: ch, Holder: "master1"}, artifacttest.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range [][]byte{issued, accepted} {
		for n := range len(line) + 1 {
			if !share.LooksLikeLedger(line[:n]) {
				t.Fatalf("a ledger torn after %d bytes is refused", n)
			}
		}
	}
	challenge, err := ch.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, other := range []string{string(challenge), "age-encryption.org/v1\n", `{"entries":[]}`, `{"event":"accepted","format":"keyrite/other"`} {
		if share.LooksLikeLedger([]byte(other)) {
			t.Errorf("%.40q is taken for a ledger", other)
		}
	}
}
