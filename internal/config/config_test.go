package config

import (
	"strings"
	"testing"
)

type conf struct {
	Name string `yaml:"name"`
	N    int    `yaml:"n"`
}

func TestParseIsStrict(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"good", "name: a\nn: 1\n", ""},
		{"unknown key", "name: a\nm: 1\n", "line 2: unknown member \"m\""},
		{"repeated key", "name: a\nname: b\n", "already defined"},
		{"second document", "name: a\n---\nname: b\n", "second document"},
		{"empty", "", "empty"},
		{"only a comment", "# nothing\n", "empty"},
		{"wrong type", "n: many\n", "a value of another kind is wanted than str `many`"},
		{"list", "- a\n", "a value of another kind is wanted than seq"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Parse("f", []byte(tt.in), new(conf))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestFaults: all at once, on one line, and none is no error.
func TestFaults(t *testing.T) {
	f := &Faults{}
	f.If(false, "never")
	if err := f.Err("x.yaml"); err != nil {
		t.Errorf("no fault: %v", err)
	}
	f.If(true, "name is missing")
	f.If(true, "port %d is none", 0)
	err := f.Err("x.yaml")
	if err == nil || err.Error() != `read "x.yaml": name is missing; port 0 is none` {
		t.Errorf("two faults: %v", err)
	}
}
