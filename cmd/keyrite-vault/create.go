package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/internal/cli"
)

type createResult struct {
	Schema   string `json:"schema"`
	StateDir string `json:"state_dir"`
	Host     string `json:"host"`
	HostKey  string `json:"host_key"` // path of the public half
	LogKey   string `json:"log_key"`  // base64 of 32 bytes, for the charter's audit-log
	Propose  string `json:"propose"`  // the command that approvers need next
}

func newCreate() *cobra.Command {
	var o placeOptions
	c := &cobra.Command{
		Use:   "create --bind FILE --state-dir DIR",
		Short: "Make the state folder of a vault and the keys of its host",
		Long: `Make the state folder and two keys of this host: one signs the requests for shares,
the other the head of the store's log. Approvers then put the host into the charter, as
the command that is printed proposes. Where the host has a TPM, 'keyrite-vault tpm host-key'
makes the first of the two there, and it is that one which is proposed. The store itself is made by the key masters: start
'keyrite-vault serve', and 'keyrite-vault unseal --new-attempt --operation create'.

Exit codes: 0 made, 2 binding or folder not usable, 13 another world, 16 the folder exists.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runCreate(c, &o) },
	}
	o.addFlags(c)
	return c
}

func runCreate(c *cobra.Command, o *placeOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	b, err := loadBind(o.bind)
	if err != nil {
		return err
	}
	if err := makeState(o.stateDir); err != nil {
		return err
	}
	k, err := loadKey(o.stateDir, logKeyFile)
	if err != nil {
		return err
	}
	pub, ok := k.Public().(ed25519.PublicKey)
	if !ok {
		return fault.New(fault.Unexpected, "the log's key is of another kind")
	}
	res := createResult{
		Schema: "keyrite/vault-create/v1", StateDir: o.stateDir, Host: b.Host, HostKey: filepath.Join(o.stateDir, hostPubFile),
		LogKey: base64.StdEncoding.EncodeToString(pub),
	}
	res.Propose = b.propose(res.HostKey)
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s is made. The host must be put into the charter:\n  %s\n", cli.Escape(res.StateDir), cli.Escape(res.Propose))
		if b.tpm() != "" {
			fmt.Fprintln(w, "this host has a TPM: 'keyrite-vault tpm host-key' makes its key there, to be proposed instead of that file's")
		}
		fmt.Fprintf(w, "key of the log, for the charter's audit-log statement: %s\n", res.LogKey)
	})
}

// propose is the command that puts the host into the charter, by that public key.
func (b *bind) propose(key string) string {
	return fmt.Sprintf("keyrite charter propose host --id %s --key %s --charter %s --anchor %s --out %s.proposal", b.Host, key, b.path(b.Charter), b.path(b.Anchors), b.Host)
}
