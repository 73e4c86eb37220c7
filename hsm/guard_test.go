package hsm_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// openSC is a module that is not SoftHSM and needs nothing: Debian's opensc-pkcs11.
const openSC = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"

// call gives the number of a function of PKCS#11.
func call(t *testing.T, name string) int {
	t.Helper()
	i := slices.Index(hsmtest.Functions(), name)
	if i < 0 {
		t.Fatalf("%s is no function of PKCS#11", name)
	}
	return i
}

// TestGuardKnowsSoftHSMByWhatItIs copies the token file aside whatever the file of
// the module is called, and whoever told it where its tokens are.
func TestGuardKnowsSoftHSMByWhatItIs(t *testing.T) {
	real, err := os.ReadFile(hsmtest.Module(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		module func(e *hsmtest.Env) (path string, env []string)
	}{
		{"another file name", func(e *hsmtest.Env) (string, []string) {
			p := filepath.Join(e.Dir, "libtoken.so")
			if err := os.WriteFile(p, real, 0o700); err != nil {
				t.Fatal(err)
			}
			return p, e.Config.Env
		}},
		{"a module in between", func(e *hsmtest.Env) (string, []string) { return e.Faults(t).Module, e.Config.Env }},
		{"a module in between that names the store", func(e *hsmtest.Env) (string, []string) { return e.Faults(t).Module, []string{} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFileToken(t)
			f.Config.Module, f.Config.Env = tc.module(f.Env)
			sup := f.Start(t)
			// A copy beside a whole file is destroyed by a start that guards.
			cp := filepath.Join(f.TokenDir, ".keyrite-"+filepath.Base(filepath.Dir(f.file(t)))+".copy")
			whole, err := os.ReadFile(f.file(t))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.WriteFile(cp, whole, 0o600), os.Truncate(f.file(t), 0)); err != nil {
				t.Fatal(err)
			}
			f.Take(t, sup, f.id, hsm.Current, newSO, newUser)
			s, err := sup.Open(t.Context(), f.id)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(cp); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the copy: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestGuardOfAModuleInBetween kills the process right after C_Login: the copy of
// that login is there, and the next login puts things in order.
func TestGuardOfAModuleInBetween(t *testing.T) {
	f := newFileToken(t)
	faults := f.Faults(t)
	f.Config.Module = faults.Module
	sup := f.Start(t)
	f.Take(t, sup, f.id, hsm.Current, newSO, newUser)
	faults.Reset(call(t, "C_Login"), 1, hsmtest.Die)
	if _, err := sup.Open(t.Context(), f.id); !errors.Is(err, hsm.ErrLost) {
		t.Fatalf("killed in its login: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(f.TokenDir, ".keyrite-*.copy")); len(left) != 1 {
		t.Errorf("copies beside the token: %v", left)
	}
	f.opens(t, "after it")
}

// TestSoftHSMWithoutItsStoreIsRefused: a SoftHSM whose token files cannot be
// guarded is not used; another module does not care.
func TestSoftHSMWithoutItsStoreIsRefused(t *testing.T) {
	e := hsmtest.NewStore(t)
	gone := filepath.Join(e.Dir, "gone.conf")
	if err := os.WriteFile(gone, []byte("directories.tokendir = /nonexistent\nobjectstore.backend = file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, conf := range []string{gone, filepath.Join(e.Dir, "nothing")} {
		e.Config.Module, e.Config.Env = hsmtest.Module(t), []string{"SOFTHSM2_CONF=" + conf}
		if _, _, err := e.Start(t).Tokens(t.Context()); err == nil {
			t.Errorf("%s: SoftHSM was used", conf)
		}
		e.Config.Module = openSC
		if _, _, err := e.Start(t).Tokens(t.Context()); err != nil {
			t.Errorf("%s: another module: %v", conf, err)
		}
	}
}
