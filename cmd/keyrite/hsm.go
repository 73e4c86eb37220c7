package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"keyrite/hsm"
	"keyrite/internal/cli"
)

func newHSM(std cli.IO) *cobra.Command {
	c := &cobra.Command{Use: "hsm", Short: "Look at tokens and admit them"}
	c.AddCommand(newHSMAdmit(std), newHSMInspect(std))
	return c
}

// tokenOptions names a token and how to open it.
type tokenOptions struct {
	module, moduleArgs, token string
	pinFD                     int
}

func (o *tokenOptions) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.module, "module", "", "absolute path of the PKCS#11 module")
	f.StringVar(&o.moduleArgs, "module-args", "", "string for C_Initialize (NSS)")
	f.StringVar(&o.token, "token", "", "label of the token")
	f.IntVar(&o.pinFD, "pin-fd", -1, "descriptor with the user PIN on one line")
}

func (o *tokenOptions) config() hsm.Config {
	return hsm.Config{Module: o.module, ModuleArgs: o.moduleArgs}
}

// open finds the token by its label and logs in. The PIN goes from the
// descriptor to the supervisor; this program does not see it.
func (o *tokenOptions) open(ctx context.Context, sup *hsm.Supervisor) (*hsm.Session, error) {
	id, err := sup.Find(ctx, o.token)
	if err != nil {
		return nil, err
	}
	if o.pinFD < 0 {
		return nil, cli.Usagef("--pin-fd is missing: the descriptor with the user PIN")
	}
	pin := os.NewFile(uintptr(o.pinFD), "pin")
	if _, err := pin.Stat(); err != nil {
		return nil, cli.Usagef("--pin-fd %d is not an open descriptor", o.pinFD)
	}
	if err := sup.TakeUserPIN(ctx, id, pin); err != nil {
		return nil, err
	}
	return sup.Open(ctx, id)
}

// withToken runs f with an open session and ends everything after it.
func (o *tokenOptions) withToken(ctx context.Context, f func(*hsm.Session) error) (err error) {
	sup, err := hsm.Start(ctx, o.config())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sup.Close()) }()
	s, err := o.open(ctx, sup)
	if err != nil {
		return err
	}
	defer func() {
		if e := s.Close(); err == nil {
			err = e
		}
	}()
	return f(s)
}
