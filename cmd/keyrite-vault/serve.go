package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"keyrite/artifact/fault"
	"keyrite/vault/api"
	"keyrite/vault/control"
	"keyrite/vault/quorum"
	"keyrite/vault/seal"
	"keyrite/vault/unattended"
	"keyrite/vault/unseal"
	"keyrite/vault/watch"
)

// drainTime is how long requests under way get when the vault ends.
const drainTime = 10 * time.Second

// serveOptions say which vault is served, and where.
type serveOptions struct {
	placeOptions
	listenOptions
}

func newServe() *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Use:   "serve --bind FILE --state-dir DIR [--listen api=HOST:PORT] [--listen page=HOST:PORT] [--listen lists=HOST:PORT] [--socket PATH]",
		Short: "Run the vault, sealed until its key masters open it",
		Long: `Run the vault until SIGTERM or Ctrl-C. It starts sealed, and prints "ready ROLE ADDRESS"
for each listener. The role control is the socket that 'unseal', 'status' and 'seal' use.
The role api is where processes ask over TLS, with a client certificate if they have one;
the role socket is for processes of this host, known by their user. What they may ask is
in docs/operations/vault-api.md. The role page is a few web pages for key masters and
auditors, over TLS as well: docs/operations/vault-page.md. The role lists gives whoever
checks certificates, over HTTP without TLS, the lists and answers that the charter opens to
whoever asks: docs/operations/vault-pki.md. Statements that are appended to the charter file, with
'keyrite charter append', are in force within a second.

After 'seal' the process starts itself anew, so that nothing of what was open is left in
its memory; its process id and its listeners stay.

Exit codes: 0 ended by a signal; 2 binding, state folder or address not usable; 13 state or
charter of another world or vault, or an older charter; 14 charter or anchors altered; 15
another process serves from this folder.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runServe(c, &o) },
	}
	o.addFlags(c)
	c.Flags().StringArrayVar(&o.listen, "listen", nil, "api=HOST:PORT, page=HOST:PORT or, without TLS, lists=HOST:PORT; port 0 takes a free one")
	c.Flags().StringVar(&o.socket, "socket", "", "Unix socket for processes of this host")
	return c
}

// vault is the process's vault: what it was given, and the attempts to open it.
type vault struct {
	bind     *bind
	dir      string
	charter  *charterFile
	key      crypto.Signer // the host's
	attempts *unseal.Attempts
	keeper   seal.Keeper   // of the store's head; nil if it is only looked at
	service  *service      // nil if it is only looked at
	expired  chan struct{} // closed when the store's key, opened by shares of before, was wiped
	watch    *watch.Watch
	place    *unattended.Place // of what a restart needs
}

// openVault reads everything that a vault is made of. It opens no token and no store,
// and takes no lock. Without serving it is only looked at, and nothing is written.
func openVault(b *bind, dir string, serving bool) (*vault, error) {
	v := &vault{bind: b, dir: dir, expired: make(chan struct{})}
	var err error
	if v.charter, err = openCharter(b, dir, serving); err != nil {
		return nil, err
	}
	if v.key, err = loadHostKey(b, dir, v.charter.State()); err != nil {
		return nil, err
	}
	if _, err := v.charter.State().Epoch(b.Safe); err != nil {
		return nil, err
	}
	c := unseal.Config{
		Charter: v.state, Safe: b.Safe, Host: b.Host, HostKey: v.key, HSM: b.hsm(), Dir: dir,
		Opened:  func(ctx context.Context, o *unseal.Opened) (io.Closer, error) { return v.service.Opened(ctx, o) },
		Expired: sync.OnceFunc(func() { close(v.expired) }),
	}
	if c.Valid, err = b.valid(); err != nil {
		return nil, err
	}
	if c.Reports, err = b.reports(); err != nil {
		return nil, err
	}
	v.watch = b.watched(c.Reports)
	if serving {
		if v.place, err = b.place(dir); err != nil {
			return nil, err
		}
		c.Unattended = v.place
	}
	if c.Quorum, err = quorum.Self(); err != nil {
		return nil, err
	}
	c.Store = seal.Config{Dir: filepath.Join(dir, storeDir), Check: seal.Guard(c.Quorum.Executable)}
	if serving {
		if v.keeper, err = v.head(); err != nil {
			return nil, err
		}
		c.Store.Head = v.keeper
		if _, ok := v.keeper.(*seal.TPMKeeper); ok {
			c.Store.Window, c.Store.Pause = seal.TPMWindow, seal.TPMPause
		}
	}
	v.attempts, err = unseal.NewAttempts(c)
	return v, err
}

// status is what the vault says of itself.
func (v *vault) status() control.Status {
	st := v.state()
	s := control.Status{
		Status: v.attempts.Status(), World: string(st.World), Vault: st.Vault, Host: v.bind.Host, Safe: v.bind.Safe,
		Charter: st.Size(),
	}
	if v.service != nil {
		s.Serving, s.Warnings = v.service.Status(), v.service.warnings()
	}
	s.Due = v.due(st)
	if s.HostOK = hostIs(st, v.bind.Host, v.key.Public()); !s.HostOK {
		s.Warnings = append(s.Warnings, "the charter does not know host "+v.bind.Host+" by the key that it has, so no key master's program will answer it: see 'keyrite charter propose host'")
	}
	if u, err := st.UnattendedAt(v.bind.Host, time.Now()); err == nil && v.bind.tpm() == "" {
		s.Warnings = append(s.Warnings, "the charter lets this host open by itself ("+u.ID+"), and its binding names no TPM: it does not")
	}
	return s
}

func runServe(c *cobra.Command, o *serveOptions) error {
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
	api.TuneCollector()
	l, err := o.open(c.Context(), b)
	if err != nil {
		return err
	}
	defer l.close()
	args := sameListeners(os.Args, l)
	again, err := v.serve(c, l)
	if err != nil || !again {
		return err
	}
	release()
	return startAnew(args)
}

// sameListeners are the arguments for the process that follows this one: where a free
// port was taken, it is that one.
func sameListeners(args []string, l *listeners) []string {
	out := slices.Clone(args)
	for i, a := range out {
		for role, t := range l.tcp {
			before, addr, ok := strings.Cut(a, role+"=")
			if ok && strings.HasSuffix(addr, ":0") && (before == "" || before == "--listen=") {
				out[i] = before + role + "=" + t.Addr().String()
			}
		}
	}
	return out
}

// serve answers until ctx ends, or somebody seals; then it says again.
func (v *vault) serve(c *cobra.Command, l *listeners) (again bool, err error) {
	ctx, stop := context.WithCancel(c.Context())
	defer stop()
	sealed := make(chan struct{})
	tell := sync.OnceFunc(func() { close(sealed) })
	log := logger(c)
	if v.service, err = newService(v, v.keeper, func() error { defer tell(); return v.attempts.Seal() }, log); err != nil {
		return false, err
	}
	cl, err := control.Listen(ctx, v.dir)
	if err != nil {
		return false, err
	}
	srv := &control.Server{Attempts: v.attempts, Status: v.status, Fresh: v.charter.Fresh, Sealed: tell, Audit: v.extract}
	h := srv.Serve(cl)
	go v.watch.Run(ctx) // it ends with the process, or with ctx once a file that hangs has answered
	failed := v.service.serve(l)
	v.ready(c, l)
	go v.byItself(ctx, logger(c))
	select {
	case <-ctx.Done():
		err = v.service.shutdown()
	case <-sealed:
		again = true
	case <-v.expired:
		log.WarnContext(ctx, "the store's key that shares of before opened is wiped, since no new shares came for it: the process starts anew")
		again = true
	case err = <-failed:
	}
	return again, errors.Join(err, v.end(h))
}

// ready prints where the vault listens.
func (v *vault) ready(c *cobra.Command, l *listeners) {
	fmt.Fprintf(c.OutOrStdout(), "ready control %s\n", control.Path(v.dir))
	for _, role := range []string{roleAPI, rolePage, roleLists} {
		if t := l.tcp[role]; t != nil {
			fmt.Fprintf(c.OutOrStdout(), "ready %s %s\n", role, t.Addr())
		}
	}
	if l.unix != nil {
		fmt.Fprintf(c.OutOrStdout(), "ready socket %s\n", l.unix.Addr())
	}
}

// logger writes text for a terminal and JSON for a machine.
func logger(c *cobra.Command) *slog.Logger {
	if f, ok := c.ErrOrStderr().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return slog.New(slog.NewTextHandler(f, nil))
	}
	return slog.New(slog.NewJSONHandler(c.ErrOrStderr(), nil))
}

// end seals first, since that is what was asked for, and then lets go of who asks.
func (v *vault) end(h *http.Server) error {
	err := v.attempts.Close()
	v.attempts.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	return errors.Join(err, v.service.shutdown(), h.Shutdown(ctx), os.Remove(control.Path(v.dir)))
}

// startAnew replaces the process by a new one of the same program, with the same id
// and arguments: what ciphers copied is gone with the old memory.
func startAnew(args []string) error {
	if err := syscall.Exec("/proc/self/exe", args, os.Environ()); err != nil { //nolint:gosec // the arguments are those that we were started with
		return fault.Errorf(fault.Unexpected, "start anew after the seal: %w", err)
	}
	return nil
}
