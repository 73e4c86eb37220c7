package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/share"
	"keyrite/artifact/trail"
	"keyrite/ceremony/paper"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

// gathering verifies what it is given and puts it into dir.
type gathering struct {
	o        *evidenceOptions
	dir      string
	from, to time.Time
	page     paper.Evidence
	anchors  *anchor.Anchors // of the genesis, which records were held under
	lines    []byte          // of the charter
	state    *charter.State
	receipts map[share.Place]time.Time
	taken    map[string]bool
}

// all copies first and verifies what was copied: a file that changes meanwhile must not
// be vouched for.
func (g *gathering) all(ctx context.Context) error {
	if _, _, err := g.o.load(); err != nil { // with the names that the caller gave
		return err
	}
	if err := g.trust(); err != nil {
		return err
	}
	g.page.World, g.page.Vault, g.page.From, g.page.To = string(g.state.World), g.state.Vault, g.o.from, g.o.to
	g.page.Made = g.o.now.UTC().Format(time.DateTime + " UTC")
	for _, step := range []func(context.Context) error{g.charter, g.records, g.proofs, g.trails} {
		if err := step(ctx); err != nil {
			return err
		}
		if err := interrupted(ctx); err != nil {
			return err
		}
	}
	g.ends()
	g.keys()
	return nil
}

// outside says whether what began and ended then lies outside the period; what of it is
// given is marked, since what is within may rest on it.
func (g *gathering) outside(name string, first, last time.Time) bool {
	if !last.Before(g.from) && first.Before(g.to) {
		return false
	}
	g.page.Outside = append(g.page.Outside, name)
	return true
}

// outsideTimes is outside for times as they are written; nothing at all is not outside.
func (g *gathering) outsideTimes(name, first, last string) (bool, error) {
	if first == "" {
		return false, nil
	}
	began, err := time.Parse(time.RFC3339, first)
	if err != nil {
		return false, fault.Errorf(fault.Verify, "time %.40q: %w", first, err)
	}
	ended, err := time.Parse(time.RFC3339, last)
	if err != nil {
		return false, fault.Errorf(fault.Verify, "time %.40q: %w", last, err)
	}
	return g.outside(name, began, ended), nil
}

// interrupted is an error once somebody pressed Ctrl-C.
func interrupted(ctx context.Context) error {
	if ctx.Err() == nil {
		return nil
	}
	return fault.New(fault.Interrupted, "interrupted; no folder is left behind")
}

// take is copy for a file whose check is known, which it lists.
func (g *gathering) take(name, from, what, check string) (string, error) {
	to, err := g.copy(name, from)
	if err == nil {
		g.list(name, what, check)
	}
	return to, err
}

// copy copies one file under a name that is still free, and returns the copy's path.
func (g *gathering) copy(name, from string) (string, error) {
	in, err := intake.Open(from)
	if err != nil {
		return "", err
	}
	defer in.Close()
	to := g.in(name)
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil { //nolint:gosec // evidence is public
		return "", fault.Errorf(fault.Storage, "make folder: %w", err)
	}
	out, err := durable.Create(to, 0o644)
	if err != nil {
		return "", err
	}
	defer out.Abort() // after Commit it does nothing
	if _, err := io.Copy(out, in); err != nil {
		return "", fault.Errorf(fault.Storage, "copy %q: %w", from, err)
	}
	return to, out.Commit()
}

// in is where a name of the folder lies.
func (g *gathering) in(name string) string { return filepath.Join(g.dir, filepath.FromSlash(name)) }

func (g *gathering) list(name, what, check string) {
	g.page.Files = append(g.page.Files, paper.EvidenceFile{Path: name, What: what, Check: check})
}

// free is the base name of a path, made different from those before.
func (g *gathering) free(folder, path string) string {
	base := filepath.Base(filepath.Clean(path))
	name := folder + "/" + base
	for i := 2; g.taken[name]; i++ {
		name = fmt.Sprintf("%s/%s-%d", folder, base, i)
	}
	g.taken[name] = true
	return name
}

const checkTrust = " --anchor anchors.json"

// trust copies what everything else is checked against, and reads the copies.
func (g *gathering) trust() error {
	var copied trustOptions
	var err error
	if copied.anchor, err = g.take("anchors.json", g.o.anchor, "what is taken on trust: the keys of the vault, as the genesis made them", "compare its words with a participant's sheet"); err != nil {
		return err
	}
	if g.o.succession != "" {
		if copied.succession, err = g.take("succession.json", g.o.succession, "which of these keys have been replaced since", "keyrite-verify charter charter.jsonl"+checkTrust+" --succession succession.json"); err != nil {
			return err
		}
	}
	if copied.charter, err = g.take("charter.jsonl", g.o.charter, "every decision of the approvers, from the genesis on", "keyrite-verify charter charter.jsonl"+checkTrust); err != nil {
		return err
	}
	if _, g.state, err = copied.load(); err != nil {
		return err
	}
	copied.succession = ""
	if g.anchors, err = copied.loadAnchors(); err != nil {
		return err
	}
	g.lines, err = intake.Read(g.in("charter.jsonl"), maxCharterBytes)
	return err
}

// charter lists the statements of the period.
func (g *gathering) charter(context.Context) error {
	names := g.state.Names()
	for line := range bytes.Lines(g.lines) {
		l, err := charter.Describe(bytes.TrimSuffix(line, []byte("\n")), names)
		if err != nil {
			return err
		}
		at, err := charter.ParseTime(l.Time)
		if err != nil {
			return err
		}
		if at.Before(g.from) || !at.Before(g.to) {
			g.page.Others++
			continue
		}
		g.page.Statements = append(g.page.Statements, paper.EvidenceStatement{Seq: l.Seq, Time: strings.TrimSuffix(strings.Replace(l.Time, "T", " ", 1), "Z"), Type: l.Type, About: l.About, Signers: strings.Join(l.Signers, ", ")})
	}
	return nil
}

// trails verifies and copies extracts of the audit trail.
func (g *gathering) trails(ctx context.Context) error {
	for _, path := range g.o.audits {
		name := g.free("audit", path)
		copied, err := g.take(name, path, "what processes asked of the vault, and what was answered", "keyrite-verify audit "+name+checkTrust+" --charter charter.jsonl")
		if err != nil {
			return err
		}
		row, err := g.trail(ctx, copied)
		if err != nil {
			return fault.Errorf(fault.ClassOf(err), "extract %q: %w", path, err)
		}
		row.File = name
		if row.Outside, err = g.outsideTimes(name, row.First, row.Last); err != nil {
			return err
		}
		g.page.Trails = append(g.page.Trails, *row)
	}
	return nil
}

func (g *gathering) trail(ctx context.Context, path string) (*paper.EvidenceTrail, error) {
	f, err := intake.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	row := &paper.EvidenceTrail{}
	kinds := map[string]int{}
	v, err := trail.Verify(f, g.state.TrailSigners(), func(_ uint64, e *trail.Entry) error {
		if err := interrupted(ctx); err != nil {
			return err
		}
		row.First, row.Last = cmp.Or(row.First, e.Time), e.Time
		kinds[string(e.Kind)]++
		size, head, ok, err := e.TookOver()
		if err != nil || !ok {
			return err
		}
		return g.state.CheckHead(size, head)
	})
	if err != nil {
		return nil, err
	}
	var list []string
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		list = append(list, fmt.Sprintf("%d %s", kinds[k], k))
	}
	row.Kinds, row.Cosigners = strings.Join(list, ", "), cmp.Or(strings.Join(v.Cosigners, ", "), "nobody")
	row.Entries, row.Size, row.Whole, row.Open = v.Entries, v.Size, v.Whole, len(v.Open)
	return row, nil
}

// sumsOf is the list of hashes of every file in a folder, in the form of sha256sum.
func sumsOf(fsys fs.FS) ([]byte, error) {
	var b bytes.Buffer
	err := fs.WalkDir(fsys, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := fsys.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s  %s\n", hex.EncodeToString(h.Sum(nil)), path)
		return nil
	})
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read back the folder: %w", err)
	}
	return b.Bytes(), nil
}
