package page

import (
	"net/http"
	"slices"
	"strconv"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/signrequest"
	"keyrite/vault/node"
)

// charterPath is where the statements in force are read.
const charterPath = "keyrite/charter"

// perPage is how many statements stand on one page.
const perPage = 25

// history is a part of the charter, newest first.
type history struct {
	Size  int
	Head  string
	Lines []statement
	// Newer and Older are the addresses of the pages beside; "" at an end.
	Newer, Older string
}

// statement is one of them.
type statement struct {
	*charter.Line
	All []string // all that it says
}

// charterAnswer is what keyrite/charter answers.
type charterAnswer struct {
	Size       int
	Head       string
	From       int
	Statements []string
}

func showCharter(x *look) (any, error) {
	if err := x.only("before"); err != nil {
		return nil, err
	}
	size := x.state.Charter
	before, err := x.number("before", size, size)
	if err != nil {
		return nil, err
	}
	from := max(0, before-perPage)
	var a charterAnswer
	if err := x.read(charterPath, map[string]any{"from": from, "limit": before - from}, &a); err != nil {
		return nil, err
	}
	h := history{Size: a.Size, Head: a.Head}
	if from > 0 {
		h.Older = "/charter?before=" + strconv.Itoa(from)
	}
	if before < a.Size {
		h.Newer = "/charter?before=" + strconv.Itoa(min(a.Size, before+perPage))
	}
	st := x.s.cfg.Vault.Charter()
	if st == nil {
		return nil, node.ErrSealed
	}
	names := st.Names()
	for _, line := range slices.Backward(a.Statements) {
		s, err := describe(line, names)
		if err != nil {
			return nil, err
		}
		h.Lines = append(h.Lines, *s)
	}
	return &h, nil
}

func describe(line string, names map[string]string) (*statement, error) {
	l, err := charter.Describe([]byte(line), names)
	if err != nil {
		return nil, err
	}
	env, err := envelope.Parse([]byte(line))
	if err != nil {
		return nil, err
	}
	all, err := signrequest.Describe(env.Payload)
	if err != nil {
		return nil, err
	}
	return &statement{l, all[min(1, len(all)):]}, nil
}

// showLine gives one line of the log as it stands in the file.
func showLine(x *look) (any, error) {
	if err := x.only("number"); err != nil {
		return nil, err
	}
	n, err := x.number("number", -1, max(0, x.state.Charter-1))
	if err != nil {
		return nil, err
	}
	if n < 0 {
		return nil, fault.New(fault.Usage, "the number of a statement is needed")
	}
	var a charterAnswer
	if err := x.read(charterPath, map[string]any{"from": n, "limit": 1}, &a); err != nil {
		return nil, err
	}
	if len(a.Statements) != 1 {
		return nil, fault.Errorf(fault.Usage, "the charter has no statement %d", n)
	}
	x.write(http.StatusOK, "text/plain; charset=utf-8", a.Statements[0]+"\n")
	return nil, nil //nolint:nilnil // the answer is written
}
