// Package node is one machine of the relay with its roles: it opens the state,
// checks everything that must hold before the first peer is served, wires
// access and VPN role together and runs them.
//
// cmd/keyrite-relay and the tests of the whole chain call it. It holds the one
// place where the VPN role gets its answers from accounts and logins; a VPN
// server on a machine of its own will get them from a message bus instead. It
// refuses to start on doubtful state and never makes what is missing.
package node

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"keyrite/artifact/acceptance"
	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/policy"
	"keyrite/relay/access"
	"keyrite/relay/account"
	"keyrite/relay/audit"
	"keyrite/relay/auth"
	"keyrite/relay/front"
	"keyrite/relay/store"
	"keyrite/relay/ticket"
	"keyrite/relay/vpn"
	"keyrite/wire/control"
)

// Timing.
const (
	pollEvery    = 300 * time.Millisecond // a change made by keyrite-relay admin is in effect within this
	rejudgeEvery = 5 * time.Second        // policies and logins also end by the clock
	drainFor     = 5 * time.Second        // open flows get this long at the end
)

// State is the opened state folder.
type State struct {
	DB       *store.DB
	Trail    *audit.Trail
	Registry *account.Registry
	Hasher   *auth.Hasher
	dir      string
	now      func() time.Time
}

// Init makes the state of a relay of the anchors' world and vault.
func Init(ctx context.Context, dir string, a *anchor.Anchors) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Errorf(fault.Usage, "make state folder: %w", err)
	}
	if err := initTicketKey(dir); err != nil {
		return err
	}
	return store.Create(ctx, dir, a.World, a.Vault)
}

// OpenState opens the state folder, also beside a running node.
func OpenState(ctx context.Context, dir string, now func() time.Time) (*State, error) {
	db, err := store.Open(ctx, dir)
	if err != nil {
		return nil, err
	}
	trail := &audit.Trail{DB: db, World: db.World(), Now: now}
	return &State{
		DB: db, Trail: trail, Registry: &account.Registry{DB: db, Trail: trail, World: db.World(), Now: now},
		Hasher: auth.NewHasher(2), dir: dir, now: now,
	}, nil
}

// Close closes the state.
func (s *State) Close() error { return s.DB.Close() }

// ImportAcceptance verifies an acceptance file against the anchors and stores
// its devices. It returns how many.
func (s *State) ImportAcceptance(ctx context.Context, data []byte, a *anchor.Anchors) (int, error) {
	if err := s.DB.CheckVault(a.World, a.Vault); err != nil {
		return 0, err
	}
	acc, err := acceptance.Verify(data, a)
	if err != nil {
		return 0, err
	}
	var rows []store.Accepted
	for _, d := range acc.Devices {
		rows = append(rows, store.Accepted{Serial: string(d.DeviceSerial), SPKI: d.SPKIHash, Cert: d.CertHash, Bundle: d.BundleID})
	}
	return len(rows), s.Registry.ImportAcceptance(ctx, acc.ReportHash, data, rows)
}

// Options of a node.
type Options struct {
	StateDir string
	Anchors  *anchor.Anchors
	Charter  *charter.State
	Listen   map[string]string // role to HOST:PORT
	// PublicVPN is the address that peers are told for the VPN role; empty
	// means the one it listens on.
	PublicVPN string
	TUF       string // folder with metadata/ and targets/, or empty
	Now       func() time.Time
	Log       *slog.Logger
}

// Node is a relay that listens.
type Node struct {
	state  *State
	lock   *os.File
	tuf    *os.Root
	vpn    *vpn.Server
	access *front.Server
	tunnel *front.Server
	log    *slog.Logger
}

// Open checks everything and listens; nobody is served before Run.
func Open(ctx context.Context, o Options) (_ *Node, err error) {
	n := &Node{log: o.Log}
	defer func() {
		if err != nil {
			n.close(ctx)
		}
	}()
	if n.lock, err = lock(o.StateDir); err != nil {
		return nil, err
	}
	if n.state, err = OpenState(ctx, o.StateDir, o.Now); err != nil {
		return nil, err
	}
	if err = n.state.DB.CheckVault(o.Anchors.World, o.Anchors.Vault); err != nil {
		return nil, err
	}
	devices, err := auth.NewDevices(o.Anchors, o.Charter.Factories)
	if err != nil {
		return nil, err
	}
	if o.TUF != "" {
		if n.tuf, err = os.OpenRoot(o.TUF); err != nil {
			return nil, fault.Errorf(fault.Usage, "open update repository: %w", err)
		}
	}
	return n, n.wire(ctx, o, devices)
}

// wire makes the two roles and lets them listen.
func (n *Node) wire(ctx context.Context, o Options, devices *auth.Devices) error {
	key, err := readKey(o.StateDir, ticketKey)
	if err != nil {
		return err
	}
	tk, ok := key.(ed25519.PrivateKey)
	if !ok {
		return fault.New(fault.Storage, "the ticket key is not an Ed25519 key")
	}
	vpnCert, vpnID, err := serverCertificate(o, RoleVPN)
	if err != nil {
		return err
	}
	accessCert, _, err := serverCertificate(o, RoleAccess)
	if err != nil {
		return err
	}
	limiter := auth.NewLimiter(o.Now)
	logins := &auth.Logins{DB: n.state.DB, Trail: n.state.Trail, Hasher: n.state.Hasher, Limiter: limiter, Now: o.Now}
	n.vpn = vpn.New(vpn.Config{
		Tickets: ticket.NewChecker(vpnID, o.Anchors.World, []crypto.PublicKey{tk.Public()}, o.Now),
		Policy:  n.policy, Live: n.live(logins), Note: n.noteWithin(limiter), Key: legKey, Now: o.Now, Log: o.Log,
	})
	n.tunnel, err = front.Listen(ctx, o.Listen[RoleVPN], front.Options{Certificate: *vpnCert, Check: devices.Check, Handler: n.vpn, Log: o.Log})
	if err != nil {
		return err
	}
	public := o.PublicVPN
	if public == "" {
		public = n.tunnel.Addr()
	}
	role := &access.Server{
		World: o.Anchors.World, Devices: devices, Logins: logins, Registry: n.state.Registry, Trail: n.state.Trail,
		Tickets: &ticket.Issuer{Key: tk, World: o.Anchors.World, Now: o.Now},
		Place:   access.Placement{Server: control.Server{Addr: public, ID: vpnID}, Online: n.vpn.Online},
		TUF:     n.tuf, Limiter: limiter, Now: o.Now, Log: o.Log,
	}
	n.access, err = front.Listen(ctx, o.Listen[RoleAccess], front.Options{Certificate: *accessCert, Check: devices.Check, Handler: role, Log: o.Log})
	return err
}

// legKey names the key behind a leg: the certificate was checked in the
// handshake, and a ticket is for a key, not for a name.
func legKey(r *http.Request) (string, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return "", auth.ErrPeer
	}
	return auth.Thumbprint(r.TLS.PeerCertificates[0]), nil
}

// policy answers the VPN role; an account without a policy permits nothing.
func (n *Node) policy(ctx context.Context, of string) (*policy.Policy, error) {
	p, _, err := n.state.Registry.Policy(ctx, of)
	if errors.Is(err, account.ErrNoPolicy) {
		return nil, nil
	}
	return p, err
}

func (n *Node) live(logins *auth.Logins) func(context.Context, *ticket.Ticket) error {
	return func(ctx context.Context, t *ticket.Ticket) error {
		if t.Kind == ticket.KindGateway {
			return n.state.Registry.GatewayLive(ctx, t.Account, t.Gateway, t.Key)
		}
		return logins.Still(ctx, t.Login, t.Key)
	}
}

// noteWithin bounds what peers without a session can make us write: so many
// refusals from an address, then one that says so.
func (n *Node) noteWithin(l *auth.Limiter) func(context.Context, vpn.Event) error {
	return func(ctx context.Context, e vpn.Event) error {
		if e.Action == vpn.OpenSession && e.Class != "" {
			c := auth.SourceCounter(e.Source)
			c.Name = "session/" + c.Name
			if l.Begin(c) != nil {
				if !l.FirstOf("session", e.Source) {
					return nil
				}
				e.Class = string(fault.Quota)
			}
		}
		return n.note(ctx, e)
	}
}

func (n *Node) note(ctx context.Context, e vpn.Event) error {
	result := audit.Done
	if e.Class != "" {
		result = audit.Refused
	}
	return n.state.Trail.Note(ctx, audit.Entry{Account: e.Account, Action: e.Action, Actor: e.Actor, Class: e.Class, Object: e.Object, Result: result, Source: e.Source})
}

// serverCertificate finds the charter's certificate for the role's key. Only
// one that is of this key, this role, this world and this time will do.
func serverCertificate(o Options, role string) (*tls.Certificate, string, error) {
	key, err := readKey(o.StateDir, role)
	if err != nil {
		return nil, "", err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, "", fault.Errorf(fault.Storage, "%s key: %w", role, err)
	}
	ca, err := o.Anchors.Certificate("relay-ca")
	if err != nil {
		return nil, "", err
	}
	last := fault.Hint(fault.Errorf(fault.Policy, "the charter has no certificate for this relay's %s key", role), "certificates last at most 30 days; have a new one put in the charter")
	for _, r := range o.Charter.Relays {
		c, err := birthcert.Parse(r.Certificate)
		if err != nil || r.Role != role || !bytes.Equal(c.RawSubjectPublicKeyInfo, spki) {
			continue
		}
		if err := birthcert.VerifyRelay(c, ca, role, o.Now()); err != nil {
			last = err
			continue
		}
		return &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key, Leaf: c}, r.ID, nil
	}
	return nil, "", last
}

// lock keeps a second node off the state folder.
func lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "serve.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "open the relay's state: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fault.New(fault.Sealed, "another keyrite-relay serves from this state folder")
	}
	return f, nil
}

// Addr is where a role listens.
func (n *Node) Addr(role string) string {
	if role == RoleAccess {
		return n.access.Addr()
	}
	return n.tunnel.Addr()
}

// Run serves until ctx ends, then drains and closes everything.
func (n *Node) Run(ctx context.Context) error {
	failed := make(chan error, 2)
	for _, s := range []*front.Server{n.access, n.tunnel} {
		go func() { failed <- s.Serve() }()
	}
	err := n.watch(ctx, failed)
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainFor)
	defer cancel()
	n.close(end)
	return err
}

func (n *Node) close(ctx context.Context) {
	if n.access != nil {
		n.access.Close(ctx)
	}
	if n.tunnel != nil {
		n.tunnel.Close(ctx)
	}
	if n.vpn != nil {
		n.vpn.Close(ctx)
	}
	if n.tuf != nil {
		_ = n.tuf.Close()
	}
	if n.state != nil {
		_ = n.state.Close()
	}
	if n.lock != nil {
		_ = n.lock.Close()
	}
}

// watch has open sessions and flows judged again when somebody changed the
// state, be it this process or keyrite-relay admin, and as time passes.
func (n *Node) watch(ctx context.Context, failed <-chan error) error {
	var seen int64
	judged := time.Now()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case <-tick.C:
		}
		epoch := int64(-1)
		err := n.state.DB.Read(ctx, func(tx *store.Tx) (err error) {
			epoch, err = tx.Epoch()
			return err
		})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			// Unable to see a revocation, we judge everything again: what cannot
			// be read denies.
			n.log.ErrorContext(ctx, "state cannot be watched", slog.Any("error", err))
		}
		if err != nil || epoch != seen || time.Since(judged) >= rejudgeEvery {
			seen, judged = epoch, time.Now()
			n.vpn.Rejudge(ctx)
		}
	}
}
