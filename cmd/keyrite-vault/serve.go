package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/vault/control"
	"keyrite/vault/quorum"
	"keyrite/vault/seal"
	"keyrite/vault/unseal"
)

// drainTime is how long requests under way get when the vault ends.
const drainTime = 10 * time.Second

func newServe() *cobra.Command {
	var o placeOptions
	c := &cobra.Command{
		Use:   "serve --bind FILE --state-dir DIR",
		Short: "Run the vault, sealed until its key masters open it",
		Long: `Run the vault until SIGTERM or Ctrl-C. It starts sealed, and prints "ready ROLE ADDRESS"
for each listener; the role control is the socket that 'unseal', 'status' and 'seal' use.
After 'seal' the process starts itself anew, so that nothing of what was open is left in
its memory; its process id and its listeners stay.

Exit codes: 0 ended by a signal; 2 binding, state folder or address not usable; 13 state or
charter of another world or vault, or an older charter; 14 charter or anchors altered; 15
another process serves from this folder.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runServe(c, &o) },
	}
	o.addFlags(c)
	return c
}

// vault is the process's vault: what it was given, and the attempts to open it.
type vault struct {
	bind     *bind
	dir      string
	charter  *charterFile
	attempts *unseal.Attempts
	service  service
}

// service is what an open vault does for its clients.
type service interface {
	// Opened takes what a quorum opened, and gives what is closed first when the vault
	// is sealed.
	Opened(ctx context.Context, o *unseal.Opened) (io.Closer, error)
	// Status is shown under "serving"; nil shows nothing.
	Status() any
}

// idle is a service without clients.
type idle struct{}

func (idle) Opened(context.Context, *unseal.Opened) (io.Closer, error) { return io.NopCloser(nil), nil }
func (idle) Status() any                                               { return nil }

// openVault reads everything that a vault is made of. It opens no token and no store,
// and takes no lock. Without serving it is only looked at, and nothing is written.
func openVault(b *bind, dir string, serving bool) (*vault, error) {
	key, err := loadKey(dir, hostKeyFile)
	if err != nil {
		return nil, err
	}
	v := &vault{bind: b, dir: dir, service: idle{}}
	if v.charter, err = openCharter(b, dir, serving); err != nil {
		return nil, err
	}
	if _, err := v.charter.State().Epoch(b.Safe); err != nil {
		return nil, err
	}
	c := unseal.Config{
		Charter: v.charter.State, Safe: b.Safe, Host: b.Host, HostKey: key, HSM: b.hsm(), Dir: dir,
		Opened: func(ctx context.Context, o *unseal.Opened) (io.Closer, error) { return v.service.Opened(ctx, o) },
	}
	if c.Valid, err = b.valid(); err != nil {
		return nil, err
	}
	if c.Reports, err = b.reports(); err != nil {
		return nil, err
	}
	if c.Quorum, err = quorum.Self(); err != nil {
		return nil, err
	}
	c.Store = seal.Config{Dir: filepath.Join(dir, storeDir), Check: seal.Guard(c.Quorum.Executable)}
	if serving {
		if c.Store.Head, err = v.head(); err != nil {
			return nil, err
		}
	}
	v.attempts, err = unseal.NewAttempts(c)
	return v, err
}

// status is what the vault says of itself.
func (v *vault) status() control.Status {
	st := v.charter.State()
	s := control.Status{
		Status: v.attempts.Status(), World: string(st.World), Vault: st.Vault, Host: v.bind.Host, Safe: v.bind.Safe,
		Charter: st.Size(), Serving: v.service.Status(),
	}
	if _, s.HostOK = st.Access.Hosts[v.bind.Host]; !s.HostOK {
		s.Warnings = append(s.Warnings, "the charter does not know host "+v.bind.Host+", so no key master's program will answer it: see 'keyrite charter propose host'")
	}
	return s
}

func runServe(c *cobra.Command, o *placeOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	b, err := loadBind(o.bind)
	if err != nil {
		return err
	}
	release, err := holdState(o.stateDir)
	if err != nil {
		return err
	}
	defer release()
	v, err := openVault(b, o.stateDir, true)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "world %s, sealed\n", b.World)
	again, err := v.serve(c.Context(), c.OutOrStdout())
	if err != nil || !again {
		return err
	}
	release()
	return startAnew()
}

// serve answers until ctx ends, or somebody seals; then it says again.
func (v *vault) serve(ctx context.Context, out io.Writer) (again bool, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	l, err := control.Listen(ctx, v.dir)
	if err != nil {
		return false, err
	}
	sealed := make(chan struct{})
	var once sync.Once
	srv := &control.Server{Attempts: v.attempts, Status: v.status, Fresh: v.charter.Fresh, Sealed: func() { once.Do(func() { close(sealed) }) }}
	h := srv.Serve(l)
	fmt.Fprintf(out, "ready control %s\n", control.Path(v.dir))
	select {
	case <-ctx.Done():
	case <-sealed:
		again = true
	}
	return again, v.end(h)
}

// end seals first, since that is what was asked for, and then lets go of who asks.
func (v *vault) end(h *http.Server) error {
	err := v.attempts.Seal()
	v.attempts.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	return errors.Join(err, h.Shutdown(ctx), os.Remove(control.Path(v.dir)))
}

// startAnew replaces the process by a new one of the same program, with the same id
// and arguments: what ciphers copied is gone with the old memory.
func startAnew() error {
	if err := syscall.Exec("/proc/self/exe", os.Args, os.Environ()); err != nil {
		return fault.Errorf(fault.Unexpected, "start anew after the seal: %w", err)
	}
	return nil
}
