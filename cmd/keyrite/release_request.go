package main

import (
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/signer"
)

type releaseRequestOptions struct {
	trustOptions
	wish     signer.Wish
	key, out string
}

func newReleaseRequest() *cobra.Command {
	var o releaseRequestOptions
	c := &cobra.Command{
		Use:   "request IMAGE --product P --version V --security-version N --pipeline-key PEM --charter FILE --anchor FILE --out REQUEST",
		Short: "Ask for a release, as a pipeline",
		Long: `Measure an image and ask for its release, signed with the pipeline's key. The
request holds for 7 days. Nothing secret of the vault is needed.

--security-version is the rollback counter: once a device has run an image with
N, it refuses everything below N for ever, and the signer refuses to sign it.

Exit codes: 0 written; 2 image empty, a FIFO, device or folder, or a value that
cannot be used; 13 the charter knows no pipeline with this key, or not for this
product; 14 the image changed while it was read; 16 REQUEST exists.`,
		Example: `  keyrite release request firmware.img --product gw100 --version 2026.11 --security-version 7 \
    --pipeline-key ci.pem --charter charter.jsonl --anchor anchors.json --out firmware.request`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runReleaseRequest(c, &o, args[0]) },
	}
	o.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.wish.Product, "product", "", "product, as in the charter")
	f.StringVar(&o.wish.Version, "version", "", "version for people")
	f.Int64Var(&o.wish.SecurityVersion, "security-version", 0, "rollback counter, 1 or more")
	f.StringVar(&o.wish.Channel, "channel", "release", "channel")
	f.StringArrayVar(&o.wish.Hardware, "hardware", nil, "compatible hardware, may repeat (default: the product)")
	f.StringVar(&o.wish.File, "name", "", "file name of the image in the release (default: the name of IMAGE)")
	f.StringVar(&o.key, "pipeline-key", "", "private key of the pipeline, PEM")
	f.StringVar(&o.out, "out", "", "file for the request; it is never overwritten")
	for _, name := range []string{"product", "version", "security-version", "pipeline-key", "out"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	return c
}

// releaseRequestResult is the --json form of request and show.
type releaseRequestResult struct {
	Schema          string   `json:"schema"`
	Verified        bool     `json:"verified"`
	Request         string   `json:"request"` // hex SHA-256
	World           string   `json:"world"`
	Pipeline        string   `json:"pipeline"`
	Product         string   `json:"product"`
	Hardware        []string `json:"hardware"`
	Version         string   `json:"version"`
	SecurityVersion int64    `json:"security_version"`
	Channel         string   `json:"channel"`
	File            string   `json:"file"`
	Size            int64    `json:"size"`
	SHA256          string   `json:"sha256"`
	Expires         string   `json:"expires"`
}

func requestResult(schema string, r *signer.Request, hash string, verified bool) releaseRequestResult {
	return releaseRequestResult{
		schema, verified, hash, string(r.World), r.Pipeline, r.Product, r.Hardware, r.Version, r.SecurityVersion, r.Channel, r.File, r.Size, r.SHA256, r.Expires,
	}
}

func runReleaseRequest(c *cobra.Command, o *releaseRequestOptions, image string) error {
	out, err := durable.Create(o.out, 0o644)
	if err != nil {
		return err
	}
	defer out.Abort()
	_, state, err := o.load()
	if err != nil {
		return err
	}
	key, err := readPipelineKey(o.key)
	if err != nil {
		return err
	}
	if o.wish.File == "" {
		o.wish.File = filepath.Base(image)
	}
	if o.wish.Hardware == nil {
		o.wish.Hardware = []string{o.wish.Product}
	}
	sum, size, err := measureFile(c.Context(), image)
	if err != nil {
		return err
	}
	now := time.Now()
	data, err := signer.NewRequest(state, o.wish, sum, size, key, now)
	if err != nil {
		return err
	}
	q, err := signer.OpenRequest(data, state, now)
	if err != nil {
		return err
	}
	if err := out.Finish(data); err != nil {
		return err
	}
	return cli.Print(c, requestResult("keyrite/release-request/v1", &q.Request, q.Hash, true), func(w io.Writer) {
		fmt.Fprintf(w, "%s\nrequest written to %s\n", q.Shown(), cli.Escape(o.out))
	})
}
