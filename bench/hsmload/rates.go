package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"keyrite/hsm"
)

// rate is what one slice gave.
type rate struct{ perCPU, perSecond float64 }

// peer is a process without any process between it and the token.
type peer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func (r *rig) peerOf(ctx context.Context, side string) (*peer, error) {
	p := &peer{cmd: exec.CommandContext(ctx, r.peer, side, r.module, r.id.Label, r.id.Serial, r.key.String())}
	p.cmd.Env, p.cmd.Stderr = append(os.Environ(), "SOFTHSM2_CONF="+r.conf()), os.Stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = in, bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintln(in, benchPIN); err != nil {
		return nil, err
	}
	if !p.out.Scan() || p.out.Text() != "ready" {
		return nil, errors.New("the peer does not answer")
	}
	return p, nil
}

func (p *peer) run(mode string, workers int, verify bool, total int) (rate, error) {
	if _, err := fmt.Fprintln(p.in, mode, workers, verify, total); err != nil {
		return rate{}, err
	}
	n := float64(total)
	var cpu, wall float64
	if !p.out.Scan() {
		return rate{}, errors.New("the peer has ended")
	}
	if _, err := fmt.Sscan(p.out.Text(), &cpu, &wall); err != nil {
		return rate{}, err
	}
	return rate{n / cpu * 1e9, n / wall * 1e9}, nil
}

func (p *peer) close() error { return errors.Join(p.in.Close(), p.cmd.Wait()) }

// figure is one side of a comparison over all rounds.
type figure struct {
	run         func() (rate, error)
	ratios, own []float64
}

// against runs the figure between two slices of the other side.
func (f *figure) against(other func() (rate, error), of func(rate) float64) (before, after rate, err error) {
	if before, err = other(); err != nil {
		return
	}
	x, err := f.run()
	if err != nil {
		return
	}
	if after, err = other(); err != nil {
		return
	}
	f.ratios = append(f.ratios, 2*of(x)/(of(before)+of(after)))
	f.own = append(f.own, of(x))
	return
}

// rates compares signatures per CPU second and per second.
func (r *rig) rates(ctx context.Context) error {
	bare, err := r.peerOf(ctx, "raw")
	if err != nil {
		return err
	}
	inside, err := r.peerOf(ctx, "pool")
	if err != nil {
		return err
	}
	key, err := r.open(ctx, hsm.PoolConfig{})
	if err != nil {
		return err
	}
	through := func(n int) *figure {
		return &figure{run: func() (rate, error) { return r.load(ctx, key, n) }}
	}
	one, eight, many := through(1), through(8), through(32)
	child := &figure{run: func() (rate, error) { return inside.run("held", 1, true, r.slice) }}
	wall := &figure{run: func() (rate, error) { return inside.run("held", 8, false, r.slice) }}
	held := func() (rate, error) { return bare.run("held", 1, true, r.slice) }
	shared := func() (rate, error) { return bare.run("shared", 8, false, r.slice) }
	perCPU, perSecond := func(x rate) float64 { return x.perCPU }, func(x rate) float64 { return x.perSecond }
	var heldRates, sharedRates []float64
	for i := range r.rounds + 1 {
		if i == 1 { // the first round warms up
			heldRates, sharedRates = nil, nil
			for _, f := range []*figure{one, eight, many, child, wall} {
				f.ratios, f.own = nil, nil
			}
		}
		for _, f := range []*figure{one, eight, many, child} {
			a, b, err := f.against(held, perCPU)
			if err != nil {
				return err
			}
			heldRates = append(heldRates, a.perCPU, b.perCPU)
		}
		a, b, err := wall.against(shared, perSecond)
		if err != nil {
			return err
		}
		sharedRates = append(sharedRates, a.perSecond, b.perSecond)
	}
	ratio("child.cpu_to_raw", median(child.ratios), "goal: at least 0.90, inside the module process")
	ratio("pool_32.cpu_to_raw", median(many.ratios), "goal: at least 0.85, 32 requests in flight")
	ratio("pool_8.cpu_to_raw", median(eight.ratios), "goal: at least 0.75, 8 in flight")
	ratio("pool_1.cpu_to_raw", median(one.ratios), "goal: at least 0.40, 1 in flight")
	ratio("pool_8.wall_to_shared", median(wall.ratios), "goal: at least 1.30, 8 workers against one session and a mutex")
	raw("raw.per_cpu_s", median(heldRates), "signatures per CPU s, each verified, one held session")
	raw("child.per_cpu_s", median(child.own), "signatures per CPU s, each verified")
	raw("pool_32.per_cpu_s", median(many.own), "signatures per CPU s of all processes, each verified")
	raw("pool_8.per_cpu_s", median(eight.own), "signatures per CPU s of all processes, each verified")
	raw("pool_1.per_cpu_s", median(one.own), "signatures per CPU s of all processes, each verified")
	raw("pool_8.per_s", median(wall.own), "signatures per s, 8 workers, not verified")
	raw("shared.per_s", median(sharedRates), "signatures per s, 8 workers, one session, not verified")
	return errors.Join(bare.close(), inside.close(), r.pool.Close())
}

// load makes the signatures of a slice with n goroutines through the pool, and counts
// the CPU time of this process, the supervisor and the module process, but not that of
// counting it.
func (r *rig) load(ctx context.Context, key *hsm.Key, n int) (rate, error) {
	errs := make([]error, n)
	pids := append(children(r.sup.PID()), r.sup.PID())
	var made atomic.Int64
	var wg sync.WaitGroup
	theirs := cpuOf(pids)
	from, ours := time.Now(), cpuTime()
	for g := range n {
		wg.Go(func() {
			digest := make([]byte, 32)
			digest[0] = byte(g)
			for made.Add(1) <= int64(r.slice) && errs[g] == nil {
				digest[1]++
				_, errs[g] = key.SignContext(ctx, digest)
			}
		})
	}
	wg.Wait()
	cpu, wall := cpuTime()-ours, time.Since(from)
	cpu += cpuOf(pids) - theirs
	return rate{float64(r.slice) / cpu.Seconds(), float64(r.slice) / wall.Seconds()}, errors.Join(errs...)
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuOf is what all threads of the processes have used; they end rarely.
func cpuOf(pids []int) (sum time.Duration) {
	for _, pid := range pids {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		for _, f := range tasks {
			b, err := os.ReadFile(f)
			if err != nil {
				continue // the thread has ended
			}
			// proc(5): nanoseconds on a CPU, nanoseconds waiting, slices.
			first, _, _ := strings.Cut(string(b), " ")
			if n, err := strconv.ParseInt(first, 10, 64); err == nil {
				sum += time.Duration(n)
			}
		}
	}
	return sum
}

// children lists the module processes of a supervisor.
func children(pid int) (out []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, f := range tasks {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for s := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(s); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	if len(v) == 0 {
		return 0
	}
	return v[len(v)/2]
}
