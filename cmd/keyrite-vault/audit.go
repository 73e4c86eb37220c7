package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/artifact/tlog"
	"keyrite/artifact/trail"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/vault/audit"
	"keyrite/vault/control"
	"keyrite/vault/seal"
)

type auditOptions struct {
	placeOptions
	from, to, identity, path, out string
}

func newAudit() *cobra.Command {
	var o auditOptions
	c := &cobra.Command{
		Use:   "audit --bind FILE --state-dir DIR --out FILE [--from TIME] [--to TIME] [--identity ID] [--path PATH]",
		Short: "Write an extract of the audit trail that a stranger can verify",
		Long: `Write entries of the audit trail of the open vault into a file, with the proof that they
stand in its log: all of them, or those of a time, an identity or a path. The file is
verified before it gets its name; others do that with 'keyrite-verify audit'.

TIME is a day, 2026-07-01, or RFC 3339; --to is the first that is not meant any more.
An extract of some entries shows that these stand there; only one of all shows that
nothing was left out.

Exit codes: 0 written, 2 usage or no such entry, 13 the charter names no key for the
trail, 15 sealed, 16 FILE exists, 18 no space, 19 no vault runs here.`,
		Example: "  keyrite-vault audit --bind vault.yaml --state-dir state --out trail.jsonl --from 2026-07-01 --path transit/sign",
		Args:    cobra.NoArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return runAudit(c, &o) },
	}
	o.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.from, "from", "", "first time that is meant")
	f.StringVar(&o.to, "to", "", "first time that is not meant any more")
	f.StringVar(&o.identity, "identity", "", "entries of this identity only")
	f.StringVar(&o.path, "path", "", "entries of this path and those below it only")
	f.StringVar(&o.out, "out", "", "file to write; it is never overwritten (required)")
	_ = c.MarkFlagRequired("out") // fails only for a flag that does not exist
	return c
}

// parseTime reads a day or a time of RFC 3339; an empty text is no time.
func parseTime(name, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if at, err := time.Parse(form, s); err == nil {
			return at, nil
		}
	}
	return time.Time{}, cli.Usagef("--%s %q is neither a day such as 2026-07-01 nor a time of RFC 3339", name, s)
}

func (o *auditOptions) choice() (c audit.Choice, err error) {
	c = audit.Choice{Identity: o.identity, Path: o.path}
	if c.From, err = parseTime("from", o.from); err != nil {
		return c, err
	}
	if c.To, err = parseTime("to", o.to); err != nil {
		return c, err
	}
	if !c.From.IsZero() && !c.To.IsZero() && !c.From.Before(c.To) {
		return c, cli.Usagef("--to %s is not after --from %s", o.to, o.from)
	}
	return c, nil
}

type auditResult struct {
	Schema  string `json:"schema"`
	Out     string `json:"out"`
	Entries int64  `json:"entries"`
	Size    int64  `json:"size"` // of the log
	Whole   bool   `json:"whole"`
}

func runAudit(c *cobra.Command, o *auditOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	choice, err := o.choice()
	if err != nil {
		return err
	}
	b, err := loadBind(o.bind)
	if err != nil {
		return err
	}
	f, err := durable.Create(o.out, 0o644)
	if err != nil {
		return err
	}
	defer f.Abort() // after Commit it does nothing
	w := bufio.NewWriter(f)
	if err := control.NewClient(o.stateDir).Audit(c.Context(), w, choice); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return fault.Errorf(fault.Storage, "write the extract: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return fault.Errorf(fault.Storage, "read the extract back: %w", err)
	}
	v, err := o.verifyExtract(b, f)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "what the vault wrote: %w", err)
	}
	if err := f.Commit(); err != nil {
		return err
	}
	r := auditResult{"keyrite/vault-audit/v1", o.out, v.Entries, v.Size, v.Whole}
	return cli.Print(c, r, func(w io.Writer) {
		fmt.Fprintf(w, "written: %d of %d entries to %s; others check it with\n  keyrite-verify audit %s --anchor %s --charter %s\n",
			r.Entries, r.Size, cli.Escape(r.Out), cli.Escape(r.Out), cli.Escape(b.path(b.Anchors)), cli.Escape(b.path(b.Charter)))
	})
}

// verifyExtract checks an extract as its readers will, with the charter file.
func (o *auditOptions) verifyExtract(b *bind, r io.Reader) (*trail.Verified, error) {
	c, err := openCharter(b, o.stateDir, false)
	if err != nil {
		return nil, err
	}
	return trail.Verify(r, c.State().TrailSigners(), func(uint64, *trail.Entry) error { return nil })
}

// extract writes an extract under the newest head: as the cosigner has it, or, where a
// file keeps the head, signed by the log's key alone.
func (v *vault) extract(ctx context.Context, w io.Writer, c audit.Choice) (int64, error) {
	return v.service.node.Extract(ctx, w, func(h seal.Head) ([]byte, error) {
		if k, ok := v.keeper.(*seal.CosignerKeeper); ok {
			return k.Checkpoint(), nil
		}
		key, err := loadKey(v.dir, logKeyFile)
		if err != nil {
			return nil, err
		}
		return tlog.Sign(h.Checkpoint(), v.state().Audit.Log.Log.Name, key)
	}, c)
}
