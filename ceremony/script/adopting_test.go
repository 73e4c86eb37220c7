package script

import (
	"strings"
	"testing"
)

// The shipped reshare can be had in a form that takes over what a void ceremony left.
// It says so, step by step, and lints; what cannot be taken over is an error.
func TestAdopting(t *testing.T) {
	template := shipped(t)["reshare"]
	fixed := map[string]string{"NETWORK": "any", "SWAP": "any", "DUMPS": "any", "CLOCK": "any"}
	for _, pin := range []string{"KEYRITE", "HSMD", "MODULE"} {
		fixed[pin] = strings.Repeat("ab", 32)
	}
	take := func(left Left) (string, error) { return FillAdopting(template, nil, fixed, left) }
	got, err := take(Left{[]string{"work", "root2"}, []FoundKey{{"firmware", "work", "work2"}, {"log", "work", "work2"}}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse("reshare.yaml", []byte(got))
	if err == nil {
		err = s.Lint()
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range s.Safes {
		if x.Adopts != (x.Name == "work" || x.Name == "root2") {
			t.Errorf("safe %s adopts: %v", x.Name, x.Adopts)
		}
	}
	var found []string
	for _, st := range s.Run {
		if st.Do == "key.find" {
			found = append(found, st.ID+" "+st.Key+" "+st.Safe+" "+st.To)
		}
	}
	if strings.Join(found, ",") != "2.5 firmware work work2,2.6 log work work2" {
		t.Errorf("steps %v", found)
	}
	told := strings.Join(append(s.explainUsed(), s.explainEnds()...), "\n")
	for _, want := range []string{"left safe work under shares that it dealt", "Key firmware, which a void transfer left in safe work2"} {
		if !strings.Contains(told, want) {
			t.Errorf("explain does not say %q", want)
		}
	}
	if same, err := take(Left{}); err != nil || same != filled(t, template, nil) || strings.Contains(same, "adopts: true") {
		t.Errorf("nothing to adopt changes the script: %v", err)
	}
	for name, left := range map[string]Left{
		"a safe that is not in the script":  {Safes: []string{"elsewhere"}},
		"a safe that ends its line":         {Safes: []string{"work     adopts: true\nx"}},
		"a key that ends its line":          {Keys: []FoundKey{{"k}\n", "work", "work2"}}},
		"a place that is none":              {Keys: []FoundKey{{"k", "", "work2"}}},
		"a place that says what else to do": {Keys: []FoundKey{{"k", "work", "work2, planned: [late]"}}},
	} {
		if text, err := take(left); err == nil {
			t.Errorf("%s: %s", name, text)
		}
	}
	if _, err := FillAdopting("safes: []\n", nil, nil, Left{Keys: []FoundKey{{"a", "b", "c"}}}); err == nil {
		t.Error("no safe is opened")
	}
}

// Only a reshare adopts, only what it deals anew, and only in an existing safe.
func TestAdoptsIsLinted(t *testing.T) {
	adopting := func(kind string) string {
		return strings.NewReplacer("state: existing}", "state: existing, adopts: true}", "    state: existing\n", "    state: existing\n    adopts: true\n").Replace(filled(t, shipped(t)[kind], nil))
	}
	for name, tt := range map[string]struct{ text, want string }{
		"another kind":       {adopting("new-key"), "adopts no epoch"},
		"a transfer":         {adopting("transfer"), "adopts no epoch"},
		"not dealt anew":     {without(adopting("reshare"), `do: shares.deal, safe: root,`, `do: shares.receipts, safe: root,`, `do: token.repin, safe: root,`), "replaced at once"},
		"found before open":  {strings.Replace(filled(t, shipped(t)["reshare"], nil), "run:\n", "existing: [{id: k, safe: work}]\nrun:\n  - {id: \"1.9\", do: key.find, key: k, safe: work, to: work2, title: t, limit: 5m}\n", 1), "comes after"},
		"found where it was": {strings.Replace(filled(t, shipped(t)["reshare"], nil), "run:\n", "existing: [{id: k, safe: work}]\nrun:\n  - {id: \"1.9\", do: key.find, key: k, safe: work, to: work, title: t, limit: 5m}\n", 1), "and another one"},
	} {
		s, err := Parse(name, []byte(tt.text))
		if err == nil {
			err = s.Lint()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// without leaves out the lines that hold one of the words.
func without(text string, words ...string) string {
	var out []string
	for line := range strings.SplitSeq(text, "\n") {
		drop := false
		for _, w := range words {
			drop = drop || strings.Contains(line, w)
		}
		if !drop {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}
