package script

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// FoundKey is a key that a void transfer left in another safe than the charter says.
type FoundKey struct {
	ID   string
	From string // the safe that the charter names
	To   string // the safe where it is
}

var (
	safeLineRE  = regexp.MustCompile(`^  - \{name: ([a-z][a-z0-9-]*), .*\}$`)
	safeBlockRE = regexp.MustCompile(`^  - name: ([a-z][a-z0-9-]*)$`)
	openLineRE  = regexp.MustCompile(`^  - \{id: "([1-9][0-9]*)\.([1-9][0-9]*)", do: safe\.open, `)
)

// Adopting has the text of a shipped reshare take over what a void ceremony left: the
// safes may adopt an epoch, and keys are looked for where they are, after the last
// safe.open. The text that comes out is linted like any other.
func Adopting(text string, safes []string, keys []FoundKey) (string, error) {
	lines := strings.Split(text, "\n")
	lastSafe, lastOpen, phase, step := -1, -1, "", 0
	marked, block := map[string]bool{}, ""
	for i, line := range lines {
		if m := safeBlockRE.FindStringSubmatch(line); m != nil {
			lastSafe, block = i, m[1]
		} else if block != "" && strings.HasPrefix(line, "    ") {
			lastSafe = i
			if line == "    state: existing" && slices.Contains(safes, block) && !marked[block] {
				lines[i] += "\n    adopts: true"
				marked[block] = true
			}
		} else {
			block = ""
		}
		if m := safeLineRE.FindStringSubmatch(line); m != nil {
			lastSafe = i
			if slices.Contains(safes, m[1]) && !marked[m[1]] {
				lines[i] = strings.TrimSuffix(line, "}") + ", adopts: true}"
				marked[m[1]] = true
			}
		}
		if m := openLineRE.FindStringSubmatch(line); m != nil {
			lastOpen, phase = i, m[1]
			step, _ = strconv.Atoi(m[2]) // digits, by the expression
		}
	}
	for _, s := range safes {
		if !marked[s] {
			return "", &Error{Text: fmt.Sprintf("the script has no safe %s that could adopt an epoch", s), Hint: "write it under safes, with adopts: true, and the steps that deal it anew"}
		}
	}
	if len(keys) == 0 {
		return strings.Join(lines, "\n"), nil
	}
	if lastSafe < 0 || lastOpen < 0 {
		return "", &Error{Text: "the script opens no safe in which a key could be found"}
	}
	existing := []string{"", "# Keys that a void transfer left in another token than the charter says.", "existing:"}
	var steps []string
	for i, k := range keys {
		existing = append(existing, fmt.Sprintf("  - {id: %s, safe: %s}", k.ID, k.From))
		steps = append(steps, fmt.Sprintf(`  - {id: "%s.%d", do: key.find, key: %s, safe: %s, to: %s, title: %q, limit: 10m, minutes: 5, confirm: [witness], say: "A void transfer left this key in another token. It signs there; then it is looked for where it was."}`,
			phase, step+1+i, k.ID, k.From, k.To, "Find the key "+k.ID))
	}
	lines = slices.Insert(lines, lastOpen+1, steps...)
	return strings.Join(slices.Insert(lines, lastSafe+1, existing...), "\n"), nil
}
