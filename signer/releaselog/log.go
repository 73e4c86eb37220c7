// Package releaselog is the public, append-only log of releases: a tiled Merkle
// tree (c2sp.org/tlog-tiles) in a folder, kept by transparency-dev/tessera.
//
// The signer appends each signed statement before it lets the release out and
// puts the proof into the .krf. The folder can be served as it is by any web
// server, without its .state. Everything that tessera gives back is checked
// again with artifact/tlog before it is used, so its faults are errors and not
// false proofs. Only one process has a log open at a time: the signer's ledger,
// which is locked, is opened before it.
package releaselog

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/storage/posix"
	xtlog "golang.org/x/mod/sumdb/tlog"
	"k8s.io/klog/v2"

	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/tlog"
)

const (
	// publishEvery is tessera's shortest interval between two checkpoints.
	publishEvery = 100 * time.Millisecond
	poll         = 20 * time.Millisecond
	// patience is how long a checkpoint may take; a token that is slower is
	// broken.
	patience = 30 * time.Second
)

// ErrBehind says that the log has lost entries.
var ErrBehind = fault.New(fault.Verify, "the release log is not a continuation of what the ledger says was logged")

// ErrForeign says that the log has entries that the ledger does not know.
var ErrForeign = fault.New(fault.Verify, "the release log does not end where the ledger does")

// State is a checkpoint that was seen before.
type State struct {
	Size int64
	Root tlog.Hash
}

// Log is an open release log. It is for one goroutine.
type Log struct {
	origin string
	pub    ed25519.PublicKey
	add    tessera.AddFn
	reader tessera.LogReader
	ctx    context.Context //nolint:containedctx // tessera's background tasks live until Close, not until one call ends
	cancel context.CancelCauseFunc
	down   func(context.Context) error
}

// Open opens the log in dir, or starts it if dir is empty or missing. key is the
// log key (Ed25519) in its token. The log must continue from: an older copy of
// the folder is refused. The zero State stands for a log that is new.
func Open(ctx context.Context, dir, origin string, key crypto.Signer, from State) (*Log, error) {
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fault.New(fault.Token, "the log key is not Ed25519")
	}
	quiet()
	// A signature in flight is finished even if the caller is interrupted.
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	l := &Log{origin: origin, pub: pub, ctx: run, cancel: cancel}
	if err := l.start(dir, &noteSigner{origin: origin, pub: pub, key: key, failed: cancel}); err != nil {
		cancel(nil)
		return nil, err
	}
	if err := l.continues(from); err != nil {
		cancel(nil)
		return nil, err
	}
	return l, nil
}

// quiet sends tessera's own diagnostics nowhere: what matters comes back as an
// error, and stderr belongs to the command.
var quiet = sync.OnceFunc(func() {
	klog.LogToStderr(false)
	klog.SetOutput(io.Discard)
})

func (l *Log) start(dir string, signer *noteSigner) error {
	driver, err := posix.New(l.ctx, posix.Config{Path: dir})
	if err != nil {
		return l.wrap("open release log", err)
	}
	opts := tessera.NewAppendOptions().
		WithCheckpointSigner(signer).
		WithBatching(1, publishEvery).
		WithCheckpointInterval(publishEvery).
		WithCheckpointRepublishInterval(0).
		WithGarbageCollectionInterval(0)
	a, down, reader, err := tessera.NewAppender(l.ctx, driver, opts)
	if err != nil {
		return l.wrap("open release log", err)
	}
	l.add, l.down, l.reader = a.Add, down, reader
	return nil
}

// wrap prefers the log key's own error: tessera hides it behind a time-out.
func (l *Log) wrap(op string, err error) error {
	if failed, ok := errors.AsType[*signError](context.Cause(l.ctx)); ok {
		return fault.Errorf(fault.ClassOf(failed.err), "%s: %w", op, failed.err)
	}
	return fault.Errorf(fault.Storage, "%s: %w", op, err)
}

// Close ends tessera's background tasks.
func (l *Log) Close() { l.cancel(nil) }

// Append puts leaf into the log at the place at, its end, unless it is there
// already, and returns the proof that it is there and the state of the log.
func (l *Log) Append(leaf []byte, at int64) (*firmware.Proof, State, error) {
	ctx, stop := context.WithTimeout(l.ctx, patience)
	defer stop()
	index, err := l.find(ctx, leaf, at)
	if err != nil {
		return nil, State{}, err
	}
	if index < 0 {
		got, err := l.add(ctx, tessera.NewEntry(leaf))()
		if err != nil {
			return nil, State{}, l.wrap("append to release log", err)
		}
		index = int64(got.Index) // a log of 2^63 entries does not exist
	}
	note, state, err := l.published(ctx, index)
	if err != nil {
		return nil, State{}, err
	}
	p, err := l.prove(ctx, leaf, index, note, state)
	return p, state, err
}

// find looks for leaf at the place where it would be appended: a release that
// was appended just before a crash must not be appended again. Whatever else is
// there was put there by nobody who keeps the ledger.
func (l *Log) find(ctx context.Context, leaf []byte, at int64) (int64, error) {
	size, err := l.reader.IntegratedSize(ctx)
	if err != nil {
		return 0, l.wrap("read release log", err)
	}
	switch int64(size) - at {
	case 0:
		return -1, nil
	case 1:
		have, err := l.entry(ctx, uint64(at), size) // not negative
		if err != nil {
			return 0, err
		}
		if bytes.Equal(have, leaf) {
			return at, nil
		}
	}
	return 0, fault.Errorf(fault.Verify, "%w: %d entries where there should be %d", ErrForeign, size, at)
}

// CheckSize checks that the log has exactly n entries.
func (l *Log) CheckSize(n int64) error {
	size, err := l.reader.IntegratedSize(l.ctx)
	if err != nil {
		return l.wrap("read release log", err)
	}
	if int64(size) != n {
		return fault.Errorf(fault.Verify, "%w: %d entries where there should be %d", ErrForeign, size, n)
	}
	return nil
}

func (l *Log) entry(ctx context.Context, i, size uint64) ([]byte, error) {
	b, err := client.GetEntryBundle(ctx, l.reader.ReadEntryBundle, i/layout.EntryBundleWidth, size)
	if err != nil {
		return nil, l.wrap("read release log", err)
	}
	return entryOf(b, i%layout.EntryBundleWidth)
}

func entryOf(b api.EntryBundle, i uint64) ([]byte, error) {
	if i >= uint64(len(b.Entries)) {
		return nil, fault.Errorf(fault.Verify, "%w: an entry is missing", ErrBehind)
	}
	return b.Entries[i], nil
}

// published waits for a checkpoint that covers index.
func (l *Log) published(ctx context.Context, index int64) ([]byte, State, error) {
	for {
		note, state, err := l.latest(ctx)
		if err != nil {
			return nil, State{}, err
		}
		if state.Size > index {
			return note, state, nil
		}
		select {
		case <-ctx.Done():
			return nil, State{}, l.wrap("wait for the release log's checkpoint", ctx.Err())
		case <-time.After(poll):
		}
	}
}

// latest reads the checkpoint. There is none if the token failed at the very
// first one; tessera makes it up with the next.
func (l *Log) latest(ctx context.Context) ([]byte, State, error) {
	note, err := l.reader.ReadCheckpoint(ctx)
	if errors.Is(err, os.ErrNotExist) {
		return nil, State{}, nil
	}
	if err != nil {
		return nil, State{}, l.wrap("read checkpoint", err)
	}
	state, err := l.open(note)
	return note, state, err
}

// open checks a checkpoint; that of the empty log is not one that OpenBare takes.
func (l *Log) open(note []byte) (State, error) {
	if bytes.HasPrefix(note, []byte(l.origin+"\n0\n")) {
		return State{}, nil
	}
	size, root, err := tlog.OpenBare(note, l.origin, l.pub)
	return State{size, root}, err
}

func (l *Log) prove(ctx context.Context, leaf []byte, index int64, note []byte, s State) (*firmware.Proof, error) {
	b, err := client.NewProofBuilder(ctx, uint64(s.Size), l.reader.ReadTile) // not negative
	if err != nil {
		return nil, l.wrap("prove release", err)
	}
	raw, err := b.InclusionProof(ctx, uint64(index)) // not negative
	if err != nil {
		return nil, l.wrap("prove release", err)
	}
	p := &firmware.Proof{Index: index, Checkpoint: note}
	for _, h := range raw {
		p.Hashes = append(p.Hashes, tlog.Hash(h))
	}
	return p, tlog.CheckInclusion(p.Hashes, s.Size, s.Root, index, tlog.LeafHash(leaf))
}

// continues checks that the log extends a state seen before.
func (l *Log) continues(from State) error {
	ctx, stop := context.WithTimeout(l.ctx, patience)
	defer stop()
	if from.Size == 0 {
		return nil
	}
	_, now, err := l.latest(ctx)
	if err != nil {
		return err
	}
	if now.Size < from.Size {
		return fault.Errorf(fault.Verify, "%w: %d entries, %d were logged", ErrBehind, now.Size, from.Size)
	}
	if now.Size == from.Size {
		if now.Root != from.Root {
			return ErrBehind
		}
		return nil
	}
	b, err := client.NewProofBuilder(ctx, uint64(now.Size), l.reader.ReadTile) // not negative
	if err != nil {
		return l.wrap("check release log", err)
	}
	raw, err := b.ConsistencyProof(ctx, uint64(from.Size), uint64(now.Size)) // not negative
	if err != nil {
		return l.wrap("check release log", err)
	}
	proof := make(xtlog.TreeProof, len(raw))
	for i, h := range raw {
		proof[i] = tlog.Hash(h)
	}
	if xtlog.CheckTree(proof, now.Size, now.Root, from.Size, from.Root) != nil {
		return ErrBehind
	}
	return nil
}

// noteSigner signs checkpoints with the log key in its token. tessera calls it
// from a goroutine of its own and only warns if it fails, so a failure stops the
// log.
type noteSigner struct {
	origin string
	pub    ed25519.PublicKey
	key    crypto.Signer
	failed context.CancelCauseFunc
}

type signError struct{ err error }

func (e *signError) Error() string { return e.err.Error() }
func (e *signError) Unwrap() error { return e.err }

// Name is the name of the log.
func (s *noteSigner) Name() string { return s.origin }

// KeyHash is the key hash of the signed-note format.
func (s *noteSigner) KeyHash() uint32 { return tlog.BareKeyHash(s.origin, s.pub) }

// Sign signs the text of a checkpoint.
func (s *noteSigner) Sign(msg []byte) ([]byte, error) {
	sig, err := s.key.Sign(rand.Reader, msg, crypto.Hash(0))
	if err == nil && !ed25519.Verify(s.pub, msg, sig) {
		err = fault.New(fault.Token, "the log key gave a signature that does not hold")
	}
	if err != nil {
		s.failed(&signError{err})
		return nil, err
	}
	return sig, nil
}
