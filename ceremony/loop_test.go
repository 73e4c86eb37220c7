package ceremony

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony/script"
)

// Whatever stops a ceremony stops a verb at once, not after it: a signal, an
// incident, a clock, a medium (R-CER-14).
func TestAVerbIsStoppedAtOnce(t *testing.T) {
	tests := []struct {
		name  string
		event func(s *stage)
		cause fault.Class
		text  string
	}{
		{"Ctrl-C confirmed", func(s *stage) { s.signals <- syscall.SIGINT }, fault.Interrupted, "step 2.2 (Second act): interrupted (signal: interrupt)"},
		{"the terminal is closed", func(s *stage) { s.signals <- syscall.SIGHUP }, fault.Interrupted, "hangup"},
		{"an incident is called", func(s *stage) { s.calls <- Call{"witness2", "smoke"} }, fault.Void, "incident called by witness2: smoke"},
		{"an incident by somebody who is not here", func(s *stage) { s.calls <- Call{"stranger", "hello"} }, fault.Void, "called by stranger, unsigned"},
		{"the clock jumps", func(s *stage) { s.clock.jump(-time.Hour); s.clock.advance(time.Second) }, fault.Unexpected, "the clock jumped by -1h0m0s"},
		{"a disk appears", func(s *stage) { s.disks.Store("disk sdx"); s.clock.advance(time.Second) }, fault.Policy, "the script does not list: disk sdx"},
		{"disks cannot be listed any more", func(s *stage) { s.disks.Store("error"); s.clock.advance(time.Second) }, fault.Storage, "no /sys"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t)
			s.room.ask = func(_ context.Context, p Prompt) (string, *Call, error) {
				if p.Who == "operator" {
					return "VOID", nil, nil
				}
				return "", nil, nil
			}
			var late error
			s.acts.do = doing("pause", func(ctx context.Context, r *Run) error {
				tt.event(s)
				<-ctx.Done()
				late = r.Record(&record.Words{What: "too late"})
				return nil // whatever it says now
			})
			checkVoid(t, s, s.run(t), tt.cause, tt.text)
			if late == nil {
				t.Error("the verb recorded something after it was stopped")
			}
		})
	}
}

// Ctrl-C in the middle of a verb, answered with anything but VOID, goes on; the
// verb does not wait for the answer, the step after it does.
func TestInterruptDeclinedDuringAVerb(t *testing.T) {
	s := newStage(t)
	var asked atomic.Int32
	verbDone := make(chan struct{})
	s.room.ask = func(_ context.Context, p Prompt) (string, *Call, error) {
		if p.Who == "operator" {
			<-verbDone
			asked.Add(1)
			return "no", nil, nil
		}
		if p.Step == "2.2" && p.Who == "witness1" && asked.Load() == 0 {
			t.Error("somebody was asked before the question about VOID was answered")
		}
		return "", nil, nil
	}
	s.acts.do = doing("pause", func(context.Context, *Run) error {
		s.signals <- syscall.SIGINT
		s.signals <- syscall.SIGINT // twice asks once
		for len(s.signals) > 0 {
			<-time.After(time.Millisecond)
		}
		close(verbDone)
		return nil
	})
	if err := s.run(t); err != nil {
		t.Fatal(err)
	}
	if asked.Load() != 1 || !strings.Contains(strings.Join(s.room.said, "\n"), "going on") {
		t.Errorf("asked %d times, said %q", asked.Load(), s.room.said)
	}
}

// A verb that does not come back leaves the clean-up to a fresh process: INVALID
// is on disk, nothing was touched, and recover takes it to VOID.
func TestHungVerb(t *testing.T) {
	s := newStage(t)
	release := make(chan struct{})
	defer close(release)
	s.acts.do = doing("pause", func(ctx context.Context, _ *Run) error {
		s.clock.advance(61 * time.Second) // the step's limit
		<-ctx.Done()
		s.clock.advance(grace)
		<-release
		return nil
	})
	err := s.run(t)
	if fault.ClassOf(err) != fault.Void || !strings.Contains(err.Error(), "a verb hangs") || !strings.Contains(fault.HintOf(err), "ceremony recover") {
		t.Errorf("got %v, hint %q", err, fault.HintOf(err))
	}
	if st, err := ReadState(s.cfg.Dir); err != nil || st.State != "INVALID" || st.Ended || s.acts.cleaned != 0 {
		t.Errorf("%+v, %v, cleaned %d times", st, err, s.acts.cleaned)
	}
	if err := Recover(context.Background(), s.cfg.Dir, s.clock, nil, true); fault.ClassOf(err) != fault.Void {
		t.Error(err)
	}
	if st, err := ReadState(s.cfg.Dir); err != nil || st.State != "VOID" || !st.Ended {
		t.Errorf("%+v, %v", st, err)
	}
}

const mediaScript = `format: keyrite/script/v1
kind: genesis
title: Media
purpose: test media
summon:
  - {id: "1.1", do: people.identify, title: Who is here, limit: 1m}
run:
  - {id: "2.1", do: medium.in, title: In, limit: 1m}
  - {id: "2.2", do: pause, title: Work, limit: 1m}
  - {id: "2.3", do: medium.out, title: Out, limit: 1m}
  - {id: "2.4", do: pause, title: More work, limit: 1m}
seal:
  - {id: "3.1", do: outputs.write, title: Seal, limit: 1m}
`

// A medium comes and goes in its steps only, one at a time.
func TestMediaComeAndGoInTheirSteps(t *testing.T) {
	for _, tt := range []struct {
		name  string
		disks map[string]string // what is there from that step on
		text  string            // "" if it closes
	}{
		{"in and out", map[string]string{"2.1": "disk sdx,mount /dev/sdx1 /media", "2.3": ""}, ""},
		{"one before ARMED", map[string]string{"1.1": "disk sdx"}, "early"}, // refused, and nothing is void
		{"two at a time", map[string]string{"2.1": "disk sdx,disk sdy"}, "more than one medium went in: disk sdx, disk sdy"},
		{"one while working", map[string]string{"2.1": "disk sdx", "2.2": "disk sdx,disk sdy"}, "does not list: disk sdy"},
		{"a mount while working", map[string]string{"2.2": "mount /dev/sda7 /mnt"}, "does not list: mount /dev/sda7 /mnt"},
		{"the same again after it went", map[string]string{"2.1": "disk sdx", "2.3": "", "2.4": "disk sdx"}, "does not list: disk sdx"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t)
			parsed, err := script.Parse("media.yaml", []byte(mediaScript))
			if err != nil {
				t.Fatal(err)
			}
			s.cfg.Script, s.cfg.ScriptBytes = parsed, []byte(mediaScript)
			in := false
			s.acts.do = func(_ context.Context, r *Run, st *script.Step) error {
				if d, ok := tt.disks[st.ID]; ok {
					s.disks.Store(d)
				}
				if dir, ok := strings.CutPrefix(st.Do, "medium."); ok {
					in = !in
					return r.Record(&record.Medium{Direction: dir, Name: "stick"})
				}
				return nil
			}
			err = s.run(t)
			switch tt.text {
			case "":
				if err != nil {
					t.Error(err)
				}
			case "early":
				if st, stErr := ReadState(s.cfg.Dir); fault.ClassOf(err) != fault.Policy || stErr != nil || st.State != "SUMMONED" {
					t.Errorf("%v, %v", err, stErr)
				}
			default:
				checkVoid(t, s, err, fault.Policy, tt.text)
			}
		})
	}
}

// The same script, people, answers, clock and random bytes give the same bytes.
func TestDeterministic(t *testing.T) {
	people := cast(t)
	var first []byte
	for i := range 3 {
		s := newStage(t)
		s.cfg.People = people
		s.cfg.Random = bytes.NewReader(bytes.Repeat([]byte("0123456789abcdef"), 64))
		s.room.ask = at("2.1", "witness1", func() (string, *Call) { return "", nil })
		if err := s.run(t); err != nil {
			t.Fatal(err)
		}
		var all []byte
		for _, name := range []string{record.TranscriptFile, record.CheckpointFile} {
			data, err := os.ReadFile(filepath.Join(s.cfg.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, data...)
		}
		if i == 0 {
			first = all
		} else if !bytes.Equal(first, all) {
			t.Fatalf("run %d gave another record", i)
		}
	}
	s := newStage(t)
	s.cfg.Random = errReader{}
	if err := s.run(t); fault.ClassOf(err) != fault.Unexpected {
		t.Errorf("without random bytes: %v", err)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("empty") }
