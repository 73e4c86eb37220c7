package main

import (
	"crypto/tls"
	"os"
	"sync"
	"time"

	"keyrite/artifact/fault"
	"keyrite/internal/intake"
)

// certFile is the server's certificate: read again when its file has changed, since it
// is renewed while the vault runs.
type certFile struct {
	cert, key string

	mu     sync.Mutex // guards the rest
	now    *tls.Certificate
	at     time.Time // of the file that was read
	looked time.Time
}

// certLook is how often the files are looked at.
const certLook = 10 * time.Second

// maxCertBytes bounds certificate and key.
const maxCertBytes = 1 << 20

// loadCert reads the certificate that the binding names.
func loadCert(b *bind) (*certFile, error) {
	if b.TLS.Certificate == "" {
		return nil, fault.New(fault.Usage, "the binding names no tls certificate for the listener of clients")
	}
	c := &certFile{cert: b.path(b.TLS.Certificate), key: b.path(b.TLS.Key)}
	return c, c.read()
}

// read reads both files. The caller holds mu, or is alone.
func (c *certFile) read() error {
	st, err := os.Stat(c.key)
	if err != nil {
		return fault.Errorf(fault.Usage, "the key of the server's certificate: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return fault.Hint(fault.Errorf(fault.Policy, "others may read %q", c.key), "chmod 600 it, and have the certificate made anew for another key")
	}
	if st, err = os.Stat(c.cert); err != nil {
		return fault.Errorf(fault.Usage, "the server's certificate: %w", err)
	}
	chain, err := intake.Read(c.cert, maxCertBytes)
	if err != nil {
		return err
	}
	key, err := intake.Read(c.key, maxCertBytes)
	if err != nil {
		return err
	}
	defer clear(key)
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return fault.Errorf(fault.Usage, "the server's certificate %q: %w", c.cert, err)
	}
	c.now, c.at = &pair, st.ModTime()
	return nil
}

// get is for tls.Config. A new certificate that cannot be read leaves the old one.
func (c *certFile) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) > certLook {
		c.looked = now
		if st, err := os.Stat(c.cert); err == nil && !st.ModTime().Equal(c.at) {
			_ = c.read() // the old one is used until both files fit
		}
	}
	return c.now, nil
}
