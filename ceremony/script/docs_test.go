package script

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

// The page of the format names every member, verb, kind and cause.
func TestPageIsWhole(t *testing.T) {
	data, err := os.ReadFile("../../docs/formats/script.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(data)
	var words []string
	for _, v := range Verbs() {
		words = append(words, "| `"+v.Name+"` | "+strings.Join(v.Phases, ", ")+" |")
	}
	for _, k := range Kinds() {
		words = append(words, "| `"+k.Name+"` | "+k.Does+" |")
	}
	for _, c := range Causes() {
		words = append(words, "| `"+c.Name+"` |")
	}
	for _, of := range []reflect.Type{reflect.TypeFor[Script](), reflect.TypeFor[Roles](), reflect.TypeFor[Safe](), reflect.TypeFor[Key](), reflect.TypeFor[Step](), reflect.TypeFor[Medium](), reflect.TypeFor[Contingency](), reflect.TypeFor[Environment]()} {
		names, _ := membersOf(of)
		for _, n := range names {
			words = append(words, "`"+n+"`")
		}
	}
	for _, w := range words {
		if !strings.Contains(page, w) {
			t.Errorf("docs/formats/script.md does not have %q", w)
		}
	}
}
