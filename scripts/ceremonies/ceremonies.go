// Package ceremonies holds the ceremony scripts that keyrite ships, as the text
// that 'keyrite ceremony new' writes, with the answers of their rehearsals beside
// them. Words between @ signs are filled in. It holds no other code.
package ceremonies

import (
	"embed"
	"io/fs"
	"slices"
	"strings"
)

//go:embed *.yaml
var files embed.FS

// answers ends the name of a rehearsal's answers.
const answers = ".answers.yaml"

// Text returns the script of a kind, and false if none is shipped.
func Text(kind string) (string, bool) {
	if !slices.Contains(Kinds(), kind) {
		return "", false
	}
	data, err := files.ReadFile(kind + ".yaml")
	return string(data), err == nil
}

// Kinds lists the kinds of which a script is shipped, sorted.
func Kinds() []string {
	names, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil // the pattern is good
	}
	var out []string
	for _, n := range names {
		if !strings.HasSuffix(n, answers) {
			out = append(out, strings.TrimSuffix(n, ".yaml"))
		}
	}
	return out
}
