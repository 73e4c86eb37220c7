package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"keyrite/ceremony/actions"
	"keyrite/ceremony/script"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/scripts/ceremonies"
)

func withoutCancel(c *cobra.Command) context.Context { return context.WithoutCancel(c.Context()) }

type ceremonyNewOptions struct {
	out, module, title, root, work string
	enforce                        bool
}

func newCeremonyNew() *cobra.Command {
	var o ceremonyNewOptions
	c := &cobra.Command{
		Use:   "new KIND --module PATH --out FILE",
		Short: "Write a commented script that lints",
		Long: `Write a ceremony script to review: KIND is ` + strings.Join(ceremonies.Kinds(), ", ") + `.

The script pins this build of keyrite, its keyrite-hsmd and the PKCS#11 module
by hash, so it runs with these programs and no others.

  keyrite ceremony new genesis --module /usr/lib/softhsm/libsofthsm2.so --out genesis.yaml

Exit codes: 0 written, 2 unknown kind or module, 16 FILE exists.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runCeremonyNew(c, &o, args[0]) },
	}
	f := c.Flags()
	f.StringVar(&o.out, "out", "", "file to write (required)")
	f.StringVar(&o.module, "module", "", "PKCS#11 module, absolute path (required)")
	f.StringVar(&o.title, "title", "", "title of the ceremony (default: its kind)")
	f.StringVar(&o.root, "root-token", "root", "label of the root token")
	f.StringVar(&o.work, "work-token", "work", "label of the work token")
	f.BoolVar(&o.enforce, "enforce", true, "demand that network and swap are off; false only records them")
	return c
}

func runCeremonyNew(c *cobra.Command, o *ceremonyNewOptions, kind string) error {
	shipped, ok := ceremonies.Text(kind)
	if !ok {
		return cli.Usagef("there is no script of kind %s; there are %s", cli.Escape(kind), strings.Join(ceremonies.Kinds(), ", "))
	}
	if o.out == "" || !filepath.IsAbs(o.module) {
		return cli.Usagef("--out and the absolute path --module are required")
	}
	if o.title == "" {
		o.title = strings.ToUpper(kind[:1]) + kind[1:]
	}
	if strings.ContainsAny(o.title, "\"\\\n") {
		return cli.Usagef("the title must not contain quotes, backslashes or line breaks")
	}
	programs, err := actions.Programs("", o.module)
	if err != nil {
		return err
	}
	network, swap := "down", "off"
	if !o.enforce {
		network, swap = "any", "any"
	}
	text := strings.NewReplacer("@TITLE@", o.title, "@KEYRITE@", programs[0].SHA256, "@HSMD@", programs[1].SHA256, "@MODULE@", programs[2].SHA256,
		"@NETWORK@", network, "@SWAP@", swap, "@ROOT@", o.root, "@WORK@", o.work).Replace(shipped)
	s, err := script.Parse(o.out, []byte(text))
	if err != nil {
		return err
	}
	if err := s.Lint(); err != nil {
		return err
	}
	if err := durable.WriteNew(o.out, []byte(text), 0o644); err != nil {
		return err
	}
	return printScript(c, o.out, s)
}

func newCeremonyExplain() *cobra.Command {
	return &cobra.Command{
		Use:   "explain SCRIPT",
		Short: "Say in plain words what a script does",
		Long: `Say what the ceremony will make, who must be there, who can do what afterwards,
and what can go wrong.

Exit codes: 0 explained, 2 the script has a fault.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, _, err := loadScript(args[0])
			if err != nil {
				return err
			}
			res := struct {
				Schema string   `json:"schema"`
				Lines  []string `json:"lines"`
			}{"keyrite/ceremony-explain/v1", s.Explain()}
			return cli.Print(c, res, func(w io.Writer) {
				for _, l := range res.Lines {
					fmt.Fprintln(w, cli.Escape(l))
				}
			})
		},
	}
}
