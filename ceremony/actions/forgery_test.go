package actions

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
)

// forgery is a closed record that its own people forge, with all their keys.
type forgery struct {
	house     *house
	dir       string // of the record
	anchors   *anchor.Anchors
	cosigners []string
}

// refused edits a copy of the record's entries, has it signed again, and wants it
// refused with that text. A copy that is whole was not edited and must hold, or the
// forger's tools would be what is refused.
func (f forgery) refused(t *testing.T, edit func([]entry) []entry, text string, whole bool) {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(f.dir)); err != nil {
		t.Fatal(err)
	}
	f.house.forgeAs(t, to, edit(entries(t, to)), f.cosigners...)
	_, err := record.Verify(os.DirFS(to), f.anchors)
	if whole {
		if err != nil {
			t.Fatalf("the forger's own tools break it: %v", err)
		}
		return
	}
	if fault.ClassOf(err) != fault.Verify || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v (%s), want %q", err, fault.ClassOf(err), text)
	}
}
