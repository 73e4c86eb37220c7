package charter

import (
	"maps"
	"slices"
	"strings"
)

// At is what a thing of an engine is called where one word is needed: in the maps of
// State, and when it is ended.
func At(mount, name string) string { return mount + "/" + name }

// namesAt are the names of what is at a mount, in order.
func namesAt[T any](m map[string]T, mount string) []string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(m)) {
		if name, ok := strings.CutPrefix(id, mount+"/"); ok {
			out = append(out, name)
		}
	}
	return out
}
