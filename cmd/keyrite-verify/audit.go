package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

type auditOptions struct {
	anchorOptions
	charter, identity, path string
	list                    bool
}

func newAudit() *cobra.Command {
	var o auditOptions
	c := &cobra.Command{
		Use:   "audit EXTRACT --anchor FILE --charter FILE",
		Short: "Verify an extract of a vault's audit trail",
		Long: `Verify an extract that 'keyrite-vault audit' wrote: each of its entries stands in
the vault's log, whose state is signed by the log key of the charter and cosigned by
as many of its cosigners as the charter needs. What the vault says of its own
charter must be the charter that is given here, at every size it had: a change that
the approvers did not sign shows.

An extract of the whole trail shows as well that nothing was left out, and which uses
of a key have no outcome. One of some entries shows only that these stand there.

With --list the entries are printed, those of --identity or below --path only.

Exit codes: 0 verified, 2 not usable, 10 too few cosignatures, 13 of another vault or
world, 14 altered, not in the log, or made under another charter.`,
		Example: "  keyrite-verify audit trail.jsonl --anchor anchors.json --charter charter.jsonl --list --path transit/sign",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runAudit(c, &o, args[0]) },
	}
	anchorFlags(c, &o.anchorOptions)
	charterFlag(c, &o.charter)
	c.Flags().BoolVar(&o.list, "list", false, "print the entries, once all are verified")
	c.Flags().StringVar(&o.identity, "identity", "", "with --list: only entries of this identity")
	c.Flags().StringVar(&o.path, "path", "", "with --list: only entries of this path and those below it")
	return c
}

type auditResult struct {
	Schema    string         `json:"schema"`
	World     string         `json:"world"`
	Size      int64          `json:"size"`
	Entries   int64          `json:"entries"`
	Whole     bool           `json:"whole"`
	First     string         `json:"first"`
	Last      string         `json:"last"`
	Kinds     map[string]int `json:"kinds"`
	Open      []uint64       `json:"open"` // intents without a result
	Cosigners []string       `json:"cosigners"`
	Listed    []auditLine    `json:"listed,omitempty"`
}

type auditLine struct {
	Seq   uint64      `json:"seq"`
	Entry trail.Entry `json:"entry"`
}

func runAudit(c *cobra.Command, o *auditOptions, path string) error {
	if !o.list && (o.identity != "" || o.path != "") {
		return cli.Usagef("--identity and --path choose what --list prints")
	}
	anchors, err := o.loadAnchors()
	if err != nil {
		return err
	}
	st, err := needCharter(o.charter, o.anchor, anchors)
	if err != nil {
		return err
	}
	if st.Audit.Log.Version == 0 {
		return fault.Hint(fault.New(fault.Policy, "the charter names no key for the vault's trail, so nobody's word on it counts"),
			"give the newest charter; the approvers append the statement 'audit-log'")
	}
	f, err := intake.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := auditResult{Schema: "keyrite/verify-audit/v1", World: string(st.World), Kinds: map[string]int{}, Open: []uint64{}, Cosigners: []string{}}
	v, err := trail.Verify(f, st.TrailSigners(), func(_ uint64, e *trail.Entry) error { return r.take(e, st) })
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "extract %q: %w", path, err)
	}
	r.Size, r.Entries, r.Whole = v.Size, v.Entries, v.Whole
	r.Open, r.Cosigners = append(r.Open, v.Open...), append(r.Cosigners, v.Cosigners...)
	if !o.list {
		return cli.Print(c, r, r.print)
	}
	return o.print(c, f, st, &r)
}

// take counts an entry, and holds what the vault took over against the charter.
func (r *auditResult) take(e *trail.Entry, st *charter.State) error {
	if r.First == "" {
		r.First = e.Time
	}
	r.Last = e.Time
	r.Kinds[string(e.Kind)]++
	size, head, ok, err := e.TookOver()
	if err != nil || !ok {
		return err
	}
	if size > st.Size() {
		return fault.Hint(fault.Errorf(fault.Verify, "the vault took over a charter of %d statements on %s, this one has %d", size, e.Time, st.Size()), "give the newest charter")
	}
	return st.CheckHead(size, head)
}

// print reads the extract once more, now that all of it holds.
func (o *auditOptions) print(c *cobra.Command, f *intake.File, st *charter.State, r *auditResult) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fault.Errorf(fault.Storage, "read the extract again: %w", err)
	}
	var text strings.Builder
	_, err := trail.Verify(f, st.TrailSigners(), func(n uint64, e *trail.Entry) error {
		if o.identity != "" && e.Identity != o.identity || o.path != "" && e.Path != o.path && !strings.HasPrefix(e.Path, strings.TrimSuffix(o.path, "/")+"/") {
			return nil
		}
		if cli.JSON(c) {
			r.Listed = append(r.Listed, auditLine{n, *e})
			return nil
		}
		line := fmt.Sprintf("%8d  %s  %-7s  %-16s  %-8s  %s%s", n, e.Time, e.Kind, cli.Escape(cmp.Or(e.Identity, "-")), cli.Escape(e.Operation), cli.Escape(e.Path), told(e))
		fmt.Fprintln(&text, strings.TrimRight(line, " "))
		return nil
	})
	if err != nil {
		return errors.Join(fault.New(fault.Verify, "the extract changed while it was read"), err)
	}
	return cli.Print(c, *r, func(w io.Writer) {
		r.print(w)
		fmt.Fprint(w, text.String())
	})
}

// told is what became of a call that went wrong.
func told(e *trail.Entry) string {
	if e.Class == "" {
		return ""
	}
	return "  " + e.Class + ": " + cli.Escape(e.Error)
}

func (r *auditResult) print(w io.Writer) {
	fmt.Fprintf(w, "verified: %d of %d entries, %s to %s", r.Entries, r.Size, r.First, r.Last)
	if r.Whole {
		fmt.Fprint(w, ": the whole trail")
	}
	fmt.Fprintln(w)
	for _, k := range []trail.Kind{trail.Request, trail.Refused, trail.Intent, trail.Result, trail.Life} {
		if n := r.Kinds[string(k)]; n > 0 {
			fmt.Fprintf(w, "  %d %s\n", n, k)
		}
	}
	if len(r.Cosigners) == 0 {
		fmt.Fprintln(w, "not cosigned: that nothing was taken back rests on the vault's word alone")
	} else {
		fmt.Fprintf(w, "cosigned by %s\n", strings.Join(r.Cosigners, ", "))
	}
	for _, n := range r.Open {
		fmt.Fprintf(w, "entry %d: a key was about to be used, and no outcome follows\n", n)
	}
}
