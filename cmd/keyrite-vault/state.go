package main

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
	"keyrite/internal/intake"
)

// Files of the state folder.
const (
	hostKeyFile = "host.key" // signs requests for shares: P-256, PKCS #8
	hostPubFile = "host.pub"
	logKeyFile  = "log.key" // signs the head of the store's log: Ed25519, PKCS #8
	logPubFile  = "log.pub"
	lockFile    = "serve.lock" // held by the process that serves
	storeDir    = "store"
	copiesDir   = "audit" // what audit sinks of kind file write
)

// pair is a key of the host and where its halves lie.
type pair struct {
	private, public string
	make            func() (crypto.Signer, error)
}

func pairs() []pair {
	return []pair{
		{hostKeyFile, hostPubFile, func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }},
		{logKeyFile, logPubFile, func() (crypto.Signer, error) {
			_, k, err := ed25519.GenerateKey(rand.Reader)
			return k, err
		}},
	}
}

// makeState makes the folder, in one step: a crash leaves none, or a whole one.
func makeState(dir string) error {
	if _, err := os.Lstat(dir); err == nil {
		return fault.Errorf(fault.Exists, "%q exists: a state folder is never made over another", dir)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(filepath.Clean(dir)), ".keyrite-vault-")
	if err != nil {
		return fault.Hint(fault.Errorf(fault.Usage, "make the state folder: %w", err), "make the folder around it first")
	}
	defer os.RemoveAll(tmp)
	for _, p := range pairs() {
		if err := p.write(tmp); err != nil {
			return err
		}
	}
	if err := durable.WriteNew(filepath.Join(tmp, lockFile), []byte("held by the process that serves\n"), 0o600); err != nil {
		return err
	}
	if err := durable.Mkdir(filepath.Join(tmp, storeDir), 0o700); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fault.Errorf(fault.Storage, "name the state folder: %w", err)
	}
	return durable.SyncDir(filepath.Dir(filepath.Clean(dir)))
}

// write makes the pair's files.
func (p *pair) write(dir string) error {
	k, err := p.make()
	if err != nil {
		return fault.Errorf(fault.Unexpected, "make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return fault.Errorf(fault.Unexpected, "encode a key: %w", err)
	}
	defer clear(der)
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	defer clear(text)
	if err := durable.WriteNew(filepath.Join(dir, p.private), text, 0o600); err != nil {
		return err
	}
	pub, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return fault.Errorf(fault.Unexpected, "encode a key: %w", err)
	}
	return durable.WriteNew(filepath.Join(dir, p.public), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pub}), 0o644)
}

// loadSecret reads a file that nobody else may read. The caller clears it.
func loadSecret(path string) ([]byte, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "look at %q: %w", path, err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fault.Hint(fault.Errorf(fault.Policy, "others may read %q", path), "chmod 600 it, and think about who read it: if in doubt, make a new host")
	}
	return intake.Read(path, 4<<10)
}

// loadKey reads a private key of the state folder, which nobody else may read.
func loadKey(dir, name string) (crypto.Signer, error) {
	path := filepath.Join(dir, name)
	data, err := loadSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "%q has no %s: it is no state folder of a vault", dir, name), "'keyrite-vault create' makes one")
	}
	if err != nil {
		return nil, err
	}
	defer clear(data)
	b, rest := pem.Decode(data)
	if b == nil || len(rest) > 0 || b.Type != "PRIVATE KEY" {
		return nil, fault.Errorf(fault.Usage, "%q is not one private key in PEM", path)
	}
	defer clear(b.Bytes)
	k, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "%q is no private key", path)
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fault.Errorf(fault.Usage, "%q is no key that signs", path)
	}
	return s, nil
}

// holdState takes the state folder for the process that serves.
func holdState(dir string) (func(), error) {
	done, err := durable.Lock(filepath.Join(dir, lockFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "%q is no state folder of a vault", dir), "'keyrite-vault create' makes one")
	}
	return done, err
}
