package tunnel

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"keyrite/wire/problem"
)

func identity(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}, Thumbprint(c)
}

type ends struct {
	user, gateway  tls.Certificate
	userK, gateK   string
	openU, openG   []byte
	allowed, wants string // thumbprints the ends expect
	answer         *Answer
}

func newEnds(t *testing.T) *ends {
	e := &ends{openU: []byte("open"), openG: []byte("open"), answer: Accepted()}
	e.user, e.userK = identity(t)
	e.gateway, e.gateK = identity(t)
	e.allowed, e.wants = e.userK, e.gateK
	return e
}

// run joins both ends over a loopback socket and returns what each says. between,
// if given, sees and may change what the user end sends.
func (e *ends) run(t *testing.T, through func(net.Conn) net.Conn) (user, gateway *tls.Conn, uerr, gerr error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	type res struct {
		c   *tls.Conn
		err error
	}
	ch := make(chan res, 1)
	go func() {
		s, err := ln.Accept()
		if err != nil {
			ch <- res{nil, err}
			return
		}
		c, err := GatewayEnd(t.Context(), s, e.openG, e.gateway, func(thumb string) error {
			if thumb != e.allowed {
				return &Error{ClassPeer, ErrKey}
			}
			return nil
		})
		if err == nil {
			err = WriteAnswer(c, e.answer)
		}
		ch <- res{c, err}
	}()
	s, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if through != nil {
		s = through(s)
	}
	user, uerr = UserEnd(t.Context(), s, e.openU, e.user, e.wants)
	r := <-ch
	t.Cleanup(func() {
		if user != nil {
			_ = user.Close()
		}
		if r.c != nil {
			_ = r.c.Close()
		}
	})
	return user, r.c, uerr, r.err
}

type tap struct {
	net.Conn
	seen *bytes.Buffer
}

func (t tap) Write(b []byte) (int, error) { t.seen.Write(b); return t.Conn.Write(b) }

func TestInnerCarriesBytesNobodyElseReads(t *testing.T) {
	e := newEnds(t)
	var seen bytes.Buffer
	u, g, uerr, gerr := e.run(t, func(c net.Conn) net.Conn { return tap{c, &seen} })
	if uerr != nil || gerr != nil {
		t.Fatal(uerr, gerr)
	}
	if _, err := u.Write([]byte("canary-in-clear")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 15)
	if _, err := io.ReadFull(g, got); err != nil || string(got) != "canary-in-clear" {
		t.Fatalf("%q %v", got, err)
	}
	if bytes.Contains(seen.Bytes(), []byte("canary")) {
		t.Error("the path saw clear text")
	}
}

func TestInnerRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*ends)
		class  string
		is     error
	}{
		"relay changed the open message":     {func(e *ends) { e.openG = []byte("opem") }, ClassPeer, ErrBinding},
		"another gateway answers":            {func(e *ends) { e.wants = strings.Repeat("0", 64) }, ClassPeer, ErrKey},
		"client key not in the policy":       {func(e *ends) { e.allowed = strings.Repeat("0", 64) }, ClassPeer, nil},
		"gateway cannot reach the equipment": {func(e *ends) { e.answer = Refuse(ClassUnreachable, "equipment does not answer") }, ClassUnreachable, nil},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnds(t)
			c.change(e)
			u, _, uerr, _ := e.run(t, nil)
			if u != nil || classOf(uerr) != c.class || c.is != nil && !errors.Is(uerr, c.is) {
				t.Errorf("got %s: %v", classOf(uerr), uerr)
			}
		})
	}
}

// A relay that runs the inner handshake itself, with a key of its own, gets
// nowhere on either side.
func TestManInTheMiddleIsRefused(t *testing.T) {
	e := newEnds(t)
	relay, _ := identity(t)
	real := e.gateway
	e.gateway = relay
	if _, _, uerr, _ := e.run(t, nil); classOf(uerr) != ClassPeer {
		t.Errorf("user end took the relay for the gateway: %v", uerr)
	}
	e.gateway, e.user = real, relay
	if _, _, _, gerr := e.run(t, nil); classOf(gerr) != ClassPeer {
		t.Errorf("gateway took the relay for the user: %v", gerr)
	}
}

func upgradeServer(t *testing.T, h http.HandlerFunc) (string, func() net.Conn) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = false
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String(), func() net.Conn {
		c, err := tls.Dial("tcp", srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{ALPN}})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}

func TestUpgradeAndStreams(t *testing.T) {
	host, dialTLS := upgradeServer(t, func(w http.ResponseWriter, r *http.Request) {
		tk, err := Ticket(r)
		if !IsUpgrade(r) || err != nil || string(tk) != "ticket" {
			problem.Write(w, ClassPolicy, "ticket is not valid")
			return
		}
		m, err := Accept(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		for {
			s, err := m.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(s, s); _ = s.Close() }()
		}
	})
	if _, err := Dial(t.Context(), dialTLS(), host, []byte("no")); classOf(err) != ClassPolicy {
		t.Errorf("bad ticket: %v", err)
	}
	m, err := Dial(t.Context(), dialTLS(), host, []byte("ticket"))
	if err != nil {
		t.Fatal(err)
	}
	// 8 streams at once, more than a window each: no stream stands in another's way.
	done := make(chan error, 8)
	for range 8 {
		go func() {
			s, err := m.Open(context.Background())
			if err != nil {
				done <- err
				return
			}
			defer s.Close()
			want := bytes.Repeat([]byte("0123456789abcdef"), (WindowBytes+WindowBytes/2)/16)
			go func() { _, _ = s.Write(want) }()
			got := make([]byte, len(want))
			_, err = io.ReadFull(s, got)
			if err == nil && !bytes.Equal(got, want) {
				err = errors.New("bytes differ")
			}
			done <- err
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	_ = m.Close()
	<-m.Done()
	if _, err := m.Open(context.Background()); classOf(err) != ClassUnreachable {
		t.Errorf("open after close: %v", err)
	}
}

func TestUpgradeHeaders(t *testing.T) {
	for name, set := range map[string]func(*http.Request){
		"no upgrade":   func(r *http.Request) { r.Header.Del("Upgrade") },
		"websocket":    func(r *http.Request) { r.Header.Set("Upgrade", "websocket") },
		"post":         func(r *http.Request) { r.Method = http.MethodPost },
		"body":         func(r *http.Request) { r.ContentLength = 1 },
		"keep-alive":   func(r *http.Request) { r.Header.Set("Connection", "keep-alive") },
		"two tickets":  func(r *http.Request) { r.Header.Add("Authorization", Scheme+" YQ==") },
		"empty ticket": func(r *http.Request) { r.Header.Set("Authorization", Scheme+" ") },
		"bearer":       func(r *http.Request) { r.Header.Set("Authorization", "Bearer YQ==") },
		"lax base64":   func(r *http.Request) { r.Header.Set("Authorization", Scheme+" YR==") },
	} {
		r := httptest.NewRequest(http.MethodGet, Path, http.NoBody)
		r.ContentLength = 0
		r.Header.Set("Connection", "Upgrade")
		r.Header.Set("Upgrade", Token)
		r.Header.Set("Authorization", Scheme+" YQ==")
		if _, err := Ticket(r); err != nil || !IsUpgrade(r) {
			t.Fatal("the good request is refused", err)
		}
		set(r)
		if _, err := Ticket(r); err == nil && IsUpgrade(r) {
			t.Errorf("%s: taken", name)
		}
	}
}

// A server that never answers must not hold the caller.
func TestDialGivesUp(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	go func() { _, _ = io.Copy(io.Discard, b) }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, a, "relay", []byte("t")); classOf(err) != ClassUnreachable {
		t.Errorf("got %v", err)
	}
}
