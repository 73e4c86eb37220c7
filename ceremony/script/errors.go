package script

import (
	"fmt"
	"strings"
)

// Pos is a place in a file, counted from 1; the zero Pos is none.
type Pos struct {
	Line int `json:"line"`
	Col  int `json:"col"` // in characters
}

// Error is a fault in a script, of class usage.
type Error struct {
	File  string // as given to Parse
	Pos          // the offending place
	Where string // step or member, in words
	Text  string
	Hint  string    // what to do, or ""
	Path  []Passage // the way that leads to the fault, if the walk found it
}

func (e *Error) Error() string {
	place := e.File
	if e.Line > 0 {
		place = fmt.Sprintf("%s:%d:%d", e.File, e.Line, e.Col)
	}
	return "script: " + strings.Join(nonEmpty(place, e.Where, e.Text), ": ")
}

// FaultClass is usage: nothing was done yet.
func (e *Error) FaultClass() string { return "usage" }

// FaultHint is shown after the error.
func (e *Error) FaultHint() string { return e.Hint }

// FaultCases is the way that leads to the fault, for --json; nil without one.
func (e *Error) FaultCases() any {
	if len(e.Path) == 0 {
		return nil
	}
	return e.Path
}

func nonEmpty(list ...string) []string {
	var out []string
	for _, s := range list {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

// bad is a fault at a place of the script: path as in "run.3.limit", where in
// words.
func (s *Script) bad(path, where, format string, args ...any) *Error {
	return &Error{File: s.file, Pos: s.mark(path), Where: where, Text: fmt.Sprintf(format, args...)}
}

// mark is where path stands, or the nearest thing around it that stands
// anywhere.
func (s *Script) mark(path string) Pos {
	for {
		if p, ok := s.marks[path]; ok {
			return p
		}
		cut := strings.LastIndexByte(path, '.')
		if cut < 0 {
			return Pos{}
		}
		path = path[:cut]
	}
}

// nearest is the known word that the given one was meant to be, or "".
func nearest(word string, known []string) string {
	best, found := len(word)/2+1, ""
	for _, k := range known {
		if d := distance(word, k); d < best {
			best, found = d, k
		}
	}
	return found
}

// maxWord bounds the words that are compared, for the comparison is quadratic.
const maxWord = 64

// distance is how many letters must be added, dropped or exchanged.
func distance(a, b string) int {
	if len(a) > maxWord || len(b) > maxWord {
		return maxWord
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}

func meant(word string, known []string) string {
	if n := nearest(word, known); n != "" {
		return "did you mean " + n + "?"
	}
	return ""
}

// Nearest is the known word that was probably meant, "" if none is near.
func Nearest(word string, known []string) string { return nearest(word, known) }
