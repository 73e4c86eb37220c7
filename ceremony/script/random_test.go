package script

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

// dice turns bytes into choices, so that a fuzzer and a random test share one
// generator.
type dice struct{ data []byte }

func (d *dice) roll(n int) int {
	if len(d.data) == 0 || n < 1 {
		return 0
	}
	x := int(d.data[0])
	d.data = d.data[1:]
	return x % n
}

func pick[T any](d *dice, list []T) T { return list[d.roll(len(list))] }

// step writes a step with a verb of the language and arguments that exist.
func (d *dice) step(id string, verbs []*Verb, planned bool) string {
	v := pick(d, verbs)
	out := fmt.Sprintf("{id: %q, do: %s, title: T, limit: 1m, tries: %d", id, v.Name, d.roll(10)+1)
	names := map[string][]string{"safe": {"a", "b", "c"}, "to": {"a", "b"}, "key": {"k1", "k2", "k3"}, "cert": {"k1"}, "crl": {"l"}, "medium": {"m", "n"}}
	for _, a := range v.Args {
		out += ", " + a + ": " + pick(d, names[a])
	}
	if d.roll(3) == 0 {
		out += fmt.Sprintf(", requires: {x: s%d}", d.roll(3))
	}
	if d.roll(3) == 0 {
		out += fmt.Sprintf(", sets: {x: s%d, y: s%d}", d.roll(3), d.roll(2))
	}
	if planned && d.roll(2) == 0 {
		out += fmt.Sprintf(", planned: [c%d, c%d]", d.roll(4), d.roll(4)+4)
	}
	return out + "}"
}

// script is a script with all things and random steps, most of them allowed.
func (d *dice) script() string {
	kind := pick(d, Kinds())
	domain := "dsse"
	if d.roll(2) == 0 {
		domain = "x509"
	}
	state := pick(d, []string{"fresh", "existing"})
	text := fmt.Sprintf(head[:strings.Index(head, "summon:")], kind.Name, strings.Repeat("ab", 32)) +
		fmt.Sprintf("safes: [{name: a, token: a, state: %s}, {name: b, token: b}, {name: c, token: c, group: g, need: 2, of: 2}]\n", state) +
		fmt.Sprintf("keys: [{id: k1, safe: %s, purpose: p, algorithm: p256, domain: %s, usage: %s}]\n", pick(d, []string{"a", "b"}), domain, usage) +
		"existing: [{id: k2, safe: b, domain: x509}, {id: k3}]\nmedia: [{name: m, label: M}, {name: n, label: N}]\nmodel: {x: [s0, s1, s2], y: [s0, s1]}\ncontingencies:\n"
	verbs := map[string][]*Verb{}
	var all []*Verb
	table := verbTable()
	for _, name := range slices.Sorted(maps.Keys(table)) {
		v := table[name]
		if all = append(all, v); !kind.has(v.Name) {
			continue
		}
		for _, ph := range v.Phases {
			verbs[ph] = append(verbs[ph], v)
		}
	}
	for i, c := range append(Causes(), Causes()[2]) {
		text += fmt.Sprintf("  - {id: c%d, on: %s, then: %s, steps: [%s]}\n", i, c.Name, pick(d, []string{"again", "next"}), d.step(fmt.Sprintf("%c.1", 'A'+i), verbs[run], false))
	}
	for i, ph := range []string{summon, run, seal} {
		text += ph + ":\n"
		for j := range d.roll(40) + 1 {
			from := verbs[ph]
			if d.roll(50) == 1 {
				from = all
			}
			text += "  - " + d.step(fmt.Sprintf("%d.%d", i+1, j+1), from, true) + "\n"
		}
	}
	return text
}

// checkRandom lints a random script: it ends soon, in a verdict with its place.
func checkRandom(t *testing.T, data []byte) error {
	t.Helper()
	text := (&dice{slices.Clone(data)}).script()
	start := time.Now()
	err := lint(text)
	if d := time.Since(start); d > 20*time.Second { // a loaded machine; alone it is a second
		t.Errorf("%v for %s", d, hex.EncodeToString(data))
	}
	var e *Error
	if err != nil && (!errors.As(err, &e) || e.Line < 1 || e.Col < 1 || e.File != "t.yaml") {
		t.Errorf("no place: %v for %s", err, hex.EncodeToString(data))
	}
	return err
}

// Random scripts of the language are judged, never a panic and never for ever;
// walkAlone lints what the static rules would have refused first.
func TestRandomScriptsEnd(t *testing.T) {
	texts := map[string]int{}
	for range 300 {
		data := make([]byte, 1024)
		rand.Read(data)
		if err := checkRandom(t, data); err != nil {
			var e *Error
			errors.As(err, &e)
			texts[fmt.Sprint(len(e.Path) > 0)]++
		}
		walkAlone(t, data)
	}
	t.Log(texts)
}

// walkAlone walks a random script without the rules that refuse most of them
// beforehand, so that the walk itself sees wild ones.
func walkAlone(t *testing.T, data []byte) {
	t.Helper()
	s, err := Parse("t.yaml", []byte((&dice{slices.Clone(data)}).script()))
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := s.walk(); err != nil && time.Since(start) > 20*time.Second {
		t.Errorf("%v for %s", err, hex.EncodeToString(data))
	}
}

func FuzzLint(f *testing.F) {
	for range 5 {
		data := make([]byte, 512)
		rand.Read(data)
		f.Add(data)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = checkRandom(t, data)
		walkAlone(t, data)
	})
}
