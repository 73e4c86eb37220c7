package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"maps"

	"github.com/spf13/cobra"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
	"keyrite/signer"
)

func newRelease(std cli.IO) *cobra.Command {
	c := &cobra.Command{
		Use:   "release",
		Short: "Release firmware: request, approve, sign, publish",
		Long: `Release firmware. A pipeline named in the charter asks (request), people of the
charter's release set approve what they are shown (approve), three shares open
the work token and the key in it signs (sign), and the result is offered to the
fleet (publish). No step can be left out, and none is made weaker by a setting:
the charter is the only policy.`,
	}
	for _, sub := range []*cobra.Command{
		newReleasePipelineKey(),
		newReleaseRequest(),
		newReleaseShow(),
		newReleaseApprove(std),
		newReleaseSign(&quorumOpener{std: std}),
		newReleaseRoot(&quorumOpener{std: std}, std),
		newReleasePublish(&quorumOpener{std: std}),
		newReleaseStatus(),
	} {
		c.AddCommand(sub)
	}
	return c
}

// maxPEMBytes bounds a pipeline's key file.
const maxPEMBytes = 16 << 10

// keyring is an open token.
type keyring interface {
	Signer(ctx context.Context, id string) (crypto.Signer, error)
	Close() error
}

// opener opens a safe's token for one operation, whose bytes name what is done.
type opener interface {
	addFlags(c *cobra.Command)
	open(ctx context.Context, state *charter.State, safe string, operation []byte) (keyring, error)
}

// quorumOpener opens a token with the shares of its key masters.
type quorumOpener struct {
	openOptions
	std cli.IO
}

func (q *quorumOpener) addFlags(c *cobra.Command) { addOpenFlags(c, &q.openOptions) }

func (q *quorumOpener) open(ctx context.Context, state *charter.State, safe string, operation []byte) (keyring, error) {
	x, err := q.openOptions.open(ctx, q.std, state, safe, operation)
	if err != nil {
		return nil, err
	}
	return x, nil
}

// releaseTrust is what the charter and the anchors agree on. They have to agree on
// the product's own key, if it has one; product may be empty.
func releaseTrust(s *charter.State, a *anchor.Anchors, product string) (*firmware.Trust, error) {
	ours, err := signer.TrustOf(s)
	if err != nil {
		return nil, err
	}
	theirs, err := firmware.TrustOf(a)
	if err != nil {
		return nil, err
	}
	p, ok := ours.Firmware.(*ecdsa.PublicKey)
	same := ok && p.Equal(theirs.Firmware) && ours.Log.Equal(theirs.Log)
	maps.DeleteFunc(ours.Products, func(p string, k crypto.PublicKey) bool {
		own, ok := k.(*ecdsa.PublicKey)
		agree := ok && own.Equal(theirs.Products[p])
		same = same && (agree || p != product)
		return !agree
	})
	if !same {
		return nil, fault.Hint(fault.New(fault.Policy, "charter and anchors name different release keys"), "if a key was replaced or made since, pass the statement that says so: --succession FILE")
	}
	return ours, nil
}

// measureFile hashes an image that must not change meanwhile.
func measureFile(ctx context.Context, path string) (string, int64, error) {
	f, err := intake.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	sum, size, err := firmware.Measure(f.Reader(ctx))
	if err != nil {
		return "", 0, err
	}
	return sum, size, f.Unchanged()
}

// readPipelineKey reads a private key in PEM: PKCS#8, or the older form of an EC
// key. Only P-256 and Ed25519 sign requests.
func readPipelineKey(path string) (crypto.Signer, error) {
	data, err := intake.Read(path, maxPEMBytes)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, cli.Usagef("%q holds no PEM private key", path)
	}
	var key any
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		return nil, cli.Usagef("%q holds %s, not a private key", path, cli.Escape(block.Type))
	}
	if err != nil {
		return nil, cli.Usagef("%q holds a private key that cannot be read", path)
	}
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		if k.Curve == elliptic.P256() {
			return k, nil
		}
	case ed25519.PrivateKey:
		return k, nil
	}
	return nil, cli.Usagef("%q: a pipeline key is P-256 or Ed25519", path)
}
