package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"keyrite/artifact/envelope"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
)

func newReleasePipelineKey() *cobra.Command {
	var out string
	c := &cobra.Command{
		Use:   "pipeline-key --out FILE",
		Short: "Make a key for a build pipeline",
		Long: `Make the P-256 key with which a build pipeline signs its requests: FILE with the
private half (PKCS#8 PEM, readable by you alone) and FILE.pub with the public
half, which goes into the charter together with the products it may release.

The key can only ask. It is no vault key, lives where the pipeline lives, and
may as well be made by any other tool.

Exit codes: 0 made, 16 a file exists.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runReleasePipelineKey(c, out) },
	}
	c.Flags().StringVar(&out, "out", "", "file for the private half (required)")
	_ = c.MarkFlagRequired("out") // fails only for a flag that does not exist
	return c
}

type pipelineKeyResult struct {
	Schema string `json:"schema"`
	Key    string `json:"key"`
	Public string `json:"public"`
	KeyID  string `json:"key_id"`
}

func runReleasePipelineKey(c *cobra.Command, out string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make pipeline key: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode pipeline key: %w", err)
	}
	defer clear(private)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("encode pipeline key: %w", err)
	}
	id, err := envelope.KeyID(key.Public())
	if err != nil {
		return err
	}
	res := pipelineKeyResult{"keyrite/release-pipeline-key/v1", out, out + ".pub", id}
	if err := durable.WriteNew(res.Public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o644); err != nil {
		return err
	}
	secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	defer clear(secret)
	if err := durable.WriteNew(out, secret, 0o600); err != nil {
		_ = os.Remove(res.Public)
		return err
	}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "pipeline key %s\n  keep   %s\n  charter %s\n", id, cli.Escape(out), cli.Escape(res.Public))
	})
}
