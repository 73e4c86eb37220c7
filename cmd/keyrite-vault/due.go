package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/cli"
	"keyrite/vault/control"
	"keyrite/vault/duty"
	"keyrite/vault/node"
)

const (
	// maxNext bounds what status lists of what is due.
	maxNext = 8
	// dueTimeout is how long status waits for it: it is told also of a vault whose disk
	// hangs.
	dueTimeout = 3 * time.Second
)

// due is in short what has to be done next. Of a sealed vault it is what can be known
// without its store.
func (v *vault) due(st *charter.State) control.Due {
	items, err := v.items(st)
	out := control.Due{Next: []duty.Item{}}
	if err != nil {
		out.Error = cli.Escape(err.Error())
	}
	out.Soon, out.Late = duty.Count(items)
	for i := range items {
		if x := items[i]; x.Level != duty.Fine && len(out.Next) < maxNext {
			x.ID, x.About = cli.Escape(x.ID), cli.Escape(x.About)
			out.Next = append(out.Next, x)
		}
	}
	return out
}

func (v *vault) items(st *charter.State) ([]duty.Item, error) {
	if v.service != nil {
		items, err := inTime(v.service.node.Due)
		if !errors.Is(err, node.ErrSealed) {
			return items, err
		}
	} else {
		v.watch.Look() // nobody else does
	}
	return duty.Due(duty.Input{Charter: st, Things: v.watch.Things(st), Unvouched: v.bind.unvouched()}, time.Now()), nil
}

// inTime is what look finds, unless that takes too long.
func inTime(look func() ([]duty.Item, error)) ([]duty.Item, error) {
	type found struct {
		items []duty.Item
		err   error
	}
	got := make(chan found, 1)
	go func() {
		items, err := look()
		got <- found{items, err}
	}()
	select {
	case f := <-got:
		return f.items, f.err
	case <-time.After(dueTimeout):
		return nil, fault.New(fault.Storage, "the store does not answer in time")
	}
}

func printDue(w io.Writer, d *control.Due) {
	if d.Error != "" {
		fmt.Fprintf(w, "  what is due could not be looked up: %s\n", d.Error)
	}
	if d.Soon+d.Late == 0 {
		return
	}
	fmt.Fprintf(w, "  due: %d late, %d soon\n", d.Late, d.Soon)
	for i := range d.Next {
		x := &d.Next[i]
		when := "now"
		if !x.Due.IsZero() {
			when = x.Due.Format(time.DateOnly)
		}
		fmt.Fprintf(w, "    %s, %s: %s\n      %s\n", x.Level, when, x.About, x.Act)
	}
	if left := d.Soon + d.Late - len(d.Next); left > 0 {
		fmt.Fprintf(w, "    and %d more: keyrite/due\n", left)
	}
}
