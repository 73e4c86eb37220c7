package node

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/yamux"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
	"keyrite/relay/auth"
	"keyrite/relay/store"
	"keyrite/relay/vpn"
	"keyrite/wire/tunnel"
)

// Peers that send nothing, half a request, or too much are cut.
func TestSlowAndLargePeers(t *testing.T) {
	r := newRelay(t)
	cert, _ := clientKey(t)
	for name, send := range map[string]string{
		"large header":        "GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 64<<10) + "\r\n\r\n",
		"negative length":     "POST /v1/user/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: -1\r\n\r\n",
		"two lengths":         "POST /v1/user/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
		"length and chunked":  "POST /v1/user/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"huge length":         "POST /v1/user/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999999999999\r\n\r\n",
		"chunked":             "POST /v1/user/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"space before colon":  "POST /v1/user/login HTTP/1.1\r\nHost: x\r\nContent-Length : 2\r\n\r\n{}",
		"HTTP/2 in clear":     "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"bare CR in a header": "GET / HTTP/1.1\r\nHost: x\r\nA: b\rC: d\r\n\r\n",
	} {
		c, err := tls.Dial("tcp", r.node.Addr(RoleAccess), r.tls(cert, RoleAccess))
		r.ok(err)
		_ = c.SetDeadline(time.Now().Add(15 * time.Second))
		_, _ = c.Write([]byte(send))
		line := make([]byte, 12)
		if _, err := io.ReadFull(c, line); err == nil && line[9] != '4' && line[9] != '5' {
			t.Errorf("%s: answered %q", name, line)
		}
		_ = c.Close()
	}
	if testing.Short() {
		return
	}
	c, err := net.Dial("tcp", r.node.Addr(RoleVPN))
	r.ok(err)
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	began := time.Now()
	if _, err := c.Read(make([]byte, 1)); err == nil || time.Since(began) > 15*time.Second {
		t.Errorf("a peer that never speaks was held for %v: %v", time.Since(began), err)
	}
}

func TestRefusesDoubtfulState(t *testing.T) {
	r := newRelay(t)
	_, err := Open(t.Context(), r.options())
	want(t, err, fault.Sealed, "second node on one folder")
	r.stop()
	o := r.options()
	o.Anchors = artifacttest.New(t).Anchors
	_, err = Open(t.Context(), o)
	want(t, err, fault.Policy, "other world's anchors")
	o = r.options()
	o.Now = func() time.Time { return time.Now().Add(40 * 24 * time.Hour) }
	_, err = Open(t.Context(), o)
	want(t, err, fault.Policy, "expired certificate")
	r.ok(os.Chmod(filepath.Join(r.dir, "keys", "vpn.key"), 0o644))
	_, err = Open(t.Context(), r.options())
	want(t, err, fault.Usage, "key readable by others")
	o = r.options()
	o.StateDir = t.TempDir()
	_, err = Open(t.Context(), o)
	want(t, err, fault.Usage, "empty folder")
	if _, err := InitKeys(r.dir); fault.ClassOf(err) != fault.Exists {
		t.Errorf("keys were overwritten: %v", err)
	}
}

// hostile is a session whose far end keeps to no limit.
func (r *testRelay) hostile(cert tls.Certificate, ticket []byte) *yamux.Session {
	r.t.Helper()
	c, err := tls.Dial("tcp", r.node.Addr(RoleVPN), r.tls(cert, RoleVPN))
	r.ok(err)
	_, err = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: %s\r\nAuthorization: %s %s\r\n\r\n",
		tunnel.Path, tunnel.Token, tunnel.Scheme, base64.StdEncoding.EncodeToString(ticket))
	r.ok(err)
	resp, err := http.ReadResponse(bufio.NewReaderSize(&oneByte{c}, 16), nil) //nolint:bodyclose // what follows the head is the session
	r.ok(err)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		r.t.Fatal(resp.Status)
	}
	conf := yamux.DefaultConfig()
	conf.LogOutput = io.Discard
	s, err := yamux.Client(c, conf)
	r.ok(err)
	r.t.Cleanup(func() { _ = s.Close() })
	return s
}

// oneByte reads no further than it is asked to, so that nothing is lost between
// an answer's head and the session behind it.
type oneByte struct{ io.Reader }

func (o *oneByte) Read(b []byte) (int, error) { return o.Reader.Read(b[:1]) }

// Streams that are refused and that the other side does not close end the
// session: a session never has more than tunnel.MaxStreams of them, each with one
// window, so what one peer can make the relay hold is bounded.
func TestRefusedStreamsEndTheSession(t *testing.T) {
	r := newRelay(t)
	cert, _ := r.acme()
	s, err := r.user(cert, "acme").Connect(t.Context(), "press-7")
	r.ok(err)
	m := r.hostile(cert, s.Ticket)
	var wg sync.WaitGroup
	for range 2 * tunnel.MaxStreams {
		st, err := m.OpenStream()
		if err != nil {
			break
		}
		wg.Go(func() {
			_ = tunnel.WriteMessage(st, []byte(`{"addr":"127.0.0.1"}`))
			_ = st.SetWriteDeadline(time.Now().Add(5 * time.Second))
			_, _ = st.Write(make([]byte, 64<<10))
		})
	}
	r.await(m.IsClosed)
	wg.Wait()
}

func TestStreamOfAGatewayEndsItsSession(t *testing.T) {
	r := newRelay(t)
	_, _ = r.acme()
	m := r.online(r.born[0])
	s, err := m.Open(t.Context())
	r.ok(err)
	_, _ = s.Write([]byte("x"))
	select {
	case <-m.Done():
	case <-time.After(5 * time.Second):
		t.Error("the session goes on")
	}
}

func TestSessionsOfAUserAreLimited(t *testing.T) {
	r := newRelay(t)
	cert, _ := r.acme()
	u := r.user(cert, "acme")
	var first tunnel.Mux
	for i := range vpn.MaxUserSessions + 1 {
		s, err := u.Connect(t.Context(), "press-7")
		r.ok(err)
		m, err := r.dial(cert, s.Ticket)
		r.ok(err)
		defer m.Close()
		if i == 0 {
			first = m
		}
		if i == vpn.MaxUserSessions {
			select {
			case <-m.Done():
			case <-time.After(5 * time.Second):
				t.Error("one session too many")
			}
		}
	}
	select {
	case <-first.Done():
		t.Error("an older session ended instead")
	default:
	}
}

// Who fails on an address locks out neither a key that logged in from there
// before nor a device that enrols.
func TestSharedAddressLocksNobodyOut(t *testing.T) {
	r := newRelay(t)
	known, _ := clientKey(t)
	r.user(known, "acme")
	bad, _ := clientKey(t)
	var err error
	for i := range auth.TriesSource + 1 {
		_, err = r.client(bad).Login(t.Context(), "acme", fmt.Sprintf("nobody%d", i), []byte("wrong-password"))
	}
	want(t, err, fault.Quota, "guessing from one address")
	if _, err := r.client(known).Login(t.Context(), "acme", "ann", []byte(password)); err != nil {
		t.Errorf("known key: %v", err)
	}
	if _, err := r.client(device(r.born[0])).Enrol(t.Context(), r.entry("acme", "press-7")); err != nil {
		t.Errorf("enrolment: %v", err)
	}
}

// A stranger cannot fill the audit trail.
func TestRefusalsAreWrittenDownWithinLimits(t *testing.T) {
	r := newRelay(t)
	size := func() (n int64) {
		r.ok(r.state.DB.Read(t.Context(), func(tx *store.Tx) (err error) {
			n, err = tx.AuditSize()
			return err
		}))
		return n
	}
	cert, _ := clientKey(t)
	before := size()
	for range auth.TriesSource + 20 {
		if _, err := r.dial(cert, []byte("ticket")); err == nil {
			t.Fatal("a session without a ticket")
		}
	}
	if n := size() - before; n != auth.TriesSource+1 {
		t.Errorf("%d entries of refused sessions", n)
	}
	before = size()
	for range auth.TriesUser + 20 {
		if _, err := r.client(cert).Login(t.Context(), "acme", "ann", []byte("wrong-password")); err == nil {
			t.Fatal("logged in")
		}
	}
	if n := size() - before; n != auth.TriesUser+1 {
		t.Errorf("%d entries of refused logins", n)
	}
}
