package secureelement_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
	"keyrite/gateway/secureelement"
	"keyrite/gateway/secureelement/setest"
)

func wantClass(t *testing.T, err error, want fault.Class) {
	t.Helper()
	if got := fault.ClassOf(err); got != want {
		t.Errorf("class %q, want %q: %v", got, want, err)
	}
}

func TestOpenWithoutTPM(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:1", "/dev/no-such-tpm", "/dev"} {
		_, err := secureelement.Open(addr)
		if !errors.Is(err, secureelement.ErrAbsent) {
			t.Errorf("%s: %v", addr, err)
		}
		wantClass(t, err, fault.Token)
	}
}

func TestUnbornRefuses(t *testing.T) {
	e := setest.Start(t).Open()
	_, err := e.Key()
	wantClass(t, err, fault.Token)
	_, err = e.Certificate()
	wantClass(t, err, fault.Token)
	_, err = e.FirmwareKey()
	wantClass(t, err, fault.Token)
	_, err = e.Account()
	wantClass(t, err, fault.Token)
	_, err = e.SecurityVersion()
	wantClass(t, err, fault.Token)
	wantClass(t, e.SetAccount(setest.Key(t).Public()), fault.Token)
	wantClass(t, e.Lock(), fault.Token)
	if locked, err := e.Locked(); err != nil || locked {
		t.Errorf("locked %v, %v", locked, err)
	}
}

// TestBirth goes through a birth, each step twice as a station does after a
// crash, and looks at what is there after a power cut.
func TestBirth(t *testing.T) {
	w := artifacttest.New(t)
	b := setest.Birth(t, w, 42)
	_, err := b.CreateKey()
	wantClass(t, err, fault.Exists)
	wantClass(t, b.Provision(setest.BirthOf(t, w)), fault.Policy)
	if err := b.Lock(); err != nil {
		t.Errorf("second lock: %v", err)
	}
	for _, name := range []string{"as born", "after a restart"} {
		e := b.Element
		if name != "as born" {
			b.TPM.Restart()
			e = b.TPM.Open()
		}
		got, err := e.Birth()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := setest.BirthOf(t, w); got.World != want.World || got.Vault != want.Vault || got.Anchors != want.Anchors || !bytes.Equal(got.FirmwareKey, want.FirmwareKey) {
			t.Errorf("%s: birth %+v", name, got)
		}
		k, err := e.Key()
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(name))
		sig, err := k.Sign(rand.Reader, sum[:], crypto.SHA256)
		if err != nil || !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), sum[:], sig) {
			t.Errorf("%s: sign: %v", name, err)
		}
		chain, err := e.Certificate()
		if err != nil || len(chain) != 2 || chain[0].Subject.SerialNumber != "gw100-00000042" {
			t.Errorf("%s: certificate: %v", name, err)
		}
	}
}

func TestBirthCutShort(t *testing.T) {
	w := artifacttest.New(t)
	m := setest.Start(t)
	e := m.Open()
	wantClass(t, e.Provision(setest.BirthOf(t, w)), fault.Token) // no key yet
	if _, err := e.CreateKey(); err != nil {
		t.Fatal(err)
	}
	bad := setest.BirthOf(t, w)
	bad.FirmwareKey = w.SPKI("log") // Ed25519
	wantClass(t, e.Provision(bad), fault.Verify)
	if err := e.Provision(setest.BirthOf(t, w)); err != nil {
		t.Fatal(err)
	}
	m.Restart()
	e = m.Open()
	if err := e.Provision(setest.BirthOf(t, w)); err != nil {
		t.Errorf("provision again: %v", err)
	}
	bad = setest.BirthOf(t, w)
	bad.FirmwareKey = w.SPKI("acceptance")
	wantClass(t, e.Provision(bad), fault.Policy)
	_, err := e.FirmwareKey()
	wantClass(t, err, fault.Token) // not locked yet: worth nothing
	wantClass(t, e.Lock(), fault.Token)
	wantClass(t, e.StoreCertificate(w.Anchors.Certificates["birth-root"]), fault.Verify) // of another key
	wantClass(t, e.StoreCertificate([]byte("no certificate")), fault.Verify)
}

func TestSignerRefusesOtherHashes(t *testing.T) {
	b := setest.Birth(t, artifacttest.New(t), 1)
	k, err := b.Key()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []crypto.SignerOpts{nil, crypto.SHA384, crypto.Hash(0)} {
		if _, err := k.Sign(rand.Reader, make([]byte, 32), o); err == nil {
			t.Errorf("signed with %v", o)
		}
	}
	if _, err := k.Sign(rand.Reader, make([]byte, 31), crypto.SHA256); err == nil {
		t.Error("signed 31 bytes")
	}
}

// TestOneCommandAtATime lets many goroutines sign: without the lock answers get
// mixed up.
func TestOneCommandAtATime(t *testing.T) {
	b := setest.Birth(t, artifacttest.New(t), 1)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			k, err := b.Key()
			if err != nil {
				t.Error(err)
				return
			}
			sum := sha256.Sum256([]byte{byte(g)})
			for range 20 {
				sig, err := k.Sign(rand.Reader, sum[:], crypto.SHA256)
				if err != nil || !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), sum[:], sig) {
					t.Errorf("goroutine %d: %v", g, err)
					return
				}
				if _, err := b.SecurityVersion(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestTwoPrograms: a running gateway and a command beside it share one TPM.
func TestTwoPrograms(t *testing.T) {
	b := setest.Birth(t, artifacttest.New(t), 1)
	other := b.TPM.Open()
	var wg sync.WaitGroup
	for _, e := range []*secureelement.Element{b.Element, other} {
		wg.Go(func() {
			for range 50 {
				k, err := e.Key()
				if err != nil {
					t.Error(err)
					return
				}
				sum := sha256.Sum256(nil)
				if _, err := k.Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestPowerOff: a TPM that is gone is an error of class token, never a hang.
func TestPowerOff(t *testing.T) {
	w := artifacttest.New(t)
	b := setest.Birth(t, w, 1)
	b.TPM.Stop()
	if _, err := b.Key(); !errors.Is(err, secureelement.ErrAbsent) {
		t.Errorf("with the TPM off: %v", err)
	}
}

func TestRandom(t *testing.T) {
	e := setest.Start(t).Open()
	seen := map[string]bool{}
	for range 20 {
		r, err := e.Random(100)
		if err != nil || len(r) != 100 || seen[string(r)] {
			t.Fatalf("%x %v", r, err)
		}
		seen[string(r)] = true
	}
}

// TestTLS runs a mutual TLS 1.3 handshake with the key in the element.
func TestTLS(t *testing.T) {
	w := artifacttest.New(t)
	b := setest.Birth(t, w, 7)
	client, err := b.TLSCertificate()
	if err != nil {
		t.Fatal(err)
	}
	root, err := w.Anchors.Certificate("birth-root")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	server := tls.Certificate{Certificate: [][]byte{root.Raw}, PrivateKey: w.Keys["birth-root"]}
	c, s := net.Pipe()
	done := make(chan error, 1)
	go func() {
		x := tls.Server(s, &tls.Config{Certificates: []tls.Certificate{server}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots, Time: artifacttest.Now, SessionTicketsDisabled: true})
		done <- x.HandshakeContext(t.Context())
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	x := tls.Client(c, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{client}, MinVersion: tls.VersionTLS13})
	if err := x.HandshakeContext(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
