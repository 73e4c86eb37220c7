package hsm_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
	"keyrite/hsm/internal/frame"
)

// making is what a module process is killed in: a key that is born in the token,
// or one that is born in the session and copied.
type making struct {
	name string
	copy bool
	alg  hsm.Algorithm
}

// whole is what a fresh process finds of a key that was made.
const whole = "2 objects, a whole key"

// make asks a traced process for the key.
func (f *fileToken) make(t *testing.T, m making, log string, inject ...string) (sp hsm.GenerateSpec, killed bool, err error) {
	t.Helper()
	sp = signSpec(t, "k")
	sp.SessionObject, sp.Algorithm = m.copy, m.alg
	body, err := json.Marshal(sp)
	if err != nil {
		t.Fatal(err)
	}
	p := f.Trace(t, frame.Job{Purpose: frame.ForOpen, Token: f.id}, map[frame.Role]string{frame.UserPIN: newUser}, log, inject...)
	if err := p.Hello(); err != nil {
		t.Fatalf("%s: the login: %v", inject, err)
	}
	_, err = p.Ask(frame.Request{ID: 1, Op: frame.OpGenerate, Body: body})
	if err == nil && m.copy {
		_, err = p.Ask(frame.Request{ID: 2, Op: frame.OpCopy, Key: &sp.KeyID})
	}
	return sp, p.End(), err
}

// TestLongEachWriteOfAKey kills the module process before each call with which it
// changes a file while it makes a key, and lets each such call fail for want of
// space. A fresh process finds every piece by an empty template, no piece passes
// for a key, and after the clean-up of the attempt nothing is left, in the token or
// in its folder.
func TestLongEachWriteOfAKey(t *testing.T) { long(t); eachWriteOfAKey(t, all) }

// TestEachWriteOfAKey does so with a sample.
func TestEachWriteOfAKey(t *testing.T) { eachWriteOfAKey(t, 8) }

func eachWriteOfAKey(t *testing.T, sample int) {
	for _, m := range []making{{"generated", false, hsm.ECDSAP256}, {"copied", true, hsm.ECDSAP256}, {"copied, Ed25519", true, hsm.Ed25519}} {
		t.Run(m.name, func(t *testing.T) {
			f := newFileToken(t)
			login := f.points(t, f.login)
			log := f.TraceLog()
			sp, killed, err := f.make(t, m, log)
			if killed || err != nil {
				t.Fatalf("without a fault: killed %v, %v", killed, err)
			}
			if state := f.cleaned(t, sp, "without a fault"); state != whole {
				t.Fatalf("without a fault: %s", state)
			}
			points := hsmtest.Points(t, log, f.TokenDir)[len(login):]
			if len(points) < 20 {
				t.Fatalf("only %d points", len(points))
			}
			kills, fails := map[string]int{}, map[string]int{}
			for _, p := range some(t, points, sample) {
				sp, killed, err := f.make(t, m, f.TraceLog(), p.Kill())
				if !killed {
					t.Errorf("%s: not killed: %v", p, err)
				}
				kills[f.cleaned(t, sp, "killed before "+p.String())]++
				sp, killed, err = f.make(t, m, f.TraceLog(), p.Fail("ENOSPC"))
				if killed {
					t.Errorf("%s without space: killed, %v", p, err)
				}
				state := f.cleaned(t, sp, "no space for "+p.String())
				if err == nil {
					// SoftHSM itself says OK for a write that was lost.
					if state != whole {
						t.Errorf("%s without space: answered OK, and there is %s", p, state)
					}
					state = "answered OK: " + state
				}
				fails[state]++
			}
			swept(t, "kills, and want of space, at each write of a key that is "+m.name, sample, points)
			for name, tally := range map[string]map[string]int{"kills": kills, "no space": fails} {
				for _, k := range slices.Sorted(maps.Keys(tally)) {
					t.Logf("%s: %4d  %s", name, tally[k], k)
				}
			}
		})
	}
}

// cleaned looks at what is left of a key, cleans it up as the attempt's clean-up
// does, and wants nothing to be left.
func (f *fileToken) cleaned(t *testing.T, sp hsm.GenerateSpec, at string) (state string) {
	t.Helper()
	ctx := t.Context()
	fresh := f.Open(t, f.id)
	found := objects(t, fresh)
	half := false
	for _, o := range found {
		half = half || !o.Token
	}
	state = "nothing"
	if len(found) > 0 {
		state = fmt.Sprintf("%d objects", len(found))
	}
	if half {
		state += ", one says TOKEN=0"
		if f.signsRaw(t, sp.KeyID) {
			state += " and signs"
		}
	}
	k, err := fresh.Attributes(ctx, sp.KeyID)
	switch {
	case err == nil && k.Check(sp, map[bool]hsm.Stage{true: hsm.Stored, false: hsm.Direct}[sp.SessionObject]) == nil:
		state += ", a whole key"
	case err == nil:
		state += ", a key that differs from its template"
	}
	if half && err == nil {
		t.Errorf("%s: a half copy passes for a key", at)
	}
	l, err := fresh.Lookup(ctx, sp.KeyID)
	if err != nil {
		t.Errorf("%s: lookup: %v", at, err)
	} else if (l.Outcome == hsm.Whole) != strings.HasSuffix(state, "a whole key") {
		t.Errorf("%s: lookup says %s, and there is %s", at, l.Outcome, state)
	}
	d, err := fresh.DestroyTagged(ctx, sp.KeyID.Tag(), true)
	if err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	if len(d.EmptyFiles) > 0 {
		state += fmt.Sprintf(", %d file of 0 bytes", len(d.EmptyFiles))
	}
	if len(d.Remaining) != 0 {
		t.Errorf("%s: %d objects remain: %+v", at, len(d.Remaining), d.Remaining)
	}
	if err := fresh.Close(); err != nil {
		t.Error(err)
	}
	again := f.Open(t, f.id)
	if left := objects(t, again); len(left) != 0 {
		t.Errorf("%s: %d objects are left: %+v", at, len(left), left)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if files := f.files(t); len(files) != 0 {
		t.Errorf("%s: %v are left in the token's folder", at, files)
	}
	return state
}

// files lists what belongs to keys in the token's folder.
func (f *fileToken) files(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, ext := range []string{"*.object", "*.lock"} {
		fs, err := filepath.Glob(filepath.Join(filepath.Dir(f.file(t)), ext))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range fs {
			if b := filepath.Base(p); b != "token.object" && b != "token.lock" {
				out = append(out, b)
			}
		}
	}
	return out
}

// signsRaw lets pkcs11-tool, which asks fewer questions, sign with the id.
func (f *fileToken) signsRaw(t *testing.T, id hsm.KeyID) bool {
	t.Helper()
	in := filepath.Join(f.Dir, "digest")
	if err := os.WriteFile(in, make([]byte, 32), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("pkcs11-tool", "--module", f.Config.Module, "--token-label", "work", "--login", "--pin", newUser, "--sign", "--mechanism", "ECDSA", "--id", id.String(), "--input-file", in, "--output-file", "/dev/null")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "SOFTHSM2_CONF=" + f.Conf}
	return cmd.Run() == nil
}
