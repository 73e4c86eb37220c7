package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/internal/cli"
)

// TestCharterThatWasCut: a charter that was cut after any statement, one of before and a
// fork are refused with the size and head that the auditor had from elsewhere; without
// them the program says what it cannot know.
func TestCharterThatWasCut(t *testing.T) {
	w := artifacttest.New(t)
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	before, size, head, after := bytes.Clone(w.Charter), strconv.Itoa(w.State.Size()), w.State.Head(), strconv.Itoa(w.State.Size()+2)
	w.Approve(charter.TypeMount, charter.Mount{Engine: "kv", ID: "zero"})
	w.Approve(charter.TypeMount, charter.Mount{Engine: "kv", ID: "one"})
	longer, newest := bytes.Clone(w.Charter), w.State.Head()
	s, err := charter.Fold(before, w.World, w.Anchors.Vault)
	if err != nil {
		t.Fatal(err)
	}
	w.State, w.Charter = s, bytes.Clone(before)
	w.Approve(charter.TypeMount, charter.Mount{Engine: "kv", ID: "two"})
	w.Approve(charter.TypeMount, charter.Mount{Engine: "kv", ID: "three"})
	fork := w.Charter

	anchors := write("anchors.json", must(t)(w.Anchors.Marshal()))
	verify := func(data []byte, args ...string) (code int, out, told string) {
		t.Helper()
		var o, e bytes.Buffer
		args = append([]string{"charter", write("charter.jsonl", data), "--anchor", anchors}, args...)
		code = cli.Run(t.Context(), newRoot(), args, cli.IO{In: os.Stdin, Out: &o, Err: &e})
		return code, o.String(), e.String()
	}
	for i := range longer {
		if i == 0 || longer[i-1] != '\n' {
			continue
		}
		// With one that ends before the keys of the anchors more is wrong.
		if code, out, _ := verify(longer[:i]); i >= len(before) && (code != 0 || !strings.Contains(out, "an older charter, or one cut after a statement,\n  looks the same")) {
			t.Errorf("cut at %d: exit %d: %s", i, code, out)
		}
		if code, out, told := verify(longer[:i], "--size", after, "--head", newest); code != 13 || out != "" || !strings.Contains(told, "it is of before, or was cut") {
			t.Errorf("cut at %d, and the newest is known: exit %d: %s%s", i, code, out, told)
		}
	}
	for name, x := range map[string]struct {
		data []byte
		args []string
		want int
	}{
		"the same":           {longer, []string{"--size", after, "--head", newest}, 0},
		"it went on":         {longer, []string{"--size", size, "--head", head}, 0},
		"the fork went on":   {fork, []string{"--size", size, "--head", head}, 0},
		"a fork":             {fork, []string{"--size", after, "--head", newest}, 14},
		"another head":       {longer, []string{"--size", size, "--head", newest}, 14},
		"a size alone":       {longer, []string{"--size", size}, 2},
		"a head alone":       {longer, []string{"--head", head}, 2},
		"a size of nothing":  {longer, []string{"--size", "-1", "--head", head}, 2},
		"half a head":        {longer, []string{"--size", size, "--head", head[:32]}, 2},
		"a head in capitals": {longer, []string{"--size", size, "--head", strings.Repeat("A", 64)}, 2},
	} {
		code, out, told := verify(x.data, append(x.args, "--json")...)
		if code != x.want || (code == 0) != strings.Contains(out, `"head_checked":true`) || code != 0 && out != "" {
			t.Errorf("%s: exit %d, want %d: %s%s", name, code, x.want, out, told)
		}
	}
}
