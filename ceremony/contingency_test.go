package ceremony

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/record"
	"keyrite/ceremony/script"
)

const plannedScript = `format: keyrite/script/v1
kind: genesis
title: Planned
purpose: test contingencies
contingencies:
  - id: printer
    on: printer
    then: again
    steps:
      - {id: A.1, do: break, title: Fetch the other printer, limit: 1m, confirm: [witness]}
  - id: nobody
    on: late
    then: next
    steps: []
summon:
  - {id: "1.1", do: people.identify, title: Who is here, limit: 1m}
run:
  - {id: "2.1", do: paper.print, title: Print, limit: 1m, tries: 2, planned: [printer, nobody]}
  - {id: "2.2", do: paper.print, title: Print again, limit: 1m}
seal:
  - {id: "3.1", do: outputs.write, title: Seal, limit: 1m}
`

// plannedStage has a printer that fails the first times, in the step given.
func plannedStage(t *testing.T, step, cause string, times int) *stage {
	t.Helper()
	s := newStage(t)
	parsed, err := script.Parse("planned.yaml", []byte(plannedScript))
	if err != nil {
		t.Fatal(err)
	}
	s.cfg.Script, s.cfg.ScriptBytes = parsed, []byte(plannedScript)
	s.acts.do = func(_ context.Context, r *Run, st *script.Step) error {
		if st.Do == "break" {
			names := []string{"conductor", "master1", "witness1", "witness2"}
			if err := r.Record(&record.Present{Names: names, When: "before"}); err != nil {
				return err
			}
			return r.Record(&record.Present{Names: names, When: "after"})
		}
		if st.ID != step || times == 0 {
			return nil
		}
		times--
		return &Contingency{cause, fault.New(fault.Storage, "out of paper")}
	}
	return s
}

// A cause that the step plans for goes on: the contingency's steps, then the step
// again, as often as its tries, or the next one. The record tells it, and the
// verifier follows.
func TestContingencies(t *testing.T) {
	for _, tt := range []struct {
		name, step, cause string
		times             int
		void              string // "" if it closes
		steps             string // begun, from 2.1 on
	}{
		{"again, once", "2.1", CausePrinter, 1, "", "2.1 A.1 2.1 2.2 3.1"},
		{"again, as often as tries", "2.1", CausePrinter, 2, "", "2.1 A.1 2.1 A.1 2.1 2.2 3.1"},
		{"again, too often", "2.1", CausePrinter, 3, "out of paper", "2.1 A.1 2.1 A.1 2.1"},
		{"next", "2.1", CauseLate, 1, "", "2.1 2.2 3.1"},
		{"planned elsewhere", "2.2", CausePrinter, 1, "out of paper", "2.1 2.2"},
		{"not planned for", "2.1", CauseMedium, 1, "out of paper", "2.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := plannedStage(t, tt.step, tt.cause, tt.times)
			err := s.run(t)
			if tt.void != "" {
				checkVoid(t, s, err, fault.Storage, tt.void)
			} else if err != nil {
				t.Fatal(err)
			}
			var begun []string
			for _, e := range readEntries(t, s.cfg.Dir) {
				if e.Type == "begin" && e.Step != "1.1" {
					begun = append(begun, e.Step)
				}
			}
			if got := strings.Join(begun, " "); got != tt.steps {
				t.Errorf("steps %s", got)
			}
			if _, err := record.Read(os.DirFS(s.cfg.Dir)); fault.ClassOf(err) != fault.Void {
				t.Errorf("the record reads as %v", err)
			}
		})
	}
}

// An incident in a contingency's own step is an incident.
func TestIncidentInAContingency(t *testing.T) {
	s := plannedStage(t, "2.1", CausePrinter, 1)
	s.room.ask = at("A.1", "witness1", func() (string, *Call) { return "", &Call{"witness1", "who is that"} })
	checkVoid(t, s, s.run(t), fault.Void, "incident called by witness1: who is that")
	if st, err := ReadState(s.cfg.Dir); err != nil || st.Met != "printer" || st.Step != "A.1" || st.StepDo != "break" {
		t.Errorf("%+v, %v", st, err)
	}
}

func readEntries(t *testing.T, dir string) []record.Entry {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, record.TranscriptFile))
	if err != nil {
		t.Fatal(err)
	}
	var out []record.Entry
	for line := range bytes.Lines(data) {
		var e record.Entry
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// rechain writes list as a whole transcript, unsigned: what an owner could forge.
func rechain(t *testing.T, dir string, list []record.Entry) {
	t.Helper()
	var text []byte
	prev := strings.Repeat("0", 64)
	for i, e := range list {
		e.Seq, e.Prev = int64(i), prev
		line, err := jcs.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(line)
		prev = hex.EncodeToString(sum[:])
		text = append(append(text, line...), '\n')
	}
	if err := os.WriteFile(filepath.Join(dir, record.TranscriptFile), text, 0o600); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(dir, record.CheckpointFile))
}

// What the verifier refuses of contingencies, whoever signs it.
func TestForgedContingencies(t *testing.T) {
	is := func(typ, step string) func(record.Entry) bool {
		return func(e record.Entry) bool { return e.Type == typ && e.Step == step }
	}
	edit := func(is func(record.Entry) bool, f func(e *record.Entry)) func([]record.Entry) []record.Entry {
		return func(list []record.Entry) []record.Entry {
			for i := range list {
				if is(list[i]) {
					f(&list[i])
					return list
				}
			}
			panic("no such entry")
		}
	}
	drop := func(is func(record.Entry) bool) func([]record.Entry) []record.Entry {
		return func(list []record.Entry) []record.Entry {
			var out []record.Entry
			for _, e := range list {
				if !is(e) {
					out = append(out, e)
				}
			}
			return out
		}
	}
	data := func(old, with string) func(e *record.Entry) {
		return func(e *record.Entry) { e.Data = bytes.Replace(e.Data, []byte(old), []byte(with), 1) }
	}
	for _, tt := range []struct {
		name string
		edit func([]record.Entry) []record.Entry
		want string
	}{
		{"none at all", func(l []record.Entry) []record.Entry { return l }, ""},
		{"for another cause", edit(is("contingency", "2.1"), data(`"on":"printer"`, `"on":"words"`)), "it is not for words"},
		{"one that the step does not plan", edit(is("contingency", "2.1"), data(`"id":"printer"`, `"id":"fire"`)), "does not plan it in this step"},
		{"of another step", edit(is("contingency", "2.1"), data(`"step":"2.1"`, `"step":"2.2"`)), "outside the step that met it"},
		{"its steps left out", drop(func(e record.Entry) bool { return e.Step == "A.1" }), "step \"2.1\" is not the next step"},
		{"its step not confirmed", drop(func(e record.Entry) bool {
			return e.Step == "A.1" && e.Type == "confirm" && bytes.Contains(e.Data, []byte("witness2"))
		}), "went on without witness2"},
		{"the step ends after it", func(l []record.Entry) []record.Entry {
			for i, e := range l {
				if e.Type == "contingency" {
					done := record.Entry{Data: json.RawMessage(`{"do":"paper.print"}`), Mono: e.Mono, Step: "2.1", Time: e.Time, Type: "done"}
					return append(l[:i+1:i+1], append([]record.Entry{done}, l[i+1:]...)...)
				}
			}
			return l
		}, "ends without having begun"},
		{"a break without a roll", drop(is("present", "A.1")), "a break without a roll"},
		{"somebody less after the break", edit(func(e record.Entry) bool {
			return e.Type == "present" && bytes.Contains(e.Data, []byte(`"after"`))
		}, data(`,"witness2"`, ``)), "not the same people"},
		{"a roll outside a break", edit(is("present", "A.1"), func(e *record.Entry) { e.Step = "2.1" }), "outside the step that makes it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := plannedStage(t, "2.1", CausePrinter, 1)
			if err := s.run(t); err != nil {
				t.Fatal(err)
			}
			rechain(t, s.cfg.Dir, tt.edit(readEntries(t, s.cfg.Dir)))
			_, err := record.Read(os.DirFS(s.cfg.Dir))
			if tt.want == "" {
				if fault.ClassOf(err) != fault.Void {
					t.Error(err)
				}
				return
			}
			if fault.ClassOf(err) != fault.Verify || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}
