package ceremony

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/internal/durable"
)

// Cleaner looks into a token of a killed attempt. It returns what it destroyed,
// how much is left, and why the token must not be used again.
type Cleaner interface {
	Clean(ctx context.Context, st *Status, t record.TokenReady) (*record.Cleanup, error)
	// Restore does the same in a token that was there before: it keeps its keys, and
	// one epoch opens it afterwards. e says what is known before the token is seen.
	Restore(ctx context.Context, st *Status, opened record.Intent, e *record.Cleanup) error
}

// errKilled is the cause of a ceremony that ended without its engine.
var errKilled = fault.New(fault.Void, "the process ended in the middle")

// Recover takes a killed attempt to VOID. A closed or void one is left alone. A
// nil Cleaner means that nobody can open the tokens, which are then named as
// never to be used again. The error of a recovered ceremony is of class void.
//
// A token whose PINs come from shares may hold keys. If it cannot be cleaned
// nothing is decided and Recover may be called again, unless abandon says that
// its key masters cannot come: then it is named as never to be used again.
func Recover(ctx context.Context, dir string, clock Clock, clean Cleaner, abandon bool) error {
	st, err := ReadState(dir)
	if err != nil {
		return err
	}
	if st.Ended && st.State == "CLOSED" {
		if _, err := os.Stat(filepath.Join(dir, record.CheckpointFile)); err == nil {
			return nil
		}
		// Closed, but killed before the conductor's signature: void like any other.
	} else if st.Ended {
		return voided(fault.Errorf(fault.Void, "%s", st.Cause), dir)
	}
	log, lines, err := durable.OpenAppend(filepath.Join(dir, record.TranscriptFile))
	if err != nil {
		return err
	}
	defer log.Close()
	r := &Run{Config: Config{Dir: dir, Clock: clock}, log: log, tr: record.NewTranscript(), state: st.State, wall: clock.Now(), mono: clock.Mono()}
	for _, l := range lines {
		_, d, err := r.tr.Take(l)
		if err != nil {
			return err
		}
		if o, ok := d.(*record.Output); ok {
			r.outputs = append(r.outputs, o.Path)
		}
	}
	if !st.armed() {
		return fault.Hint(fault.Errorf(fault.Usage, "the ceremony stopped before ARMED (in %s): nothing was done", st.State), "start it again in another record folder")
	}
	if err := r.finishVoid(ctx, st, clean, abandon); err != nil {
		return err
	}
	return voided(errKilled, dir)
}

// tempRE is a file of durable's that a kill left half written.
var tempRE = regexp.MustCompile(`^\..+\.[0-9a-f]{16}$`)

// listLeftovers removes half-written files, and lists whole ones whose entry the
// kill prevented: in a record no file may stand that the transcript does not name.
func (r *Run) listLeftovers() error {
	listed := map[string]bool{}
	for _, p := range r.outputs {
		listed[p] = true
	}
	for _, sub := range []string{".", record.PeopleDir, record.OutputsDir} {
		entries, err := os.ReadDir(filepath.Join(r.Dir, sub))
		if err != nil {
			return fault.Errorf(fault.Storage, "read record: %w", err)
		}
		for _, e := range entries {
			name := path.Join(sub, e.Name())
			switch {
			case !e.Type().IsRegular():
			case tempRE.MatchString(e.Name()):
				if err := os.Remove(filepath.Join(r.Dir, name)); err != nil {
					return fault.Errorf(fault.Storage, "remove half-written file: %w", err)
				}
			case sub != "." && !listed[name]:
				if err := r.list(name); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r *Run) list(name string) error {
	data, err := os.ReadFile(filepath.Join(r.Dir, filepath.FromSlash(name)))
	if err != nil {
		return fault.Errorf(fault.Storage, "read record: %w", err)
	}
	sum := sha256.Sum256(data)
	return r.write(&record.Output{Path: name, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data))})
}

// finishVoid writes what is missing up to the end.
func (r *Run) finishVoid(ctx context.Context, st *Status, clean Cleaner, abandon bool) error {
	cause := st.Cause
	if cause == "" {
		cause = errKilled.Error()
	}
	if st.State != "INVALID" && st.State != "CLEANUP" && st.State != "VOID" {
		if err := r.write(&record.Incident{By: "engine", Class: string(fault.Void), Reason: errKilled.Error()}); err != nil {
			return err
		}
		if err := r.change("INVALID", cause); err != nil {
			return err
		}
	}
	if r.state == "INVALID" {
		if err := r.change("CLEANUP", ""); err != nil {
			return err
		}
	}
	if r.state == "CLEANUP" {
		if err := r.listLeftovers(); err != nil {
			return err
		}
		if err := r.cleanTokens(ctx, st, clean, abandon); err != nil {
			return err
		}
		if err := r.change("VOID", cause); err != nil {
			return err
		}
	}
	return r.write(&record.End{Cause: cause, State: "VOID"})
}

// cleanTokens cleans every token that the attempt touched. All of them are tried
// before anything is written, so that a mistyped passphrase costs nothing.
func (r *Run) cleanTokens(ctx context.Context, st *Status, clean Cleaner, abandon bool) error {
	var out []*record.Cleanup
	ready := map[string]bool{}
	for _, t := range st.Tokens {
		ready[t.Safe] = true
		e := &record.Cleanup{Burned: []string{}, Destroyed: []string{}, Left: -1, Safe: t.Safe}
		if d, ok := st.Dealt[t.Safe]; ok {
			e.Burned = append(e.Burned, t.Safe+"/"+strconv.Itoa(d.Epoch.Epoch))
		}
		switch {
		case !st.PINsChanged[t.Safe]:
			e.Tainted = "its one-time PINs died with the process, before any key was born: reset it as its maker says, or never use it again"
		case clean != nil:
			done, err := clean.Clean(ctx, st, t)
			if err == nil {
				e = done
			} else if !abandon {
				return fault.Hint(fault.Errorf(fault.ClassOf(err), "clean token %s: %w", t.Token.Label, err), "nothing was decided: run recover again, or with --abandon if its key masters cannot open it")
			} else {
				e.Tainted = "could not be cleaned (" + plain(err.Error()) + "): never use this token again"
			}
		case !abandon:
			return fault.Hint(fault.Errorf(fault.Quorum, "token %s may hold keys of this attempt, and nobody opened it", t.Token.Label),
				"give --bind and --opener SAFE=KEYFILE:SHAREFILE for its key masters, or --abandon if they cannot come")
		default:
			e.Tainted = "nobody opened it: never use this token again"
		}
		out = append(out, e)
	}
	for _, b := range st.Begun {
		if !ready[b.Safe] {
			out = append(out, Unready(b.Safe, b.Token.Label))
		}
	}
	for _, o := range st.Opened {
		e, err := restore(ctx, st, o, clean, abandon)
		if err != nil {
			return err
		}
		out = append(out, e)
	}
	for _, e := range out {
		if err := r.write(e); err != nil {
			return err
		}
	}
	return nil
}

// restore leaves a token that was there before as it was. Where no key and no PIN
// was announced there is nothing to do in it; the shares are exposed all the same.
func restore(ctx context.Context, st *Status, o record.Intent, clean Cleaner, abandon bool) (*record.Cleanup, error) {
	e := &record.Cleanup{Burned: []string{}, Destroyed: []string{}, Exposed: []string{epochOf(o.Safe, o.Epoch)}, Safe: o.Safe}
	if d, ok := st.Dealt[o.Safe]; ok {
		e.Burned = append(e.Burned, epochOf(o.Safe, d.Epoch.Epoch))
	}
	_, repinned := st.Repinned[o.Safe]
	if !repinned && !st.Announced[o.Safe] {
		return e, nil
	}
	var err error
	if clean == nil {
		err = fault.Errorf(fault.Quorum, "nobody opened it")
	} else if err = clean.Restore(ctx, st, o, e); err == nil {
		return e, nil
	}
	if !abandon {
		return nil, fault.Hint(fault.Errorf(fault.ClassOf(err), "restore token %s: %w", o.Token.Label, err),
			"nothing was decided: give --bind, and --opener SAFE=KEYFILE:SHAREFILE for the key masters of the epoch in force and, where its PINs were changing, SAFE/EPOCH=KEYFILE:SHAREFILE for those of the new one; or --abandon if they cannot come")
	}
	e.Left = -1
	e.Tainted = "could not be restored (" + plain(err.Error()) + "): never use this token again"
	return e, nil
}

func epochOf(safe string, n int) string { return safe + "/" + strconv.Itoa(n) }

// Unready names a token whose initialisation was begun and not seen to end.
func Unready(safe, label string) *record.Cleanup {
	return &record.Cleanup{
		Burned: []string{}, Destroyed: []string{}, Left: -1, Safe: safe,
		Tainted: "the initialisation of " + label + " was begun and may have happened; no key was born in it: reset it as its maker says, or never use it again",
	}
}
