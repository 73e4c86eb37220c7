package actions

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"keyrite/artifact/fault"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
)

// watched are actions that a test looks at before each step.
type watched struct {
	ceremony.Actions
	before func(st *script.Step)
}

func (w *watched) Do(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	w.before(st)
	return w.Actions.Do(ctx, r, st)
}

// openedWith holds a ceremony where the medium of master1 has these files, one after
// the other, whenever the work safe is opened; the last one stays.
func (f *founded) openedWith(t *testing.T, p plan, shares ...[]byte) plan {
	t.Helper()
	p.around = func(a ceremony.Actions) ceremony.Actions {
		return &watched{a, func(st *script.Step) {
			if st.Do != "safe.open" || st.Safe != "work" || len(shares) == 0 {
				return
			}
			write(t, f.path("shares-founded/work/master1.share"), shares[0])
			shares = shares[1:]
		}}
	}
	return p
}

// Shares that cannot be used are planned for: the step is begun again with a spare
// one, and what it announced the first time stands, once. The ceremony closes, and
// its record holds.
func TestSpareShareOpensTheSafe(t *testing.T) {
	t.Parallel()
	f := found(t)
	share := func(safe, name string) []byte {
		data, err := os.ReadFile(f.path("shares-founded/" + safe + "/" + name + ".share"))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	good := share("work", "master1")
	spoiled := bytes.Clone(good)
	spoiled[len(spoiled)/2] ^= 1
	bad := [][]byte{spoiled, share("work", "master2"), share("root", "master1")}
	v := f.later(t, f.openedWith(t, plan{kind: "new-key", record: "spare"}, append(bad, good)...))
	if len(v.Keys) != 1 {
		t.Errorf("%d keys", len(v.Keys))
	}
	for typ, want := range map[string]int{"contingency": 3, "opening": 3, "admission": 1} {
		if got := len(types(t, f.newest, typ)); got != want {
			t.Errorf("%d entries %s, want %d", got, typ, want)
		}
	}
	announced := 0
	for _, e := range types(t, f.newest, "intent") {
		if e.Data["effect"] == "open" {
			announced++
		}
	}
	if announced != 1 {
		t.Errorf("the safe was announced %d times", announced)
	}
	// Once more than the step may be begun again it is an incident.
	next := func(text string) string { return strings.ReplaceAll(text, "firmware-gw200", "firmware-gw300") }
	_, err := f.try(t, f.openedWith(t, plan{kind: "new-key", record: "never", edit: next}, append(bad, bad[0])...))
	if fault.ClassOf(err) != fault.Void {
		t.Errorf("without a good share: %v", err)
	}
}
