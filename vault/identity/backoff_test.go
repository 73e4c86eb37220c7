package identity

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestBackOff(t *testing.T) {
	var b backOff
	at := time.Unix(1_800_000_000, 0)
	if d := b.wait(at, "x"); d > 0 {
		t.Errorf("nobody waits %v", d)
	}
	for i, want := range []time.Duration{0, 0, 0, 0, 0, 1, 2, 4, 8, 10, 10} {
		b.wrong(at, "x", maxRoleWait)
		if d := b.wait(at, "y", "x"); d.Round(time.Second) != want*time.Second && (d > 0 || want > 0) {
			t.Errorf("after %d wrong ones a wait of %v, want %d s", i+1, d, want)
		}
	}
	at = at.Add(forgetTries + time.Second)
	b.wrong(at, "x", maxRoleWait)
	if d := b.wait(at, "x"); d > 0 {
		t.Errorf("a wait of %v for what is long ago", d)
	}
	for range 100 {
		b.wrong(at, "z", maxAddrWait)
	}
	if d := b.wait(at, "z"); d != maxAddrWait {
		t.Errorf("a wait of %v", d)
	}
	b.right("z")
	if d := b.wait(at, "z"); d > 0 {
		t.Errorf("a wait of %v after a right one", d)
	}
	for i := range maxSuspects + 100 {
		b.wrong(at, fmt.Sprint(i), maxAddrWait)
	}
	if len(b.tries) > maxSuspects {
		t.Errorf("%d suspects", len(b.tries))
	}
}

func TestSuspectsAreHosts(t *testing.T) {
	name := func(s string) string { return byAddress(netip.MustParseAddr(s)) }
	if name("2001:db8::1") != name("2001:db8::ffff:1") || name("2001:db8::1") == name("2001:db8:0:1::1") || name("10.0.0.1") == name("10.0.0.2") || name("::ffff:10.0.0.1") != name("10.0.0.1") {
		t.Error("a host has many names, or one name many hosts")
	}
}
