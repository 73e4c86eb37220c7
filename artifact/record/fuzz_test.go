package record

import (
	"testing"
	"testing/fstest"
	"time"

	"keyrite/artifact/fault"
)

// A transcript from outside is refused with a class, or read; never a panic.
func FuzzTranscript(f *testing.F) {
	tr := NewTranscript()
	var text []byte
	for _, d := range []Data{
		&Open{Attempt: "0123456789abcdef", Environment: map[string]string{}, Format: Format, Kind: "genesis", Mode: "rehearsal", Programs: []Program{}, Record: "0123456789abcdef", World: "rehearsal:abcdefgh"},
		&State{State: "LINTED"}, &State{State: "SUMMONED"}, &Begin{Do: "pause", Title: "x"}, &Confirm{Answer: "yes", Who: "conductor"}, &Done{Do: "pause"},
		&State{State: "ARMED"}, &Incident{By: "engine", Class: "void"}, &State{State: "INVALID"}, &State{State: "CLEANUP"}, &State{State: "VOID"}, &End{State: "VOID"},
	} {
		line, err := tr.Next("1.1", d, time.Unix(1_800_000_000, 0), 0)
		if err == nil {
			_, _, err = tr.Take(line)
		}
		if err != nil {
			f.Fatal(err)
		}
		text = append(append(text, line...), '\n')
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, data []byte) {
		fsys := fstest.MapFS{TranscriptFile: {Data: data}, ScriptFile: {Data: []byte("summon: []\n")}}
		_, err := Read(fsys)
		if c := fault.ClassOf(err); c != fault.Verify && c != fault.Void && c != fault.Policy {
			t.Errorf("class %s: %v", c, err)
		}
	})
}
