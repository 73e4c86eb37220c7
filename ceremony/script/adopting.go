package script

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Left is what a void ceremony left, and a reshare takes over.
type Left struct {
	Safes []string // under an epoch that it dealt
	Keys  []FoundKey
}

// FoundKey is a key that a void transfer left in another safe than the charter says.
type FoundKey struct {
	ID   string
	From string // the safe that the charter names
	To   string // the safe where it is
}

// A template that can take over has lines for it, which nobody is asked about: those
// that begin with #+adopts-SAFE are in the script if the safe may adopt an epoch,
// those with #+finds if keys are looked for. Of the latter, those that speak of @KEY@
// stand there once for each key.
const (
	adoptsMark = "adopts-"
	findsMark  = "finds"
)

// firstFind is the number that @N@ begins with.
const firstFind = 5

// FillAdopting is Fill of a template for a reshare that takes over what a void
// ceremony left. What the template has no lines for is an error, and so is a name
// that is none: it comes from a record that nobody has verified yet.
func FillAdopting(template string, answers, fixed map[string]string, left Left) (string, error) {
	marks := map[string]string{}
	for _, s := range left.Safes {
		if !nameRE.MatchString(s) || !strings.Contains(template, "\n#+"+adoptsMark+s+" ") {
			return "", &Error{Text: fmt.Sprintf("the script has no safe %.40q that could adopt an epoch", s), Hint: "write it under safes, with adopts: true, and the steps that deal it anew"}
		}
		marks[adoptsMark+s] = "yes"
	}
	for _, k := range left.Keys {
		if slices.ContainsFunc([]string{k.ID, k.From, k.To}, func(n string) bool { return !nameRE.MatchString(n) }) || !strings.Contains(template, "\n#+"+findsMark+" ") {
			return "", &Error{Text: fmt.Sprintf("the script opens no safe in which the key %.40q could be found", k.ID)}
		}
		marks[findsMark] = "yes"
	}
	return fill(template, answers, fixed, marks, left.Keys)
}

// forEach writes a marked line once for each key that it is to speak of.
func forEach(line string, keys []FoundKey) []string {
	if !strings.Contains(line, "@KEY@") {
		return []string{line}
	}
	var out []string
	for i, k := range keys {
		out = append(out, strings.NewReplacer("@N@", strconv.Itoa(firstFind+i), "@KEY@", k.ID, "@FROM@", k.From, "@TO@", k.To).Replace(line))
	}
	return out
}
