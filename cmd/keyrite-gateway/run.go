package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
	"keyrite/gateway/enroll"
	"keyrite/gateway/secureelement"
	"keyrite/gateway/tunnel"
	"keyrite/gateway/update"
	"keyrite/gateway/uplink"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	wire "keyrite/wire/tunnel"
)

// How long a confirmation waits for an update that holds the slots.
const (
	confirmTries = 50
	confirmPause = 100 * time.Millisecond
)

type runOptions struct {
	options
	lan []string
}

func newRun() *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run --state-dir DIR --lan PREFIX",
		Short: "Keep the tunnel up and serve flows to the LAN side",
		Long: `Connect to the relay, keep the tunnel up, and let flows through that the
account's signed policy permits, to addresses on the LAN side (--lan, may be
repeated; without it no flow goes anywhere). Prints "online SERVER" and
"offline CLASS" as it happens. SIGTERM ends it with exit code 0.

The release that "boot" started is confirmed as soon as the gateway is online.

Exit codes: 0 stopped, 2 not enrolled or unusable flags, 12 no or unborn secure
element, 14 the state folder does not verify, 15 running already.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runRun(c, o) },
	}
	o.addFlags(c)
	o.addHardware(c)
	c.Flags().StringArrayVar(&o.lan, "lan", nil, "network behind the gateway, such as 192.168.10.0/24")
	return c
}

func runRun(c *cobra.Command, o runOptions) error {
	lan, err := prefixes(o.lan)
	if err != nil {
		return err
	}
	e, h, err := o.home()
	if err != nil {
		return err
	}
	defer e.Close()
	lock, err := lockRun(o.stateDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	log := logger()
	log.InfoContext(c.Context(), "start", slog.String("world", string(h.Anchors.World)), slog.String("serial", string(h.Serial)))
	u, err := o.uplink(c, e, h, lan, log)
	if err != nil {
		return err
	}
	u.Run(c.Context())
	return nil
}

// uplink wires uplink, policy and flows together.
func (o *runOptions) uplink(c *cobra.Command, e *secureelement.Element, h *enroll.Home, lan []netip.Prefix, log *slog.Logger) (*uplink.Uplink, error) {
	n := h.Enrolment
	key, err := birthcert.ParseSPKI(n.PolicyKey)
	if err != nil {
		return nil, err
	}
	keeper, err := tunnel.NewKeeper(tunnel.KeeperConfig{
		Path: filepath.Join(o.stateDir, "policy.json"), Element: e, Key: key, World: n.World, Account: n.Account, Gateway: n.Gateway, SPKI: h.SPKI, Now: h.Now,
	})
	if err != nil {
		return nil, err
	}
	id, err := e.TLSCertificate()
	if err != nil {
		return nil, err
	}
	access, err := h.Control(n.Access)
	if err != nil {
		return nil, err
	}
	var u *uplink.Uplink
	end := tunnel.New(tunnel.Config{
		Keeper: keeper, Identity: id, World: n.World, Gateway: n.Gateway, LAN: lan, Now: h.Now, Log: log,
		Refresh: func(ctx context.Context) { u.Refresh(ctx) },
	})
	u = uplink.New(uplink.Config{
		Control: access, Dial: uplink.DialRelay(h), Keeper: keeper, Flows: func(ctx context.Context, m wire.Mux) { end.Serve(ctx, m) },
		Rejudge: end.Rejudge, Report: o.reporter(c, e, log), Log: log,
	})
	return u, nil
}

// reporter tells each change on stdout and in the state folder, and confirms
// the running release the first time that the gateway is online.
func (o *runOptions) reporter(c *cobra.Command, e *secureelement.Element, log *slog.Logger) func(uplink.State) {
	var mu sync.Mutex // the policy poller reports beside the uplink
	last, confirmed := "", false
	return func(s uplink.State) {
		mu.Lock()
		defer mu.Unlock()
		if err := writeUplink(o.stateDir, s); err != nil {
			log.ErrorContext(c.Context(), "state not kept", slog.Any("error", err))
		}
		if s.State == uplink.Online && !confirmed {
			confirmed = o.confirm(c, e, log)
		}
		if s.State == last {
			return
		}
		last = s.State
		switch s.State {
		case uplink.Online:
			fmt.Fprintf(c.OutOrStdout(), "online %s\n", cli.Escape(s.Server))
		case uplink.Offline:
			fmt.Fprintf(c.OutOrStdout(), "offline %s\n", s.Cause)
		}
	}
}

// confirm confirms the running release. An update that holds the slots just now
// is waited for.
func (o *runOptions) confirm(c *cobra.Command, e *secureelement.Element, log *slog.Logger) bool {
	s, err := o.slots(e, update.OpenSlots)
	for try := 0; try < confirmTries && fault.ClassOf(err) == fault.Sealed && c.Context().Err() == nil; try++ {
		<-time.After(confirmPause)
		s, err = o.slots(e, update.OpenSlots)
	}
	if err != nil {
		log.ErrorContext(c.Context(), "release not confirmed", slog.Any("error", err))
		return false
	}
	defer s.Close()
	st, err := s.Confirm()
	if err != nil {
		log.ErrorContext(c.Context(), "release not confirmed", slog.Any("error", err))
		return false
	}
	if st != nil {
		log.InfoContext(c.Context(), "release confirmed", slog.String("version", st.Predicate.Version), slog.Int64("security_version", st.Predicate.SecurityVersion))
	}
	return true
}

func prefixes(in []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range in {
		p, err := netip.ParsePrefix(s)
		if err != nil || p != p.Masked() || p.Bits() == 0 {
			return nil, cli.Usagef("--lan %q is not a network such as 192.168.10.0/24", s)
		}
		out = append(out, p)
	}
	return out, nil
}

// logger writes text to a terminal and JSON elsewhere.
func logger() *slog.Logger {
	if term.IsTerminal(int(os.Stderr.Fd())) {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, nil))
}

const lockFile = "run.lock"

// lockRun lets one process run a gateway: two would take the tunnel from each
// other for ever.
func lockRun(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "lock the state folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fault.New(fault.Sealed, "the gateway is running already")
	}
	return f, nil
}

const uplinkFile = "uplink.json"

type uplinkResult struct {
	State         string `json:"state"`
	Since         string `json:"since"`
	Server        string `json:"server"`
	PolicyVersion int64  `json:"policy_version"`
	Cause         string `json:"cause"`
}

func writeUplink(dir string, s uplink.State) error {
	data, err := json.Marshal(uplinkResult{s.State, s.Since.UTC().Format(time.RFC3339), s.Server, s.PolicyVersion, s.Cause})
	if err != nil {
		return fmt.Errorf("write uplink state: %w", err)
	}
	return durable.Replace(filepath.Join(dir, uplinkFile), data, 0o600)
}

// readUplink tells what a running process wrote last; without a process that
// holds the lock the gateway is stopped, whatever the file says.
func readUplink(dir string) (uplinkResult, error) {
	stopped := uplinkResult{State: uplink.Stopped}
	lock, err := lockRun(dir)
	if err == nil {
		return stopped, lock.Close()
	}
	if fault.ClassOf(err) != fault.Sealed {
		return stopped, nil // no state folder yet
	}
	data, err := os.ReadFile(filepath.Join(dir, uplinkFile))
	if errors.Is(err, fs.ErrNotExist) {
		return uplinkResult{State: uplink.Connecting}, nil
	}
	var u uplinkResult
	if err == nil {
		err = json.Unmarshal(data, &u)
	}
	if err != nil {
		return stopped, fault.Errorf(fault.Storage, "read uplink state: %w", err)
	}
	return u, nil
}
