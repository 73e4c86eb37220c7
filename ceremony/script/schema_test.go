package script

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"keyrite/internal/clitest"
)

var update = flag.Bool("update", false, "write docs/formats/script.schema.json")

const schemaFile = "../../docs/formats/script.schema.json"

func TestSchemaIsCommitted(t *testing.T) {
	want, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(schemaFile, want, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(schemaFile)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("docs/formats/script.schema.json is not what the types say (%v); go test ./ceremony/script -run Schema -update", err)
	}
}

// Every member has a description, or an editor has nothing to show.
func TestSchemaDescribes(t *testing.T) {
	data, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	var schema struct {
		Properties map[string]object `json:"properties"`
		Defs       map[string]struct {
			Description string            `json:"description"`
			Properties  map[string]object `json:"properties"`
		} `json:"$defs"`
	}
	if err := json.Unmarshal(data, &schema); err != nil {
		t.Fatal(err)
	}
	check := func(of string, props map[string]object) {
		for name, p := range props {
			if text, _ := p["description"].(string); text == "" {
				t.Errorf("%s.%s has no description", of, name)
			}
		}
	}
	check("Script", schema.Properties)
	for name, d := range schema.Defs {
		if check(name, d.Properties); d.Description == "" {
			t.Errorf("%s has no description", name)
		}
	}
}

// A stock validator takes the schema in its strict mode, accepts every script that
// lints, and refuses what no script may look like.
func TestSchemaByAStockValidator(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name+".json")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	schema, err := filepath.Abs(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	var good []string
	for kind, text := range scripts(t) {
		good = append(good, write("small-"+kind, text))
	}
	for kind, text := range shipped(t) {
		good = append(good, write("shipped-"+kind, filled(t, text, nil)))
	}
	good = append(good, write("room", renumbered(withRoom("again", "share", 1))))
	if out, err := clitest.Node(t, append([]string{"validate-script.mjs", schema}, good...)...); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	var bad []string
	for name, edit := range map[string][2]string{
		"unknown-member": {"kind: genesis", "kind: genesis\ncolour: red"}, "kind": {"kind: genesis", "kind: party"}, "version": {"script/v1", "script/v2"},
		"no-limit": {"title: Charter, limit: 60m", "title: Charter"}, "limit": {"limit: 60m", "limit: soon"}, "verb": {"do: token.admit", "do: shell"}, "no-argument": {"do: token.admit, safe: root", "do: token.admit"},
		"argument-of-another-verb": {"do: documents.see", "do: documents.see, key: log"}, "role": {"confirm: [witness]", "confirm: [janitor]"}, "usage-not-stated": {"{sign: true, ", "{"},
		"text-for-a-number": {"witnesses: 2", "witnesses: two"}, "cause": {"on: words", "on: boredom"}, "step-number": {`id: "2.1"`, `id: "two"`}, "hash": {strings.Repeat("ab", 32), "any"},
		"algorithm": {"algorithm: p256", "algorithm: dsa"}, "domain": {"domain: dsse", "domain: any"}, "tries": {"title: Charter,", "title: Charter, tries: 99,"},
	} {
		text := genesis(t)
		if !strings.Contains(text, edit[0]) {
			t.Fatalf("%s: the script has no %q", name, edit[0])
		}
		text = strings.Replace(text, edit[0], edit[1], 1)
		if lint(text) == nil {
			t.Errorf("%s lints", name)
		}
		bad = append(bad, write(name, text))
	}
	out, err := clitest.Node(t, append([]string{"validate-script.mjs", schema}, bad...)...)
	if err == nil || strings.Count(out, "refused") != len(bad) {
		t.Errorf("%v: %s", err, out)
	}
}
