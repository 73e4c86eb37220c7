package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/internal/cli"
	"keyrite/vault/control"
	"keyrite/vault/unseal"
)

type statusResult struct {
	Schema  string `json:"schema"`
	Running bool   `json:"running"`
	control.Status
}

func newStatus() *cobra.Command {
	var o placeOptions
	c := &cobra.Command{
		Use:   "status --bind FILE --state-dir DIR",
		Short: "Tell how things stand, also of a vault that is sealed or not running",
		Long: `Tell whether the vault runs, whether it is sealed, and which attempts to unseal it are
under way, with the key masters whose shares were found good.

Exit codes: 0 told, whatever there is to tell; 2 not usable; 13 state or charter of
another world or vault; 14 charter or anchors altered.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runStatus(c, &o) },
	}
	o.addFlags(c)
	return c
}

func runStatus(c *cobra.Command, o *placeOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	b, err := loadBind(o.bind)
	if err != nil {
		return err
	}
	res := statusResult{Schema: "keyrite/vault-status/v1", Running: true}
	st, err := control.NewClient(o.stateDir).Status(c.Context())
	switch {
	case errors.Is(err, control.ErrNotRunning):
		res.Running = false
		if st, err = atRest(b, o.stateDir); err != nil {
			return err
		}
	case err != nil:
		return err
	}
	res.Status = *st
	return cli.Print(c, res, func(w io.Writer) { printStatus(w, &res) })
}

// atRest is the status of a vault that does not run.
func atRest(b *bind, dir string) (*control.Status, error) {
	v, err := openVault(b, dir, false)
	if err != nil {
		return nil, err
	}
	s := v.status()
	return &s, nil
}

func printStatus(w io.Writer, s *statusResult) {
	state := "sealed"
	switch {
	case !s.Running:
		state = "not running, and so sealed"
	case !s.Sealed:
		state = fmt.Sprintf("OPEN since %s, by %s of %s", s.Since, s.Operation, strings.Join(s.Holders, ", "))
		if s.Operation == unseal.OpUnattended {
			state = fmt.Sprintf("OPEN since %s, by this host itself, unattended", s.Since)
		}
	}
	fmt.Fprintf(w, "vault %.16s… in world %s, host %s: %s\n", s.Vault, s.World, s.Host, state)
	if !s.Created {
		fmt.Fprintln(w, "  it has no store yet: unseal it with --operation create")
	}
	if s.CarriedUntil != "" {
		fmt.Fprintf(w, "  the key of the store is open, by shares of before, until %s: reseal\n", s.CarriedUntil)
	}
	fmt.Fprintf(w, "  safe %s, epoch %d, opens with %d shares; charter of %d statements\n", s.Safe, s.Epoch, s.Need, s.Charter)
	for _, p := range s.Attempts {
		fmt.Fprintf(w, "  attempt %s: %s, %d of %d shares (%s), until %s\n", p.Attempt, p.Operation, len(p.Given), p.Need, strings.Join(p.Given, ", "), p.Expires)
	}
	printDue(w, &s.Due)
	printUnattended(w, s.Unattended)
	for _, x := range s.Warnings {
		fmt.Fprintf(w, "  WARNING: %s\n", cli.Escape(x))
	}
}

// printUnattended says whether the host would open by itself.
func printUnattended(w io.Writer, u *unseal.UnattendedStatus) {
	if u == nil {
		return
	}
	switch {
	case u.Statement == "":
		fmt.Fprintln(w, "  unattended restart: off")
	case u.Kept:
		fmt.Fprintf(w, "  unattended restart: ON by statement %s, until %s\n", u.Statement, u.Expires)
	default:
		fmt.Fprintf(w, "  unattended restart: granted by statement %s until %s, but nothing is kept; the next opening by key masters keeps it\n", u.Statement, u.Expires)
	}
	if u.Why != "" {
		fmt.Fprintf(w, "    last: %s\n", cli.Escape(u.Why))
	}
}

func newSeal() *cobra.Command {
	var o placeOptions
	c := &cobra.Command{
		Use:   "seal --bind FILE --state-dir DIR",
		Short: "Seal the vault at once",
		Long: `Close the token and the store, wipe their keys, and end every attempt to unseal. The
vault's process starts anew, sealed. It needs nobody's share: whoever may use the
vault's user on this host may seal it. A vault that does not run is sealed. What was kept
for a restart without key masters is destroyed first, also where no vault runs.

Exit codes: 0 sealed; 2 not usable; 12, 18, 19 sealed, but what was kept for a restart
could not be made useless; 15 another process holds the state folder.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runSeal(c, &o) },
	}
	o.addFlags(c)
	return c
}

func runSeal(c *cobra.Command, o *placeOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	b, err := loadBind(o.bind)
	if err != nil {
		return err
	}
	running := true
	err = control.NewClient(o.stateDir).Seal(c.Context())
	if errors.Is(err, control.ErrNotRunning) {
		running, err = false, forgetRestart(b, o.stateDir)
	}
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "seal: %w", err)
	}
	res := struct {
		Schema  string `json:"schema"`
		Sealed  bool   `json:"sealed"`
		Running bool   `json:"running"`
	}{"keyrite/vault-seal/v1", true, running}
	return cli.Print(c, res, func(w io.Writer) {
		if running {
			fmt.Fprintln(w, "the vault is sealed")
		} else {
			fmt.Fprintln(w, "the vault does not run, and so is sealed")
		}
	})
}
