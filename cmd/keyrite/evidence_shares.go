package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/share"
	"keyrite/ceremony/paper"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

// proofs counts the shares that are known to be alive: by proofs that verify, and by the
// receipts of records. What a ledger only tells is told.
func (g *gathering) proofs(context.Context) error {
	last, told, err := g.ledger()
	if err != nil || len(last)+len(told) == 0 {
		return err
	}
	for _, a := range share.CountAlive(g.state, last, g.o.now.Add(-provenFor)) {
		row := paper.EvidenceShares{Safe: a.Safe, Epoch: a.Epoch, Need: a.Need, Of: a.Of, Low: a.Low(), Lost: a.Lost()}
		row.Proven, err = g.provers(&a, last)
		if err != nil {
			return err
		}
		for _, p := range slices.SortedFunc(maps.Keys(told), func(x, y share.Place) int { return strings.Compare(x.Holder, y.Holder) }) {
			if p.Safe == a.Safe && p.Epoch == a.Epoch && !slices.Contains(a.Proven, p.Holder) {
				row.Told = append(row.Told, p.Holder)
			}
		}
		g.page.Shares = append(g.page.Shares, row)
	}
	return nil
}

// provers are the holders who proved their shares, each with the day of the last proof.
func (g *gathering) provers(a *share.Alive, last map[share.Place]time.Time) ([]paper.EvidenceProof, error) {
	var out []paper.EvidenceProof
	for _, holder := range a.Proven {
		p, _, err := share.PlaceOf(g.state, a.Safe, holder)
		if err != nil {
			return nil, err
		}
		outside := g.outside(fmt.Sprintf("proof of %s for safe %s", holder, a.Safe), last[p], last[p])
		out = append(out, paper.EvidenceProof{Holder: holder, Day: day(last[p]), Outside: outside})
	}
	return out, nil
}

// ledger verifies and copies the ledger. last are the last proofs, with the receipts;
// told are those that the ledger tells of and does not have.
func (g *gathering) ledger() (last, told map[share.Place]time.Time, err error) {
	const name = "shares.proofs"
	last, told = maps.Clone(g.receipts), map[share.Place]time.Time{}
	path := ledgerPath(g.o.ledger, g.o.charter)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if g.o.ledger != "" {
			return nil, nil, cli.Usagef("there is no ledger %q", path)
		}
		g.lacks("proofs of the ledger that shares are alive: there is none")
		return last, told, nil
	}
	check := "keyrite-verify share-proof --ledger " + name + checkTrust + " --charter charter.jsonl"
	copied, err := g.copy(name, path)
	if err != nil {
		return nil, nil, err
	}
	data, err := intake.Read(copied, share.MaxLedgerBytes)
	if err != nil {
		return nil, nil, err
	}
	l, err := share.ParseLedger(data)
	if err != nil {
		return nil, nil, fault.Errorf(fault.ClassOf(err), "ledger %q: %w", path, err)
	}
	kept, err := l.Check(g.lines)
	if errors.Is(err, share.ErrTold) {
		check += " (exit 14: it tells of proofs that it does not have)"
		g.page.Unsigned = append(g.page.Unsigned, name+fmt.Sprintf(": %v", err))
	} else if err != nil {
		return nil, nil, fault.Errorf(fault.ClassOf(err), "ledger %q: %w", path, err)
	}
	g.list(name, "which key masters proved that their share is alive, and when", check)
	for _, k := range kept {
		to := told
		if k.Proved {
			to = last
		}
		if k.At.After(to[k.Place]) {
			to[k.Place] = k.At
		}
	}
	return last, told, nil
}
