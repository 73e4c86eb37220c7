package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"keyrite/artifact/charter"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
	"keyrite/relay/node"
)

type serveOptions struct {
	succession                             string
	stateDir, anchor, charter, public, tuf string
	listen                                 []string
}

func newServe() *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Use:   "serve --state-dir DIR --listen access=HOST:PORT --listen vpn=HOST:PORT --anchor FILE --charter FILE",
		Short: "Serve gateways and users",
		Long: `Serve gateways and users. Prints "ready ROLE ADDRESS" for each listener and
runs until SIGTERM or Ctrl-C; open flows then get five seconds.

The servers' certificates are those of the charter's relay statements for the
keys in the state folder. Nothing is made that is missing. A succession statement
that was taken once is kept in the state folder and counts without being given.

Exit codes: 0 ended by a signal; 2 flags, state or address not usable; 13 state,
charter or certificates of another world, or expired, or an older statement; 14 charter or anchors
altered; 15 another keyrite-relay serves from this folder.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runServe(c, o) },
	}
	stateFlag(c, &o.stateDir)
	c.Flags().StringVar(&o.anchor, "anchor", "", "anchors file (required)")
	c.Flags().StringVar(&o.succession, "succession", "", "succession statement: which keys of the anchors have been replaced since")
	c.Flags().StringVar(&o.charter, "charter", "", "charter log (required)")
	c.Flags().StringArrayVar(&o.listen, "listen", nil, "ROLE=HOST:PORT, once for access and once for vpn; port 0 takes a free one")
	c.Flags().StringVar(&o.public, "public-vpn", "", "HOST:PORT at which peers reach the vpn role, if not the one it listens on")
	c.Flags().StringVar(&o.tuf, "tuf", "", "update repository to serve to gateways: a folder with metadata/ and targets/")
	return c
}

func runServe(c *cobra.Command, o serveOptions) error {
	ctx := c.Context()
	if err := needState(o.stateDir); err != nil {
		return err
	}
	listen, err := parseListen(o.listen)
	if err != nil {
		return err
	}
	if o.public != "" {
		if _, _, err := net.SplitHostPort(o.public); err != nil {
			return cli.Usagef("--public-vpn %q is not HOST:PORT", o.public)
		}
	}
	a, err := anchorsInForce(o.stateDir, o.anchor, o.succession)
	if err != nil {
		return err
	}
	if o.charter == "" {
		return cli.Usagef("--charter is missing")
	}
	data, err := intake.Read(o.charter, maxCharterBytes)
	if err != nil {
		return err
	}
	state, err := charter.Fold(data, a.World, a.Vault)
	if err != nil {
		return err
	}
	n, err := node.Open(ctx, node.Options{
		StateDir: o.stateDir, Anchors: a, Charter: state, Listen: listen, PublicVPN: o.public, TUF: o.tuf, Now: time.Now, Log: logger(c),
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "world %s\n", a.World)
	for _, role := range []string{node.RoleAccess, node.RoleVPN} {
		fmt.Fprintf(c.OutOrStdout(), "ready %s %s\n", role, n.Addr(role))
	}
	return n.Run(ctx)
}

func parseListen(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, l := range list {
		role, addr, ok := strings.Cut(l, "=")
		_, _, err := net.SplitHostPort(addr)
		if !ok || err != nil || role != node.RoleAccess && role != node.RoleVPN || out[role] != "" {
			return nil, cli.Usagef("--listen %q is not access=HOST:PORT or vpn=HOST:PORT, each once", l)
		}
		out[role] = addr
	}
	if len(out) != 2 {
		return nil, cli.Usagef("--listen is needed for access and for vpn")
	}
	return out, nil
}

// logger writes text for a terminal and JSON for a machine.
func logger(c *cobra.Command) *slog.Logger {
	if f, ok := c.ErrOrStderr().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return slog.New(slog.NewTextHandler(f, nil))
	}
	return slog.New(slog.NewJSONHandler(c.ErrOrStderr(), nil))
}
