package main

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"keyrite/artifact/person"
	"keyrite/artifact/world"
	"keyrite/internal/cli"
	"keyrite/vault/card"
)

// personCardOptions say where a new person's keys are, if they are on a card.
type personCardOptions struct {
	module, token, key, secrets string
	make                        bool
}

func (o *personCardOptions) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.module, "module", "", "PKCS#11 module of the card or token that holds the keys")
	f.StringVar(&o.token, "token", "", "LABEL/SERIAL of the card or token")
	f.StringVar(&o.key, "key", "", "CKA_ID in hex of the key that signs (on a PIV card 02)")
	f.StringVar(&o.secrets, "secrets-key", "", "CKA_ID in hex of the key that derives (on a PIV card 03)")
	f.BoolVar(&o.make, "make", false, "make the two keys in the token first")
}

func (o *personCardOptions) unused() error {
	if o.token != "" || o.key != "" || o.secrets != "" || o.make {
		return cli.Usagef("--token, --key, --secrets-key and --make go with --module")
	}
	return nil
}

func (o *personCardOptions) run(c *cobra.Command, std cli.IO, all *personNewOptions, name string, w world.World) error {
	if o.token == "" || o.key == "" || o.secrets == "" {
		return cli.Usagef("--token, --key and --secrets-key are required with --module")
	}
	id, err := tokenID(o.token)
	if err != nil {
		return err
	}
	module, err := filepath.Abs(o.module)
	if err != nil {
		return cli.Usagef("--module: %w", err)
	}
	if err := person.CheckName(name); err != nil {
		return err
	}
	for _, p := range []string{name + ".person", name + ".card"} {
		if err := absent(filepath.Join(all.out, p)); err != nil {
			return err // before the card is touched
		}
	}
	pin, err := cli.NewSecrets(std, all.passphraseFD).Next("PIN of " + id.Label)
	if err != nil {
		return err
	}
	defer pin.Zero()
	f, data, err := card.Enrol(c.Context(), &card.Enrolment{Name: name, World: w, Module: module, Token: id, Sign: o.key, Derive: o.secrets, Make: o.make}, pin)
	if err != nil {
		return err
	}
	return all.write(c, &f.Person, ".card", data)
}
