package ceremony

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"keyrite/artifact/record"
)

// What people predictably do is planned, and recorded.
func TestPlannedMissesGoOn(t *testing.T) {
	s := newStage(t)
	s.room.passphrase = func(who string, try int) string {
		if try < 3 {
			return "wrong"
		}
		return ""
	}
	asked := 0
	s.room.ask = func(_ context.Context, p Prompt) (string, *Call, error) {
		switch {
		case p.Who == "operator":
			return "go on", nil, nil
		case p.Step == "2.1" && p.Who == "witness1":
			if asked++; asked < 3 {
				return "what?", nil, nil
			}
		}
		return "", nil, nil
	}
	s.acts.do = doing("pause", func(context.Context, *Run) error { s.signals <- syscall.SIGINT; return nil })
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(s.cfg.Dir, record.TranscriptFile))
	if err != nil {
		t.Fatal(err)
	}
	// Two wrong answers, and the conductor's two wrong passphrases; who cosigns
	// does so after the end, where nothing may be written.
	if n := strings.Count(string(data), `"type":"miss"`); n != 2+2 {
		t.Errorf("%d misses are recorded", n)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, `"type":"end"`) {
		t.Errorf("the last entry is %s", last)
	}
	if st, err := ReadState(s.cfg.Dir); err != nil || st.State != "CLOSED" || !st.Ended {
		t.Errorf("%+v, %v", st, err)
	}
}
