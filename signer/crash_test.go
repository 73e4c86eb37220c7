package signer_test

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/internal/intake"
	"keyrite/signer"
)

// stopping signs once and then stands for a crash.
type stopping struct {
	crypto.Signer
	n *int
}

func (s stopping) Sign(r io.Reader, m []byte, o crypto.SignerOpts) ([]byte, error) {
	if *s.n++; *s.n > 1 {
		return nil, errors.New("stopped here")
	}
	return s.Signer.Sign(r, m, o)
}

type counting struct {
	crypto.Signer
	n *int
}

func (c counting) Sign(r io.Reader, m []byte, o crypto.SignerOpts) ([]byte, error) {
	*c.n++
	return c.Signer.Sign(r, m, o)
}

// A release that was cut off after its signature is finished by the next run
// without another signature, whatever came after it was lost.
func TestCrashAfterSignatureIsFinished(t *testing.T) {
	b := newBench(t)
	signatures := 0
	good := func(id string) (crypto.Signer, error) {
		if id == firmware.KeyID {
			return counting{b.Keys[id], &signatures}, nil
		}
		return b.Keys[id], nil
	}
	req := b.request(b.wish(3))
	approvals := b.approve(req, "approver1", "approver2")
	checkpoints := 0
	b.keys = func(id string) (crypto.Signer, error) {
		if id == firmware.LogKeyID {
			return stopping{b.Keys[id], &checkpoints}, nil
		}
		return good(id)
	}
	if _, err := b.release(req, approvals, "out"); err == nil {
		t.Fatal("released without a log key")
	}
	b.empty("out")
	b.keys = good
	r, err := b.release(req, approvals, "out")
	if err != nil || !r.Resumed || signatures != 1 {
		t.Fatalf("finished: %v, %d signatures", err, signatures)
	}
	// Cut the ledger back to before "published": the outputs are there already.
	cut := func(lines int) {
		p := filepath.Join(b.dir, "state", "ledger.jsonl")
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, bytes.Join(bytes.SplitAfter(data, []byte("\n"))[:lines], nil), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, lines := range []int{4, 3} { // after logged, after result
		cut(lines)
		again, err := b.release(req, approvals, "out")
		if err != nil || signatures != 1 || again.Index != 0 {
			t.Fatalf("with %d lines: %v, %d signatures", lines, err, signatures)
		}
	}
	// An intent without a result: the approvals are spent. (Its log goes too,
	// since the entry in it could not be there.)
	cut(2)
	if err := os.RemoveAll(filepath.Join(b.dir, "state", "log")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.release(req, approvals, "out2"); !errors.Is(err, signer.ErrReplay) || signatures != 1 {
		t.Errorf("lost: %v, %d signatures", err, signatures)
	}
	b.empty("out2")
}

func TestTokenFaults(t *testing.T) {
	b := newBench(t)
	req := b.request(b.wish(3))
	approvals := b.approve(req, "approver1", "approver2")
	b.keys = func(id string) (crypto.Signer, error) { return b.Keys["acceptance"], nil }
	if _, err := b.release(req, approvals, "out"); !errors.Is(err, signer.ErrKey) {
		t.Errorf("another key in the token: %v", err)
	}
	b.keys = func(id string) (crypto.Signer, error) { return nil, fault.New(fault.Token, "no token") }
	if _, err := b.release(req, approvals, "out"); fault.ClassOf(err) != fault.Token {
		t.Errorf("no token: %v", err)
	}
	b.keys = func(id string) (crypto.Signer, error) {
		if id == firmware.LogKeyID {
			return b.Keys[id], nil
		}
		return wrong{b.Keys[id], b.Keys["acceptance"]}, nil
	}
	if _, err := b.release(req, approvals, "out"); fault.ClassOf(err) != fault.Token {
		t.Errorf("wrong signature: %v", err)
	}
	b.empty("out")
	b.keys = func(id string) (crypto.Signer, error) { return b.Keys[id], nil }
	if _, err := b.release(req, approvals, "out"); !errors.Is(err, signer.ErrReplay) {
		t.Errorf("the approvals were spent by the wrong signature: %v", err)
	}
}

// wrong shows one key and signs with another.
type wrong struct {
	crypto.Signer
	other crypto.Signer
}

func (w wrong) Sign(r io.Reader, m []byte, o crypto.SignerOpts) ([]byte, error) {
	return w.other.Sign(r, m, o)
}

func TestImageMustBeTheOneRequested(t *testing.T) {
	b := newBench(t)
	req := b.request(b.wish(3))
	approvals := b.approve(req, "approver1", "approver2")
	data, err := os.ReadFile(b.image)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1
	if err := os.WriteFile(b.image, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.release(req, approvals, "out"); !errors.Is(err, signer.ErrImage) {
		t.Errorf("got %v", err)
	}
	b.empty("out")
}

func TestOneSignerAtATime(t *testing.T) {
	b := newBench(t)
	now := func() time.Time { return b.now }
	l, err := signer.OpenLedger(filepath.Join(b.dir, "state"), b.State, now)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := signer.OpenLedger(filepath.Join(b.dir, "state"), b.State, now); fault.ClassOf(err) != fault.Sealed {
		t.Errorf("got %v", err)
	}
	other := newBench(t)
	other.dir = b.dir
	req := b.request(b.wish(3))
	_ = l.Close()
	if _, err := b.release(req, b.approve(req, "approver1", "approver2"), "out"); err != nil {
		t.Fatal(err)
	}
	if _, err := signer.OpenLedger(filepath.Join(b.dir, "state"), other.State, now); fault.ClassOf(err) != fault.Policy {
		t.Errorf("ledger of another world: %v", err)
	}
}

func TestInterruptBeforeSigningSpendsNothing(t *testing.T) {
	b := newBench(t)
	req := b.request(b.wish(3))
	approvals := b.approve(req, "approver1", "approver2")
	ctx, stop := context.WithCancel(t.Context())
	now := func() time.Time { return b.now }
	l, err := signer.OpenLedger(filepath.Join(b.dir, "state"), b.State, now)
	if err != nil {
		t.Fatal(err)
	}
	c, err := signer.Check(b.open(req), approvals, l, b.now)
	if err != nil {
		t.Fatal(err)
	}
	img, err := intake.Open(b.image)
	if err != nil {
		t.Fatal(err)
	}
	defer img.Close()
	s := &signer.Signer{State: b.State, Ledger: l, Keys: b.keys, Now: now}
	ready, err := signer.Prepare(ctx, c, img, b.dir)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := signer.Prepare(ctx, c, img, b.dir); fault.ClassOf(err) == "" {
		t.Error("prepared although interrupted")
	}
	if _, err := s.Release(ctx, ready); fault.ClassOf(err) != fault.Interrupted {
		t.Errorf("got %v", err)
	}
	_ = l.Close()
	if _, err := b.release(req, approvals, "out"); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
