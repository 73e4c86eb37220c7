package script

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A shipped script is a template: a script with lines that begin with #? and say
// what 'keyrite ceremony new' asks, one question a line:
//
//	#? FLAG TYPE DEFAULT PLACE -- why it is asked, in one sentence
//
// PLACE is a piece of the script with * where the answer goes, or several with &
// between them: the default stands there until then, so that the template can be
// read, and linted, as it is. It may be a word between @ signs, which stands
// wherever the answer goes. A question of type yes has no place but -: the lines
// that begin with #+FLAG are in the script if the answer is yes; those that begin
// with #+ONE #+OTHER if both are. The place of another question may be in such lines.

// Question is one line of a template.
type Question struct {
	Flag    string // as it is given on the command line, without --
	Type    string // name, names, number, text, hosts or yes
	Default string
	Text    string // one sentence

	place string
}

var questionRE = regexp.MustCompile(`^#\? ([a-z][a-z-]*) (name|names|number|text|hosts|yes) (?:"([^"]*)"|(\S+)) (.+) -- (.+)$`)

// Questions are what a template asks, in its order.
func Questions(template string) ([]Question, error) {
	var out []Question
	seen := map[string]bool{}
	for i, line := range strings.Split(template, "\n") {
		if !strings.HasPrefix(line, "#?") {
			continue
		}
		m := questionRE.FindStringSubmatch(line)
		if m == nil || seen[m[1]] {
			return nil, &Error{File: "template", Pos: Pos{i + 1, 1}, Text: "no good question: " + line}
		}
		seen[m[1]] = true
		q := Question{Flag: m[1], Type: m[2], Default: m[3] + m[4], Text: m[6], place: m[5]}
		if err := q.Check(q.Default); err != nil {
			return nil, &Error{File: "template", Pos: Pos{i + 1, 1}, Text: "default of " + q.Flag + ": " + err.Error()}
		}
		out = append(out, q)
	}
	for _, q := range common() {
		if strings.Contains(template, q.place) && !slices.ContainsFunc(out, func(x Question) bool { return x.place == q.place }) {
			out = append(out, q)
		}
	}
	return out, nil
}

// common are questions that a template need not write out to ask them.
func common() []Question {
	return []Question{
		{"title", "text", "Ceremony", "The name of the ceremony, as it stands on every page.", "@TITLE@"},
		{"root-token", "name", "root", "The label of the root token, as in the genesis.", "@ROOT@"},
		{"work-token", "name", "work", "The label of the work token, as in the genesis.", "@WORK@"},
	}
}

var hostRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

var wordRE = regexp.MustCompile(`@[A-Z]+@`)

const (
	maxAnswer     = 1_000_000_000 // of a number that is asked
	maxTextAnswer = 200           // characters
)

// Check says whether an answer can be taken. Whatever passes stays inside the
// place that it is written to.
func (q *Question) Check(answer string) error {
	good, want := false, ""
	switch q.Type {
	case "name":
		good, want = nameRE.MatchString(answer), "a name: a-z, 0-9 and -, at most 32, a letter first"
	case "names":
		good, want = everyItem(answer, nameRE), "names with commas between them: a-z, 0-9 and -, at most 32 each"
	case "hosts":
		good, want = everyItem(answer, hostRE), "host names or IPv4 addresses with commas between them"
	case "number":
		n, err := strconv.Atoi(answer)
		good, want = err == nil && n >= 0 && n <= maxAnswer && strconv.Itoa(n) == answer, "a whole number"
	case "yes":
		good, want = answer == "yes" || answer == "no", "yes or no"
	case "text":
		good, want = plain(answer, maxTextAnswer) && !strings.ContainsAny(answer, `"\`), "a text of at most 200 characters, without quotes, backslashes or line breaks"
	}
	if !good {
		return &Error{Text: fmt.Sprintf("%s wants %s, not %.60q", q.Flag, want, answer)}
	}
	return nil
}

func everyItem(answer string, re *regexp.Regexp) bool {
	for x := range strings.SplitSeq(answer, ",") {
		if !re.MatchString(strings.TrimSpace(x)) {
			return false
		}
	}
	return true
}

// Fill writes a script: the template with the answers, by flag, in their places,
// and without its questions. fixed are further words between @ signs.
func Fill(template string, answers, fixed map[string]string) (string, error) {
	return fill(template, answers, fixed, map[string]string{}, nil)
}

// fill is Fill with marks that nobody is asked about, and keys that are looked for.
func fill(template string, answers, fixed, marks map[string]string, keys []FoundKey) (string, error) {
	questions, err := Questions(template)
	if err != nil {
		return "", err
	}
	if err := answered(questions, answers, marks); err != nil {
		return "", err
	}
	text, err := lines(template, marks, keys)
	if err != nil {
		return "", err
	}
	var pairs []string
	for word, value := range fixed {
		pairs = append(pairs, "@"+word+"@", value)
	}
	for i, q := range questions {
		// The hole first, the answer later: no answer is taken for a place.
		hole := fmt.Sprintf("\x00%d\x00", i)
		pairs = append(pairs, hole, q.answer(answers))
		if q.Type == "yes" {
			continue
		}
		for place := range strings.SplitSeq(q.place, " & ") {
			at := strings.ReplaceAll(place, "*", q.Default)
			switch {
			case strings.Contains(text, at):
			case !strings.Contains(template, at):
				return "", &Error{File: "template", Text: fmt.Sprintf("the place of %s, %q, is not in it", q.Flag, at)}
			case q.answer(answers) != q.Default:
				return "", &Error{Text: fmt.Sprintf("%s is answered, but the lines that it is for are not wanted", q.Flag)}
			}
			if filled := strings.ReplaceAll(place, "*", hole); filled != place {
				text = strings.ReplaceAll(text, at, filled)
			} else {
				text = strings.ReplaceAll(text, at, hole)
			}
		}
	}
	for _, word := range wordRE.FindAllString(text, -1) {
		if !slices.Contains(pairs, word) {
			return "", &Error{File: "template", Text: word + " is not filled in"}
		}
	}
	return strings.NewReplacer(pairs...).Replace(text), nil
}

func (q *Question) answer(answers map[string]string) string {
	if a, given := answers[q.Flag]; given {
		return a
	}
	return q.Default
}

// answered checks all answers and adds those to yes or no to the marks.
func answered(questions []Question, answers, marks map[string]string) error {
	for _, q := range questions {
		if err := q.Check(q.answer(answers)); err != nil {
			return err
		}
		if q.Type == "yes" {
			marks[q.Flag] = q.answer(answers)
		}
	}
	return nil
}

// lines takes the questions out of a template and puts those lines in that are
// wanted, by their marks.
func lines(template string, wanted map[string]string, keys []FoundKey) (string, error) {
	var out []string
	for line := range strings.SplitSeq(template, "\n") {
		rest, is, err := marked(line, wanted)
		if err != nil {
			return "", err
		}
		if is && !strings.HasPrefix(rest, "#?") {
			out = append(out, forEach(rest, keys)...)
		}
	}
	return strings.Join(out, "\n"), nil
}

// marked takes the marks off a line and says whether all of them are wanted.
func marked(line string, wanted map[string]string) (rest string, is bool, err error) {
	is = true
	for strings.HasPrefix(line, "#+") {
		flag, after, _ := strings.Cut(line[len("#+"):], " ")
		if taken := flag == findsMark || strings.HasPrefix(flag, adoptsMark); wanted[flag] == "" && !taken {
			return "", false, &Error{File: "template", Text: "nothing asks whether " + flag + " is wanted"}
		}
		is = is && wanted[flag] == "yes"
		line = after
	}
	return line, is, nil
}
