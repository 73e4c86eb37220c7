package main

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/artifact/share"
	"keyrite/ceremony/paper"
	"keyrite/internal/cli"
)

// records copies each record as it is, after verifying the copy.
func (g *gathering) records(ctx context.Context) error {
	g.receipts = map[share.Place]time.Time{}
	for _, dir := range g.o.records {
		if err := interrupted(ctx); err != nil {
			return err
		}
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return cli.Usagef("there is no record folder %q", dir)
		}
		name := g.free("records", dir)
		to := g.in(name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // evidence is public
			return fault.Errorf(fault.Storage, "make folder: %w", err)
		}
		if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
			return fault.Errorf(fault.Storage, "copy record %q: %w", dir, err)
		}
		if err := g.record(name, to); err != nil {
			return fault.Errorf(fault.ClassOf(err), "record %q: %w", dir, err)
		}
	}
	return nil
}

// record lists a record of this vault. Only what closed and was cosigned by all says who
// read his share back.
func (g *gathering) record(name, dir string) error {
	fsys := os.DirFS(dir)
	check := "keyrite-verify record " + name + checkTrust
	r := paper.EvidenceRecord{Dir: name}
	v, err := record.Verify(fsys, g.anchors)
	switch class := fault.ClassOf(err); {
	case err == nil:
	case v == nil:
		return err
	case class == fault.Quorum:
		check += " (exit 10: not cosigned by all)"
	case class == fault.Void:
		check += " (exit 11: void)"
		r.Void = v.Cause
		if r.Unsigned, err = g.void(fsys, v.Open.Base); err != nil {
			return err
		}
	default:
		return err
	}
	if v.Charter != nil {
		if err := g.state.CheckHead(v.Charter.Size(), v.Charter.Head()); err != nil {
			return err
		}
	}
	if r.Outside, err = g.outsideTimes(name, v.Timeline[0].Time, v.Timeline[len(v.Timeline)-1].Time); err != nil {
		return err
	}
	if r.Unsigned != "" {
		g.page.Unsigned = append(g.page.Unsigned, name+": "+r.Unsigned)
	}
	r.Title, r.Kind, r.State, r.Cosigners, r.Missing = v.Open.Title, v.Open.Kind, v.State, strings.Join(v.Cosigners, ", "), strings.Join(v.Missing, ", ")
	var keys []string
	for _, k := range v.Keys {
		keys = append(keys, k.Key.ID)
	}
	r.Keys = strings.Join(keys, ", ")
	g.page.Records = append(g.page.Records, r)
	g.list(name, "the record of a ceremony: "+v.Open.Title, check)
	if v.State != "CLOSED" || len(v.Missing) > 0 {
		return nil
	}
	got, err := receiptsOf(dir, g.state)
	maps.Copy(g.receipts, got)
	return err
}

// void checks the record of a void ceremony against the charter. It says why anybody
// could have written the record; empty if the conductor signed all of it. A record of
// another vault is an error.
func (g *gathering) void(fsys fs.FS, base *record.Base) (unsigned string, err error) {
	if base == nil {
		return "a genesis that fell founded no vault, whose charter would say who signed it", nil
	}
	hash, err := g.anchors.Hash()
	if err != nil {
		return "", err
	}
	if base.Anchors != hash {
		return "", fault.New(fault.Policy, "it was held under the anchors of another vault")
	}
	if err := g.state.CheckHead(base.CharterSize, base.CharterHead); err != nil {
		return "", err
	}
	v, err := record.VerifyVoid(fsys, g.anchors, g.lines)
	switch {
	case fault.ClassOf(err) == fault.Void:
		return "it was never ended, so nobody signed it", nil
	case errors.Is(err, record.ErrFew):
		return "it fell before its conductor and witnesses were there", nil
	case err != nil:
		return "", err
	case v.Signed == "":
		return "it was killed before its conductor signed it; only the signatures in it hold", nil
	}
	return "", nil
}
