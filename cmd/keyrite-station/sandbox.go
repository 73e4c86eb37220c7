package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"keyrite/internal/cli"
	"keyrite/provisioning/station"
)

// sandboxFlags adds what the module may use. They are called as those of keyrite hsm,
// but for the folder of the counters, since --state-dir is the station's here.
func sandboxFlags(c *cobra.Command, x *station.Sandbox) {
	f := c.Flags()
	f.StringArrayVar(&x.Sockets, "module-socket", nil, "socket that the module may use beside those of its configuration: unix, or tcp:PORT; may repeat")
	f.StringArrayVar(&x.Folders, "module-folder", nil, "folder that the module may write to beside those of its configuration; may repeat")
	f.StringVar(&x.PINCounters, "pin-counter-dir", "", "folder for the counter of wrong PINs (default: .local/state/keyrite/pins in the home folder; SoftHSM's tokens carry it with them)")
}

func newSandbox() *cobra.Command {
	var dir string
	var x station.Sandbox
	var replace bool
	c := &cobra.Command{
		Use:   "sandbox --state-dir DIR [--replace --module-socket tcp:PORT …]",
		Short: "Show, or replace, what the module of the token may use",
		Long: `Show what the PKCS#11 module of the token may use beside what its own
configuration names. With --replace, the flags given are all that it may use from
the next start on: for an HSM that moved to another port, or an updated module.

Exit codes: 0 shown or replaced; 2 unusable flags; 18 disk.`,
		Example: `  keyrite-station sandbox --state-dir station --replace --module-socket tcp:1500`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if f := c.Flags(); !replace && (f.Changed("module-socket") || f.Changed("module-folder") || f.Changed("pin-counter-dir")) {
				return cli.Usagef("--replace is missing: what is not named again is taken away")
			}
			return runSandbox(c, dir, x, replace)
		},
	}
	stateFlag(c, &dir)
	sandboxFlags(c, &x)
	c.Flags().BoolVar(&replace, "replace", false, "replace what it may use by what the other flags name")
	return c
}

type sandboxResult struct {
	Schema      string   `json:"schema"`
	Sockets     []string `json:"sockets"`
	Folders     []string `json:"folders"`
	PINCounters string   `json:"pin_counter_dir"`
}

func runSandbox(c *cobra.Command, dir string, x station.Sandbox, replace bool) (err error) {
	s, err := open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if replace {
		if err := s.SetSandbox(x); err != nil {
			return err
		}
	}
	now := s.Settings.Sandbox
	r := sandboxResult{"keyrite/station-sandbox/v1", append([]string{}, now.Sockets...), append([]string{}, now.Folders...), now.PINCounters}
	return cli.Print(c, r, func(w io.Writer) {
		or := func(s, without string) string {
			if s == "" {
				return without
			}
			return cli.Escape(s)
		}
		fmt.Fprintf(w, "sockets      %s\nfolders      %s\nPIN counter  %s\n", or(strings.Join(r.Sockets, " "), "none"), or(strings.Join(r.Folders, " "), "none"), or(r.PINCounters, "in the home folder"))
	})
}
