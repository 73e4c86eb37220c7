package tunnel_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
	"keyrite/artifact/policy"
	"keyrite/artifact/world"
	"keyrite/gateway/secureelement/setest"
	"keyrite/gateway/tunnel"
	wire "keyrite/wire/tunnel"
)

const testWorld world.World = "rehearsal:0123456789ab"

// element counts the policy version in memory.
type element struct {
	mu sync.Mutex
	v  int64
}

func (e *element) PolicyVersion() (int64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.v, nil
}

func (e *element) RaisePolicyVersion(v int64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if v < e.v {
		return errors.New("lowered")
	}
	e.v = v
	return nil
}

func certificate(t *testing.T, k *ecdsa.PrivateKey) tls.Certificate {
	t.Helper()
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k, Leaf: leaf}
}

// site is a gateway with its keeper, the account's and the users' keys.
type site struct {
	t       *testing.T
	account *ecdsa.PrivateKey
	user    tls.Certificate
	gateway tls.Certificate
	element *element
	conf    tunnel.KeeperConfig
	began   time.Time
	skip    atomic.Int64 // the clock is that many nanoseconds ahead of began
}

func (s *site) now() time.Time { return s.began.Add(time.Duration(s.skip.Load())) }

func newSite(t *testing.T) *site {
	s := &site{t: t, account: setest.Key(t), user: certificate(t, setest.Key(t)), gateway: certificate(t, setest.Key(t)), element: &element{}, began: time.Now()}
	s.conf = tunnel.KeeperConfig{
		Path: filepath.Join(t.TempDir(), "policy.json"), Element: s.element, Key: s.account.Public(), World: testWorld, Account: "acme",
		Gateway: "press-7", SPKI: wire.Thumbprint(s.gateway.Leaf), Now: s.now,
	}
	return s
}

// policy signs a policy of that version; change may spoil it first.
func (s *site) policy(version int64, change func(*policy.Policy)) []byte {
	s.t.Helper()
	stamp := func(d time.Duration) string { return s.now().Add(d).UTC().Format("2006-01-02T15:04:05Z") }
	p := &policy.Policy{
		Account: "acme", Format: policy.Format, NotBefore: stamp(-time.Hour), NotAfter: stamp(time.Hour), Version: version, World: testWorld,
		Users:    []policy.User{{Name: "ann", Keys: []string{wire.Thumbprint(s.user.Leaf)}}},
		Gateways: []policy.Gateway{{ID: "press-7", SPKI: s.conf.SPKI}},
		Devices:  []policy.Device{{Name: "plc", Gateway: "press-7", Addr: "192.168.10.2", Ports: []policy.Ports{{First: 80, Last: 80}}}},
		Rules:    []policy.Rule{{User: "ann", Device: "plc"}},
	}
	if change != nil {
		change(p)
	}
	p.Sort()
	data, err := policy.Sign(p, s.account)
	if err != nil {
		s.t.Fatal(err)
	}
	return data
}

func (s *site) keeper() *tunnel.Keeper {
	s.t.Helper()
	k, err := tunnel.NewKeeper(s.conf)
	if err != nil {
		s.t.Fatal(err)
	}
	return k
}

func TestKeeper(t *testing.T) {
	s := newSite(t)
	k := s.keeper()
	if k.Version() != 0 {
		t.Error("a policy from nowhere")
	}
	if changed, err := k.Update(s.policy(3, nil)); err != nil || !changed || k.Version() != 3 {
		t.Fatalf("first policy: %v %v", changed, err)
	}
	other := newSite(t)
	for name, c := range map[string]struct {
		data []byte
		want fault.Class
	}{
		"older version":              {s.policy(2, nil), fault.Policy},
		"other policy, same version": {s.policy(3, func(p *policy.Policy) { p.Rules = []policy.Rule{} }), fault.Policy},
		"signed by another":          {other.policy(4, nil), fault.Verify},
		"of another account":         {s.policy(4, func(p *policy.Policy) { p.Account = "other" }), fault.Policy},
		"of another world":           {s.policy(4, func(p *policy.Policy) { p.World = world.Live }), fault.Policy},
		"expired":                    {s.policy(4, func(p *policy.Policy) { p.NotAfter = s.now().Add(-time.Minute).UTC().Format("2006-01-02T15:04:05Z") }), fault.Policy},
		"not yet in force":           {s.policy(4, func(p *policy.Policy) { p.NotBefore = s.now().Add(time.Minute).UTC().Format("2006-01-02T15:04:05Z") }), fault.Policy},
		"without this gateway": {s.policy(4, func(p *policy.Policy) {
			p.Gateways, p.Devices, p.Rules = []policy.Gateway{}, []policy.Device{}, []policy.Rule{}
		}), fault.Policy},
		"another device under its id": {s.policy(4, func(p *policy.Policy) { p.Gateways[0].SPKI = wire.Thumbprint(s.user.Leaf) }), fault.Policy},
		"text":                        {[]byte("x"), fault.Verify},
	} {
		if changed, err := k.Update(c.data); changed || fault.ClassOf(err) != c.want || k.Version() != 3 {
			t.Errorf("%s: %v, %v, version %d", name, changed, err, k.Version())
		}
	}
	if changed, err := k.Update(s.policy(5, nil)); err != nil || !changed || s.element.v != 5 {
		t.Errorf("newer policy: %v %v, element at %d", changed, err, s.element.v)
	}
	if k := s.keeper(); k.Version() != 5 {
		t.Errorf("after a restart: version %d", k.Version())
	}
	// A state folder put back from an older copy, against the element.
	s.element.v = 6
	if k := s.keeper(); k.Version() != 0 || k.Current() != nil {
		t.Errorf("rolled back policy in force: version %d", k.Version())
	}
}

// TestKeeperKeepsAGoodPolicy: a version that the element cannot count up to is
// refused before it takes the place of the policy that is kept.
func TestKeeperKeepsAGoodPolicy(t *testing.T) {
	s := newSite(t)
	s.conf.Element = setest.Birth(t, artifacttest.New(t), 1).Element
	k := s.keeper()
	if _, err := k.Update(s.policy(3, nil)); err != nil {
		t.Fatal(err)
	}
	if changed, err := k.Update(s.policy(20261122, nil)); changed || fault.ClassOf(err) != fault.Policy {
		t.Errorf("a version far ahead: %v, %v", changed, err)
	}
	if k := s.keeper(); k.Version() != 3 {
		t.Errorf("after a restart: version %d", k.Version())
	}
}

// line is the relay between a user and the gateway's End.
type line struct {
	*site
	keeper *tunnel.Keeper
	end    *tunnel.End
	mux    wire.Mux
	dialed chan netip.AddrPort
}

func newLine(t *testing.T) *line { return newLineTo(t, answering) }

// answering is equipment that answers each line.
func answering(b net.Conn) {
	r := bufio.NewReader(b)
	for {
		s, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(b, "got "+s); err != nil {
			return
		}
	}
}

// newLineTo is newLine with other equipment; its connection ends when it returns.
func newLineTo(t *testing.T, equipment func(net.Conn)) *line {
	l := &line{site: newSite(t), dialed: make(chan netip.AddrPort, 100)}
	l.keeper = l.site.keeper()
	if _, err := l.keeper.Update(l.policy(3, nil)); err != nil {
		t.Fatal(err)
	}
	l.end = tunnel.New(tunnel.Config{
		Keeper: l.keeper, Identity: l.gateway, World: testWorld, Gateway: "press-7", LAN: []netip.Prefix{netip.MustParsePrefix("192.168.10.0/24")},
		Now: l.now, Log: slog.New(slog.DiscardHandler), Refresh: func(context.Context) {},
		Dial: func(_ context.Context, to netip.AddrPort) (net.Conn, error) {
			l.dialed <- to
			a, b := net.Pipe()
			go func() {
				defer b.Close()
				equipment(b)
			}()
			return a, nil
		},
	})
	muxes := make(chan wire.Mux, 1)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m, err := wire.Accept(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		muxes <- m
		<-m.Done()
	}))
	t.Cleanup(srv.Close)
	conn, err := (&tls.Dialer{Config: srv.Client().Transport.(*http.Transport).TLSClientConfig}).DialContext(t.Context(), "tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	m, err := wire.Dial(t.Context(), conn, "relay", []byte("ticket"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		l.end.Serve(ctx, m)
		close(done)
	}()
	l.mux = <-muxes
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return l
}

func (l *line) message(change func(*wire.Open)) []byte {
	l.t.Helper()
	o := &wire.Open{Addr: "192.168.10.2", Flow: "00112233445566778899aabbccddeeff", Format: wire.FormatOpen, Gateway: "press-7", PolicyVersion: 3, Port: 80, Proto: "tcp", User: "ann", World: string(testWorld)}
	if change != nil {
		change(o)
	}
	b, err := o.Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

// open sends what the relay sends, returns the outer answer.
func (l *line) open(raw []byte) (net.Conn, error) {
	l.t.Helper()
	st, err := l.mux.Open(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { _ = st.Close() })
	if err := wire.WriteMessage(st, raw); err != nil {
		l.t.Fatal(err)
	}
	a, err := wire.ReadAnswer(st)
	if err != nil {
		return st, err
	}
	return st, a.Err()
}

func TestFlow(t *testing.T) {
	l := newLine(t)
	raw := l.message(nil)
	st, err := l.open(raw)
	if err != nil {
		t.Fatal(err)
	}
	c, err := wire.UserEnd(t.Context(), st, raw, l.user, l.conf.SPKI)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if to := <-l.dialed; to.String() != "192.168.10.2:80" {
		t.Errorf("connected to %s", to)
	}
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if got, err := bufio.NewReader(c).ReadString('\n'); err != nil || got != "got hello\n" {
		t.Errorf("%q %v", got, err)
	}
	// A policy without the rule cuts the open flow.
	if _, err := l.keeper.Update(l.policy(4, func(p *policy.Policy) { p.Rules = []policy.Rule{} })); err != nil {
		t.Fatal(err)
	}
	l.end.Rejudge(t.Context())
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the flow goes on: %v", err)
	}
}

// TestOpenRefused: what a lying relay asks for is refused before any key is
// shown, and nothing is connected to.
func TestOpenRefused(t *testing.T) {
	l := newLine(t)
	for name, c := range map[string]struct {
		change func(*wire.Open)
		want   fault.Class
	}{
		"other gateway":    {func(o *wire.Open) { o.Gateway = "press-8" }, fault.Policy},
		"other world":      {func(o *wire.Open) { o.World = "live" }, fault.Policy},
		"unknown user":     {func(o *wire.Open) { o.User = "eve" }, fault.Policy},
		"other address":    {func(o *wire.Open) { o.Addr = "192.168.10.3" }, fault.Policy},
		"other port":       {func(o *wire.Open) { o.Port = 22 }, fault.Policy},
		"older policy":     {func(o *wire.Open) { o.PolicyVersion = 2 }, fault.Policy},
		"policy to come":   {func(o *wire.Open) { o.PolicyVersion = 4 }, fault.Policy},
		"address outside":  {func(o *wire.Open) { o.Addr = "10.0.0.1" }, fault.Policy},
		"address of links": {func(o *wire.Open) { o.Addr = "192.168.11.2" }, fault.Policy},
	} {
		if _, err := l.open(l.message(c.change)); fault.ClassOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := l.open([]byte(`{"format":"keyrite/flow/v1"}`)); fault.ClassOf(err) != fault.Verify {
		t.Errorf("malformed: %v", err)
	}
	select {
	case to := <-l.dialed:
		t.Errorf("connected to %s", to)
	default:
	}
}

// TestInnerRefused: the other end has not the user's key, or the relay showed
// the two ends different messages.
func TestInnerRefused(t *testing.T) {
	l := newLine(t)
	raw := l.message(nil)
	st, err := l.open(raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.UserEnd(t.Context(), st, raw, certificate(t, setest.Key(t)), l.conf.SPKI); err == nil {
		t.Error("a key that is not in the policy")
	}
	st, err = l.open(raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.UserEnd(t.Context(), st, l.message(func(o *wire.Open) { o.Port = 443 }), l.user, l.conf.SPKI); err == nil {
		t.Error("two open messages for one flow")
	}
	select {
	case to := <-l.dialed:
		t.Errorf("connected to %s", to)
	default:
	}
}

// TestLANOnly: a policy may name any address; the gateway's LAN side bounds it.
func TestLANOnly(t *testing.T) {
	l := newLine(t)
	if _, err := l.keeper.Update(l.policy(4, func(p *policy.Policy) { p.Devices[0].Addr = "10.9.9.9" })); err != nil {
		t.Fatal(err)
	}
	_, err := l.open(l.message(func(o *wire.Open) { o.PolicyVersion, o.Addr = 4, "10.9.9.9" }))
	if fault.ClassOf(err) != fault.Policy {
		t.Errorf("outside the LAN side: %v", err)
	}
}

// TestExpiryCuts: a policy that ends while a flow is open ends the flow.
func TestExpiryCuts(t *testing.T) {
	l := newLine(t)
	raw := l.message(nil)
	st, err := l.open(raw)
	if err != nil {
		t.Fatal(err)
	}
	c, err := wire.UserEnd(t.Context(), st, raw, l.user, l.conf.SPKI)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if l.end.Open() != 1 {
		t.Errorf("%d flows open", l.end.Open())
	}
	gone, err := tunnel.NewKeeper(l.conf)
	if err != nil || gone.Version() != 3 {
		t.Fatal(err)
	}
	l.skip.Store(int64(2 * time.Hour))
	l.end.Rejudge(t.Context())
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the flow goes on")
	}
}

// TestCutReachesNothing: the relay does not pass the end of a cut flow on and
// the equipment is silent, so that only the gateway's own end of it is left to
// stop the user's bytes.
func TestCutReachesNothing(t *testing.T) {
	got := make(chan string, 100)
	l := newLineTo(t, func(b net.Conn) {
		r := bufio.NewReader(b)
		for {
			s, err := r.ReadString('\n')
			if err != nil {
				return
			}
			got <- s
		}
	})
	raw := l.message(nil)
	st, err := l.open(raw)
	if err != nil {
		t.Fatal(err)
	}
	c, err := wire.UserEnd(t.Context(), st, raw, l.user, l.conf.SPKI)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "before\n"); err != nil || <-got != "before\n" {
		t.Fatal(err)
	}
	if _, err := l.keeper.Update(l.policy(4, func(p *policy.Policy) { p.Rules = []policy.Rule{} })); err != nil {
		t.Fatal(err)
	}
	l.end.Rejudge(t.Context())
	pace := time.NewTicker(100 * time.Millisecond) // the user's
	defer pace.Stop()
	for range 10 {
		<-pace.C
		_, _ = io.WriteString(c, "after\n")
	}
	if len(got) != 0 {
		t.Errorf("the equipment got %q after the cut", <-got)
	}
	if n := l.end.Open(); n != 0 {
		t.Errorf("%d flows open", n)
	}
}
