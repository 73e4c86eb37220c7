package ticket

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

const testWorld = world.World("rehearsal:0123456789ab")

func key() string { return strings.Repeat("a", 64) }

type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newPair(t testing.TB) (*Issuer, *Checker, *clock) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &clock{time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	return &Issuer{Key: priv, World: testWorld, Now: c.now}, NewChecker("vpn1", testWorld, []crypto.PublicKey{pub}, c.now), c
}

func user() Ticket {
	return Ticket{Account: "acme", Audience: "vpn1", Gateway: "press-7", Key: key(), Kind: KindUser, Login: strings.Repeat("1", 32), PolicyVersion: 3, User: "ann"}
}

func TestUse(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Ticket)
		wait   time.Duration
		key    string
		class  fault.Class
	}{
		"good":                    {func(*Ticket) {}, 0, key(), ""},
		"last second":             {func(*Ticket) {}, Lifetime - time.Second, key(), ""},
		"expired":                 {func(*Ticket) {}, Lifetime, key(), fault.Policy},
		"another key":             {func(*Ticket) {}, 0, strings.Repeat("b", 64), fault.Policy},
		"another server":          {func(k *Ticket) { k.Audience = "vpn2" }, 0, key(), fault.Policy},
		"clock of the other late": {func(*Ticket) {}, -Skew, key(), fault.Policy}, // also from before the start
	} {
		i, ch, clk := newPair(t)
		tk := user()
		c.change(&tk)
		b, _, err := i.Issue(tk)
		if err != nil {
			t.Fatal(name, err)
		}
		if c.wait < 0 {
			ch.started = clk.at.Add(time.Second)
		}
		clk.at = clk.at.Add(c.wait)
		got, err := ch.Use(b, c.key)
		if fault.ClassOf(err) != c.class {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && got.User != "ann" {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestFromTheFuture(t *testing.T) {
	i, ch, clk := newPair(t)
	b, _, err := i.Issue(user())
	if err != nil {
		t.Fatal(err)
	}
	start := clk.at
	ch.started = start.Add(-time.Hour)
	clk.at = start.Add(-Skew - time.Second)
	if _, err := ch.Use(b, key()); fault.ClassOf(err) != fault.Policy {
		t.Errorf("taken: %v", err)
	}
	clk.at = start.Add(-Skew)
	if _, err := ch.Use(b, key()); err != nil {
		t.Error(err)
	}
}

// Of a hundred presentations at once, exactly one succeeds; a thief's attempt
// does not use the ticket up.
func TestOnce(t *testing.T) {
	i, ch, _ := newPair(t)
	b, _, err := i.Issue(user())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.Use(b, strings.Repeat("b", 64)); err == nil {
		t.Fatal("thief")
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	good := 0
	for range 100 {
		wg.Go(func() {
			if _, err := ch.Use(b, key()); err == nil {
				mu.Lock()
				good++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if good != 1 {
		t.Errorf("%d succeeded", good)
	}
}

func TestForeignAndChanged(t *testing.T) {
	i, ch, _ := newPair(t)
	other, _, _ := newPair(t)
	b, _, err := other.Issue(user())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ch.Use(b, key()); fault.ClassOf(err) != fault.Policy {
		t.Errorf("unlisted access server: %v", err)
	}
	sign := func(typ string, change func(*Ticket)) []byte {
		tk := user()
		tk.Format, tk.World, tk.JTI, tk.Iat, tk.Exp = Format, testWorld, strings.Repeat("0", 32), "2026-11-22T12:00:00Z", "2026-11-22T12:01:00Z"
		change(&tk)
		p, err := jcs.Marshal(tk)
		if err != nil {
			t.Fatal(err)
		}
		env, err := envelope.Sign(typ, p, i.Key)
		if err != nil {
			t.Fatal(err)
		}
		b, err := env.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, c := range map[string]struct {
		typ    string
		change func(*Ticket)
	}{
		"two minutes":             {PayloadType, func(k *Ticket) { k.Exp = "2026-11-22T12:02:00Z" }},
		"ends before it begins":   {PayloadType, func(k *Ticket) { k.Exp = "2026-11-22T11:59:59Z" }},
		"other world":             {PayloadType, func(k *Ticket) { k.World = "live" }},
		"gateway with a user":     {PayloadType, func(k *Ticket) { k.Kind = KindGateway }},
		"user without a login":    {PayloadType, func(k *Ticket) { k.Login = "" }},
		"user without a name":     {PayloadType, func(k *Ticket) { k.User = "" }},
		"no kind":                 {PayloadType, func(k *Ticket) { k.Kind = "" }},
		"no key":                  {PayloadType, func(k *Ticket) { k.Key = "" }},
		"account that walks":      {PayloadType, func(k *Ticket) { k.Account = "../globex" }},
		"other payload type":      {"application/vnd.keyrite.policy.v1+json", func(*Ticket) {}},
		"another format":          {PayloadType, func(k *Ticket) { k.Format = "keyrite/ticket/v2" }},
		"negative policy version": {PayloadType, func(k *Ticket) { k.PolicyVersion = -1 }},
	} {
		if _, err := ch.Use(sign(c.typ, c.change), key()); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	good := sign(PayloadType, func(*Ticket) {})
	for name, b := range map[string][]byte{"trailing": append(bytes.Clone(good), ' '), "cut": good[:len(good)-2], "long": make([]byte, MaxBytes+1), "empty": nil} {
		if _, err := ch.Use(b, key()); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := ch.Use(good, key()); err != nil {
		t.Error("the good one:", err)
	}
}

func FuzzUse(f *testing.F) {
	i, ch, _ := newPair(f)
	b, _, err := i.Issue(user())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, err := ch.Use(in, key()); err == nil && !bytes.Equal(in, b) {
			t.Errorf("taken: %q", in)
		}
	})
}
