package node

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"keyrite/artifact/fault"
	"keyrite/internal/durable"
)

// Roles of this node.
const (
	RoleAccess = "access"
	RoleVPN    = "vpn"
)

// Names in the state folder.
const (
	keysDir   = "keys"
	ticketKey = "ticket"
)

// InitKeys makes the two roles' server keys in the state folder and returns
// their certificate requests, PEM, by role. The keys never leave the folder;
// the requests go into the binding of a ceremony, which takes only the public
// keys from them.
func InitKeys(dir string) (map[string][]byte, error) {
	if err := os.MkdirAll(filepath.Join(dir, keysDir), 0o700); err != nil {
		return nil, fault.Errorf(fault.Usage, "make state folder: %w", err)
	}
	out := map[string][]byte{}
	for _, role := range []string{RoleAccess, RoleVPN} {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fault.Errorf(fault.Unexpected, "make key: %w", err)
		}
		if err := writeKey(dir, role, k); err != nil {
			return nil, err
		}
		tpl := &x509.CertificateRequest{SignatureAlgorithm: x509.ECDSAWithSHA256}
		tpl.Subject.CommonName = "relay " + role
		der, err := x509.CreateCertificateRequest(rand.Reader, tpl, k)
		if err != nil {
			return nil, fault.Errorf(fault.Unexpected, "make certificate request: %w", err)
		}
		out[role] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	return out, nil
}

func keyPath(dir, name string) string { return filepath.Join(dir, keysDir, name+".key") }

func writeKey(dir, name string, key crypto.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fault.Errorf(fault.Unexpected, "encode key: %w", err)
	}
	return durable.WriteNew(keyPath(dir, name), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func readKey(dir, name string) (crypto.Signer, error) {
	path := keyPath(dir, name)
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "the relay has no %s key", name), "make the keys with 'keyrite-relay admin init-keys' and 'admin init'")
	}
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read %s key: %w", name, err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fault.Errorf(fault.Usage, "%q can be read by others: its mode must be 0600", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read %s key: %w", name, err)
	}
	block, rest := pem.Decode(b)
	if block == nil || len(rest) != 0 {
		return nil, fault.Errorf(fault.Storage, "%s key is not one PEM block", name)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	s, ok := k.(crypto.Signer)
	if err != nil || !ok {
		return nil, fault.Errorf(fault.Storage, "%s key is not readable", name)
	}
	return s, nil
}

// initTicketKey makes the key that signs session tickets.
func initTicketKey(dir string) error {
	_, k, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fault.Errorf(fault.Unexpected, "make key: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, keysDir), 0o700); err != nil {
		return fault.Errorf(fault.Usage, "make state folder: %w", err)
	}
	return writeKey(dir, ticketKey, k)
}
