package script

import (
	"strings"
	"testing"
)

// The shipped reshare can be had in a form that takes over what a void ceremony left.
// It says so, step by step, and lints; what cannot be taken over is an error.
func TestAdopting(t *testing.T) {
	text := filled(t, shipped(t)["reshare"], nil)
	got, err := Adopting(text, []string{"work", "root2"}, []FoundKey{{"firmware", "work", "work2"}, {"log", "work", "work2"}})
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
	if same, err := Adopting(text, nil, nil); err != nil || same != text {
		t.Errorf("nothing to adopt changes the script: %v", err)
	}
	if _, err := Adopting(text, []string{"elsewhere"}, nil); err == nil {
		t.Error("a safe that is not in the script")
	}
	if _, err := Adopting("safes: []\n", nil, []FoundKey{{"a", "b", "c"}}); err == nil {
		t.Error("no safe is opened")
	}
}

// Only a reshare adopts, only what it deals anew, and only in an existing safe.
func TestAdoptsIsLinted(t *testing.T) {
	adopting := func(kind string) string {
		return strings.Replace(filled(t, shipped(t)[kind], nil), "state: existing}", "state: existing, adopts: true}", 1)
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
