package actions

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"keyrite/artifact/fault"
	"keyrite/ceremony/console"
)

// Binding and answers are refused as usage, or read.
func FuzzBindAndAnswers(f *testing.F) {
	f.Add([]byte("format: keyrite/bind/v1\nworld: rehearsal:abcdefgh\nmodule: /m.so\npeople: [{person: a, key: b, role: c}]\n"))
	f.Add([]byte("format: keyrite/answers/v1\nyes: [all]\nincident: {step: \"5.3\", by: a, reason: b}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(p, data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadBind(p)
		_, errAnswers := console.LoadAnswers(p, console.NewLine(io.Discard, nil))
		if err == nil && errAnswers == nil {
			t.Error("one file is both")
		}
		for _, err := range []error{err, errAnswers} {
			if err != nil && fault.ClassOf(err) != fault.Usage {
				t.Errorf("class %s: %v", fault.ClassOf(err), err)
			}
		}
	})
}
