package main

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/succession"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
	"keyrite/signer/tuf"
)

type releasePublishOptions struct {
	trustOptions
	repo, root string
	days       int
}

func newReleasePublish(token opener) *cobra.Command {
	var o releasePublishOptions
	c := &cobra.Command{
		Use:   "publish [FILE.krf…] --repo DIR [--root FILE] --opener KEY:SHARE… --bind FILE --charter FILE --anchor FILE",
		Short: "Offer releases to the fleet by the update repository",
		Long: `Verify each .krf, put it into the update repository (TUF) in place of what was
offered for the same product and channel, and sign new targets, snapshot and
timestamp metadata with the keys in the work token. Without a .krf the present
offer is renewed. Serve the folder as it is.

The first time, --root gives the root metadata of 'release root'; later it gives
a new one. Whatever happens, clients see the old offer or the new one.

Publishing makes nothing acceptable: a gateway also checks the release statement.

Exit codes: 0 published; 10 shares missing; 12 token; 13 a release of another
world, or one with a lower security version than is offered, or the root has
expired; 14 a .krf, the root or the repository was altered; 15 another
publication is at work; 18 disk.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error { return runReleasePublish(c.Context(), c, &o, args, token) },
	}
	o.addFlags(c)
	token.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.repo, "repo", "", "folder of the repository")
	f.StringVar(&o.root, "root", "", "root metadata, for a new repository or a new root")
	f.IntVar(&o.days, "days", 30, "days until the offer must be renewed")
	_ = c.MarkFlagRequired("repo") // fails only for a flag that does not exist
	return c
}

type releasePublishResult struct {
	Schema  string         `json:"schema"`
	World   string         `json:"world"`
	Version int64          `json:"version"`
	Offers  []releaseOffer `json:"offers"`
	Renew   string         `json:"renew"` // until when
}

type releaseOffer struct {
	Target          string `json:"target"`
	Product         string `json:"product"`
	Version         string `json:"version"`
	SecurityVersion int64  `json:"security_version"`
	Channel         string `json:"channel"`
}

func runReleasePublish(ctx context.Context, c *cobra.Command, o *releasePublishOptions, krfs []string, token opener) (err error) {
	if o.days < 1 || o.days > 90 {
		return cli.Usagef("--days is 1 to 90")
	}
	anchors, state, err := o.load()
	if err != nil {
		return err
	}
	repo, err := o.openRepo(state, anchors)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repo.Close()) }()
	if o.succession != "" {
		data, err := intake.Read(o.succession, succession.MaxBytes)
		if err != nil {
			return err
		}
		if err := repo.AddSuccession(data); err != nil {
			return err
		}
	}
	for _, path := range krfs {
		if _, err := repo.Add(ctx, path); err != nil {
			return err
		}
	}
	validity := tuf.DefaultValidity()
	validity.Snapshot = time.Duration(o.days) * 24 * time.Hour
	validity.Timestamp = validity.Snapshot
	safe, err := safeOf(state, tuf.TargetsKeyID, "work")
	if err != nil {
		return err
	}
	ring, err := token.open(ctx, state, safe, fmt.Appendf(nil, "release publish %s %d", state.Vault, repo.Version()+1))
	if err != nil {
		return err
	}
	err = repo.Publish(func(id string) (crypto.Signer, error) { return ring.Signer(ctx, id) }, validity)
	if err = errors.Join(err, ring.Close()); err != nil {
		return err
	}
	return printPublished(c, repo, string(state.World), time.Now().Add(validity.Timestamp))
}

func (o *releasePublishOptions) openRepo(state *charter.State, anchors *anchor.Anchors) (*tuf.Repository, error) {
	trust, err := releaseTrust(state, anchors, "")
	if err != nil {
		return nil, err
	}
	var root []byte
	if o.root != "" {
		if root, err = intake.Read(o.root, tuf.MaxRootBytes); err != nil {
			return nil, err
		}
	}
	return tuf.Open(o.repo, root, state, trust, time.Now)
}

func printPublished(c *cobra.Command, repo *tuf.Repository, w string, until time.Time) error {
	offers, err := repo.Offers()
	if err != nil {
		return err
	}
	res := releasePublishResult{Schema: "keyrite/release-publish/v1", World: w, Version: repo.Version(), Offers: []releaseOffer{}, Renew: until.UTC().Format(time.RFC3339)}
	for _, x := range offers {
		res.Offers = append(res.Offers, releaseOffer{x.Target, x.Product, x.Version, x.SecurityVersion, x.Channel})
	}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "offer %d of world %s, to be renewed before %s\n", res.Version, res.World, res.Renew)
		for _, x := range res.Offers {
			fmt.Fprintf(w, "  %s: %s %s, security version %d, channel %s\n", x.Target, x.Product, x.Version, x.SecurityVersion, x.Channel)
		}
	})
}
