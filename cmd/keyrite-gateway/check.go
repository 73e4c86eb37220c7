package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/gateway/update"
	"keyrite/internal/cli"
)

func newCheck() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "check --state-dir DIR",
		Short: "Verify everything the gateway holds, changing nothing",
		Long: `Verify the state folder against the secure element: anchors, TUF root, policy
key, boot state, and every byte of the releases in the slots. Nothing is changed.

Exit codes: 0 everything holds, else that of the first thing that does not.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runCheck(c, o) },
	}
	o.addFlags(c)
	o.addHardware(c)
	return c
}

type checkResult struct {
	Schema  string            `json:"schema"`
	World   string            `json:"world"`
	Serial  string            `json:"serial"`
	Account string            `json:"account"`
	Slots   map[string]string `json:"slots"` // release that verified, by slot
}

func runCheck(c *cobra.Command, o options) error {
	e, h, err := o.home()
	if err != nil {
		return err
	}
	defer e.Close()
	s, err := o.slots(e, update.ViewSlots)
	if err != nil {
		return err
	}
	defer s.Close()
	out := checkResult{"keyrite/gateway-check/v1", string(h.Anchors.World), string(h.Serial), h.Enrolment.Account, map[string]string{}}
	found, err := s.Check()
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "check slots: %w", err)
	}
	for name, st := range found {
		out.Slots[name] = st.Predicate.Product + " " + st.Predicate.Version
	}
	return cli.Print(c, out, func(w io.Writer) {
		fmt.Fprintf(w, "%s of account %s: anchors, TUF root and policy key hold\n", cli.Escape(out.Serial), out.Account)
		for _, name := range []string{"a", "b"} {
			if r, ok := out.Slots[name]; ok {
				fmt.Fprintf(w, "slot %s: %s verified\n", name, cli.Escape(r))
			}
		}
	})
}
