package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/tpm"
)

// Files of the state folder, where the host's key is in its TPM.
const (
	hostTPMFile    = "host-tpm.json" // which key, and its authorisation
	hostTPMPubFile = "host-tpm.pub"
)

const hostTPMFormat = "keyrite/vault-host-key/v1"

// hostKeyHandle is where the TPM keeps the host's key: in the owner's range of
// persistent handles (TCG registry of reserved handles, 0x81000000 to 0x817fffff).
const hostKeyHandle = 0x81000200

// hostTPM is the form of hostTPMFile.
type hostTPM struct {
	Auth   string      `json:"auth"` // as in tpmState, and another one
	Format string      `json:"format"`
	Public []byte      `json:"public"` // DER SubjectPublicKeyInfo, P-256
	World  world.World `json:"world"`
}

// errTPMKey has the hint for a key that is not in the TPM which the binding names.
func errTPMKey(err error) error {
	switch {
	case errors.Is(err, tpm.ErrMissing), errors.Is(err, tpm.ErrForeign), errors.Is(err, tpm.ErrRefused):
		return fault.Hint(fmt.Errorf("key of this host: %w", err),
			"it was made in another TPM, or this one was cleared, or 'keyrite-vault tpm host-key --replace' was cut off: see 'The host's key in the TPM' in docs/operations/vault-tpm.md")
	case errors.Is(err, tpm.ErrAbsent):
		return fault.Hint(fmt.Errorf("key of this host: %w", err), "without its TPM this host cannot ask for shares: see 'The TPM is lost' in docs/operations/vault-tpm.md")
	}
	return err
}

// tpmSigner signs with the host's key in its TPM, to which it connects each time: the
// TPM may have been away meanwhile.
type tpmSigner struct {
	addr string
	key  tpm.Key
	auth []byte
}

// Public implements crypto.Signer: the key that the state folder says.
func (s *tpmSigner) Public() crypto.PublicKey { return s.key.Public }

// Sign implements crypto.Signer, for SHA-256 digests.
func (s *tpmSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil || opts.HashFunc() != crypto.SHA256 {
		return nil, fault.New(fault.Unexpected, "the key of this host signs SHA-256 digests only")
	}
	d, err := tpm.Open(s.addr)
	if err != nil {
		return nil, errTPMKey(err)
	}
	defer d.Close()
	sig, err := d.Sign(s.key, s.auth, digest)
	return sig, errTPMKey(err)
}

// loadTPMSigner reads which key of the TPM is the host's; fs.ErrNotExist if none is.
func loadTPMSigner(b *bind, dir string) (*tpmSigner, error) {
	path := filepath.Join(dir, hostTPMFile)
	data, err := loadSecret(path)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	damaged := fault.Errorf(fault.Usage, "%q is damaged, or of another format", path) // no more: it is secret
	var x hostTPM
	if err := jcs.Unmarshal(data, &x); err != nil {
		return nil, damaged
	}
	raw, err := hex.DecodeString(x.Auth)
	pub, keyErr := x509.ParsePKIXPublicKey(x.Public)
	k, ok := pub.(*ecdsa.PublicKey)
	if err != nil || keyErr != nil || !ok || k.Curve != elliptic.P256() || len(raw) != authBytes || x.Format != hostTPMFormat {
		return nil, damaged
	}
	if err := world.Match(b.World, x.World); err != nil {
		return nil, err
	}
	if b.tpm() == "" {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "the binding names no TPM, and by %q the key of this host is in one", path), "put tpm into vault.yaml; see docs/operations/vault-tpm.md")
	}
	return &tpmSigner{addr: b.tpm(), key: tpm.Key{Handle: hostKeyHandle, Public: k}, auth: []byte(x.Auth)}, nil
}

// loadHostKey is the host's key: in its TPM where one was made there, else in its file.
// Where there are both, the charter says which; if it says neither, it is the TPM's.
func loadHostKey(b *bind, dir string, st *charter.State) (crypto.Signer, error) {
	inTPM, err := loadTPMSigner(b, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return loadKey(dir, hostKeyFile)
	}
	if err != nil || hostIs(st, b.Host, inTPM.Public()) {
		return inTPM, err
	}
	if _, err := os.Lstat(filepath.Join(dir, hostKeyFile)); errors.Is(err, fs.ErrNotExist) {
		return inTPM, nil
	}
	inFile, err := loadKey(dir, hostKeyFile)
	if err == nil && !hostIs(st, b.Host, inFile.Public()) {
		return inTPM, nil
	}
	return inFile, err
}

// hostIs says whether the charter knows the host by that key.
func hostIs(st *charter.State, host string, pub crypto.PublicKey) bool {
	der, err := x509.MarshalPKIXPublicKey(pub)
	return err == nil && len(der) > 0 && string(st.Access.Hosts[host].Key) == string(der)
}

func newTPMHostKey() *cobra.Command {
	var o tpmOptions
	c := &cobra.Command{
		Use:   "host-key --bind FILE --state-dir DIR [--owner-auth-fd N] [--replace]",
		Short: "Make the key of this host in its TPM",
		Long: `Make the key that signs this host's requests for shares in the TPM that the binding names,
which it never leaves, and print the command that proposes it for the charter. The state
folder gets host-tpm.json (0600), with the key's authorisation, and host-tpm.pub.

A vault that runs with host.key goes on with it until the charter knows the host by the
key in the TPM. The charter never gives a host another key: take another id for it in
vault.yaml when the new statement is in force, and then end the old one.

With --replace, a key that is there already is removed first. Where the charter knows the
host by that key, no key master answers it until it stands there under another id.

Exit codes: 0 made; 2 the binding names no TPM, or no state folder; 12 the TPM cannot; 13 the owner's
authorisation was refused; 15 the vault is running; 16 there is such a key already; 19 no
TPM answers.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runTPMHostKey(c, &o) },
	}
	o.addFlags(c, "remove a key that is there first")
	return c
}

func runTPMHostKey(c *cobra.Command, o *tpmOptions) error {
	j, err := o.begin()
	if err != nil {
		return err
	}
	defer j.end()
	if err := o.makeHostKey(j); err != nil {
		return err
	}
	res := struct {
		Schema  string `json:"schema"`
		TPM     string `json:"tpm"`
		Handle  string `json:"handle"`
		Host    string `json:"host"`
		HostKey string `json:"host_key"` // path of the public half
		Propose string `json:"propose"`  // the command that approvers need next
	}{
		Schema: "keyrite/vault-tpm-host-key/v1", TPM: j.bind.tpm(), Handle: fmt.Sprintf("%#x", hostKeyHandle),
		Host: j.bind.Host, HostKey: filepath.Join(o.stateDir, hostTPMPubFile),
	}
	res.Propose = j.bind.propose(res.HostKey)
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "the TPM at %s has the key of this host. The host must be put into the charter, under an id that the charter never had:\n  %s\n", cli.Escape(res.TPM), cli.Escape(res.Propose))
	})
}

// makeHostKey makes the key, and then the files that say so: cut off in between, what
// was in force before still is, but for a key that was to be replaced.
func (o *tpmOptions) makeHostKey(j *tpmJob) error {
	path := filepath.Join(o.stateDir, hostTPMFile)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) && !o.replace {
		return fault.Hint(fault.Errorf(fault.Exists, "%q exists: the key of this host is in a TPM already", path), "with --replace it is made anew")
	}
	x := tpm.Key{Handle: hostKeyHandle}
	if o.replace {
		if err := j.device.RemoveKey(x, j.owner.Bytes()); err != nil && !errors.Is(err, tpm.ErrMissing) {
			return err
		}
	}
	auth, err := newAuth()
	if err != nil {
		return err
	}
	pub, err := j.device.MakeKey(x, []byte(auth), j.owner.Bytes())
	if errors.Is(err, tpm.ErrDefined) {
		return fault.Hint(err, "this vault made it, or another one of this host; with --replace it is made anew")
	}
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return fault.Errorf(fault.Unexpected, "encode a key: %w", err)
	}
	data, err := jcs.Marshal(hostTPM{Auth: auth, Format: hostTPMFormat, Public: der, World: j.bind.World})
	if err != nil {
		return err
	}
	defer clear(data)
	if err := durable.Replace(filepath.Join(o.stateDir, hostTPMPubFile), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644); err != nil {
		return err
	}
	return durable.Replace(path, data, 0o600)
}
