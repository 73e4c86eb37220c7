package page_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/openrequest"
	"keyrite/artifact/trail"
	"keyrite/vault/api"
	"keyrite/vault/duty"
	"keyrite/vault/engine"
	"keyrite/vault/engine/kv"
	"keyrite/vault/engine/pki"
	"keyrite/vault/node"
	"keyrite/vault/page"
	"keyrite/vault/seal"
	"keyrite/vault/unseal"
	"keyrite/vault/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

// rig is a founded vault with its token and store, its attempts to unseal, and its pages
// over TLS on loopback.
type rig struct {
	*vaulttest.Vault
	t        testing.TB
	dir      string
	node     *node.Node
	attempts *unseal.Attempts
	store    *seal.Store // of the open vault
	addr     string      // HOST:PORT
	server   tls.Certificate
	ca       *x509.Certificate
	caKey    *ecdsa.PrivateKey
	serial   int64
	log      lockedBuffer
	outside  []duty.Thing // what ends of which charter and store know nothing
	broken   error        // of the charter on the disk, if it cannot be read
}

// Names of people who look. Each has an identity of that name, but for the stranger.
const (
	anna  = "anna"  // an auditor: sees what there is to see
	clerk = "clerk" // a process's right and nothing else
)

func uriOf(name string) string { return "spiffe://example.com/people/" + name }

// newRig serves a vault that is sealed. Statements may be approved before open.
func newRig(t testing.TB) *rig {
	t.Helper()
	r := &rig{Vault: vaulttest.New(t), t: t, dir: t.TempDir()}
	r.authority()
	r.Approve(charter.TypeMount, charter.Mount{ID: "kv", Engine: "kv"})
	read := []access.Capability{access.Read}
	r.Approve(charter.TypePolicy, charter.Policy{ID: "auditor", Version: 1, Rules: []access.Rule{
		{Can: read, Path: "keyrite/charter"},
		{Can: read, Path: "keyrite/due"},
		{Can: []access.Capability{access.Create, access.List}, Path: "keyrite/proposals"},
		{Can: read, Path: "keyrite/proposals/+"},
		{Can: []access.Capability{access.Update}, Path: "keyrite/proposals/+/approvals"},
		{Can: []access.Capability{access.Read, access.Update}, Path: "keyrite/shares"},
		{Can: []access.Capability{access.Read, access.Update}, Path: "keyrite/shares/challenges"},
		{Can: read, Path: "keyrite/status"},
		{Can: read, Path: "keyrite/trail"},
	}})
	r.Approve(charter.TypePolicy, charter.Policy{ID: "process", Version: 1, Rules: []access.Rule{{Can: read, Path: "kv/data/*"}}})
	r.person(anna, "auditor")
	r.person(clerk, "process")
	r.file()
	var err error
	r.node, err = node.New(node.Config{
		World: r.World.World, Vault: r.State.Vault, Charter: r.path("charter.jsonl"), Copies: r.path("copies"),
		Engines: map[string]func(*engine.Host) (engine.Engine, error){
			"kv":  func(h *engine.Host) (engine.Engine, error) { return kv.New(h), nil },
			"pki": func(h *engine.Host) (engine.Engine, error) { return pki.New(h), nil },
		},
		Opening: func() any { return r.attempts.Status() },
		Outside: func(*charter.State) []duty.Thing { return r.outside },
	})
	r.ok(err)
	c := r.Unsealing(nil)
	c.Opened = func(ctx context.Context, o *unseal.Opened) (io.Closer, error) {
		r.store = o.Store
		return r.node.Open(ctx, node.Opened{Store: o.Store, Token: o.Token, Head: c.Store.Head, By: node.By{Safe: vaulttest.Safe, Epoch: o.Epoch, Holders: o.Holders, At: o.At}})
	}
	c.Charter = func() *charter.State {
		if st := r.node.Charter(); st != nil {
			return st
		}
		return r.State
	}
	r.attempts, err = unseal.NewAttempts(c)
	r.ok(err)
	t.Cleanup(func() { _ = r.attempts.Seal(); r.attempts.Wait() })
	r.serve()
	return r
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) path(name string) string { return filepath.Join(r.dir, name) }

// file puts the charter where the vault reads it.
func (r *rig) file() {
	r.t.Helper()
	r.ok(os.WriteFile(r.path("charter.jsonl"), r.Charter, 0o600))
}

// person gives somebody an identity with a policy.
func (r *rig) person(name, policy string) {
	r.t.Helper()
	r.Approve(charter.TypeIdentity, charter.Identity{ID: name, Policies: []string{policy}, TTL: 600, Certificate: &charter.Certificate{CA: r.ca.Raw, URI: uriOf(name)}})
}

// open has three key masters open the vault.
func (r *rig) open() { r.t.Helper(); r.Open3(r.t, r.attempts, openrequest.Create) }

// progress is what everybody is told.
func (r *rig) progress() api.Progress {
	st := r.attempts.Status()
	p := api.Progress{Initialized: st.Created, Need: st.Need, Of: len(r.State.Epochs[vaulttest.Safe].Shares)}
	for _, a := range st.Attempts {
		p.Attempt, p.Have = a.Attempt, len(a.Given)
	}
	return p
}

func (r *rig) serve() { r.t.Helper(); r.serveOf(r.node) }

// serveOf serves the pages of v, and has get ask there.
func (r *rig) serveOf(v page.Vault) {
	r.t.Helper()
	s, err := page.New(page.Config{
		Vault: v, Progress: r.progress, Attempts: func() unseal.Status { return r.attempts.Status() },
		Charter: func() (*charter.State, error) { return r.State, r.broken },
		Log:     slog.New(slog.NewJSONHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	})
	r.ok(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.ok(err)
	r.addr = l.Addr().String()
	r.server = r.issue("vault", "")
	done := make(chan error, 1)
	go func() {
		done <- s.Serve(l, api.TLS(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &r.server, nil }))
	}()
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
}

// authority makes the CA of people's certificates.
func (r *rig) authority() {
	r.t.Helper()
	var err error
	r.caKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.ok(err)
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "people"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, r.caKey.Public(), r.caKey)
	r.ok(err)
	r.ca, err = x509.ParseCertificate(der)
	r.ok(err)
}

// issue issues a certificate to a person, or without a URI to a server on loopback.
func (r *rig) issue(name, uri string) tls.Certificate {
	r.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	r.ok(err)
	r.serial++
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(r.serial + 1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if uri != "" {
		u, err := url.Parse(uri)
		r.ok(err)
		tpl.URIs, tpl.IPAddresses, tpl.ExtKeyUsage = []*url.URL{u}, nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, r.ca, k.Public(), r.caKey)
	r.ok(err)
	leaf, err := x509.ParseCertificate(der)
	r.ok(err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k, Leaf: leaf}
}

// tls is the configuration of a client with somebody's certificate; "" has none.
func (r *rig) tls(name string) *tls.Config {
	r.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(r.ca)
	c := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
	if name != "" {
		c.Certificates = []tls.Certificate{r.issue(name, uriOf(name))}
	}
	return c
}

// reply is an answer as it came.
type reply struct {
	status int
	header http.Header
	text   string
}

// get asks for a page as somebody; headers are pairs.
func (r *rig) get(name, path string, headers ...string) reply {
	r.t.Helper()
	return r.ask(name, http.MethodGet, path, "", headers...)
}

func (r *rig) ask(name, method, path, body string, headers ...string) reply {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), method, "https://"+r.addr+path, strings.NewReader(body))
	r.ok(err)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	c := &http.Client{Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: r.tls(name)}}
	resp, err := c.Do(req)
	r.ok(err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	r.ok(err)
	return reply{resp.StatusCode, resp.Header, string(raw)}
}

// has wants each of the texts on a page, and lacks none of them.
func (p reply) has(t testing.TB, what string, texts ...string) {
	t.Helper()
	for _, x := range texts {
		if !strings.Contains(p.text, x) {
			t.Errorf("%s: %d, without %q:\n%.3000s", what, p.status, x, p.text)
			return
		}
	}
}

func (p reply) lacks(t testing.TB, what string, texts ...string) {
	t.Helper()
	for _, x := range texts {
		if strings.Contains(p.text, x) {
			t.Errorf("%s: %d, with %q", what, p.status, x)
		}
	}
}

// entries are those of the trail from number from on.
func (r *rig) entries(from int64) []trail.Entry {
	r.t.Helper()
	var out []trail.Entry
	for n := from; n < r.store.Health().Size; n++ {
		raw, err := r.store.Entry(uint64(n))
		r.ok(err)
		var leaf struct {
			Entry trail.Entry `json:"entry"`
		}
		r.ok(json.Unmarshal(raw, &leaf))
		out = append(out, leaf.Entry)
	}
	return out
}

func (r *rig) size() int64 { return r.store.Health().Size }

// lockedBuffer is a log that is written to and read at once.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func line(e *trail.Entry) string {
	return fmt.Sprint(e.Kind, " ", e.Operation, " ", e.Path, " ", e.Identity)
}
