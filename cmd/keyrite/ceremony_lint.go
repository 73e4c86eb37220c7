package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/ceremony/script"
	"keyrite/internal/cli"
)

func newCeremonyLint() *cobra.Command {
	return &cobra.Command{
		Use:   "lint SCRIPT",
		Short: "Check a script and walk every way through it",
		Long: `Check a script, and walk every way through it: each step done, and each planned
contingency in it as often as its tries allow. On every way

  - the ceremony ends CLOSED or VOID, and each contingency ends;
  - each secret and key that is made is in force, stored and proven at the end;
  - each step finds what it requires of the room (model, media);
  - things come in an order that no mistake can undo: all receipts before a PIN
    depends on a share, succession before a compromised key is destroyed, the
    charter after what it speaks of, the outputs last;
  - each contingency that is planned can come about.

Nothing is run and no token is touched. A fault is shown with file, line and
column, and with the way that leads to it; with --json the way is in error.cases.

Exit codes: 0 good, 2 a fault.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			s, _, err := loadScript(args[0])
			if err != nil {
				showWay(c, err)
				return err
			}
			return printScript(c, args[0], s)
		},
	}
}

// wayShown is how many steps before a fault are shown to people; contingencies
// are shown wherever they stand, for the rest is the script in its order.
const wayShown = 6

// showWay tells people how the fault comes about.
func showWay(c *cobra.Command, err error) {
	var e *script.Error
	if cli.JSON(c) || !errors.As(err, &e) || len(e.Path) == 0 {
		return
	}
	w := c.ErrOrStderr()
	fmt.Fprintln(w, "this way leads there:")
	left := 0
	for i, p := range e.Path {
		if i < len(e.Path)-wayShown && p.Outcome == "done" {
			left++
			continue
		}
		if left > 0 {
			fmt.Fprintf(w, "  (%d steps done in order)\n", left)
			left = 0
		}
		fmt.Fprintln(w, "  "+cli.Escape(p.String()))
	}
}

func printScript(c *cobra.Command, path string, s *script.Script) error {
	steps := len(s.Summon) + len(s.Run) + len(s.Seal)
	res := struct {
		Schema string `json:"schema"`
		Script string `json:"script"`
		Kind   string `json:"kind"`
		Hash   string `json:"hash"`
		Steps  int    `json:"steps"`
		Keys   int    `json:"keys"`
	}{"keyrite/ceremony-script/v1", path, s.Kind, s.Hash(), steps, len(s.Keys)}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s: good. %s, %d steps, %d keys\nscript hash %s\n", path, s.Kind, steps, len(s.Keys), s.Hash())
	})
}
