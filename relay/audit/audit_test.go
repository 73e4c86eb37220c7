package audit

import (
	"database/sql"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/world"
	"keyrite/relay/store"
)

const testWorld = world.World("rehearsal:0123456789ab")

func newTrail(t *testing.T) (*Trail, string) {
	t.Helper()
	dir := t.TempDir()
	if err := store.Create(t.Context(), dir, testWorld, strings.Repeat("0", 64)); err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return &Trail{DB: db, World: testWorld, Now: time.Now}, dir
}

func TestEffectAndEntryAreOne(t *testing.T) {
	tr, _ := newTrail(t)
	boom := errors.New("boom")
	err := tr.DB.Do(t.Context(), func(tx *store.Tx) error {
		if err := tr.Add(tx, Entry{Action: "a"}); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if h, err := tr.Verify(t.Context()); err != nil || h.Size != 0 {
		t.Errorf("an entry without its effect stayed: %+v, %v", h, err)
	}
}

func TestExportIsByAccountAndBounded(t *testing.T) {
	tr, _ := newTrail(t)
	for range page + 5 {
		if err := tr.DB.Do(t.Context(), func(tx *store.Tx) error {
			if err := tr.Add(tx, Entry{Account: "acme", Action: "x", Actor: strings.Repeat("n", 1000)}); err != nil {
				return err
			}
			return tr.Add(tx, Entry{Account: "globex", Action: "x"})
		}); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	err := tr.Export(t.Context(), "acme", func(line []byte) error {
		n++
		if len(line) > 600 || strings.Contains(string(line), "globex") {
			t.Errorf("%d bytes: %s", len(line), line)
		}
		return nil
	})
	if err != nil || n != page+5 {
		t.Errorf("%d lines, %v", n, err)
	}
}

// Whoever edits the database behind the program's back is found out, if not by
// the triggers then by the tree.
func TestVerifyFindsChanges(t *testing.T) {
	for name, c := range map[string]struct{ edit string }{
		"line":    {"UPDATE audit SET line = CAST(replace(CAST(line AS TEXT), 'second', 'SECOND') AS BLOB) WHERE seq = 1"},
		"hash":    {"UPDATE audit_hash SET hash = zeroblob(32) WHERE idx = 1"},
		"removed": {"DELETE FROM audit WHERE seq = 1"},
	} {
		tr, dir := newTrail(t)
		for _, a := range []string{"first", "second", "third"} {
			if err := tr.Note(t.Context(), Entry{Action: a, Result: Done}); err != nil {
				t.Fatal(err)
			}
		}
		raw, err := sql.Open("sqlite", filepath.Join(dir, store.File))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := raw.ExecContext(t.Context(), c.edit); err == nil {
			t.Errorf("%s: the trigger let it through", name)
		}
		for _, trigger := range []string{"audit_keep", "audit_fix", "hash_keep", "hash_fix"} {
			if _, err := raw.ExecContext(t.Context(), "DROP TRIGGER "+trigger); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := raw.ExecContext(t.Context(), c.edit); err != nil {
			t.Fatal(name, err)
		}
		_ = raw.Close()
		if _, err := tr.Verify(t.Context()); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
}
