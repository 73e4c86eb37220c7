package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"keyrite/ceremony/actions"
	"keyrite/ceremony/boulder"
	"keyrite/ceremony/script"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

type boulderOptions struct {
	out, module, safe string
	existing, enforce bool
	roles             script.Roles
}

func newCeremonyImportBoulder() *cobra.Command {
	var o boulderOptions
	c := &cobra.Command{
		Use:   "import-boulder FILE --module PATH",
		Short: "Turn a configuration of Boulder's ceremony tool into a script",
		Long: `Turn a configuration file of Boulder's ceremony tool into a script that lints:
root into a genesis (with --existing into a new-key ceremony), key into new-key,
intermediate, cross-certificate and crl into sign-offline. The script is FILE's
name with .script.yaml, in the folder --out; the notes lie beside it (.notes.txt).

A note is printed for everything that was not carried over: PINs, slots, paths
and skipped lints have no place in a script. What cannot be said in a script is
an error. OCSP responses, delegated signers and requests are not carried over.

  keyrite ceremony import-boulder root-x2.yaml --module /usr/lib/softhsm/libsofthsm2.so --out scripts

Exit codes: 0 written, 2 FILE cannot be carried over, 16 the script exists.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runImportBoulder(c, &o, args[0]) },
	}
	f := c.Flags()
	f.StringVar(&o.out, "out", ".", "folder for the script")
	f.StringVar(&o.module, "module", "", "PKCS#11 module, absolute path (required)")
	f.StringVar(&o.safe, "safe", "root", "name of the safe that the key lies in, and label of its token")
	f.BoolVar(&o.existing, "existing", false, "the vault exists: a root's key is made in a safe of it")
	f.BoolVar(&o.enforce, "enforce", true, "demand that network, swap and core dumps are off and the clock is UTC; false only records them")
	f.IntVar(&o.roles.KeyMasters.Need, "masters-need", 3, "how many key masters open the safe together; of a vault that exists, as in its charter")
	f.IntVar(&o.roles.KeyMasters.Of, "masters", 5, "how many key masters hold a share")
	f.IntVar(&o.roles.Witnesses, "witnesses", 2, "how many witnesses watch and cosign")
	f.IntVar(&o.roles.Approvers.Need, "approvers-need", 2, "how many approvers decide together")
	f.IntVar(&o.roles.Approvers.Of, "approvers", 2, "how many approvers there are")
	return c
}

func runImportBoulder(c *cobra.Command, o *boulderOptions, path string) error {
	if !filepath.IsAbs(o.module) {
		return cli.Usagef("--module is required: the whole path of the PKCS#11 module")
	}
	data, err := intake.Read(path, boulder.MaxBytes)
	if err != nil {
		return err
	}
	programs, err := actions.Programs("", o.module)
	if err != nil {
		return err
	}
	env := script.Environment{Network: "down", Swap: "off", CoreDumps: "off", Clock: "utc"}
	if !o.enforce {
		env = script.Environment{Network: "any", Swap: "any", CoreDumps: "any", Clock: "any"}
	}
	res, err := boulder.Import(path, data, boulder.Options{
		Pins:        script.Pins{Keyrite: programs[0].SHA256, HSMD: programs[1].SHA256, Module: programs[2].SHA256},
		Environment: env, Safe: o.safe, Existing: o.existing, Roles: o.roles,
	})
	if err != nil {
		return err
	}
	name := filepath.Base(path)
	base := filepath.Join(o.out, strings.TrimSuffix(name, filepath.Ext(name)))
	out := base + ".script.yaml"
	if err := durable.WriteNew(out, res.Script, 0o644); err != nil {
		return err
	}
	notes := strings.Join(res.Notes, "\n") + "\n"
	if err := durable.WriteNew(base+".notes.txt", []byte(notes), 0o644); err != nil {
		return errors.Join(err, os.Remove(out))
	}
	answer := struct {
		Schema string   `json:"schema"`
		Script string   `json:"script"`
		Kind   string   `json:"kind"`
		Binds  []string `json:"binds"`
		Notes  []string `json:"notes"`
	}{"keyrite/import-boulder/v1", out, res.Kind, append([]string{}, res.Binds...), append([]string{}, res.Notes...)}
	return cli.Print(c, answer, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s, lints\n", cli.Escape(out), res.Kind)
		for _, n := range res.Notes {
			fmt.Fprintf(w, "note: %s\n", cli.Escape(n))
		}
	})
}
