package charterstore

import (
	"maps"
	"slices"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

// TestBodies: every type that is made by proposal has a body that can be read, and no
// other has.
func TestBodies(t *testing.T) {
	want := charter.Proposable()
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(bodies())); !slices.Equal(got, want) {
		t.Errorf("bodies of %q, and %q are made by proposal", got, want)
	}
	for name, c := range map[string]struct {
		typ, body string
		class     fault.Class
	}{
		"good":           {charter.TypeMount, `{ "id": "kv", "engine": "kv" }`, ""},
		"unknown member": {charter.TypeMount, `{"id":"kv","engine":"kv","root":true}`, fault.Usage},
		"two values":     {charter.TypeMount, `{"id":"kv","engine":"kv"}{}`, fault.Usage},
		"no JSON":        {charter.TypeMount, `x`, fault.Usage},
		"another shape":  {charter.TypeMount, `["kv"]`, fault.Usage},
		"by ceremony":    {charter.TypeKey, `{}`, fault.Policy},
		"unknown":        {"root", `{}`, fault.Policy},
	} {
		v, err := Body(c.typ, []byte(c.body))
		if fault.ClassOf(err) != c.class {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && v != any(charter.Mount{ID: "kv", Engine: "kv"}) {
			t.Errorf("%s: %+v", name, v)
		}
	}
}
