package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/world"
	"keyrite/ceremony/actions"
	"keyrite/ceremony/paper"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

// maxPersonBytes bounds a person file.
const maxPersonBytes = 64 << 10

type ceremonyPaperOptions struct{ out, bind string }

func (o *ceremonyPaperOptions) addFlags(c *cobra.Command, out string) {
	c.Flags().StringVar(&o.out, "out", "", out)
	c.Flags().StringVar(&o.bind, "bind", "", "binding file: fills in the names of the people, their keys and the world")
}

func newCeremonyPrint() *cobra.Command {
	var o ceremonyPaperOptions
	c := &cobra.Command{
		Use:   "print SCRIPT --out FILE.html [--bind FILE]",
		Short: "Make the paper script that everybody initials",
		Long: `Write the script as one page to print on A4: cover with participants, numbered
steps with initials, time and estimated minutes, a sheet for each contingency,
exception sheets, hashes in hex and words, and a place for the words of the
anchors. Open it in a browser and print it; Chromium numbers the pages and puts
the script's hash on each.

Without --bind there are places to fill in names by hand.

  keyrite ceremony print genesis.yaml --bind bind.yaml --out genesis.html

Exit codes: 0 written, 2 script or binding not usable, 10 somebody in the binding
has no place in the script, 16 FILE exists.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runCeremonyPrint(c, &o, args[0]) },
	}
	o.addFlags(c, "file to write (required)")
	return c
}

func runCeremonyPrint(c *cobra.Command, o *ceremonyPaperOptions, path string) error {
	in, err := o.input(path)
	if err != nil {
		return err
	}
	html, err := paper.Script(*in)
	if err != nil {
		return err
	}
	if err := durable.WriteNew(o.out, html, 0o644); err != nil {
		return err
	}
	res := struct {
		Schema string `json:"schema"`
		File   string `json:"file"`
		Hash   string `json:"hash"`
	}{"keyrite/ceremony-print/v1", o.out, in.Script.Hash()}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s: print it on A4, one copy for each person\nscript hash %s\n", cli.Escape(o.out), res.Hash)
	})
}

func newCeremonyKit() *cobra.Command {
	var o ceremonyPaperOptions
	c := &cobra.Command{
		Use:   "kit SCRIPT --out DIR [--bind FILE]",
		Short: "Make everything else that people hold in their hands",
		Long: `Write a folder of pages to print on A4: invitations, a card for each role,
shopping and room list, labels for seal bags, custody receipts and log, witness
statements, contact sheet, and the sheet of the anchors' words to take home.
index.html lists them.

  keyrite ceremony kit genesis.yaml --bind bind.yaml --out kit

Exit codes: 0 written, 2 script or binding not usable, 10 somebody in the binding
has no place in the script, 16 DIR exists.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runCeremonyKit(c, &o, args[0]) },
	}
	o.addFlags(c, "folder to make (required)")
	return c
}

func runCeremonyKit(c *cobra.Command, o *ceremonyPaperOptions, path string) error {
	in, err := o.input(path)
	if err != nil {
		return err
	}
	files, err := paper.Kit(*in)
	if err != nil {
		return err
	}
	err = durable.CreateDir(o.out, func(dir string) error {
		for _, f := range files {
			if err := durable.WriteNew(filepath.Join(dir, f.Name), f.HTML, 0o644); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	res := struct {
		Schema string   `json:"schema"`
		Folder string   `json:"folder"`
		Files  []string `json:"files"`
	}{Schema: "keyrite/ceremony-kit/v1", Folder: o.out}
	for _, f := range files {
		res.Files = append(res.Files, f.Name)
	}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d pages; begin with %s\n", cli.Escape(o.out), len(files), cli.Escape(filepath.Join(o.out, "index.html")))
	})
}

// input reads script and binding. Only public halves of people are read: the
// keys may be far away when paper is printed.
func (o *ceremonyPaperOptions) input(path string) (*paper.Input, error) {
	if o.out == "" {
		return nil, cli.Usagef("--out is required")
	}
	s, _, err := loadScript(path)
	if err != nil {
		return nil, err
	}
	in := &paper.Input{Script: s}
	if o.bind == "" {
		return in, nil
	}
	bind, err := actions.LoadBind(o.bind)
	if err != nil {
		return nil, err
	}
	in.World, in.BindHash = string(bind.World), bind.Hash()
	for _, bp := range bind.People {
		data, err := intake.Read(bind.Path(bp.Person), maxPersonBytes)
		if err != nil {
			return nil, err
		}
		p, err := person.Parse(data)
		if err != nil {
			return nil, fault.Errorf(fault.ClassOf(err), "person %q: %w", bp.Person, err)
		}
		if err := world.Match(bind.World, p.World); err != nil {
			return nil, fault.Errorf(fault.Policy, "%s: %w", p.Name, err)
		}
		mark, err := p.Fingerprint()
		if err != nil {
			return nil, err
		}
		in.People = append(in.People, paper.Person{Name: p.Name, Role: bp.Role, Group: bp.Group, Fingerprint: hex.EncodeToString(mark[:])})
	}
	return in, in.Check()
}
