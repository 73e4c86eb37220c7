package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/artifact/share"
	"keyrite/internal/cli"
)

// provenFor is how long a proof, or the receipt at the dealing, counts.
const provenFor = 365 * 24 * time.Hour

// sharesOf counts the shares that are known to be alive: by the receipts of the
// record, and by the proofs in the ledger. nil if the record has no charter yet.
func sharesOf(dir, charterFile, ledger string, now time.Time) ([]share.Alive, error) {
	outputs := filepath.Join(dir, record.OutputsDir)
	a, err := os.ReadFile(filepath.Join(outputs, "anchors.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, cli.Usagef("read anchors: %w", err)
	}
	anchors, err := anchor.Parse(a)
	if err != nil {
		return nil, err
	}
	if charterFile == "" {
		charterFile = filepath.Join(outputs, "charter.jsonl")
	}
	lines, err := os.ReadFile(charterFile)
	if err != nil {
		return nil, cli.Usagef("read charter: %w", err)
	}
	state, err := charter.Fold(lines, anchors.World, anchors.Vault)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "charter %q: %w", charterFile, err)
	}
	receipts, err := receiptsOf(dir, state)
	if err != nil {
		return nil, err
	}
	l, err := readLedger(ledgerPath(ledger, charterFile))
	if err != nil {
		return nil, err
	}
	return l.Alive(state, receipts, now.Add(-provenFor)), nil
}

// receiptsOf takes those receipts of a record that are for shares in force.
func receiptsOf(dir string, state *charter.State) (map[share.Place]time.Time, error) {
	data, err := os.ReadFile(filepath.Join(dir, record.TranscriptFile))
	if err != nil {
		return nil, cli.Usagef("read record: %w", err)
	}
	out := map[share.Place]time.Time{}
	err = record.NewTranscript().Read(bytes.NewReader(data), func(e *record.Entry, d record.Data) error {
		r, ok := d.(*record.Receipt)
		if !ok {
			return nil
		}
		p, key, err := share.PlaceOf(state, r.Safe, r.Holder)
		m, known := state.People.Person(r.Holder)
		if err != nil || !known {
			return nil //nolint:nilerr // of somebody who holds no share any more
		}
		if _, err := share.VerifyReceipt(&r.Envelope, p, key, m.Person.PublicKey()); err != nil {
			return nil //nolint:nilerr // of an epoch that is no longer in force
		}
		at, err := time.Parse(time.RFC3339, e.Time)
		out[p] = at
		return err
	})
	return out, err
}

func readLedger(path string) (*share.Ledger, error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, cli.Usagef("read ledger: %w", err)
	}
	l, err := share.ParseLedger(data)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "%q: %w", path, err)
	}
	return l, nil
}

// printAlive says how many shares are alive, and warns in time.
func printAlive(w io.Writer, list []share.Alive, now time.Time) {
	for i := range list {
		a := &list[i]
		fmt.Fprintf(w, "safe %s, epoch %d: %d of %d shares alive", cli.Escape(a.Safe), a.Epoch, len(a.Proven), a.Of)
		if !a.Last.IsZero() {
			fmt.Fprintf(w, ", last %s", cli.Ago(now.Sub(a.Last)))
		}
		fmt.Fprintf(w, "; %d open it\n", a.Need)
		switch {
		case a.Lost():
			fmt.Fprintf(w, "  WARNING: fewer are proven than open it. If the others are lost, nothing opens this safe again.\n")
		case a.Low() && len(a.Proven) < a.Of:
			fmt.Fprintf(w, "  WARNING: only %s. Ask the others with 'keyrite share challenge', or plan a reshare while it can be done.\n", strings.Join(a.Proven, ", "))
		case a.Low():
			fmt.Fprintf(w, "  WARNING: all are alive, but one lost share leaves none to spare.\n")
		}
	}
}
