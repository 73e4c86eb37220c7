package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/durable"
)

// A vault that serves holds the charter for moments: a statement is appended after
// them, and who gives up or waits in vain is told that the file is in use.
func TestAppendWaitsForAVault(t *testing.T) {
	path := filepath.Join(t.TempDir(), "charter.jsonl")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	free, err := durable.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	tries := 0
	want := &charter.State{}
	take := func() (*charter.State, error) {
		if tries++; tries == 3 {
			free()
		}
		mine, err := durable.Lock(path)
		if err != nil {
			return nil, err
		}
		mine()
		return want, nil
	}
	if st, err := whenFree(t.Context(), take); err != nil || st != want || tries != 3 {
		t.Errorf("after %d tries: %v", tries, err)
	}
	free, err = durable.Lock(path)
	if err != nil {
		t.Fatal(err)
	}
	defer free()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tries = 3
	if _, err := whenFree(ctx, take); !errors.Is(err, durable.ErrInUse) || fault.ClassOf(err) != fault.Interrupted || tries != 4 {
		t.Errorf("given up after %d tries: %v", tries-3, err)
	}
}
