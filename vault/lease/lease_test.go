package lease_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/lease"
	"keyrite/vault/seal"
)

// bubble runs a test in a bubble, with a worker.
func bubble(t *testing.T, f func(t *testing.T, b *bench)) {
	t.Helper()
	_, state := founded(t)
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, state)
		b.run()
		f(t, b)
	})
}

// pass lets time pass in a bubble, and the worker do what is due.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// TestLeaseEnds: what was given out ends at its time, once, with an entry.
func TestLeaseEnds(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		for i := range 200 {
			b.issue(mes(), fmt.Sprintf("o%d", i), time.Minute+time.Duration(i)*time.Second)
		}
		pass(59 * time.Second)
		if n := len(b.leases()); n != 200 {
			t.Fatalf("%d leases", n)
		}
		pass(101*time.Second + 500*time.Millisecond)
		if n := len(b.leases()); n < 98 || n > 100 {
			t.Errorf("%d leases after 160 s", n)
		}
		pass(5 * time.Minute)
		for i := range 200 {
			if n := b.ended(fmt.Sprintf("o%d", i)); n != 1 {
				t.Errorf("o%d was ended %d times", i, n)
			}
		}
		if len(b.leases()) != 0 || b.book.Count() != 0 {
			t.Errorf("left: %v, %d in memory", b.leases(), b.book.Count())
		}
		last, err := b.store.Entry(uint64(b.store.Head().Size - 1))
		if err != nil || !strings.Contains(string(last), `"operation":"lease"`) || !strings.Contains(string(last), "its time is over") {
			t.Errorf("%s %v", last, err)
		}
	})
}

// TestLeaseIsRenewed: up to its most and no further, and only if it may be.
func TestLeaseIsRenewed(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.tokens.set("tok", 25*time.Minute)
		l := b.issue(job("tok"), "o", 10*time.Minute)
		if l.TTL != 10*time.Minute || !strings.HasPrefix(l.ID, "thing/a/") {
			t.Fatalf("%+v", l)
		}
		for _, s := range []struct {
			wait time.Duration
			inc  string
			want time.Duration
		}{{9 * time.Minute, "", 10 * time.Minute}, {time.Minute, "60", time.Minute}, {30 * time.Second, "2h", 10 * time.Minute}, {9*time.Minute + 30*time.Second, "10m", 5 * time.Minute}} {
			pass(s.wait)
			more := map[string]any{}
			if s.inc != "" {
				more["increment"] = s.inc
			}
			a, err := b.own(job("tok"), lease.Renew, l.ID, more)
			if err != nil {
				t.Fatal(err)
			}
			if d := a.Lease.TTL - s.want; a.Lease.ID != l.ID || d < -time.Second || d > time.Second {
				t.Errorf("renewed after %v: %+v, want %v", s.wait, a.Lease, s.want)
			}
		}
		if a, err := b.own(job("tok"), lease.Lookup, l.ID, nil); err != nil || !strings.Contains(fmt.Sprint(a.Data), "renewable:true") {
			t.Errorf("%v %v", a, err)
		}
		pass(5*time.Minute + 2*time.Second)
		if b.ended("o") != 1 || len(b.leases()) != 0 {
			t.Error("it outlives the end of its token")
		}
		if _, err := b.own(job("tok"), lease.Renew, l.ID, nil); !errors.Is(err, engine.ErrNotThere) {
			t.Errorf("renewed after its end: %v", err)
		}
		fixed := &engine.Lease{TTL: time.Minute, Object: "f"}
		if err := b.do(func(tx *seal.Tx) error { return b.book.Issue(tx, mes(), b.path("thing/f"), fixed) }); err != nil {
			t.Fatal(err)
		}
		if _, err := b.own(mes(), lease.Renew, fixed.ID, nil); !errors.Is(err, lease.ErrNotRenewed) {
			t.Errorf("one that is not renewable: %v", err)
		}
		long := b.issue(mes(), "long", 365*24*time.Hour)
		if long.TTL != lease.MaxLife {
			t.Errorf("a lease of %v", long.TTL)
		}
	})
}

// TestTokenEndsItsLeases: revoked, over, or of an identity that the charter ended; a
// restart ends none.
func TestTokenEndsItsLeases(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		for _, a := range []string{"revoked", "over", "stays"} {
			b.tokens.set(a, time.Hour)
			for i := range 3 {
				b.issue(job(a), fmt.Sprint(a, i), 50*time.Minute)
			}
		}
		b.issue(mes(), "direct", 50*time.Minute)
		b.tokens.set("over", 10*time.Second)
		if err := b.do(func(tx *seal.Tx) error { return b.book.EndToken(tx, "revoked", time.Now()) }); err != nil {
			t.Fatal(err)
		}
		b.tokens.revoke("revoked")
		pass(1100 * time.Millisecond)
		if b.ended("revoked0") != 1 || b.ended("revoked2") != 1 || b.ended("over0") != 0 {
			t.Error("a second after its token was revoked a lease is out, or another ended")
		}
		pass(11 * time.Second)
		if b.ended("over1") != 1 || b.ended("stays0") != 0 || b.ended("direct") != 0 {
			t.Error("after the end of a token a lease is out, or another ended")
		}
		b.tokens.revoke("stays") // as sealing does, but the new book does not know it
		b.reopen()
		b.run()
		pass(time.Minute)
		if b.ended("stays0") != 0 || b.ended("direct") != 0 {
			t.Error("a restart ended leases")
		}
		pass(time.Hour)
		if b.ended("stays0") != 1 || b.ended("direct") != 1 {
			t.Error("their time was over")
		}
	})
}

// TestLastingLeases: a certificate's lease is the identity's: it outlives the token,
// whatever ends that, and not the identity.
func TestLastingLeases(t *testing.T) {
	w, state := founded(t)
	after := without(t, w, "job")
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, state)
		b.run()
		b.tokens.set("tok", time.Minute)
		l := &engine.Lease{TTL: 48 * time.Hour, Lasting: true, Object: "cert"}
		if err := b.do(func(tx *seal.Tx) error { return b.book.Issue(tx, job("tok"), b.path("thing/a"), l) }); err != nil {
			t.Fatal(err)
		}
		if l.TTL != 48*time.Hour {
			t.Errorf("of %v", l.TTL)
		}
		if err := b.do(func(tx *seal.Tx) error { return b.book.EndToken(tx, "tok", time.Now()) }); err != nil {
			t.Fatal(err)
		}
		b.tokens.revoke("tok")
		pass(24 * time.Hour)
		if b.ended("cert") != 0 {
			t.Error("it ended with its token")
		}
		if a, err := b.own(job("another"), lease.Lookup, l.ID, nil); err != nil || !strings.Contains(fmt.Sprint(a.Data), "identity:job") {
			t.Errorf("the process with another token: %v %v", a, err)
		}
		b.setCharter(after)
		pass(2 * time.Second)
		if b.ended("cert") != 1 {
			t.Error("it outlives its identity")
		}
	})
}

// TestCharterEndsLeases: those of an identity that the charter ended, within a second.
func TestCharterEndsLeases(t *testing.T) {
	w, state := founded(t)
	after := without(t, w, "mes")
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, state)
		b.run()
		b.tokens.set("tok", time.Hour)
		b.issue(mes(), "m", time.Hour)
		b.issue(job("tok"), "j", time.Hour)
		pass(10 * time.Second)
		if b.ended("m") != 0 {
			t.Error("it ended before its identity")
		}
		b.setCharter(after)
		pass(1100 * time.Millisecond)
		if b.ended("m") != 1 || b.ended("j") != 0 {
			t.Errorf("ended %d, %d times", b.ended("m"), b.ended("j"))
		}
	})
}

// TestBrokenEngineHoldsUpNobody: what an engine cannot end is tried again, and all else
// ends.
func TestBrokenEngineHoldsUpNobody(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		b.things.setBroken("bad", true)
		b.issue(mes(), "bad", time.Minute)
		for i := range 10 {
			b.issue(mes(), fmt.Sprint("good", i), time.Minute)
		}
		pass(62 * time.Second)
		for i := range 10 {
			if b.ended(fmt.Sprint("good", i)) != 1 {
				t.Errorf("good%d did not end", i)
			}
		}
		size := b.store.Head().Size
		pass(3 * time.Minute)
		if b.ended("bad") != 0 || len(b.leases()) != 1 || b.store.Head().Size != size {
			t.Error("the broken one is gone, or fills the log")
		}
		b.things.setBroken("bad", false)
		pass(retryAndMore)
		if b.ended("bad") != 1 {
			t.Error("it is not tried again")
		}
	})
}

const retryAndMore = 62 * time.Second

// TestClockSteps: a clock that is set back makes no lease longer, also over a restart;
// one that is set forward ends what is due by it, once.
func TestClockSteps(t *testing.T) {
	bubble(t, func(t *testing.T, b *bench) {
		l := b.issue(mes(), "back", 10*time.Minute)
		b.setClock(-24 * time.Hour)
		pass(9 * time.Minute)
		if b.ended("back") != 0 {
			t.Error("it ended early")
		}
		if a, err := b.own(mes(), lease.Renew, l.ID, map[string]any{"increment": 300}); err != nil || a.Lease.TTL > 5*time.Minute {
			t.Errorf("renewed for %v: %v", a.Lease, err)
		}
		pass(5*time.Minute + 2*time.Second)
		if b.ended("back") != 1 {
			t.Error("a clock set back by a day made it longer")
		}
		b.issue(mes(), "over a restart", 10*time.Minute)
		b.setClock(-48 * time.Hour)
		b.reopen()
		b.run()
		pass(10*time.Minute + 2*time.Second)
		if b.ended("over a restart") != 1 {
			t.Error("over a restart a clock set back made it longer")
		}
		b.setClock(0)
		b.issue(mes(), "forward", 10*time.Hour)
		pass(time.Minute)
		b.setClock(11 * time.Hour)
		pass(2 * time.Second)
		b.setClock(0)
		pass(20 * time.Hour)
		if n := b.ended("forward"); n != 1 {
			t.Errorf("it was ended %d times", n)
		}
	})
}

// TestLeasesOfOthers: nobody sees, renews or revokes a lease of somebody else but by
// the path that a policy gives; prefixes are whole segments.
func TestLeasesOfOthers(t *testing.T) {
	_, state := founded(t)
	b := newBench(t, state)
	b.tokens.set("tok", time.Hour)
	at := func(path, object string) string {
		l := &engine.Lease{TTL: time.Hour, Renewable: true, Object: object}
		if err := b.do(func(tx *seal.Tx) error { return b.book.Issue(tx, mes(), b.path(path), l) }); err != nil {
			t.Fatal(err)
		}
		return l.ID
	}
	one, two, three := at("thing/a", "1"), at("thing/a/b", "2"), at("thing/ab", "3")
	for _, op := range []string{lease.Lookup, lease.Renew, lease.Revoke} {
		for _, c := range []engine.Caller{job("tok"), {}, {Identity: "Mes"}} {
			if _, err := b.own(c, op, one, nil); !errors.Is(err, engine.ErrNotThere) {
				t.Errorf("%s by %+v: %v", op, c, err)
			}
		}
	}
	if _, err := b.own(mes(), "end", one, nil); !errors.Is(err, engine.ErrNoPath) {
		t.Errorf("an operation nobody knows: %v", err)
	}
	if p, err := b.book.Plan(&engine.Request{Method: engine.List, Rest: []string{"leases", "lookup", "thing", "a"}}); err != nil || p.Work == nil {
		t.Errorf("a list is made while nobody else can write: %v", err)
	}
	if a, err := b.ask(engine.List, "leases/lookup/thing/a"); err != nil || len(fmt.Sprint(a.Data)) < 70 || strings.Contains(fmt.Sprint(a.Data), "ab/") {
		t.Errorf("%v %v", a, err)
	}
	if a, err := b.ask(engine.Write, "leases/lookup/"+three); err != nil || !strings.Contains(fmt.Sprint(a.Data), "identity:mes") {
		t.Errorf("%v %v", a, err)
	}
	if a, err := b.ask(engine.Write, "leases/revoke-prefix/thing/a"); err != nil || fmt.Sprint(a.Data) != "map[left:0 revoked:2]" {
		t.Errorf("%v %v", a, err)
	}
	if b.ended("1") != 1 || b.ended("2") != 1 || b.ended("3") != 0 || !slices.Equal(b.leases(), []string{three}) {
		t.Errorf("left: %v", b.leases())
	}
	if _, err := b.ask(engine.Write, "leases/revoke/"+two); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("revoked twice: %v", err)
	}
	if _, err := b.ask(engine.Write, "leases/revoke/"+three); err != nil || b.ended("3") != 1 {
		t.Errorf("%v", err)
	}
	for _, path := range []string{"leases/revoke", "leases/renew/" + three, "leases/tidy/x", "leases/revoke-force/thing", "other/revoke/x"} {
		if _, err := b.ask(engine.Write, path); !errors.Is(err, engine.ErrNoPath) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestLeaseNames: a lease is named by the one spelling of its path; no other spelling
// of it is a lease.
func TestLeaseNames(t *testing.T) {
	_, state := founded(t)
	b := newBench(t, state)
	id := b.issue(mes(), "o", time.Hour).ID
	tried := 0
	for i := range id {
		for _, s := range []string{id[:i] + fmt.Sprintf("%%%02x", id[i]) + id[i+1:], id[:i] + "/" + id[i:], id[:i] + "./" + id[i:], id[:i] + "../" + id[i:], id[:i] + "\x00" + id[i:], id[:i] + "\n" + id[i:], id[:i] + "*" + id[i+1:], id[:i] + "+" + id[i+1:], id[:i] + strings.ToUpper(id[i:i+1]) + id[i+1:], id[:i], id + id[i:]} {
			if s == id {
				continue
			}
			tried++
			if _, err := b.own(mes(), lease.Revoke, s, nil); err == nil {
				t.Errorf("%q is taken for the lease", s)
			} else if c := fault.ClassOf(err); c != fault.Usage && c != fault.Policy {
				t.Errorf("%q: %v", s, err)
			}
		}
	}
	if tried < 400 || len(b.leases()) != 1 {
		t.Errorf("%d spellings, left: %v", tried, b.leases())
	}
}

// TestLeaseThatIsNone: a lease of nothing, nobody or no time is not entered, nor one
// too many, nor one whose name would be too long.
func TestLeaseThatIsNone(t *testing.T) {
	_, state := founded(t)
	b := newBench(t, state)
	good := engine.Lease{TTL: time.Minute, Object: "o"}
	for name, c := range map[string]struct {
		caller engine.Caller
		path   access.Path
		lease  engine.Lease
	}{
		"of nobody":             {engine.Caller{}, b.path("thing/a"), good},
		"on no path":            {mes(), access.Path{}, good},
		"for no time":           {mes(), b.path("thing/a"), engine.Lease{Object: "o"}},
		"for less than none":    {mes(), b.path("thing/a"), engine.Lease{TTL: -time.Hour}},
		"entered already":       {mes(), b.path("thing/a"), engine.Lease{TTL: time.Hour, ID: "thing/x"}},
		"of a token that ended": {job("nobody"), b.path("thing/a"), good},
		"with too long a name":  {mes(), b.path("thing/" + strings.Repeat("a/", access.MaxSegments-2) + "a"), good},
	} {
		if err := b.do(func(tx *seal.Tx) error { return b.book.Issue(tx, c.caller, c.path, &c.lease) }); err == nil {
			t.Errorf("%s: entered", name)
		}
	}
	if n := len(b.leases()); n != 0 || b.book.Count() != 0 {
		t.Errorf("%d leases", n)
	}
	if err := b.do(func(tx *seal.Tx) error {
		for range lease.MaxLeases {
			l := good
			if err := b.book.Issue(tx, mes(), b.path("thing/a"), &l); err != nil {
				return err
			}
		}
		l := good
		if err := b.book.Issue(tx, mes(), b.path("thing/a"), &l); !errors.Is(err, lease.ErrTooMany) || fault.ClassOf(err) != fault.Quota {
			t.Errorf("one too many: %v", err)
		}
		return errors.New("enough")
	}); err == nil {
		t.Error("no error")
	}
	if _, err := lease.New(lease.Config{}); err == nil {
		t.Error("a book of nothing")
	}
}
