package pki_test

import (
	"strings"
	"testing"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/vault/duty"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

func (r *room) dates() map[string][]duty.Thing {
	r.t.Helper()
	out := map[string][]duty.Thing{}
	err := r.Store.View(func(v *seal.View) error {
		things, err := r.e.Dates(v, r.Now)
		for _, x := range things {
			out[x.Kind] = append(out[x.Kind], x)
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// TestDates: of the certificates for the same names the newest is told of, unless it was
// revoked or lives shortly; and the list, once there is one.
func TestDates(t *testing.T) {
	r := newRoom(t, anchor.P256)
	r.state(func(x *charter.PKIRole) { x.MaxTTL = charter.MaxPKITTL })
	if got := r.dates(); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
	issue := func(name, ttl string) string {
		t.Helper()
		out := r.do("issue/plant", body{"common_name": name, "ttl": ttl})
		return out["serial_number"].(string)
	}
	issue("short.line1.example.com", "24h")
	issue("mes.example.com", "240h")
	r.Now = r.Now.Add(time.Hour)
	newest := issue("mes.example.com", "240h")
	gone := issue("plc1.line1.example.com", "240h")
	got := r.dates()[duty.Issued]
	if len(got) != 2 || !strings.Contains(got[0].About+got[1].About, "mes.example.com") || !strings.Contains(got[0].About+got[1].About, "role plant") {
		t.Fatalf("%+v", got)
	}
	for _, x := range got {
		if d := x.Ends.Sub(r.Now); d > 240*time.Hour || d < 239*time.Hour {
			t.Errorf("%s ends in %s", x.Name, d)
		}
	}
	r.do("revoke", body{"serial_number": gone})
	if got := r.dates()[duty.Issued]; len(got) != 1 || !strings.Contains(got[0].Name, "mes.example.com") {
		t.Errorf("one was revoked: %+v", got)
	}
	r.raw(engine.Read, "crl", nil)
	if got := r.dates()[duty.CRL]; len(got) != 1 || got[0].Ends.Sub(got[0].From) != 72*time.Hour || !got[0].From.Equal(r.Now.Truncate(time.Second)) {
		t.Errorf("the list: %+v", got)
	}
	r.do("revoke", body{"serial_number": newest})
	if got := r.dates()[duty.Issued]; len(got) != 1 { // the one before it holds still, and nobody else has the names
		t.Errorf("the newest was revoked: %+v", got)
	}
	const day = 24 * time.Hour
	for after, want := range map[time.Duration]int{16 * day: 1, 18 * day: 0} { // it ends after ten days, and nobody issues any more
		r.Now = r.Now.Add(after)
		if got := r.dates()[duty.Issued]; len(got) != want {
			t.Errorf("after %s: %+v", after, got)
		}
		r.Now = r.Now.Add(-after)
	}
}
