package charterstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/world"
	"keyrite/internal/durable"
)

// freeWithin is how long a charter file may be in use before that is an error: a vault
// that serves holds it for the moment in which it takes statements over.
const freeWithin = 5 * time.Second

// AppendWhenFree is Append, which waits while another process has the file, or writes it:
// until that has taken 5 seconds, or ctx is done, which is an error of class interrupted.
func AppendWhenFree(ctx context.Context, path string, w world.World, vault string, proposal []byte, approvals map[string][]byte) (*charter.State, error) {
	return whenFree(ctx, func() (*charter.State, error) { return Append(path, w, vault, proposal, approvals) })
}

// ContinueWhenFree is Continue, which waits as AppendWhenFree does.
func ContinueWhenFree(ctx context.Context, path string, w world.World, vault string, longer []byte) (*charter.State, error) {
	return whenFree(ctx, func() (*charter.State, error) { return Continue(path, w, vault, longer) })
}

func whenFree(ctx context.Context, add func() (*charter.State, error)) (*charter.State, error) {
	long := time.NewTimer(freeWithin)
	defer long.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := add()
		if !errors.Is(err, durable.ErrInUse) && !errors.Is(err, durable.ErrUnfinished) {
			return st, err
		}
		select {
		case <-ctx.Done():
			return nil, fault.Errorf(fault.Interrupted, "interrupted, nothing was appended: %w", err)
		case <-long.C:
			return nil, fault.Hint(err, "a vault, another append or somebody who copies has had it for seconds: see who, and append again")
		case <-tick.C:
		}
	}
}

// Append adds an approved proposal to the charter at path, durably. The whole
// log is folded again, with the new line, before a byte is written. What a write left
// that was cut off is cut away first; a file that somebody writes at this moment is
// durable.ErrUnfinished.
func Append(path string, w world.World, vault string, proposal []byte, approvals map[string][]byte) (*charter.State, error) {
	a, had, err := open(path)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	st, err := charter.Fold(had, w, vault)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "charter %q: %w", path, err)
	}
	p, err := Open(proposal, st)
	if err != nil {
		return nil, err
	}
	line, err := Merge(p, approvals)
	if err != nil {
		return nil, err
	}
	after, err := charter.Fold(fmt.Appendf(bytes.Clone(had), "%s\n", line), w, vault)
	if err != nil {
		return nil, err
	}
	if err := a.CutRested(); err != nil {
		return nil, err
	}
	return after, a.Line(line)
}

// Continue adds to the charter at path, durably, what a longer one has beyond it, such as
// that of the record of a ceremony, whose statements are not made by proposal. The longer
// one is folded, and must begin with the charter at path, before a byte is written. If it
// has no more, nothing is. Cut off between two statements the charter has the first, and
// the same call adds the rest. A file that somebody writes is as in Append.
func Continue(path string, w world.World, vault string, longer []byte) (*charter.State, error) {
	st, err := charter.Fold(longer, w, vault)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "the longer charter: %w", err)
	}
	a, had, err := open(path)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	more, ok := bytes.CutPrefix(longer, had)
	if !ok || len(had) == 0 {
		return nil, fault.Hint(fault.Errorf(fault.Policy, "charter %q is no beginning of the longer one", path),
			"it has statements that the longer one lacks, or is another: see with 'keyrite charter show' where they part")
	}
	if err := a.CutRested(); err != nil {
		return nil, err
	}
	for line := range bytes.Lines(more) {
		if err := a.Line(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// open takes the charter at path, unless somebody writes it, and reads its whole lines.
func open(path string) (*durable.Append, []byte, error) {
	a, lines, err := durable.OpenShared(path)
	if err != nil {
		return nil, nil, err
	}
	if err := a.Settled(); err != nil {
		return nil, nil, errors.Join(err, a.Close())
	}
	return a, bytes.Join(append(lines, nil), []byte("\n")), nil
}
