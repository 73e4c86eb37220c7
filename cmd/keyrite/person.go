package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"keyrite/artifact/person"
	"keyrite/artifact/world"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
)

func newPerson(std cli.IO) *cobra.Command {
	c := &cobra.Command{Use: "person", Short: "Make the keys of the people who take part"}
	c.AddCommand(newPersonNew(std), newPersonSign(std))
	return c
}

type personNewOptions struct {
	out, rehearsal string
	passphraseFD   int
	card           personCardOptions
}

func newPersonNew(std cli.IO) *cobra.Command {
	var o personNewOptions
	c := &cobra.Command{
		Use:   "new NAME --out DIR [--rehearsal ID]",
		Short: "Make NAME.person and NAME.key",
		Long: `Make a person: DIR/NAME.person is public and goes to everybody, DIR/NAME.key
stays with its owner, under a passphrase that only he knows.

Run it on the person's own machine. Read the fingerprint words aloud when the
person file is handed over, so that nobody can exchange it on the way.

Without --rehearsal the person belongs to the live world. A rehearsal's people
are thrown away afterwards; their keys sign nothing live.

  keyrite person new witness1 --out people --rehearsal spring2027

With --module the two keys are on a PIV card or another PKCS#11 token, one that
signs and one that derives, both P-256, and there is no NAME.key: DIR/NAME.card
says where they are, holds nothing secret, and goes wherever a NAME.key goes. Run
the same command on another computer to have its NAME.card there; NAME.person
comes out the same. --make makes the keys in a token that lets its user.

  keyrite person new witness1 --out people --token "Ann Smith/5a6eb4ffc4d237b1" \
      --module /usr/lib/x86_64-linux-gnu/opensc-pkcs11.so --key 02 --secrets-key 03

A wrong PIN is given to the card once and never again.

Exit codes: 0 made, 2 name or passphrase not usable, 12 no card, no such key, or
the PIN refused, 16 a file exists.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runPersonNew(c, std, &o, args[0]) },
	}
	c.Flags().StringVar(&o.out, "out", "", "folder for the two files (required)")
	c.Flags().StringVar(&o.rehearsal, "rehearsal", "", "make a rehearsal's person: 8 to 32 of a-z, 0-9")
	c.Flags().IntVar(&o.passphraseFD, "passphrase-fd", -1, "descriptor with the passphrase on one line, or the card's PIN (default: the terminal)")
	o.card.addFlags(c)
	return c
}

type personNewResult struct {
	Schema      string      `json:"schema"`
	Name        string      `json:"name"`
	World       world.World `json:"world"`
	Person      string      `json:"person"`
	Key         string      `json:"key"` // NAME.key or NAME.card
	Fingerprint string      `json:"fingerprint"`
	Words       string      `json:"words"`
}

func runPersonNew(c *cobra.Command, std cli.IO, o *personNewOptions, name string) error {
	if o.out == "" {
		return cli.Usagef("--out is missing: the folder for %s.person and %s.key", cli.Escape(name), cli.Escape(name))
	}
	w := world.Live
	if o.rehearsal != "" {
		var err error
		if w, err = world.Rehearsal(o.rehearsal); err != nil {
			return cli.Usagef("--rehearsal is the name of a rehearsal, 8 to 32 of a-z and 0-9, not %s", cli.Escape(o.rehearsal))
		}
	}
	if info, err := os.Stat(o.out); err != nil || !info.IsDir() {
		return &cli.Error{Class: "usage", Err: fmt.Errorf("there is no folder %s", cli.Escape(o.out)), Hint: "make the folder first: mkdir -p " + cli.Escape(o.out)}
	}
	if o.card.module != "" {
		return o.card.run(c, std, o, name, w)
	}
	if err := o.card.unused(); err != nil {
		return err
	}
	k, err := person.New(name, w)
	if err != nil {
		return err
	}
	defer k.Zero()
	for _, suffix := range []string{".person", ".key"} {
		if err := absent(filepath.Join(o.out, name+suffix)); err != nil {
			return err // before somebody thinks of a passphrase
		}
	}
	sealed, err := sealNew(k, cli.NewSecrets(std, o.passphraseFD), o.passphraseFD < 0)
	if err != nil {
		return err
	}
	return o.write(c, k.Public(), ".key", sealed)
}

// write writes NAME.person and what stands for the private half, and says so.
func (o *personNewOptions) write(c *cobra.Command, p *person.Person, suffix string, private []byte) error {
	public, err := p.Marshal()
	if err != nil {
		return err
	}
	res := personNewResult{Schema: "keyrite/person-new/v1", Name: p.Name, World: p.World, Person: filepath.Join(o.out, p.Name+".person"), Key: filepath.Join(o.out, p.Name+suffix)}
	f, err := p.Fingerprint()
	if err != nil {
		return err
	}
	res.Fingerprint = fmt.Sprintf("%x", f)
	if res.Words, err = p.Words(); err != nil {
		return err
	}
	if err := writePair(res.Key, private, res.Person, public); err != nil {
		return err
	}
	return cli.Print(c, res, func(out io.Writer) {
		kind := "secret"
		if suffix == ".card" {
			kind = "card"
		}
		fmt.Fprintf(out, "%s (%s)\n  public: %s\n  %s: %s\n  words:  %s\n", p.Name, p.World, res.Person, kind, res.Key, res.Words)
	})
}

// sealNew asks for a new passphrase, twice at a terminal.
func sealNew(k *person.Key, secrets *cli.Secrets, twice bool) ([]byte, error) {
	pass, err := secrets.Next("new passphrase")
	if err != nil {
		return nil, err
	}
	defer pass.Zero()
	if twice {
		again, err := secrets.Next("new passphrase again")
		if err != nil {
			return nil, err
		}
		defer again.Zero()
		if string(again.Bytes()) != string(pass.Bytes()) {
			return nil, cli.Usagef("the two passphrases differ")
		}
	}
	return k.Seal(pass.Bytes())
}

// writePair writes the secret file, then the public one; if the second cannot be
// written the first goes too.
func writePair(secretPath string, secret []byte, publicPath string, public []byte) error {
	f, err := durable.Create(publicPath, 0o644)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := durable.WriteNew(secretPath, secret, 0o600); err != nil {
		return err
	}
	_, err = f.Write(public)
	if err == nil {
		err = f.Commit()
	}
	if err != nil {
		removeQuietly(secretPath)
	}
	return err
}
