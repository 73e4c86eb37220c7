package engine

import (
	"slices"
	"strings"
)

// Folder is what the keys of everything below a path begin with; all keys for "".
func Folder(path string) string {
	if path == "" {
		return ""
	}
	return path + "/"
}

// Below names what lies directly below a path, of keys that begin with its Folder: in
// order, each once, and with a slash what has more below it, as clients expect a list.
func Below(keys []string, path string) []string {
	var out []string
	for _, k := range keys {
		name, _, folder := strings.Cut(strings.TrimPrefix(k, Folder(path)), "/")
		if folder {
			name += "/"
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
