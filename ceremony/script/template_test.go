package script

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// shipped are the templates, by kind.
func shipped(t testing.TB) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../../scripts/ceremonies/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if kind := strings.TrimSuffix(filepath.Base(f), ".yaml"); !strings.HasSuffix(kind, ".answers") {
			out[kind] = string(data)
		}
	}
	return out
}

// Every shipped template lints with its defaults, and with every "yes or no"
// answered either way; it is of the kind that its name says; and it has comments.
func TestTemplatesLint(t *testing.T) {
	for kind, text := range shipped(t) {
		questions, err := Questions(text)
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if len(questions) == 0 {
			t.Errorf("%s asks nothing", kind)
		}
		for _, all := range []string{"", "yes", "no"} {
			answers := map[string]string{}
			for _, q := range questions {
				if q.Type == "yes" && all != "" {
					answers[q.Flag] = all
				}
				if !strings.HasSuffix(q.Text, ".") {
					t.Errorf("%s: the text of %s is no sentence", kind, q.Flag)
				}
			}
			s, err := Parse(kind, []byte(filled(t, text, answers)))
			if err == nil {
				err = s.Lint()
			}
			if err != nil {
				t.Errorf("%s, %q: %v", kind, all, err)
			} else if s.Kind != kind {
				t.Errorf("%s is of kind %s", kind, s.Kind)
			}
		}
		if strings.Count(text, "\n# ") < 5 {
			t.Errorf("%s: who reads it learns nothing", kind)
		}
	}
}

const template = `#? title text "My title" @TITLE@ -- Why.
#? people number 3 of: * & all: * -- How many.
#? host hosts a.test names: [*] -- Where.
#? bell yes no - -- Whether it rings.
title: "@TITLE@"
of: 3
all: 3
names: [a.test]
pin: @KEYRITE@
#+bell ring: true
`

func TestFill(t *testing.T) {
	tests := []struct {
		name, template string
		answers        map[string]string
		want           string
		err            string
	}{
		{"defaults", template, nil, "title: \"My title\"\nof: 3\nall: 3\nnames: [a.test]\npin: ab\n", ""},
		{"answers", template, map[string]string{"title": "@KEYRITE@ of: 3", "people": "7", "host": "b.test, 10.0.0.1", "bell": "yes"}, "title: \"@KEYRITE@ of: 3\"\nof: 7\nall: 7\nnames: [b.test, 10.0.0.1]\npin: ab\nring: true\n", ""},
		{"both wanted", "#? gong yes yes - -- Whether it sounds.\n" + template + "#+bell #+gong both: true\n", map[string]string{"bell": "yes"}, "title: \"My title\"\nof: 3\nall: 3\nnames: [a.test]\npin: ab\nring: true\nboth: true\n", ""},
		{"one of both wanted", "#? gong yes yes - -- Whether it sounds.\n" + template + "#+bell #+gong both: true\n", nil, "title: \"My title\"\nof: 3\nall: 3\nnames: [a.test]\npin: ab\n", ""},
		{"one of both that nobody asks about", template + "#+bell #+gong both: true\n", nil, "", "nothing asks whether gong"},
		{"text that ends its place", template, map[string]string{"title": `x" evil: "y`}, "", "without quotes"},
		{"text of two lines", template, map[string]string{"title": "x\ny"}, "", "line breaks"},
		{"number that is none", template, map[string]string{"people": "3}, evil: {x: 1"}, "", "a whole number"},
		{"number with a nought before it", template, map[string]string{"people": "03"}, "", "a whole number"},
		{"host that ends its list", template, map[string]string{"host": "a], evil: [b"}, "", "host names"},
		{"neither yes nor no", template, map[string]string{"bell": "maybe"}, "", "yes or no"},
		{"place that is not there", strings.Replace(template, "of: 3\n", "", 1), nil, "", "is not in it"},
		{"word that nobody fills", template + "x: @OTHER@\n", nil, "", "@OTHER@ is not filled in"},
		{"question twice", "#? title text x @T@ -- Why.\n" + template, nil, "", "no good question"},
		{"question without a reason", "#? x text x @T@\n" + template, nil, "", "no good question"},
		{"line that nobody asks about", template + "#+gong dong: true\n", nil, "", "nothing asks whether gong"},
		{"default that is not allowed", "#? x number many @T@ -- Why.\n" + template, nil, "", "default of x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Fill(tt.template, tt.answers, map[string]string{"KEYRITE": "ab"})
			if tt.err == "" && (err != nil || got != tt.want) {
				t.Errorf("got %q, %v; want %q", got, err, tt.want)
			}
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %v, want %q", err, tt.err)
			}
		})
	}
}
