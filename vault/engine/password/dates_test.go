package password_test

import (
	"strings"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/vault/duty"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/password"
	"keyrite/vault/seal"
)

func dates(t *testing.T, b *enginetest.Bench, e *password.Engine) map[string]duty.Thing {
	t.Helper()
	out := map[string]duty.Thing{}
	err := b.Store.View(func(v *seal.View) error {
		things, err := e.Dates(v, b.Now)
		for _, x := range things {
			out[x.Name] = x
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestDates: of each policy it is told when its first password is to be rotated and how
// many are due, and no password's name; what is never rotated is not told of.
func TestDates(t *testing.T) {
	b, e := bench(t, policy("plc", func(p *charter.PasswordPolicy) { p.RotateAfter = 24 * 60 * 60 }), policy("for-ever", nil))
	if got := dates(t, b, e); len(got) != 0 {
		t.Errorf("of nothing: %v", got)
	}
	began := b.Now
	b.Must(e, engine.Write, "pw/password/line1/plc", `{"policy":"plc"}`)
	b.Must(e, engine.Write, "pw/password/line1/old", `{"policy":"for-ever"}`)
	b.Now = began.Add(time.Hour)
	b.Must(e, engine.Write, "pw/password/line1/hmi", `{"policy":"plc"}`)
	want := func(when, about string, ends time.Time) {
		t.Helper()
		got := dates(t, b, e)
		if x := got["pw/plc"]; len(got) != 1 || x.Kind != duty.Password || !x.Ends.Equal(ends) || x.About != about || strings.Contains(x.About, "line1") {
			t.Errorf("%s: %+v", when, got)
		}
	}
	want("none due", "passwords of policy plc at the mount pw", began.Add(24*time.Hour))
	b.Now = began.Add(24 * time.Hour)
	want("one due", "passwords of policy plc at the mount pw: 1 to be rotated", began.Add(24*time.Hour))
	b.Must(e, engine.Write, "pw/rotate/line1/plc", "")
	want("rotated", "passwords of policy plc at the mount pw", began.Add(25*time.Hour))
}
