package actions

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"keyrite/artifact/person"
	"keyrite/hsm/hsmtest"
)

// templates is a folder that lives as long as the test program. It is in memory where
// that can be had: a ceremony syncs a thousand writes.
var templates string

// atEnd is done when all tests are.
var atEnd struct {
	sync.Mutex
	todo []func()
}

func run(m *testing.M) int {
	if os.Getenv(steppedEnv) != "" { // to be killed: it would leave the folder behind
		return m.Run()
	}
	base := "/dev/shm"
	if st, err := os.Stat(base); err != nil || !st.IsDir() {
		base = ""
	}
	var err error
	if templates, err = os.MkdirTemp(base, "keyrite-actions-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(templates)
	code := m.Run()
	for _, f := range slices.Backward(atEnd.todo) {
		f()
	}
	return code
}

// folder is t.TempDir beside the templates.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(templates, "test-") //nolint:usetesting // t.TempDir is on a disk
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// lasting has what is made for a test stay until all tests are done.
type lasting struct{ testing.TB }

func (lasting) Cleanup(f func()) {
	atEnd.Lock()
	defer atEnd.Unlock()
	atEnd.todo = append(atEnd.todo, f)
}

// vaults are houses whose vault was founded once for all tests, by name: a genesis
// takes seconds. Each test works on a copy of people, record and tokens.
var vaults struct {
	sync.Mutex
	by map[string]*keptVault
}

type keptVault struct {
	dir, tokens string // copies of house and token store
	people      map[string]*person.Key
}

// vaultOf is a copy of the house that found makes when the first test asks for it.
func vaultOf(t testing.TB, name string, found func() *house) *house {
	t.Helper()
	vaults.Lock()
	defer vaults.Unlock()
	v := vaults.by[name]
	if v == nil {
		h := found()
		v = &keptVault{filepath.Join(templates, name, "house"), filepath.Join(templates, name, "tokens"), maps.Clone(h.people)}
		copyTree(t, v.dir, h.dir)
		copyTree(t, v.tokens, h.env.TokenDir)
		if vaults.by == nil {
			vaults.by = map[string]*keptVault{}
		}
		vaults.by[name] = v
	}
	return copied(t, v.dir, v.tokens, v.people)
}

// copied is a house of its own, with the files and tokens of another.
func copied(t testing.TB, dir, tokens string, people map[string]*person.Key) *house {
	t.Helper()
	h := &house{dir: folder(t), env: hsmtest.NewStore(t), people: maps.Clone(people)}
	copyTree(t, h.dir, dir)
	copyTree(t, h.env.TokenDir, tokens)
	return h
}

// copyTree has the folder to hold what from holds, and nothing else.
func copyTree(t testing.TB, to, from string) {
	t.Helper()
	err := os.RemoveAll(to)
	if err == nil {
		err = os.CopyFS(to, os.DirFS(from))
	}
	if err != nil {
		t.Fatal(err)
	}
}
