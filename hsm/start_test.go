package hsm

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestEnvironment lets only the variables of modules through.
func TestEnvironment(t *testing.T) {
	got := environment([]string{
		"SOFTHSM2_CONF=/x", "TPM2_PKCS11_STORE=/y", "LD_PRELOAD=/evil.so", "PATH=/evil", "SOFTHSM2_CONFIG=/z",
		"HOME=/root", "KEYRITE_PIN=1234", "GODEBUG=x", "OCK_CONF=/o", "TPM2=1",
	})
	want := []string{"PATH=/usr/bin:/bin", "GOTRACEBACK=none", "SOFTHSM2_CONF=/x", "TPM2_PKCS11_STORE=/y", "OCK_CONF=/o"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// TestStartRefuses names what is wrong before or while the process starts.
func TestStartRefuses(t *testing.T) {
	mute := filepath.Join(t.TempDir(), "keyrite-hsmd")
	if err := os.WriteFile(mute, []byte("#!/bin/sh\nexit 0\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		cfg   Config
		class string
	}{
		{"relative module", Config{Module: "x.so", HSMD: mute}, "usage"},
		{"no program", Config{Module: "/x.so", HSMD: "/nonexistent"}, "usage"},
		{"not beside this program", Config{Module: "/x.so"}, "usage"},
		{"another program", Config{Module: "/x.so", HSMD: mute}, "token"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Start(t.Context(), tc.cfg)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.FaultClass() != tc.class {
				t.Errorf("got %v, want class %s", err, tc.class)
			}
		})
	}
}

func TestErrorForm(t *testing.T) {
	cause := errors.New("cause")
	err := error(&Error{Op: "sign", Token: "work", Label: "firmware", Class: "token", Text: "no", kind: ErrLost, cause: cause})
	if !errors.Is(err, ErrLost) || !errors.Is(err, cause) || errors.Is(err, ErrPIN) {
		t.Error("wrong chain")
	}
	if got, want := err.Error(), `sign firmware in token "work": no`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if CompareAttributes([]Attribute{{Name: "CKA_SIGN", Value: "true"}}, nil) == nil {
		t.Error("a missing attribute compares equal")
	}
}
