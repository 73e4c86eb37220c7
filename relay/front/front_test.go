package front

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

func identity(t *testing.T) tls.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
}

// Whoever is revoked does not come back on a resumed TLS session.
func TestCheckRunsOnResumedSessions(t *testing.T) {
	var revoked atomic.Bool
	s, err := Listen(t.Context(), "127.0.0.1:0", Options{
		Certificate: identity(t), Log: slog.New(slog.DiscardHandler),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }),
		Check: func(tls.ConnectionState) error {
			if revoked.Load() {
				return errors.New("revoked")
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve() }()
	defer s.Close(context.Background())
	id := identity(t)
	conf := &tls.Config{
		InsecureSkipVerify: true, ServerName: "relay", ClientSessionCache: tls.NewLRUClientSessionCache(4),
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id, nil },
	}
	get := func() (resumed bool, err error) {
		c, err := tls.Dial("tcp", s.Addr(), conf)
		if err != nil {
			return false, err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		b, err := io.ReadAll(c)
		if err == nil && len(b) == 0 {
			err = io.ErrUnexpectedEOF
		}
		return c.ConnectionState().DidResume, err
	}
	if _, err := get(); err != nil {
		t.Fatal(err)
	}
	if resumed, err := get(); err != nil || !resumed {
		t.Fatalf("second connection: resumed %v, %v", resumed, err)
	}
	revoked.Store(true)
	if _, err := get(); err == nil {
		t.Error("a revoked peer came back on a resumed session")
	}
}

func TestConnectionsWithoutCertificateOrWithOldTLS(t *testing.T) {
	s, err := Listen(t.Context(), "127.0.0.1:0", Options{Certificate: identity(t), Log: slog.New(slog.DiscardHandler), Handler: http.NotFoundHandler(), Check: func(tls.ConnectionState) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve() }()
	defer s.Close(context.Background())
	for name, conf := range map[string]*tls.Config{
		"no certificate": {InsecureSkipVerify: true},
		"TLS 1.2":        {InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{identity(t)}},
		"HTTP/2 only":    {InsecureSkipVerify: true, NextProtos: []string{"h2"}, Certificates: []tls.Certificate{identity(t)}},
	} {
		c, err := tls.Dial("tcp", s.Addr(), conf)
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, err = c.Read(make([]byte, 1))
			_ = c.Close()
		}
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestCapped(t *testing.T) {
	c := newCapped(nil)
	for range MaxPerSource {
		if !c.enter("a") {
			t.Fatal("refused below the limit")
		}
	}
	if c.enter("a") || !c.enter("b") {
		t.Error("the limit of one source is not its own")
	}
	c.exit("a")
	if !c.enter("a") {
		t.Error("a place that came free is not given")
	}
	for addr, want := range map[string]string{"192.0.2.1:5": "192.0.2.1", "[2001:db8::1]:5": "2001:db8::/64", "[::ffff:192.0.2.1]:5": "192.0.2.1"} {
		a, err := net.ResolveTCPAddr("tcp", addr)
		if err != nil || source(a) != want {
			t.Errorf("%s: %s", addr, source(a))
		}
	}
}
