package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"keyrite/gateway/enroll"
	"keyrite/gateway/secureelement"
	"keyrite/gateway/update"
	"keyrite/internal/cli"
)

func newStatus() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "status --state-dir DIR",
		Short: "Say who the gateway is and what it is doing",
		Long: `Print what the secure element holds, the account, what is in the slots, and
whether the tunnel is up.

Exit codes: 0 printed, 12 no or unborn secure element, 14 something that was read
does not verify.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runStatus(c, o) },
	}
	o.addFlags(c)
	o.addHardware(c)
	return c
}

type statusResult struct {
	Schema          string                `json:"schema"`
	World           string                `json:"world"`
	Vault           string                `json:"vault"`
	Serial          string                `json:"serial"`
	SPKI            string                `json:"spki"`
	PolicyKey       string                `json:"policy_key"` // fingerprint in the element, "" before enrolment
	SecurityVersion int64                 `json:"security_version"`
	PolicyVersion   int64                 `json:"policy_version"`
	Succession      int64                 `json:"succession"` // counter of the succession statement in force, 0 without one
	Account         string                `json:"account"`
	Gateway         string                `json:"gateway"`
	Access          string                `json:"access"`
	ActiveSlot      string                `json:"active_slot"`
	RunningSlot     string                `json:"running_slot"`
	Slots           map[string]slotResult `json:"slots"`
	Uplink          uplinkResult          `json:"uplink"`
}

type slotResult struct {
	State           string `json:"state"`
	Version         string `json:"version"`
	SecurityVersion int64  `json:"security_version"`
	SHA256          string `json:"sha256"`
}

func runStatus(c *cobra.Command, o options) error {
	e, err := o.open()
	if err != nil {
		return err
	}
	defer e.Close()
	out, err := o.status(e)
	if err != nil {
		return err
	}
	return cli.Print(c, out, func(w io.Writer) { printStatus(w, out) })
}

func (o *options) status(e *secureelement.Element) (*statusResult, error) {
	b, err := e.Birth()
	if err != nil {
		return nil, err
	}
	out := &statusResult{Schema: "keyrite/gateway-status/v1", World: string(b.World), Vault: b.Vault}
	if out.Serial, out.SPKI, err = enroll.Identity(e); err != nil {
		return nil, err
	}
	if out.SecurityVersion, err = e.SecurityVersion(); err != nil {
		return nil, err
	}
	if out.PolicyVersion, err = e.PolicyVersion(); err != nil {
		return nil, err
	}
	a, err := e.Account()
	if err != nil {
		return nil, err
	}
	if a != nil {
		out.PolicyKey = a.Fingerprint
	}
	if _, err := os.Stat(filepath.Join(o.stateDir, "enrolment.json")); err == nil {
		h, err := enroll.Load(o.stateDir, e)
		if err != nil {
			return nil, err
		}
		out.Account, out.Gateway, out.Access = h.Enrolment.Account, h.Enrolment.Gateway, h.Enrolment.Access
	}
	if out.Uplink, err = readUplink(o.stateDir); err != nil {
		return nil, err
	}
	return out, o.slotStatus(e, out)
}

func (o *options) slotStatus(e *secureelement.Element, out *statusResult) error {
	s, err := o.slots(e, update.ViewSlots)
	if err != nil {
		return err
	}
	defer s.Close()
	st, err := s.State()
	if err != nil {
		return err
	}
	out.Succession = s.Succession().Counter()
	out.ActiveSlot, out.RunningSlot, out.Slots = st.Active, st.Running, map[string]slotResult{}
	for name, x := range map[string]*update.Slot{"a": &st.A, "b": &st.B} {
		r := slotResult{State: x.State}
		if len(x.Bundle) > 0 {
			statement, err := s.Statement(x)
			if err != nil {
				return err
			}
			r.Version, r.SecurityVersion, r.SHA256 = statement.Predicate.Version, statement.Predicate.SecurityVersion, statement.Image().Digest.SHA256
		}
		out.Slots[name] = r
	}
	return nil
}

func printStatus(w io.Writer, s *statusResult) {
	fmt.Fprintf(w, "world            %s\n", s.World)
	fmt.Fprintf(w, "serial           %s\n", cli.Escape(s.Serial))
	if s.Account == "" {
		fmt.Fprintln(w, "account          none: not enrolled")
	} else {
		fmt.Fprintf(w, "account          %s, gateway %s, at %s\n", s.Account, s.Gateway, s.Access)
		fmt.Fprintf(w, "policy key       %s\n", s.PolicyKey)
	}
	fmt.Fprintf(w, "policy version   %d\n", s.PolicyVersion)
	if s.Succession > 0 {
		fmt.Fprintf(w, "succession       %d: keys of the anchors have been replaced\n", s.Succession)
	}
	fmt.Fprintf(w, "security version %d\n", s.SecurityVersion)
	for _, name := range []string{"a", "b"} {
		x, mark := s.Slots[name], ""
		if name == s.RunningSlot {
			mark = ", running"
		}
		fmt.Fprintf(w, "slot %s           %s %s%s\n", name, x.State, cli.Escape(x.Version), mark)
	}
	fmt.Fprintf(w, "uplink           %s", s.Uplink.State)
	if s.Uplink.Since != "" {
		fmt.Fprintf(w, " since %s", s.Uplink.Since)
	}
	fmt.Fprintln(w)
}
