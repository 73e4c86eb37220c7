package ceremony

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony/script"
)

// A ceremony that was killed after any of its entries, or in the middle of one,
// is taken to VOID, or left alone when nothing had been done (R-CER-15).
func TestRecoverAfterAnyEntry(t *testing.T) {
	s := newStage(t)
	s.room.elsewhere = []string{"witness1", "witness2", "master1"}
	s.acts.do = func(_ context.Context, r *Run, st *script.Step) error {
		switch st.Do {
		case "genesis.sign":
			return r.Record(&record.Statement{Type: "genesis", Signers: []string{}})
		case "token.init":
			if err := r.Record(&record.Intent{Effect: "init-token", Safe: "root"}); err != nil {
				return err
			}
			return r.Record(&record.TokenReady{Safe: "root"})
		case "outputs.write":
			return r.Output("outputs/words", []byte("words"))
		}
		return nil
	}
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(s.cfg.Dir, record.TranscriptFile))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(whole), "\n")
	lines = lines[:len(lines)-1]
	for n := 1; n <= len(lines); n++ {
		for _, torn := range []int{0, 17} {
			t.Run(fmt.Sprintf("entry %d torn %d", n, torn), func(t *testing.T) { killedAfter(t, s.cfg.Dir, lines, n, torn) })
		}
	}
}

func killedAfter(t *testing.T, from string, lines []string, n, torn int) {
	dir := filepath.Join(t.TempDir(), "record")
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(lines[:n], "")
	if n < len(lines) {
		text += lines[n][:torn]
	}
	// What a kill leaves beside the transcript: no checkpoint, and a half-written file.
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, record.TranscriptFile), []byte(text), 0o600),
		os.Remove(filepath.Join(dir, record.CheckpointFile)),
		os.WriteFile(filepath.Join(dir, record.OutputsDir, ".words.0123456789abcdef"), []byte("wo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	before, err := ReadState(dir)
	if err != nil {
		t.Fatal(err)
	}
	clk := &clock{now: time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC)}
	err = Recover(context.Background(), dir, clk, nil, true)
	if !before.armed() {
		if fault.ClassOf(err) != fault.Usage {
			t.Errorf("in %s: %v", before.State, err)
		}
		return
	}
	if fault.ClassOf(err) != fault.Void {
		t.Fatalf("in %s: %v", before.State, err)
	}
	st, err := ReadState(dir)
	if err != nil || st.State != "VOID" || !st.Ended {
		t.Fatalf("%+v, %v", st, err)
	}
	if v, err := record.Read(os.DirFS(dir)); fault.ClassOf(err) != fault.Void || len(v.Incidents) != 1 {
		t.Errorf("the record reads as %v", err)
	}
	// Twice changes nothing.
	if err := Recover(context.Background(), dir, clk, nil, true); fault.ClassOf(err) != fault.Void {
		t.Errorf("recovered again: %v", err)
	}
	if again, err := ReadState(dir); err != nil || again.Root != st.Root {
		t.Error("a second recovery wrote something")
	}
}
