package main

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/spf13/cobra"

	"keyrite/client"
	"keyrite/internal/cli"
)

// target is where behind the gateway.
type target struct {
	device, address string
	port            int
}

func (t *target) addFlags(c *cobra.Command) {
	c.Flags().StringVar(&t.device, "device", "", "name of the device in the account policy")
	c.Flags().IntVar(&t.port, "port", 0, "port of the device (default: its first in the policy)")
	c.Flags().StringVar(&t.address, "address", "", "ADDRESS:PORT instead of a device's name; the policy decides all the same")
	c.MarkFlagsMutuallyExclusive("device", "address")
	c.MarkFlagsOneRequired("device", "address")
}

func (t *target) resolve(l *client.Link) (netip.AddrPort, error) {
	if t.device != "" {
		return l.Device(t.device, t.port)
	}
	ap, err := netip.ParseAddrPort(t.address)
	if err != nil {
		return ap, cli.Usagef("--address %q is not ADDRESS:PORT", t.address)
	}
	return ap, nil
}

type connectOptions struct {
	dir, local string
	target     target
}

func newConnect() *cobra.Command {
	var o connectOptions
	c := &cobra.Command{
		Use:   "connect GATEWAY --device NAME --local 127.0.0.1:PORT",
		Short: "Forward a local TCP port to a device behind a gateway",
		Long: `Forward a local TCP port to a device behind a gateway. Prints "ready local
ADDRESS" and runs until Ctrl-C, SIGTERM or 'keyrite-connect disconnect'. Lost
sessions are opened anew by themselves.

Exit codes: 0 ended; 12 not logged in; 13 the policy does not permit it; 19 relay
or gateway not reachable; 20 relay or gateway is not who it must be.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runConnect(c, o, args[0]) },
	}
	stateFlag(c, &o.dir)
	o.target.addFlags(c)
	c.Flags().StringVar(&o.local, "local", "127.0.0.1:0", "loopback ADDRESS:PORT to listen on; port 0 takes a free one")
	return c
}

func runConnect(c *cobra.Command, o connectOptions, gateway string) error {
	ctx := c.Context()
	h, s, err := session(o.dir)
	if err != nil {
		return err
	}
	l, err := s.Link(ctx, gateway)
	if err != nil {
		return err
	}
	defer l.Close()
	to, err := o.target.resolve(l)
	if err != nil {
		return err
	}
	f, err := l.Listen(ctx, o.local, to)
	if err != nil {
		return err
	}
	name := o.target.device
	if name == "" {
		name = to.String()
	}
	release, err := h.Announce(client.Running{Device: name, Gateway: gateway, Local: f.Addr(), PID: os.Getpid(), Since: time.Now().UTC().Format("2006-01-02T15:04:05Z")})
	if err != nil {
		return err
	}
	defer release()
	f.Refused = func(err error) {
		fmt.Fprintf(c.ErrOrStderr(), "keyrite-connect: a connection was not forwarded: %s\n", cli.Escape(err.Error()))
	}
	fmt.Fprintf(c.OutOrStdout(), "ready local %s\n", f.Addr())
	return f.Run(ctx)
}

func newCheck() *cobra.Command {
	var dir string
	var t target
	c := &cobra.Command{
		Use:   "check GATEWAY --device NAME",
		Short: "Open one connection to a device and close it again",
		Long: `Open one connection to a device and close it again, to see whether relay, policy,
gateway and device all let you through. With --address it asks relay and gateway
for an address that the policy may not know.

Exit codes: 0 it can be reached; 13 refused by the policy; 19 relay, gateway or
device does not answer; 20 relay or gateway is not who it must be.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			_, s, err := session(dir)
			if err != nil {
				return err
			}
			l, err := s.Link(c.Context(), args[0])
			if err != nil {
				return err
			}
			defer l.Close()
			to, err := t.resolve(l)
			if err != nil {
				return err
			}
			flow, err := l.Open(c.Context(), to)
			if err != nil {
				return err
			}
			_ = flow.Close()
			return cli.Print(c, map[string]any{"schema": "keyrite/connect-check/v1", "gateway": args[0], "address": to.String()}, func(w io.Writer) {
				fmt.Fprintf(w, "%s behind gateway %s can be reached\n", to, args[0])
			})
		},
	}
	stateFlag(c, &dir)
	t.addFlags(c)
	return c
}

func newDisconnect() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "disconnect [GATEWAY] [--state-dir DIR]", Short: "End what forwards to a gateway, or everything", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			path, err := stateDir(dir)
			if err != nil {
				return err
			}
			h, err := client.Load(path)
			if err != nil {
				return err
			}
			n, err := h.Disconnect(append(args, "")[0])
			if err != nil {
				return err
			}
			return cli.Print(c, map[string]any{"schema": "keyrite/connect-disconnect/v1", "ended": n}, func(w io.Writer) { fmt.Fprintf(w, "ended %d\n", n) })
		},
	}
	stateFlag(c, &dir)
	return c
}

func newStatus() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "status [--state-dir DIR]", Short: "Show your key, your login and what forwards now", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			path, err := stateDir(dir)
			if err != nil {
				return err
			}
			h, err := client.Load(path)
			if err != nil {
				return err
			}
			running, err := h.Running()
			if err != nil {
				return err
			}
			out := map[string]any{"schema": "keyrite/connect-status/v1", "thumbprint": h.Thumbprint(), "connections": running}
			s, err := h.Session()
			switch {
			case err == nil:
				in := s.Login()
				out["login"] = map[string]any{"access": in.Access, "account": in.Account, "user": in.User, "expires": in.Expires, "world": in.World}
			case cli.ClassOf(err) != "token":
				return err
			}
			return cli.Print(c, out, func(w io.Writer) { printStatus(w, h, s, running) })
		},
	}
	stateFlag(c, &dir)
	return c
}

func printStatus(w io.Writer, h *client.Home, s *client.Session, running []client.Running) {
	fmt.Fprintf(w, "client key %s\n", h.Thumbprint())
	if s == nil {
		fmt.Fprintln(w, "not logged in")
	} else {
		in := s.Login()
		fmt.Fprintf(w, "%s of %s at %s until %s, world %s\n", in.User, in.Account, in.Access, in.Expires, in.World)
	}
	for _, r := range running {
		fmt.Fprintf(w, "%s -> %s behind %s, since %s\n", r.Local, cli.Escape(r.Device), cli.Escape(r.Gateway), r.Since)
	}
}
