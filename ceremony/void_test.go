package ceremony

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/ceremony/script"
)

// Whatever is not planned makes the ceremony void, from ARMED on, and the record
// says so and why (R-CER-14, R-CER-15).
func TestEveryCauseEndsVoid(t *testing.T) {
	tests := []struct {
		name  string
		edit  func(s *stage)
		cause fault.Class
		text  string
	}{
		{"wrong answer three times", func(s *stage) {
			s.room.ask = at("2.1", "witness2", func() (string, *Call) { return "no", nil })
		}, fault.Policy, "witness2 did not answer yes in 3 tries"},
		{"wrong passphrase three times", func(s *stage) {
			s.room.passphrase = func(who string, _ int) string {
				if who == "conductor" {
					return "wrong"
				}
				return ""
			}
		}, fault.Token, "conductor: wrong passphrase"},
		{"a verb fails", func(s *stage) {
			s.acts.do = doing("token.init", func(context.Context, *Run) error { return fault.New(fault.Token, "the token is gone") })
		}, fault.Token, "step 2.1 (First act): the token is gone"},
		{"the clock jumps ahead", func(s *stage) {
			s.acts.do = doing("token.init", func(context.Context, *Run) error { s.clock.jump(time.Hour); return nil })
		}, fault.Unexpected, "the clock jumped by 1h0m0s"},
		{"the clock jumps back", func(s *stage) {
			s.acts.do = doing("pause", func(context.Context, *Run) error { s.clock.jump(-3 * time.Second); return nil })
		}, fault.Unexpected, "the clock jumped by -3s"},
		{"a signed incident", func(s *stage) {
			s.room.ask = at("2.2", "witness1", func() (string, *Call) { return "", &Call{"witness1", "bag 7 is open"} })
		}, fault.Void, "incident called by witness1: bag 7 is open"},
		{"an incident by a stranger, unsigned", func(s *stage) {
			s.room.ask = at("2.2", "witness1", func() (string, *Call) { return "", &Call{"nobody", "I object"} })
		}, fault.Void, "incident called by nobody, unsigned"},
		{"an incident in bytes that are no text, and far too many", func(s *stage) {
			s.room.ask = at("2.2", "witness1", func() (string, *Call) {
				return "", &Call{"witness1", "\xff\xfe" + strings.Repeat("long ", 40_000)}
			})
		}, fault.Void, "incident called by witness1"},
		{"Ctrl-C confirmed", func(s *stage) {
			s.acts.do = doing("token.init", func(context.Context, *Run) error { s.signals <- syscall.SIGINT; return nil })
			s.room.ask = func(_ context.Context, p Prompt) (string, *Call, error) {
				if p.Who == "operator" {
					return "VOID", nil, nil
				}
				return "", nil, nil
			}
		}, fault.Interrupted, "interrupted"},
		{"Ctrl-C and nobody to ask", func(s *stage) {
			s.acts.do = doing("token.init", func(context.Context, *Run) error { s.signals <- syscall.SIGINT; return nil })
			s.room.ask = func(_ context.Context, p Prompt) (string, *Call, error) {
				if p.Who == "operator" {
					return "", nil, errors.New("no terminal")
				}
				return "", nil, nil
			}
		}, fault.Interrupted, "interrupted"},
		{"the terminal is closed", func(s *stage) {
			s.acts.do = doing("pause", func(context.Context, *Run) error { s.signals <- syscall.SIGHUP; return nil })
		}, fault.Interrupted, "hangup"},
		{"an output that is there already", func(s *stage) {
			s.acts.do = doing("outputs.write", func(_ context.Context, r *Run) error {
				return errors.Join(r.Output("outputs/x", []byte("1")), r.Output("outputs/x", []byte("2")))
			})
		}, fault.Exists, "already exists"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t)
			tt.edit(s)
			err := s.run(t)
			checkVoid(t, s, err, tt.cause, tt.text)
		})
	}
}

// Before ARMED nothing counts.
func TestBeforeArmedNothingIsVoid(t *testing.T) {
	tests := []struct {
		name  string
		edit  func(s *stage)
		class fault.Class
	}{
		{"Ctrl-C", func(s *stage) {
			s.acts.do = doing("people.identify", func(context.Context, *Run) error { s.signals <- syscall.SIGINT; return nil })
		}, fault.Interrupted},
		{"a verb fails", func(s *stage) {
			s.acts.do = doing("people.identify", func(context.Context, *Run) error { return fault.New(fault.Policy, "no") })
		}, fault.Policy},
		{"an incident is called", func(s *stage) {
			s.room.ask = at("1.1", "conductor", func() (string, *Call) { return "", &Call{"witness1", "too early"} })
		}, fault.Void},
		{"the clock is set", func(s *stage) {
			s.acts.do = doing("people.identify", func(context.Context, *Run) error { s.clock.jump(time.Hour); return nil })
		}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t)
			tt.edit(s)
			err := s.run(t)
			if fault.ClassOf(err) != tt.class {
				t.Errorf("got %v (class %s)", err, fault.ClassOf(err))
			}
			if s.acts.cleaned != 0 || s.acts.closed != 1 {
				t.Errorf("cleaned %d times, closed %d times", s.acts.cleaned, s.acts.closed)
			}
			if st, err := ReadState(s.cfg.Dir); err != nil || tt.class != "" && st.State != "SUMMONED" {
				t.Errorf("%+v, %v", st, err)
			}
		})
	}
}

// A step that takes too long is an incident, whether a person or a verb is slow.
func TestTimeLimit(t *testing.T) {
	for _, slow := range []string{"person", "verb"} {
		t.Run(slow, func(t *testing.T) {
			s := newStage(t)
			wait := func(ctx context.Context) error {
				s.clock.advance(61 * time.Second)
				<-ctx.Done()
				return ctx.Err()
			}
			if slow == "person" {
				s.room.ask = func(ctx context.Context, p Prompt) (string, *Call, error) {
					if p.Step == "2.2" && p.Who == "witness1" {
						return "", nil, wait(ctx)
					}
					return "", nil, nil
				}
			} else {
				s.acts.do = doing("pause", func(ctx context.Context, _ *Run) error { return wait(ctx) })
			}
			checkVoid(t, s, s.run(t), fault.Unreachable, "step 2.2 (Second act): the time limit passed")
		})
	}
}

// A full disk after ARMED voids; the room for the end was reserved before.
func TestFullDisk(t *testing.T) {
	dir := tinyDisk(t)
	s := newStage(t)
	s.cfg.Dir = filepath.Join(dir, "record")
	s.acts.do = func(_ context.Context, r *Run, st *script.Step) error {
		if st.Do != "token.init" {
			return nil
		}
		fill(t, filepath.Join(dir, "ballast"))
		return r.Output("outputs/charter.jsonl", make([]byte, 64<<10))
	}
	err := s.run(t)
	checkVoid(t, s, err, fault.Storage, "no space left")

	// No room at all: nothing is armed, class storage.
	s = newStage(t)
	s.cfg.Dir = filepath.Join(dir, "second")
	err = s.run(t)
	if fault.ClassOf(err) != fault.Storage || s.acts.cleaned != 0 {
		t.Errorf("on a full disk: %v (class %s)", err, fault.ClassOf(err))
	}
}

// tinyDisk mounts 8 MiB. Without the right to mount it is an error, not a skip:
// the test machine has it.
func tinyDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Fatalf("mount a small disk, which needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 16, 4096} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
}

// A second process on a record that is being made is turned away.
func TestOneProcessPerRecord(t *testing.T) {
	s := newStage(t)
	other := newStage(t)
	other.cfg.Dir = s.cfg.Dir
	s.acts.do = doing("token.init", func(context.Context, *Run) error {
		if err := other.run(t); fault.ClassOf(err) != fault.Sealed {
			t.Errorf("second run: %v", err)
		}
		if err := Recover(context.Background(), s.cfg.Dir, s.clock, nil, true); fault.ClassOf(err) != fault.Sealed {
			t.Errorf("recover: %v", err)
		}
		return nil
	})
	if err := s.run(t); err != nil {
		t.Error(err)
	}
	if err := other.run(t); fault.ClassOf(err) != fault.Exists {
		t.Errorf("a run into a closed record: %v", err)
	}
}
