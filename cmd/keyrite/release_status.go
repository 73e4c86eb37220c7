package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"keyrite/internal/cli"
	"keyrite/signer"
)

type releaseStatusOptions struct {
	trustOptions
	stateDir string
}

func newReleaseStatus() *cobra.Command {
	var o releaseStatusOptions
	c := &cobra.Command{
		Use:   "status --state-dir DIR --charter FILE --anchor FILE",
		Short: "List what was signed",
		Long: `List the releases in the signer's ledger and how far each one came. A release
that was signed and not published is finished by 'release sign' with the same
files; one that is lost needs a new request and new approvals.

Exit codes: 0 listed; 2 no ledger there; 13 ledger of another world or vault;
14 the ledger was altered; 15 a signer is at work.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runReleaseStatus(c, &o) },
	}
	o.addFlags(c)
	c.Flags().StringVar(&o.stateDir, "state-dir", "", "folder of the signer's state")
	_ = c.MarkFlagRequired("state-dir") // fails only for a flag that does not exist
	return c
}

type releaseStatusRow struct {
	Time            string `json:"time"`
	Product         string `json:"product"`
	Version         string `json:"version"`
	SecurityVersion int64  `json:"security_version"`
	State           string `json:"state"`
	Request         string `json:"request"`
}

type releaseStatusResult struct {
	Schema   string             `json:"schema"`
	World    string             `json:"world"`
	Releases []releaseStatusRow `json:"releases"`
}

func runReleaseStatus(c *cobra.Command, o *releaseStatusOptions) error {
	_, state, err := o.load()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(o.stateDir, signer.LedgerFile)); err != nil {
		return cli.Usagef("no ledger in %q", o.stateDir)
	}
	l, err := signer.OpenLedger(o.stateDir, state, time.Now)
	if err != nil {
		return err
	}
	defer l.Close()
	res := releaseStatusResult{Schema: "keyrite/release-status/v1", World: string(state.World), Releases: []releaseStatusRow{}}
	for _, e := range l.Entries() {
		res.Releases = append(res.Releases, releaseStatusRow{e.Time, e.Product, e.Version, e.SecurityVersion, e.State, e.Request})
	}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "world %s, %d releases\n", res.World, len(res.Releases))
		for _, r := range res.Releases {
			fmt.Fprintf(w, "%s  %-9s  %s %s, security version %d\n", r.Time, r.State, r.Product, r.Version, r.SecurityVersion)
		}
	})
}
