package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/gateway/update"
	"keyrite/internal/cli"
)

func newBoot() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "boot --state-dir DIR",
		Short: "Verify the slots and say which one to start",
		Long: `Verify the release in the slot that is to be started, every byte, with the
firmware key in the secure element, and print what is started.

A new release is on trial: it is started at most three times until "run" has
come online with it; then the old one is started again. A slot that does not
verify is never started and the other one is taken.

Exit codes: 0 started, 12 no or unborn secure element, 13 every release is below
the security version, 14 no slot verifies, 15 slots in use.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runBoot(c, o) },
	}
	o.addFlags(c)
	o.addHardware(c)
	return c
}

type bootResult struct {
	Schema          string        `json:"schema"`
	World           string        `json:"world"`
	Slot            string        `json:"slot"`
	State           string        `json:"state"`
	TriesLeft       int           `json:"tries_left"`
	Product         string        `json:"product"`
	Version         string        `json:"version"`
	SecurityVersion int64         `json:"security_version"`
	SHA256          string        `json:"sha256"`
	Image           string        `json:"image"`
	Refused         []bootRefused `json:"refused"`
}

type bootRefused struct {
	Slot  string `json:"slot"`
	Class string `json:"class"`
	Why   string `json:"why"`
}

func runBoot(c *cobra.Command, o options) error {
	e, err := o.open()
	if err != nil {
		return err
	}
	defer e.Close()
	s, err := o.slots(e, update.OpenSlots)
	if err != nil {
		return err
	}
	defer s.Close()
	b, err := s.Boot()
	if err != nil {
		return err
	}
	p := b.Statement.Predicate
	out := bootResult{
		"keyrite/gateway-boot/v1", string(p.World), b.Slot, b.State, b.Tries, p.Product, p.Version, p.SecurityVersion,
		b.Statement.Image().Digest.SHA256, s.Image(b.Slot), refusals(b.Refused),
	}
	return cli.Print(c, out, func(w io.Writer) {
		for _, r := range out.Refused {
			fmt.Fprintf(w, "slot %s not started: %s\n", r.Slot, cli.Escape(r.Why))
		}
		fmt.Fprintf(w, "slot %s verified: %s %s, security version %d, sha256 %s\n", out.Slot, out.Product, out.Version, out.SecurityVersion, out.SHA256)
		if out.State == update.Trial {
			fmt.Fprintf(w, "starting it on trial, %d more tries until it is confirmed\n", out.TriesLeft)
			return
		}
		fmt.Fprintln(w, "starting it")
	})
}

func refusals(in []update.Refused) []bootRefused {
	out := []bootRefused{}
	for _, r := range in {
		out = append(out, bootRefused{r.Slot, cli.ClassOf(r.Err), r.Err.Error()})
	}
	return out
}
