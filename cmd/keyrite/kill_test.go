package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/internal/clitest"
)

// kill -9 at any moment: the record says where it stopped, recover takes it to
// VOID, nothing goes on in the folder, the next attempt names it, and no process
// is left (R-CER-14, R-CER-15).
func TestKilledCeremony(t *testing.T) { killed(t, 4) }

func TestLongKilledCeremony(t *testing.T) {
	if os.Getenv("KEYRITE_TEST_LONG") == "" {
		t.Skip("long: set KEYRITE_TEST_LONG=1")
	}
	killed(t, 60)
}

func killed(t *testing.T, times int) {
	h := newHouse(t)
	// The transcript's length is the clock: kills spread over all entries.
	const entries = 450
	after := ""
	for i := range times {
		label := "k" + strconv.Itoa(i)
		args := h.attempt(t, label, "answers.yaml")
		if after != "" {
			args = append(args, "--after", after)
		}
		cmd := h.command(args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		at := 35 + (2*i+1)*(entries-35)/(2*times)
		h.waitForEntries(t, label, at)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		h.noOrphans(t)
		t.Run(fmt.Sprintf("at entry %d", at), func(t *testing.T) {
			if h.afterKill(t, label, i%2 == 0) {
				after = "record-" + label
			}
		})
	}
	args := h.attempt(t, "last", "answers.yaml")
	if code, out, errs := h.run(t, append(args, "--after", after)...); code != 0 || !strings.HasPrefix(out, "CLOSED") {
		t.Fatalf("the next attempt: exit %d, %s%s", code, out, errs)
	}
	first, err := os.ReadFile(h.path("record-last/transcript.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := ceremony.ReadState(h.path(after))
	if err != nil || !bytes.Contains(first, []byte(`"after":{"record":"`+st.Record+`"`)) {
		t.Errorf("it does not name the void attempt: %v", err)
	}
}

func (h *house) waitForEntries(t *testing.T, label string, n int) {
	t.Helper()
	came := clitest.Await(time.Minute, func() bool {
		data, _ := os.ReadFile(h.path("record-" + label + "/transcript.jsonl"))
		return bytes.Count(data, []byte("\n")) >= n
	})
	if !came {
		t.Fatalf("the ceremony did not come to entry %d", n)
	}
}

// afterKill says whether the attempt is void; one killed at its very end may
// have closed.
func (h *house) afterKill(t *testing.T, label string, withShares bool) bool {
	dir := "record-" + label
	st, err := ceremony.ReadState(h.path(dir))
	if err != nil {
		t.Fatal(err)
	}
	code, out, errs := h.run(t, "ceremony", "status", "--record", dir, "--json")
	var res struct{ Schema, State string }
	if err := json.Unmarshal([]byte(out), &res); code != 0 || err != nil || res.Schema != "keyrite/ceremony-status/v1" || res.State != st.State {
		t.Errorf("status: exit %d, %s%s", code, out, errs)
	}
	again := []string{"ceremony", "rehearse", label + ".yaml", "--bind", "bind-" + label + ".yaml", "--answers", "answers.yaml", "--record", dir}
	if code, _, errs := h.run(t, again...); code != 11 && st.State != "CLOSED" {
		t.Errorf("going on after a kill in %s: exit %d, %s", st.State, code, errs)
	}
	args := []string{"ceremony", "recover", "--record", dir, "--bind", "bind-" + label + ".yaml"}
	pass := ""
	for _, safe := range []string{"root", "work", "root2", "work2"} {
		for _, m := range []string{"master1", "master3", "master5"} {
			if file := "shares-" + label + "/" + safe + "/" + m + ".share"; withShares && st.PINsChanged[safe] {
				args = append(args, "--opener", safe+"="+m+".key:"+file)
				pass += phrase(m) + "\n"
			}
		}
	}
	h.write(t, "pass", pass)
	recoverIt := func(args ...string) (int, string) {
		f, err := os.Open(h.path("pass"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd := h.command(append(args, "--passphrase-fd", "3")...)
		cmd.ExtraFiles = []*os.File{f}
		text, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(text)
	}
	code, text := recoverIt(args...)
	if code == 10 && !withShares && len(st.PINsChanged) > 0 {
		// Tokens that shares open may hold keys: nothing is decided without
		// them, until somebody says that their holders cannot come.
		if now, err := ceremony.ReadState(h.path(dir)); err != nil || now.Ended {
			t.Errorf("decided without the key masters: %v", err)
		}
		code, text = recoverIt(append(args, "--abandon")...)
	}
	if code == 0 && st.State == "CLOSED" {
		return false
	}
	if code != 11 {
		t.Fatalf("recover after a kill in %s: exit %d, %s", st.State, code, text)
	}
	v, err := record.Read(os.DirFS(h.path(dir)))
	if v == nil || v.State != "VOID" {
		t.Fatalf("%s", err)
	}
	cleaned, announced := 0, 0
	for _, l := range v.Timeline {
		if i, ok := l.Data.(*record.Intent); ok && i.Effect == "init-token" {
			announced++
		}
		if c, ok := l.Data.(*record.Cleanup); ok {
			cleaned++
			if c.Tainted == "" {
				t.Errorf("token of %s is not named", c.Safe)
			}
			if withShares && st.PINsChanged[c.Safe] && c.Left != 0 {
				t.Errorf("%d objects left in the token of %s: %s", c.Left, c.Safe, c.Tainted)
			}
		}
	}
	if cleaned != announced {
		t.Errorf("%d of %d tokens are spoken of", cleaned, announced)
	}
	if code, _, errs := h.run(t, "keyrite-verify", "record", dir, "--anchor", "nothing"); code == 0 {
		t.Errorf("the verifier accepts it: %s", errs)
	}
	return true
}
