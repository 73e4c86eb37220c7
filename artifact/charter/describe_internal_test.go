package charter

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestEveryTypeIsSaid: each type of statement has words, and no type that there is not.
func TestEveryTypeIsSaid(t *testing.T) {
	types := append(slices.Collect(maps.Keys(deciders())), TypeGenesis, TypePeople)
	for _, typ := range types {
		if sayers()[typ] == nil {
			t.Errorf("a statement of type %s has no words: add them in describe.go", typ)
		}
	}
	for typ := range sayers() {
		if !slices.Contains(types, typ) {
			t.Errorf("there are words for %s, and no such type", typ)
		}
	}
}

// TestWordsOfWhatCannotBeRead: a body that is not of its type is named, not said.
func TestWordsOfWhatCannotBeRead(t *testing.T) {
	for _, body := range []string{`{`, `null`, `{"id":"x","other":1}`, `{"can":"read"}`} {
		for typ := range sayers() {
			if w := Words(&Statement{Type: typ, Body: json.RawMessage(body)}); !strings.Contains(w, typ) {
				t.Errorf("%s %s: %q", typ, body, w)
			}
		}
	}
	if w := Words(&Statement{Type: TypePolicy, Body: json.RawMessage(`{"id":"p","rules":[{"can":[],"path":"kv/x"}],"version":1}`)}); w == "" {
		t.Error("a rule without capabilities")
	}
}
