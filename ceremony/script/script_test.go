package script

import (
	"os"
	"strings"
	"testing"
)

func genesis(t testing.TB) string {
	t.Helper()
	data, err := os.ReadFile("../../scripts/ceremonies/genesis.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return filled(t, string(data), map[string]string{"title": "Test", "root-token": "t-root", "work-token": "t-work", "break": "no", "printer": "no"})
}

// filled fills in a template for programs that do not exist.
func filled(t testing.TB, template string, answers map[string]string) string {
	t.Helper()
	h := strings.Repeat("ab", 32)
	text, err := Fill(template, answers, map[string]string{"KEYRITE": h, "HSMD": h, "MODULE": h, "NETWORK": "any", "SWAP": "any", "DUMPS": "any", "CLOCK": "any"})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestShippedGenesisLints(t *testing.T) {
	s, err := Parse("genesis.yaml", []byte(genesis(t)))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Lint(); err != nil {
		t.Fatal(err)
	}
	k, _ := s.KeyByID("firmware")
	if len(k.SpecHash()) != 64 {
		t.Error("no spec hash")
	}
	o, _ := s.KeyByID("log")
	if k.SpecHash() == o.SpecHash() {
		t.Error("two keys, one spec hash")
	}
}

// What a script may not say (R-CER-2, R-CER-10); every case names its place.
func TestLintRefuses(t *testing.T) {
	tests := []struct{ name, old, new, want string }{
		{"unknown key", "kind: genesis", "kind: genesis\ncolour: red", `genesis.yaml:11:1: unknown member "colour"`},
		{"repeated key", "kind: genesis", "kind: genesis\nkind: genesis", "genesis.yaml:11:1: member kind stands twice"},
		{"a PIN", "purpose: Found", "pin: 1234\npurpose: Found", "genesis.yaml:12:1: a script never holds a pin"},
		{"a slot", "  - {name: work,", "  - slot: 0\n  - {name: work,", "never holds a slot"},
		{"other version", "script/v1", "script/v2", "format"},
		{"other kind", "kind: genesis", "kind: party", "kind"},
		{"no pin of the program", strings.Repeat("ab", 32), "any", "pins"},
		{"threshold 1", "key_masters: {need: 3", "key_masters: {need: 1", "at least 2"},
		{"approver threshold 1", "approvers: {need: 2", "approvers: {need: 1", "at least 2"},
		{"threshold omitted", "approvers: {need: 2, of: 2}", "approvers: {of: 2}", "at least 2"},
		{"one witness", "witnesses: 2", "witnesses: 1", "2 witnesses"},
		{"key that decrypts", "decrypt: false", "decrypt: true", "does nothing else"},
		{"extractable key", "extractable: false", "extractable: true", "does nothing else"},
		{"undestroyable key", "destroyable: true", "destroyable: false", "does nothing else"},
		{"unknown verb", "do: token.admit, safe: root", "do: shell, safe: root", "not in the language"},
		{"key never made", `  - {id: "5.9", do: key.generate, key: tuf-online, title: Update freshness key, limit: 10m, minutes: 2}` + "\n", "", "no step makes it"},
		{"key made twice", `  - {id: "5.10"`, `  - {id: "5.99", do: key.generate, key: firmware, title: Again, limit: 10m}` + "\n" + `  - {id: "5.10"`, "made twice"},
		{"key made by no step", "key: tuf-online, title", "key: tuf-targets, title", "key tuf-online: no step makes it"},
		{"keys never stored", `  - {id: "8.2", do: keys.store, safe: work, title: Store the work keys, limit: 10m, minutes: 3}` + "\n", "", "proven before they are stored"},
		{"certificate by no step", "cert: birth-root, title: Birth", "cert: factory-ca, title: Birth", "certificate birth-root: no step makes it"},
		{"certificate before its issuer", `  - {id: "6.1", do: cert.issue, cert: birth-root, title: Birth root certificate, limit: 10m, minutes: 3}` + "\n" + `  - {id: "6.2", do: cert.issue, cert: relay-ca, title: Relay CA certificate, limit: 10m, minutes: 3}` + "\n" + `  - {id: "6.3", do: cert.issue, cert: factory-ca`, `  - {id: "6.1", do: cert.issue, cert: factory-ca, title: Early, limit: 10m}` + "\n" + `  - {id: "6.2", do: cert.issue, cert: relay-ca, title: Relay CA certificate, limit: 10m, minutes: 3}` + "\n" + `  - {id: "6.3", do: cert.issue, cert: birth-root`, "after its issuer has a certificate"},
		{"no admission", `  - {id: "4.2", do: token.admit, safe: work, title: Attack the work token, limit: 10m, minutes: 3}` + "\n", "", "out of order"},
		{"no receipts", `  - {id: "4.4", do: shares.receipts, safe: work, title: Receipts, limit: 60m, minutes: 15}` + "\n", "", "out of order"},
		{"no limit", "title: Charter, limit: 60m", "title: Charter", "limit"},
		{"phase", "do: documents.see", "do: keys.prove, safe: root", "belongs under"},
		{"step number twice", `id: "8.6"`, `id: "8.5"`, "number of its own"},
		{"relay certificate for a year", "days: 30, role: access", "days: 365, role: access", "30 days"},
		{"pipeline for nothing", "products: [gw100]", "products: []", "refused"},
		{"no read aloud", "do: read.aloud", "do: outputs.write", "outputs.write cannot meet words"},
		{"outputs twice", `  - {id: "8.11"`, `  - {id: "8.99", do: outputs.write, title: Again, limit: 10m}` + "\n" + `  - {id: "8.11"`, "written twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := genesis(t)
			if !strings.Contains(text, tt.old) {
				t.Fatalf("the script has no %q", tt.old)
			}
			s, err := Parse("genesis.yaml", []byte(strings.Replace(text, tt.old, tt.new, 1)))
			if err == nil {
				err = s.Lint()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			c, ok := err.(interface{ FaultClass() string })
			if !ok || c.FaultClass() != "usage" {
				t.Errorf("class of %v", err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(genesis(f)))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Parse("f", data)
		if err == nil {
			_ = s.Lint()
		}
	})
}
