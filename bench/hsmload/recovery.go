package main

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"keyrite/hsm"
)

// recovery measures how long it takes from the loss of the module process to the next
// good signature: killed, and stopped until the deadline of a signature has passed.
func (r *rig) recovery(ctx context.Context) error {
	const deadline = 500 * time.Millisecond
	key, err := r.open(ctx, hsm.PoolConfig{Use: deadline})
	if err != nil {
		return err
	}
	digest := make([]byte, 32)
	for _, x := range []struct {
		name, unit string
		signal     syscall.Signal
		less       time.Duration
	}{
		{"recovery.crash_ms", "ms from the kill of the module process to the next good signature, goal: under 2000", syscall.SIGKILL, 0},
		{"recovery.hang_ms", "ms from the deadline of a signature to the next good one, goal: under 2000", syscall.SIGSTOP, deadline},
	} {
		var took []float64
		for range 9 {
			if _, err := key.SignContext(ctx, digest); err != nil {
				return err
			}
			pids := children(r.sup.PID())
			if len(pids) != 1 {
				return errors.New("not one module process")
			}
			from := time.Now()
			if err := syscall.Kill(pids[0], x.signal); err != nil {
				return err
			}
			for {
				if _, err = key.SignContext(ctx, digest); err == nil {
					break
				}
				if !errors.Is(err, hsm.ErrLost) && !errors.Is(err, hsm.ErrNotDone) {
					return err
				}
			}
			took = append(took, float64((time.Since(from)-x.less).Microseconds())/1000)
		}
		raw(x.name, median(took), x.unit)
	}
	return r.pool.Close()
}

// Places in CK_FUNCTION_LIST, PKCS#11 2.40.
const (
	findObjectsInit = 26
	signInit        = 42
)

// searches counts the searches of the token in 1,000 signatures, at the module.
func (r *rig) searches(ctx context.Context) error {
	if err := r.start(ctx, r.counting, filepath.Dir(r.control)); err != nil {
		return err
	}
	if err := r.take(ctx, hsm.Current); err != nil {
		return err
	}
	key, err := r.open(ctx, hsm.PoolConfig{})
	if err != nil {
		return err
	}
	digest := make([]byte, 32)
	before, err := r.counters()
	for i := 0; i < 1000 && err == nil; i++ {
		_, err = key.SignContext(ctx, digest)
	}
	if err != nil {
		return err
	}
	after, err := r.counters()
	if err != nil {
		return err
	}
	raw("pool.searches_per_1000", float64(after[findObjectsInit]-before[findObjectsInit]), "calls of C_FindObjectsInit in 1000 signatures, goal: none")
	raw("pool.signatures_per_1000", float64(after[signInit]-before[signInit]), "calls of C_SignInit in the same")
	return errors.Join(r.pool.Close(), r.sup.Close())
}

func (r *rig) counters() ([]uint32, error) {
	b, err := os.ReadFile(r.control)
	if err != nil {
		return nil, err
	}
	var out []uint32
	for ; len(b) >= 4; b = b[4:] {
		out = append(out, binary.NativeEndian.Uint32(b))
	}
	if len(out) <= signInit {
		return nil, errors.New("no counters")
	}
	return out, nil
}
