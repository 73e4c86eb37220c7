package tuf_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"keyrite/internal/clitest"
)

// The stock TUF models of npm accept what we publish, and refuse it altered.
func TestMetadataIsReadByTufjs(t *testing.T) {
	b := newBench(t)
	if err := b.publish(b.root, b.krf("1.0", 1)); err != nil {
		t.Fatal(err)
	}
	meta := filepath.Join(b.dir, "repo", "metadata")
	verify := func() (string, error) { return clitest.Node(t, "verify-tuf.mjs", meta, "1") }
	if out, err := verify(); err != nil {
		t.Fatalf("@tufjs/models: %v: %s", err, out)
	}
	for _, name := range []string{"1.root.json", "1.targets.json", "1.snapshot.json", "timestamp.json"} {
		p := filepath.Join(meta, name)
		good, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, bytes.Replace(good, []byte(`"version":1`), []byte(`"version":3`), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := verify(); err == nil {
			t.Errorf("%s altered, and @tufjs/models takes it: %s", name, out)
		}
		if err := os.WriteFile(p, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
