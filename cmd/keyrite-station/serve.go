package main

import (
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/internal/cli"
	"keyrite/provisioning/station"
)

type serveOptions struct {
	stateDir, listen string
}

func newServe() *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Use:   "serve --state-dir DIR --listen factory=HOST:PORT",
		Short: "Certify devices",
		Long: `Certify the devices on the line: one connection each, TLS 1.3 with the station's
own certificate, which the devices pin. A device that comes beyond the quota is
refused with class quota, one after the end of the bundle with class policy.

Prints "ready factory ADDRESS" when it listens. SIGTERM lets the running births
finish and exits 0. The line is a network of its own: whoever reaches the port can
use up serials, though nothing that was not accepted afterwards is admitted.

Exit codes: 0 stopped; 2 unusable flags; 12 token or PIN file; 13 no bundle was
imported; 14 the ledger was altered; 15 the station is in use.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runServe(c, o) },
	}
	stateFlag(c, &o.stateDir)
	c.Flags().StringVar(&o.listen, "listen", "factory=127.0.0.1:0", "where devices come in")
	return c
}

func runServe(c *cobra.Command, o serveOptions) (err error) {
	addr, ok := strings.CutPrefix(o.listen, "factory=")
	if !ok {
		return cli.Usagef("--listen %q is not factory=HOST:PORT", o.listen)
	}
	s, end, err := openWithToken(o.stateDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	// A token that cannot be opened shows now and not before the first device.
	if err := s.CheckToken(c.Context()); err != nil {
		return err
	}
	cert, err := station.LoadTLS(o.stateDir)
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(c.Context(), "tcp", addr)
	if err != nil {
		return fault.Errorf(fault.Usage, "listen: %w", err)
	}
	defer l.Close()
	if s.Anchors() != nil {
		fmt.Fprintf(c.ErrOrStderr(), "keyrite-station: world %s, station %s of factory %s\n", s.Anchors().World, s.Settings.Station, s.Settings.Factory)
		fmt.Fprintf(c.OutOrStdout(), "ready factory %s\n", l.Addr())
	}
	return s.Serve(c.Context(), l, cert, newLog())
}
