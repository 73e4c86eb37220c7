package durable

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A folder appears whole or not at all, and never over something.
func TestCreateDir(t *testing.T) {
	base := t.TempDir()
	write := func(dir string) error { return WriteNew(filepath.Join(dir, "a"), []byte("x"), 0o644) }
	if err := CreateDir(filepath.Join(base, "good")+"/", write); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(base, "good/a")); err != nil || string(got) != "x" {
		t.Errorf("got %q, %v", got, err)
	}
	var exists *Error
	if err := CreateDir(filepath.Join(base, "good"), write); !errors.As(err, &exists) || exists.FaultClass() != "exists" {
		t.Errorf("over a folder: %v", err)
	}
	// One that appears meanwhile stays as it is.
	err := CreateDir(filepath.Join(base, "race"), func(dir string) error {
		return errors.Join(write(dir), os.Mkdir(filepath.Join(base, "race"), 0o700))
	})
	if !errors.As(err, &exists) || exists.FaultClass() != "exists" {
		t.Errorf("over a folder that came meanwhile: %v", err)
	}
	if err := CreateDir(filepath.Join(base, "bad"), func(dir string) error { return errors.Join(write(dir), os.ErrInvalid) }); err == nil {
		t.Error("a failed fill made a folder")
	}
	if err := CreateDir(filepath.Join(base, "no/where"), write); !errors.As(err, &exists) || exists.FaultClass() != "usage" {
		t.Errorf("no parent: %v", err)
	}
	entries, err := os.ReadDir(base)
	if err != nil || len(entries) != 2 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
