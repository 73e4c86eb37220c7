package ceremony

import (
	"context"
	"os"
	"strings"
	"testing"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/internal/durable"
)

// An attempt that stopped before ARMED gives way to the same command given again,
// and is kept; whatever else lies there is left alone, and so is a folder that another
// process holds (R-CER-15).
func TestSameCommandAgain(t *testing.T) {
	s := newStage(t)
	broken := fault.Hint(fault.New(fault.Policy, "the network is up"), "pull the cable")
	s.acts.do = doing("people.identify", func(context.Context, *Run) error { return broken })
	for n, early := range []string{"", ".early-1", ".early-2"} {
		err := s.run(t)
		if fault.ClassOf(err) != fault.Policy || fault.HintOf(err) != "pull the cable; nothing has happened yet: put it right, and give the same command again" {
			t.Fatalf("got %v, hint %q", err, fault.HintOf(err))
		}
		if st, err := ReadState(s.cfg.Dir + early); err != nil || st.State != "SUMMONED" {
			t.Fatalf("attempt %d: %+v, %v", n+1, st, err)
		}
	}
}

func TestFolderOfOthersIsLeftAlone(t *testing.T) {
	s := newStage(t)
	s.acts.do = doing("people.identify", func(context.Context, *Run) error { return fault.New(fault.Policy, "no") })
	if err := s.run(t); fault.ClassOf(err) != fault.Policy {
		t.Fatal(err)
	}
	before := listing(t, s.cfg.Dir)
	held, _, err := durable.OpenAppend(s.cfg.Dir + "/" + record.TranscriptFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.run(t); fault.ClassOf(err) != fault.Sealed {
		t.Errorf("another process holds it: %v", err)
	}
	if err := held.Close(); err != nil {
		t.Fatal(err)
	}
	real := s.cfg.Dir
	s.cfg.Dir = real + ".link"
	if err := os.Symlink(real, s.cfg.Dir); err != nil {
		t.Fatal(err)
	}
	if err := s.run(t); fault.ClassOf(err) != fault.Exists {
		t.Errorf("a link: %v", err)
	}
	for name, content := range map[string]string{"a file": "x", "an empty transcript": "", "another transcript": "{}\n"} {
		s.cfg.Dir = real + strings.ReplaceAll(name, " ", "-")
		path := s.cfg.Dir
		if name != "a file" {
			if err := os.Mkdir(s.cfg.Dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path += "/" + record.TranscriptFile
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.run(t); fault.ClassOf(err) != fault.Exists || !strings.Contains(fault.HintOf(err), "another folder") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := listing(t, real); got != before {
		t.Errorf("the folder has\n%s, not\n%s", got, before)
	}
	// A closed record is never moved.
	s.cfg.Dir, s.acts.do = real+".closed", nil
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	if err := s.run(t); fault.ClassOf(err) != fault.Exists {
		t.Errorf("a closed record: %v", err)
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, e := range list {
		out.WriteString(e.Name() + "\n")
	}
	return out.String()
}
