package main

import (
	"context"
	"crypto"
	"errors"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"keyrite/provisioning/station"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "keyrite-station",
		Short: "Bring devices to life in a factory",
		Long: `Bring devices to life in a factory, within the bundles that headquarters signed.

  setup    once: the token with its keys, and the requests for the genesis
  sandbox  what the module of the token may use
  import   take a bundle
  serve    certify devices until the quota is spent
  close    end a bundle and sign its report

All state is in --state-dir, for one process at a time. Whoever can read it can
sign with the token: keep it on an encrypted disk of a machine that does nothing
else.`,
	}
	root.AddCommand(newSetup(), newSandbox(), newImport(), newServe(), newUnit(), newReport(), newClose())
	return root
}

// stateFlag adds --state-dir.
func stateFlag(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "state-dir", "", "folder of the station (required)")
	_ = c.MarkFlagRequired("state-dir") // fails only for a flag that does not exist
}

// open opens a station for commands that sign nothing.
func open(dir string) (*station.Station, error) {
	return station.Open(dir, station.Options{Clock: time.Now})
}

// openWithToken opens a station whose keys are in reach; the token is opened
// when the first signature is asked for.
func openWithToken(dir string) (*station.Station, func() error, error) {
	k := &keys{dir: dir}
	s, err := station.Open(dir, station.Options{Clock: time.Now, Signer: k.signer})
	if err != nil {
		return nil, nil, err
	}
	k.settings = s.Settings
	return s, func() error { return errors.Join(s.Close(), k.close()) }, nil
}

// keys opens the token late. Signer is called by one goroutine at a time: the
// station holds its lock over each step.
type keys struct {
	dir      string
	settings station.Settings
	token    *station.Token
}

func (k *keys) signer(ctx context.Context, id string) (crypto.Signer, error) {
	if k.token == nil {
		// The token outlives the request that first needed it.
		t, err := station.OpenToken(context.WithoutCancel(ctx), k.dir, "", k.settings)
		if err != nil {
			return nil, err
		}
		k.token = t
	}
	return k.token.Signer(ctx, id)
}

func (k *keys) close() error {
	if k.token == nil {
		return nil
	}
	return k.token.Close()
}

// newLog writes text to a terminal and JSON elsewhere.
func newLog() *slog.Logger {
	if term.IsTerminal(int(os.Stderr.Fd())) {
		return slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, nil))
}
