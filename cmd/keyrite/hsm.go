package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"keyrite/hsm"
	"keyrite/internal/cli"
)

func newHSM(std cli.IO) *cobra.Command {
	c := &cobra.Command{Use: "hsm", Short: "Look at tokens and admit them"}
	c.AddCommand(newHSMAdmit(std), newHSMInspect(std), newHSMHealth(), newHSMCounter())
	return c
}

// tokenOptions names a token and how to open it.
type tokenOptions struct {
	module, moduleArgs, token, serial string
	moduleSum, stateDir               string
	sockets, folders                  []string
	pinFD                             int
}

// addNameFlags adds what names a token and its module.
func (o *tokenOptions) addNameFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.module, "module", "", "absolute path of the PKCS#11 module")
	f.StringVar(&o.moduleSum, "module-sha256", "", "SHA-256 of the module, hex; any other is refused before it is loaded")
	f.StringVar(&o.moduleArgs, "module-args", "", "string for C_Initialize (NSS)")
	f.StringVar(&o.token, "token", "", "label of the token")
	f.StringVar(&o.serial, "serial", "", "serial number that the token must have")
	f.StringVar(&o.stateDir, "state-dir", "", "folder for the counter of wrong PINs (default: .local/state/keyrite/pins in the home folder; SoftHSM's tokens carry it with them)")
	f.StringArrayVar(&o.sockets, "module-socket", nil, "socket that the module may use beside those of its configuration: unix, or tcp:PORT; may repeat")
	f.StringArrayVar(&o.folders, "module-folder", nil, "folder that the module may write to beside those of its configuration; may repeat")
}

func (o *tokenOptions) addFlags(c *cobra.Command) {
	o.addNameFlags(c)
	f := c.Flags()
	f.IntVar(&o.pinFD, "pin-fd", -1, "descriptor with the user PIN on one line")
}

func (o *tokenOptions) config() hsm.Config {
	return hsm.Config{Module: o.module, ModuleSHA256: o.moduleSum, ModuleArgs: o.moduleArgs, StateDir: o.stateDir, Sockets: o.sockets, Folders: o.folders}
}

// find finds the token by its label, and by its serial number where one is given.
func (o *tokenOptions) find(ctx context.Context, sup *hsm.Supervisor) (hsm.TokenID, error) {
	if o.serial == "" {
		return sup.Find(ctx, o.token)
	}
	return sup.FindSerial(ctx, hsm.TokenID{Label: o.token, Serial: o.serial})
}

// take finds the token by its label and hands the supervisor its PIN. The PIN goes from
// the descriptor to the supervisor; this program does not see it.
func (o *tokenOptions) take(ctx context.Context, sup *hsm.Supervisor) (hsm.TokenID, error) {
	id, err := o.find(ctx, sup)
	if err != nil {
		return id, err
	}
	if o.pinFD < 0 {
		return id, cli.Usagef("--pin-fd is missing: the descriptor with the user PIN")
	}
	pin := os.NewFile(uintptr(o.pinFD), "pin")
	if _, err := pin.Stat(); err != nil {
		return id, &cli.Error{Class: "usage", Err: fmt.Errorf("--pin-fd %d is not an open descriptor", o.pinFD), Hint: "open it in the shell, for example: --pin-fd 3 3< FILE"}
	}
	return id, sup.TakeUserPIN(ctx, id, pin)
}

// open finds the token and logs in.
func (o *tokenOptions) open(ctx context.Context, sup *hsm.Supervisor) (*hsm.Session, error) {
	id, err := o.take(ctx, sup)
	if err != nil {
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
