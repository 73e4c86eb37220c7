package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keyrite/internal/cli"
	"keyrite/internal/intake"
	"keyrite/signer"
)

func newReleaseShow() *cobra.Command {
	var v trustOptions
	c := &cobra.Command{
		Use:   "show REQUEST [--charter FILE --anchor FILE]",
		Short: "Show what a request asks for",
		Long: `Show what a request asks for, in the words that an approver will see. With
--charter and --anchor the request is verified; without, the first line says
that it is not.

Exit codes: 0 shown; 13 not by a pipeline of the charter, expired, or of another
world; 14 altered or not parseable.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runReleaseShow(c, v, args[0]) },
	}
	v.addFlags(c)
	return c
}

func runReleaseShow(c *cobra.Command, v trustOptions, path string) error {
	data, err := intake.Read(path, signer.MaxFileBytes)
	if err != nil {
		return err
	}
	u, err := signer.PeekRequest(data)
	if err != nil {
		return err
	}
	verified := v.charter != "" || v.anchor != ""
	if verified {
		_, state, err := v.load()
		if err != nil {
			return err
		}
		if _, err := signer.OpenRequest(data, state, time.Now()); err != nil {
			return err
		}
	}
	return cli.Print(c, requestResult("keyrite/release-show/v1", &u.Request, u.Hash, verified), func(w io.Writer) {
		if !verified {
			fmt.Fprintln(w, "NOT VERIFIED: no charter and anchors are given, so anybody may have written this.")
		}
		fmt.Fprint(w, u.Shown())
	})
}
