package quorum

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/artifact/share"
	"keyrite/internal/secmem"
	"keyrite/vault/seal"
)

// room is a dealt world with a host and one attempt of it.
type room struct {
	*dealt
	once *secmem.Buffer
	r    *openrequest.Request
}

func newRoom(t *testing.T, cards ...string) *room {
	t.Helper()
	x := &room{dealt: dealFor(t, cards...)}
	host, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(host.Public())
	if err != nil {
		t.Fatal(err)
	}
	x.Approve(charter.TypeHost, charter.Host{ID: "vault1", Key: spki})
	x.attempt(t)
	return x
}

func (x *room) attempt(t *testing.T) {
	t.Helper()
	recipient, once, err := x.conf.NewOnce(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(once.Wipe)
	x.once = once
	if x.r, err = openrequest.New(x.State, openrequest.Ask{Host: "vault1", Operation: openrequest.Unseal, Safe: "work", Recipient: recipient, Valid: time.Minute}, artifacttest.Now()); err != nil {
		t.Fatal(err)
	}
}

// contribute is a holder's program.
func (x *room) contribute(t *testing.T, name, shareOf string) (Contribution, error) {
	t.Helper()
	data, err := x.conf.Contribute(t.Context(), x.State, x.r, Opener{Share: x.files[shareOf], Unlocked: x.People[name]}, nil)
	if err != nil {
		return Contribution{}, err
	}
	a, err := openrequest.ParseAnswer(data)
	if err != nil {
		t.Fatal(err)
	}
	if place, err := a.Verify(x.r, x.State); err != nil || place.Holder != name {
		t.Fatalf("%+v %v", place, err)
	}
	return Contribution{Holder: name, Share: a.Share}, nil
}

func (x *room) three(t *testing.T, names ...string) []Contribution {
	t.Helper()
	var out []Contribution
	for _, n := range names {
		c, err := x.contribute(t, n, n)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

func (x *room) given(list []Contribution) Given {
	return Given{State: x.State, Epoch: x.State.Epochs["work"], Once: x.once, Contributions: list}
}

// join returns what came out of both pipes.
func (x *room) join(t *testing.T, list []Contribution, wrapped []byte) (out, pin, key []byte, err error) {
	t.Helper()
	pr, pw := pipe(t)
	kr, kw := pipe(t)
	place, err := StorePlace(x.State.Vault, x.World.World, 1)
	if err != nil {
		t.Fatal(err)
	}
	joined, err := x.conf.Join(t.Context(), Join{Given: x.given(list), Place: place, Wrapped: wrapped, PINs: pw, Key: kw})
	_, _ = pw.Close(), kw.Close()
	pin, _ = io.ReadAll(pr)
	key, _ = io.ReadAll(kr)
	if joined != nil {
		out = joined.Wrapped
	}
	return out, pin, key, err
}

// Shares that were given from home open the token and the store, whoever three give
// them, and the wrapped key opens with every quorum (R-CER-5).
func TestSharesFromHomeOpen(t *testing.T) {
	x := newRoom(t, "master5")
	wrapped, pin, key, err := x.join(t, x.three(t, "master1", "master2", "master5"), nil)
	if err != nil || len(key) != seal.KeyBytes || len(wrapped) == 0 {
		t.Fatalf("%v, key of %d bytes", err, len(key))
	}
	if !bytes.Equal(pin[1:], x.pins[35:]) || pin[0] != 'u' {
		t.Error("another PIN than was dealt")
	}
	x.attempt(t)
	again, pin2, key2, err := x.join(t, x.three(t, "master4", "master3", "master2"), wrapped)
	if err != nil || !bytes.Equal(key, key2) || !bytes.Equal(pin, pin2) || !bytes.Equal(again, wrapped) {
		t.Errorf("another quorum: %v", err)
	}
	// More than a quorum does not hurt.
	if _, _, key3, err := x.join(t, x.three(t, "master4", "master3", "master2", "master1"), wrapped); err != nil || !bytes.Equal(key, key3) {
		t.Errorf("four: %v", err)
	}
	bad := bytes.Clone(wrapped)
	bad[30] ^= 1
	if _, pin, key, err := x.join(t, x.three(t, "master4", "master3", "master2"), bad); fault.ClassOf(err) != fault.Verify || len(pin)+len(key) > 0 {
		t.Errorf("an altered data key: %v, and %d bytes came out", err, len(pin)+len(key))
	}
}

func TestContributionsThatDoNotOpen(t *testing.T) {
	x := newRoom(t)
	good := x.three(t, "master1", "master2")
	third, err := x.contribute(t, "master3", "master3")
	if err != nil {
		t.Fatal(err)
	}
	old, recipient := x.once, x.r.Recipient
	x.attempt(t) // another one-time key
	later, err := x.contribute(t, "master3", "master3")
	if err != nil {
		t.Fatal(err)
	}
	second := x.once
	x.once = old
	place, _, _ := share.PlaceOf(x.State, "work", "master3")
	random := make([]byte, share.Bytes)
	rand.Read(random)
	wrong, err := share.Seal(random, place, recipient)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		list  []Contribution
		class fault.Class
		says  string
	}{
		"two":                  {good, fault.Quorum, "2 shares"},
		"none":                 {nil, fault.Quorum, "0 shares"},
		"one twice":            {append(good[:2:2], good[1]), fault.Quorum, "master2"},
		"of another attempt":   {append(good[:2:2], later), fault.Verify, "master3"},
		"of another holder":    {append(good[:2:2], Contribution{"master3", good[0].Share}), fault.Verify, "master3"},
		"not the one dealt":    {append(good[:2:2], Contribution{"master3", wrong}), fault.Verify, "master3"},
		"by a stranger":        {append(good[:2:2], Contribution{"witness1", third.Share}), fault.Policy, "witness1"},
		"damaged":              {append(good[:2:2], Contribution{"master3", third.Share[:100]}), fault.Verify, "master3"},
		"the person's own key": {append(good[:2:2], Contribution{"master3", x.files["master3"]}), fault.Verify, "master3"},
	} {
		_, pin, key, err := x.join(t, c.list, nil)
		if fault.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.says) || len(pin)+len(key) > 0 {
			t.Errorf("%s: %v, and %d bytes came out", name, err, len(pin)+len(key))
		}
		if name == "two" || name == "none" {
			continue
		}
		if err := x.conf.Weigh(t.Context(), x.given(c.list)); fault.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s, weighed: %v", name, err)
		}
	}
	if err := x.conf.Weigh(t.Context(), x.given(append(good[:2:2], third))); err != nil {
		t.Errorf("good ones: %v", err)
	}
	second.Wipe()
	x.once = second
	if err := x.conf.Weigh(t.Context(), x.given(good)); fault.ClassOf(err) != fault.Sealed {
		t.Errorf("after the end of the attempt: %v", err)
	}
	if _, err := x.contribute(t, "master1", "master2"); err == nil {
		t.Error("master1 gave the share of master2")
	}
}

// The one-time key is in its page and nowhere in what the child says.
func TestOnceKey(t *testing.T) {
	conf, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for range 3 {
		recipient, once, err := conf.NewOnce(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(once.Bytes()), "AGE-SECRET-KEY-1") || !strings.HasPrefix(recipient, "age1") || seen[recipient] {
			t.Errorf("recipient %q", recipient)
		}
		seen[recipient] = true
		once.Wipe()
	}
	if _, _, err := (Config{Executable: os.DevNull}).NewOnce(t.Context()); err == nil {
		t.Error("a key of no child")
	}
}
