package script

import (
	"strings"
	"testing"
)

// What a script may say of the birth of a key, and the step that goes with it.
func TestLintAttestation(t *testing.T) {
	good := genesis(t)
	var step string
	for line := range strings.SplitSeq(good, "\n") {
		if strings.Contains(line, "do: births.sign") {
			step = line + "\n"
		}
	}
	bare := strings.Replace(good, step, "", 1)
	all := func(text, word string) string {
		return strings.ReplaceAll(text, "attestation: quorum", "attestation: "+word)
	}
	one := func(text, word string) string {
		return strings.Replace(text, "domain: note, attestation: quorum", "domain: note, attestation: "+word, 1)
	}
	before := func(at string) string { return strings.Replace(bare, at, step+at, 1) }
	for _, c := range []struct{ name, text, want string }{
		{"quorum with its step", good, ""},
		{"quorum without its step", bare, "births.sign"},
		{"one that is required", one(good, "required"), ""},
		{"all that are required", all(bare, "required"), ""},
		{"none", all(bare, "none"), ""},
		{"no word", strings.NewReplacer("attestation: quorum, ", "", "    attestation: quorum #", "    #").Replace(bare), ""},
		{"the step with nothing to sign", all(good, "none"), "has nothing to sign"},
		{"the step before the proofs", before(`  - {id: "8.5", do: keys.prove`), "comes after every key is stored and proven"},
		{"the step after the outputs", before(`  - {id: "8.11", do: read.aloud`), "births.sign"},
		{"the step twice", strings.Replace(good, step, step+strings.Replace(step, `"8.9"`, `"8.98"`, 1), 1), "comes once"},
		{"a word that is none", one(good, "perhaps"), "attestation"},
		{"a word in capitals", one(good, "Required"), "attestation"},
	} {
		s, err := Parse("genesis.yaml", []byte(c.text))
		if err == nil {
			err = s.Lint()
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
