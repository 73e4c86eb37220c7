package main

import (
	"io"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"keyrite/internal/clitest"
)

var (
	answerLineRE = regexp.MustCompile(`(?m)^\d\d(?: [A-Z2-7]{5}){8} [A-Z2-7]{6}`)
	wordsRE      = regexp.MustCompile(`(?m)^  in words: (.+?)\r?$`)
)

// meanwhile answers, each at a terminal of his own, what the room asks people who
// are elsewhere, until the room is done. Every second answer goes back by mouth: its
// lines are read off his screen and typed at the room's terminal. It returns the
// room's exit code.
func (h *house) meanwhile(t *testing.T, room *player, keys string, people ...string) int {
	t.Helper()
	done := make(chan int, 1)
	go func() { done <- room.exit() }()
	before := map[string]bool{} // of earlier attempts: a room asks nobody at once
	for _, f := range h.requests(t) {
		before[f] = true
	}
	served := map[string]int{}
	for {
		select {
		case code := <-done:
			for _, n := range people {
				if served[n] == 0 {
					t.Errorf("%s, who is elsewhere, was asked nothing", n)
				}
			}
			return code
		case <-time.After(50 * time.Millisecond): // another program writes the requests
		}
		for _, f := range h.requests(t) {
			name, _, _ := strings.Cut(filepath.Base(f), "-")
			if !before[f] {
				before[f] = true
				h.signAtHome(t, room, keys+name+".key", f, served[name]%2 == 1)
				served[name]++
			}
		}
	}
}

func (h *house) requests(t *testing.T) []string {
	t.Helper()
	list, err := filepath.Glob(h.path("medium/*.request"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// signAtHome has a person sign a request at his own terminal: he reads what it says,
// compares the words with the room's, and types his passphrase.
func (h *house) signAtHome(t *testing.T, room *player, key, request string, byMouth bool) {
	t.Helper()
	args := []string{"person", "sign", request, "--key", key, "--out", strings.TrimSuffix(request, ".request") + ".answer"}
	if byMouth {
		args = append(args[:5], "--show")
	}
	x := h.play(t, 0, 0, nil, nil, args...)
	if code := x.exit(); code != 0 || len(x.seen) != 1 {
		t.Errorf("%s: exit %d after %q, %s", filepath.Base(request), code, x.seen, x.output())
		return
	}
	x.noPassphrase(h)
	words := wordsRE.FindStringSubmatch(x.output())
	if words == nil || !clitest.Await(10*time.Second, func() bool { return room.shows(words[1]) }) {
		t.Errorf("%s: the room does not show the words %q", filepath.Base(request), words)
	}
	if !byMouth {
		return
	}
	lines := answerLineRE.FindAllString(strings.ReplaceAll(x.output(), "\r", ""), -1)
	if len(lines) != 4 || !clitest.Await(10*time.Second, func() bool { return room.waits("signs elsewhere") }) {
		t.Errorf("%s: lines %q", filepath.Base(request), lines)
	}
	_, _ = io.WriteString(room.ptmx, strings.ToLower(strings.Join(lines, "."))+"\r") // the exit code tells
}

// shows says whether the full screen showed words at some time.
func (x *player) shows(words string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return strings.Contains(x.heard, words)
}

// waits says whether the open question has that text.
func (x *player) waits(text string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return strings.Contains(x.asked, text)
}

// proveAtHome has each key master prove his share of the live root safe at his own
// terminal, where his passphrase is typed.
func (h *liveHouse) proveAtHome(t *testing.T) {
	trust := []string{"--anchor", "record-live/outputs/anchors.json", "--charter", "record-live/outputs/charter.jsonl"}
	if code, out, errs := h.run(t, append([]string{"share", "challenge", "--safe", "root", "--purpose", "after the genesis", "--out", "first.challenge"}, trust...)...); code != 0 {
		t.Fatalf("challenge: exit %d, %s%s", code, out, errs)
	}
	for _, n := range []string{"master1", "master4"} {
		x := h.play(t, 0, 0, nil, nil, append([]string{"share", "prove", "first.challenge", "--opener", "live/" + n + ".key:shares-live/root/" + n + ".share", "--out", n + ".proof"}, trust...)...)
		if code := x.exit(); code != 0 || len(x.seen) != 1 || !strings.Contains(x.output(), "why: after the genesis") {
			t.Errorf("%s: exit %d after %q, %s", n, code, x.seen, x.output())
		}
		x.noPassphrase(h.house)
	}
	if code, out, errs := h.run(t, append([]string{"keyrite-verify", "share-proof", "master1.proof", "master4.proof"}, trust...)...); code != 0 || !strings.Contains(out, "master4") {
		t.Errorf("share-proof: exit %d, %s%s", code, out, errs)
	}
}
