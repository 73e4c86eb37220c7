package main

import (
	"os"
	"testing"
	"time"

	"keyrite/artifact/record"
	"keyrite/vault/duty"
	watching "keyrite/vault/watch"
)

// TestRehearsalIsWatched: a vault that watches a record, or a folder of records, knows
// until when its newest closed rehearsal counts for a live run; one that was altered or
// broken off counts no more.
func TestRehearsalIsWatched(t *testing.T) {
	h := newHouse(t)
	h.write(t, "answers.yaml", h.answers())
	if code, out, errs := h.run(t, h.attempt(t, "seen", "answers.yaml")...); code != 0 {
		t.Fatalf("exit %d: %s%s", code, out, errs)
	}
	dir := h.path("record-seen")
	v, err := record.VerifyOwn(os.DirFS(dir))
	if v == nil {
		t.Fatal(err)
	}
	w := watching.New(watching.Config{Files: watching.Files{Rehearsals: []string{dir, h.dir}}})
	ends := func() []duty.Thing {
		w.Look()
		things := w.Things(v.Charter)
		if len(things) != 2 {
			t.Fatalf("%+v", things)
		}
		return things
	}
	for _, x := range ends() {
		left := time.Until(x.Ends)
		if x.Fault != "" || left > record.RehearsalCounts || left < record.RehearsalCounts-time.Hour {
			t.Errorf("%+v", x)
		}
	}
	data, err := os.ReadFile(dir + "/transcript.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/transcript.jsonl", data[:len(data)-400], 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range ends() {
		if x.Fault == "" {
			t.Errorf("cut off: %+v", x)
		}
	}
}
