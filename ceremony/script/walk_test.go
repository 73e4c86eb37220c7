package script

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// scripts are one good script of every kind.
func scripts(t testing.TB) map[string]string {
	t.Helper()
	out := map[string]string{"genesis": genesis(t)}
	for kind := range small() {
		out[kind] = smallScript(kind)
	}
	return out
}

var stepLineRE = regexp.MustCompile(`^  - \{id: "[0-9.]+", do: ([a-z.]+)`)

// stepLines are the numbers of the lines that are a step.
func stepLines(text string) (lines []string, steps []int) {
	lines = strings.Split(text, "\n")
	for i, l := range lines {
		if stepLineRE.MatchString(l) {
			steps = append(steps, i)
		}
	}
	return lines, steps
}

func verbOf(line string) string { return stepLineRE.FindStringSubmatch(line)[1] }

// refused wants a fault with its place and the way that leads to it.
func refused(t *testing.T, what, text string) {
	t.Helper()
	var e *Error
	if err := lint(text); !errors.As(err, &e) {
		t.Errorf("%s: %v", what, err)
		return
	}
	if e.Line < 1 || e.Col < 1 || len(e.Path) == 0 && !strings.Contains(e.Text, "no step plans it") {
		t.Errorf("%s: no place or no way: %v, %v", what, e, e.Path)
	}
}

// Without any one of its steps no script is whole, but for those that are there
// for people.
func TestDroppedStepIsRefused(t *testing.T) {
	optional := map[string][]string{
		"reshare": {"people.change"}, "hsm-lost": {"update.root"}, "retire": {"token.destroy"}, "succession": {"key.destroy"}, "enrol": {"break"},
	}
	for kind, text := range scripts(t) {
		lines, steps := stepLines(text)
		if len(steps) < 6 {
			t.Fatalf("%s: %d steps", kind, len(steps))
		}
		for _, i := range steps {
			left := strings.Join(slices.Delete(slices.Clone(lines), i, i+1), "\n")
			if slices.Contains(optional[kind], verbOf(lines[i])) {
				if err := lint(left); err != nil {
					t.Errorf("%s without %s: %v", kind, lines[i], err)
				}
				continue
			}
			refused(t, kind+" without"+lines[i], left)
		}
	}
}

// inOrder says, apart from the verb table, which of two neighbours must come
// first: every pair of verbs that depend on each other, with what they share.
func inOrder(kind, a, b string) bool {
	first, second := verbOf(a), verbOf(b)
	member := func(line, name string) string {
		m := regexp.MustCompile(`[ {]` + name + `: ([a-z0-9-]+)`).FindStringSubmatch(line)
		if m == nil {
			return ""
		}
		return m[1]
	}
	pair := first + " " + second
	if member(a, "safe") != "" && member(a, "safe") == member(b, "safe") {
		return true // all that is done to one safe has its order
	}
	always := []string{
		"environment.check vault.load", "people.identify documents.see", "genesis.sign token.init", "token.pins token.init", "token.pins key.generate", "safe.open key.generate", "safe.open key.transfer",
		"safe.open succession.sign", "safe.open people.change", "safe.open key.destroy", "safe.open crl.issue", "people.change shares.deal", "succession.sign key.destroy", "succession.sign charter.append", "key.generate charter.append", "key.transfer charter.append",
		"token.repin charter.append", "cert.issue charter.append", "charter.append update.root", "key.destroy token.destroy", "outputs.write read.aloud", "keys.prove outputs.write", "keys.prove births.sign", "births.sign outputs.write",
	}
	switch pair {
	case "token.pins token.init": // another safe: no order
		return false
	case "cert.issue cert.issue":
		return member(a, "cert") == "relay-ca" && strings.HasPrefix(member(b, "cert"), "relay-") || member(a, "cert") == "birth-root" && member(b, "cert") == "factory-ca"
	case "safe.open succession.sign": // any open safe will do, and there is a second one
		return kind != "succession"
	case "safe.open people.change":
		return false
	}
	return slices.Contains(always, pair)
}

// Two neighbours in the wrong order are refused, and those that do not depend on
// each other may change places.
func TestSwappedStepsAreRefused(t *testing.T) {
	swaps, wrong := 0, 0
	for kind, text := range scripts(t) {
		lines, steps := stepLines(text)
		for n := range len(steps) - 1 {
			i, j := steps[n], steps[n+1]
			if j != i+1 {
				continue // of two phases
			}
			swapped := slices.Clone(lines)
			swapped[i], swapped[j] = lines[j], lines[i]
			what := fmt.Sprintf("%s: %s before %s", kind, lines[j], lines[i])
			swaps++
			if inOrder(kind, lines[i], lines[j]) {
				wrong++
				refused(t, what, strings.Join(swapped, "\n"))
			} else if err := lint(strings.Join(swapped, "\n")); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	if wrong < 30 || swaps-wrong < 10 {
		t.Errorf("%d swaps, %d of them wrong", swaps, wrong)
	}
}

// A step that stands in another phase is refused as well.
func TestMovedReceiptsAreRefused(t *testing.T) {
	for kind, text := range scripts(t) {
		lines, steps := stepLines(text)
		for _, i := range steps {
			if verbOf(lines[i]) != "shares.receipts" {
				continue
			}
			for _, j := range steps {
				if j == i || j == i-1 {
					continue
				}
				moved := slices.Delete(slices.Clone(lines), i, i+1)
				at := j
				if j > i {
					at--
				}
				moved = slices.Insert(moved, at+1, lines[i])
				if err := lint(strings.Join(moved, "\n")); err == nil {
					t.Errorf("%s: receipts moved behind %s", kind, lines[j])
				}
			}
		}
	}
}

const drive = `model: {drive: [empty, share, spare], bag: [sealed, opened]}
media: [{name: share, label: KR 1}]
contingencies:
  - {id: printer, on: printer, then: again, steps: [{id: A.1, do: break, title: Other printer, limit: 10m}]}
  - id: share
    on: share
    then: %s
    steps:
      - {id: B.1, do: break, title: Spare share, limit: 10m, requires: {bag: sealed}, sets: {bag: opened, drive: %s}}
run:
  - {id: "2.1", do: medium.in, medium: share, title: In, limit: 10m, requires: {drive: empty}, sets: {drive: share}}
  - {id: "2.2", do: safe.open, safe: work, title: Open, limit: 10m, planned: [share], tries: %d}
  - {id: "2.3", do: medium.out, medium: share, title: Out, limit: 10m, requires: {drive: share}, sets: {drive: empty}}
  - {id: "2.4", do: paper.print, title: Sheet, limit: 10m, planned: [printer]}
  - {id: "2.5", do: safe.open, safe: work, title: never, limit: 1m}
`

// withRoom is a reshare with a drive, a bag and a spare share.
func withRoom(then, state string, tries int) string {
	text := smallScript("reshare")
	room := fmt.Sprintf(drive, then, state, tries)
	room = room[:strings.Index(room, `  - {id: "2.5"`)]
	text = strings.Replace(text, "run:\n", room, 1)
	return strings.Replace(text, `  - {id: "2.1", do: safe.open, title: T, limit: 10m, safe: work}`+"\n", "", 1)
}

func renumbered(text string) string {
	for i := 2; i <= 6; i++ {
		text = strings.Replace(text, fmt.Sprintf(`id: "2.%d", do: %s`, i, []string{"people.change", "shares.deal", "shares.receipts", "token.repin", "charter.append"}[i-2]), fmt.Sprintf(`id: "3.%d", do: %s`, i, []string{"people.change", "shares.deal", "shares.receipts", "token.repin", "charter.append"}[i-2]), 1)
	}
	return text
}

// What the room must be like holds on every way, or the way on which it does not
// is named.
func TestModelIsWalked(t *testing.T) {
	tests := []struct {
		name, text, want string
		way              []string // of the outcomes that are not done
	}{
		{"good: the spare share in the same drive, once", withRoom("again", "share", 1), "", nil},
		{"the bag cannot be opened twice", withRoom("again", "share", 2), "requires bag sealed, but on this way it is opened", []string{"2.2 contingency share", "2.2 contingency share", "B.1 fault"}},
		{"the spare is in the drive", withRoom("again", "spare", 1), "requires drive share, but on this way it is spare", []string{"2.2 contingency share", "2.3 fault"}},
		{"a safe left closed", withRoom("next", "share", 1), "shares.deal of safe work: comes after safe.open", []string{"2.2 contingency share", "3.3 fault"}},
		{"state that is not in the model", withRoom("again", "burnt", 1), `drive has no state "burnt"`, nil},
		{"contingency that nothing plans", strings.Replace(withRoom("again", "share", 1), ", planned: [printer]", "", 1), "no step plans it", nil},
		{"contingency that cannot come", strings.Replace(withRoom("again", "share", 1), "title: Out, limit", "title: Out, planned: [printer], limit", 1), "medium.out cannot meet printer", nil},
		{"contingency that is not there", strings.Replace(withRoom("again", "share", 1), "planned: [printer]", "planned: [printr]", 1), `contingency "printr" is not in the script`, nil},
		{"contingency of another phase", strings.Replace(withRoom("again", "share", 1), "do: break, title: Other", "do: vault.load, title: Other", 1), "belongs under summon", nil},
		{"contingency in a contingency", strings.Replace(withRoom("again", "share", 1), "title: Spare share,", "title: Spare share, planned: [printer],", 1), "plans no further contingency", nil},
		{"contingency that goes on nowhere", withRoom("stop", "share", 1), "again or next", nil},
		{"a number of the main way", strings.Replace(withRoom("again", "share", 1), "id: A.1", `id: "4.1"`, 1), "like A.1", nil},
		{"a medium left in", strings.Replace(withRoom("again", "share", 1), "  - {id: \"2.3\", do: medium.out, medium: share, title: Out, limit: 10m, requires: {drive: share}, sets: {drive: empty}}\n", "", 1), "it is in at the end", []string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := lint(renumbered(tt.text))
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) || e.Line == 0 {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			var way []string
			for _, p := range e.Path {
				if p.Outcome != "done" {
					way = append(way, p.Step+" "+p.Outcome)
				}
			}
			if tt.way != nil && !slices.Equal(way, tt.way) {
				t.Errorf("got way %q, want %q", way, tt.way)
			}
		})
	}
}

// large is a script of that many steps, with a contingency wherever one may be.
func large(t testing.TB, steps int) string {
	t.Helper()
	text := withRoom("again", "share", 1)
	more := ""
	for i := range steps {
		more += fmt.Sprintf("  - {id: \"%d.%d\", do: paper.print, title: P, limit: 10m, tries: 10, planned: [printer]}\n", 100+i/90, i%90+1)
	}
	return strings.Replace(renumbered(text), "seal:\n", more+"seal:\n", 1)
}

func TestLargeScriptIsWalkedInASecond(t *testing.T) {
	text := large(t, 200)
	start := time.Now()
	if err := lint(text); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("%v", d)
	}
}

// A model with many states cannot make lint run for ever: it is refused.
func TestHugeModelIsRefused(t *testing.T) {
	model, cont, more := "model: {x: [a]", "", ""
	for i := range 60 {
		model += fmt.Sprintf(", t%d: [a, b]", i)
		cont += fmt.Sprintf("  - {id: c%d, on: printer, then: again, steps: [{id: %c.%d, do: break, title: B, limit: 1m, sets: {t%d: b}}]}\n", i, 'A'+i/10, i%10+1, i)
		more += fmt.Sprintf("  - {id: \"5.%d\", do: paper.print, title: P, limit: 1m, planned: [c%d]}\n", i+1, i)
	}
	text := smallScript("enrol")
	text = strings.Replace(text, "run:\n", model+"}\ncontingencies:\n"+cont+"run:\n"+more, 1)
	start := time.Now()
	err := lint(text)
	if err == nil || !strings.Contains(err.Error(), "too many ways") || time.Since(start) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

func BenchmarkLint(b *testing.B) {
	text := large(b, 200)
	for b.Loop() {
		if err := lint(text); err != nil {
			b.Fatal(err)
		}
	}
}
