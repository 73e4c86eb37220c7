package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/hsm/hsmtest"
)

// Somebody types wrong PINs: the fourth is not given to the token any more, nor
// is the right one, and the way out is shown, and leaves its trace.
func TestHSMPINCounter(t *testing.T) {
	b := newBench(t)
	module := hsmtest.Module(t)
	open := []string{"hsm", "inspect", "--json", "--module", module, "--token", "work", "--pin-fd", "3"}
	counter := func(args ...string) (int, hsmCounterResult) {
		t.Helper()
		code, out, errs := b.run(t, "", "", append([]string{"hsm", "pin-counter", "--json", "--module", module, "--token", "work"}, args...)...)
		var res hsmCounterResult
		if code == 0 {
			if err := json.Unmarshal([]byte(out), &res); err != nil || errs != "" || res.Schema != "keyrite/hsm-pin-counter/v1" {
				t.Fatalf("%v, %s, %s", err, out, errs)
			}
		}
		return code, res
	}
	for i, want := range []string{"wrong PIN 1 of 10", "wrong PIN 2 of 10", "wrong PIN 3 of 10", "a right one ends it"} {
		code, out, errs := b.run(t, "9999999999", "", open...)
		if code != 12 || out != "" || !strings.Contains(errs, want) || strings.Contains(errs, "9999999999") {
			t.Errorf("wrong PIN %d: exit %d, %s", i+1, code, errs)
		}
	}
	if code, _, errs := b.run(t, testPIN, "", open...); code != 12 || !strings.Contains(errs, "no PIN is tried for another") {
		t.Errorf("the right PIN during the wait: exit %d, %s", code, errs)
	}
	if code, res := counter(); code != 0 || res.Counter.User != 3 || res.Counter.Limit != 10 || filepath.Dir(res.Counter.Path) != b.env.TokenDir {
		t.Errorf("exit %d, %+v", code, res)
	}
	for _, bad := range [][]string{{"--reset"}, {"--reason", "x"}, {"--reset", "--reason", ""}, {"--reset", "--reason", "a\nb"}, {"--reset", "--reason", strings.Repeat("x", 201)}} {
		if code, _ := counter(bad...); code != 2 {
			t.Errorf("%q: exit %d", bad, code)
		}
	}
	if code, _ := counter("--serial", "00"); code != 12 {
		t.Errorf("the counter of another token: exit %d", code)
	}
	_, before := counter()
	if err := os.WriteFile(before.Counter.Path, []byte("x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := b.run(t, testPIN, "", open...); code != 14 || !strings.Contains(errs, "pin-counter --reset") {
		t.Errorf("with a damaged counter: exit %d, %s", code, errs)
	}
	if code, res := counter("--reset", "--reason", "old PIN in a script"); code != 0 || res.Counter.User != 0 || len(res.Counter.Resets) != 1 || res.Counter.Resets[0].Reason != "old PIN in a script" {
		t.Errorf("exit %d, %+v", code, res)
	}
	if code, _, errs := b.run(t, testPIN, "", open...); code != 0 {
		t.Errorf("after the reset: exit %d, %s", code, errs)
	}
}
