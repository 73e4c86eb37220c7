// Command hsmload measures hsm.Pool against the bare binding, for scripts/bench hsm.
// It makes a SoftHSM token of its own and runs both sides in turn, in slices of some
// hundred signatures: what else the machine does meets both. Each figure is the
// median over all rounds of the ratio of one slice to the mean of its neighbours.
//
// It prints lines for the script: "ratio" or "raw", name, value, goal or unit, with
// tabs between.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"keyrite/hsm"
)

// options come from bench/hsm.sh.
type options struct {
	hsmd, peer, module string
	counting, control  string // a module that counts its calls, and where it does
	rounds             int
	slice              int // signatures in one measurement
}

func main() {
	var o options
	flag.StringVar(&o.hsmd, "hsmd", "", "keyrite-hsmd")
	flag.StringVar(&o.peer, "peer", "", "hsmpeer")
	flag.StringVar(&o.module, "module", "", "SoftHSM")
	flag.StringVar(&o.counting, "counting", "", "the module that counts calls")
	flag.StringVar(&o.control, "control", "", "its counters")
	flag.IntVar(&o.rounds, "rounds", 15, "rounds")
	flag.IntVar(&o.slice, "slice", 1000, "signatures in one measurement")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "hsmload:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	base := "/dev/shm" // a token on a disk measures the disk
	if st, err := os.Stat(base); err != nil || !st.IsDir() {
		base = ""
	}
	dir, err := os.MkdirTemp(base, "keyrite-bench-hsm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	r := &rig{options: o, dir: dir}
	if err := r.store(); err != nil {
		return err
	}
	if err := r.token(ctx, o.module); err != nil {
		return err
	}
	err = errors.Join(r.rates(ctx), r.recovery(ctx), r.sup.Close())
	if err != nil || o.counting == "" {
		return err
	}
	return r.searches(ctx)
}

// rig is a token with one P-256 key.
type rig struct {
	options
	dir  string
	sup  *hsm.Supervisor
	id   hsm.TokenID
	key  hsm.KeyID
	pool *hsm.Pool
}

const benchPIN, benchSO = "bench-user-pin", "bench-officer-pin"

func (r *rig) store() error {
	conf := "directories.tokendir = " + r.dir + "/tokens\nobjectstore.backend = file\nlog.level = ERROR\n"
	return errors.Join(os.Mkdir(r.dir+"/tokens", 0o700), os.WriteFile(r.conf(), []byte(conf), 0o600))
}

func (r *rig) conf() string { return filepath.Join(r.dir, "softhsm2.conf") }

// start starts a supervisor over the module, which writes to the folders, too. It
// lets a token be lost often.
func (r *rig) start(ctx context.Context, module string, folders ...string) (err error) {
	r.sup, err = hsm.Start(ctx, hsm.Config{
		Module: module, HSMD: r.hsmd, Env: []string{"SOFTHSM2_CONF=" + r.conf()}, Reopen: time.Millisecond, Folders: folders,
	})
	return err
}

func (r *rig) take(ctx context.Context, e hsm.Epoch) error {
	in, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer in.Close()
	if err := errors.Join(hsm.WritePINs(out, []byte(benchSO), []byte(benchPIN)), out.Close()); err != nil {
		return err
	}
	return r.sup.TakePINs(ctx, r.id, in, e)
}

func (r *rig) token(ctx context.Context, module string) (err error) {
	if err := r.start(ctx, module); err != nil {
		return err
	}
	if r.id, err = r.sup.InitToken(ctx, "bench"); err != nil {
		return err
	}
	if err := r.take(ctx, hsm.Next); err != nil {
		return err
	}
	if err := r.sup.ChangePINs(ctx, r.id); err != nil {
		return err
	}
	s, err := r.sup.Open(ctx, r.id)
	if err != nil {
		return err
	}
	tag, err := hsm.NewTag()
	if err != nil {
		return err
	}
	r.key = hsm.NewKeyID(tag, 1)
	_, err = s.Generate(ctx, hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.ECDSAP256, KeyID: r.key, Label: "bench"})
	return errors.Join(err, s.Close())
}

// open opens the pool and finds the key.
func (r *rig) open(ctx context.Context, cfg hsm.PoolConfig) (*hsm.Key, error) {
	var err error
	if r.pool, err = hsm.NewPool(ctx, r.sup, r.id, cfg); err != nil {
		return nil, err
	}
	return r.pool.Signer(ctx, r.key)
}

func ratio(name string, value float64, goal string) {
	fmt.Fprintf(os.Stdout, "ratio\thsm.%s\t%.3f\t%s\n", name, value, goal)
}

func raw(name string, value float64, unit string) {
	fmt.Fprintf(os.Stdout, "raw\thsm.%s\t%.1f\t%s\n", name, value, unit)
}
