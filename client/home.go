// Package client is the user's side of the relay: a client key, a login, the
// account's policy, and TCP flows to equipment behind gateways.
//
// keyrite-connect calls Make once and Load afterwards. It takes from the relay
// only leave to try: which gateway and key stand behind a name comes from the
// policy that the account signed, with a key the user was given by his own
// administrator. It must never write a password down, nor listen for anybody
// but this machine.
package client

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/policy"
	"keyrite/artifact/succession"
	"keyrite/artifact/world"
	"keyrite/internal/durable"
	"keyrite/wire/control"
	"keyrite/wire/tunnel"
)

// Names in the state folder.
const (
	keyFile    = "client.key"
	anchorFile = "anchors.json"
	statement  = "succession-%.16s.json" // by the hash of the anchors it belongs to
	loginFile  = "login.json"
	seenFile   = "policy.json"
)

// Formats of our own state.
const (
	formatLogin = "keyrite/connect-login/v1"
	formatSeen  = "keyrite/connect-policy/v1"
)

var (
	// ErrNoLogin says that nobody is logged in.
	ErrNoLogin = fault.Hint(fault.New(fault.Token, "not logged in"), "log in with 'keyrite-connect login'")
	// ErrServer says that a server is not a relay of the anchors.
	ErrServer = fault.New(fault.Peer, "the server is not a relay server of the anchors in this role")
)

// Home is the state folder of one user on one machine.
type Home struct {
	dir   string
	key   crypto.Signer
	cert  tls.Certificate
	thumb string
}

// Make makes the client key, if there is none, and loads the folder.
func Make(dir string) (*Home, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Errorf(fault.Usage, "make state folder: %w", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, keyFile)); errors.Is(err, fs.ErrNotExist) {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fault.Errorf(fault.Unexpected, "make client key: %w", err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			return nil, fault.Errorf(fault.Unexpected, "encode client key: %w", err)
		}
		err = durable.WriteNew(filepath.Join(dir, keyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
		if err != nil {
			return nil, err
		}
	}
	return Load(dir)
}

// Load loads the folder.
func Load(dir string) (*Home, error) {
	path := filepath.Join(dir, keyFile)
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoLogin
	}
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read client key: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fault.Errorf(fault.Usage, "%q can be read by others: its mode must be 0600", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read client key: %w", err)
	}
	block, rest := pem.Decode(b)
	if block == nil || len(rest) != 0 {
		return nil, fault.New(fault.Storage, "the client key is damaged")
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	s, ok := k.(crypto.Signer)
	if err != nil || !ok {
		return nil, fault.New(fault.Storage, "the client key is damaged")
	}
	h := &Home{dir: dir, key: s}
	return h, h.certify()
}

// certify makes the self-signed certificate that TLS wants around a key. Nobody
// reads anything in it but the key.
func (h *Home) certify() error {
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "keyrite-connect"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, h.key.Public(), h.key)
	if err != nil {
		return fault.Errorf(fault.Unexpected, "make client certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return fault.Errorf(fault.Unexpected, "make client certificate: %w", err)
	}
	h.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: h.key, Leaf: leaf}
	h.thumb = tunnel.Thumbprint(leaf)
	return nil
}

// Thumbprint is what the account administrator puts into the policy.
func (h *Home) Thumbprint() string { return h.thumb }

// login is the login file.
type login struct {
	Access    string      `json:"access"`
	Account   string      `json:"account"`
	Expires   string      `json:"expires"`
	Format    string      `json:"format"`
	PolicyKey []byte      `json:"policy_key"` // DER SubjectPublicKeyInfo, given by the user
	Token     string      `json:"token"`
	User      string      `json:"user"`
	World     world.World `json:"world"`
}

// Session is a login with what belongs to it.
type Session struct {
	home    *Home
	login   login
	anchors *anchor.Anchors  // in force
	key     crypto.PublicKey // policy key
	control *control.Client
}

// Session loads the login that is in force.
func (h *Home) Session() (*Session, error) {
	b, err := os.ReadFile(filepath.Join(h.dir, loginFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoLogin
	}
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read login: %w", err)
	}
	var l login
	if err := jcs.Unmarshal(b, &l); err != nil || l.Format != formatLogin {
		return nil, fault.New(fault.Storage, "the login file is damaged; log in again")
	}
	ab, err := os.ReadFile(filepath.Join(h.dir, anchorFile))
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read anchors: %w", err)
	}
	a, err := anchor.Parse(ab)
	if err != nil {
		return nil, err
	}
	_, inForce, err := h.inForce(a, nil)
	if err != nil {
		return nil, err
	}
	return h.session(l, inForce)
}

// inForce holds a succession statement that is offered, nil for none, against the one
// that is kept with these anchors, and returns the one that counts and the anchors
// under it. Each anchors' statement has a file of its own, so that neither counts for
// the others, and going back to former anchors takes back nothing that was said.
func (h *Home) inForce(a *anchor.Anchors, offered []byte) ([]byte, *anchor.Anchors, error) {
	name, err := h.statementFile(a)
	if err != nil {
		return nil, nil, err
	}
	kept, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fault.Errorf(fault.Storage, "read the succession statement: %w", err)
	}
	return succession.Renew(a, kept, offered)
}

func (h *Home) statementFile(a *anchor.Anchors) (string, error) {
	hash, err := a.Hash()
	return filepath.Join(h.dir, fmt.Sprintf(statement, hash)), err
}

func (h *Home) session(l login, a *anchor.Anchors) (*Session, error) {
	ca, err := a.Certificate("relay-ca")
	if err != nil {
		return nil, err
	}
	if err := birthcert.CheckRelayCA(ca, a.World); err != nil {
		return nil, err
	}
	if err := world.Match(a.World, l.World); err != nil {
		return nil, err
	}
	pub, err := x509.ParsePKIXPublicKey(l.PolicyKey)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "policy key: %w", err)
	}
	if err := policy.CheckKey(pub); err != nil {
		return nil, err
	}
	s := &Session{home: h, login: l, anchors: a, key: pub}
	conf, err := s.tls("access", l.Access)
	if err != nil {
		return nil, err
	}
	s.control = control.NewClient(l.Access, string(a.World), conf)
	s.control.Token = l.Token
	return s, nil
}

// tls is the configuration towards a relay server in a role: its certificate
// must be by the relay CA of the anchors, for this role, this host and now.
func (s *Session) tls(role, addr string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return nil, fault.Errorf(fault.Usage, "%q is not HOST:PORT", addr)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{control.ALPN},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &s.home.cert, nil },
		InsecureSkipVerify:   true, //nolint:gosec // VerifyConnection checks against the relay CA alone, and the role, which the standard check cannot
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return ErrServer
			}
			c := cs.PeerCertificates[0]
			ca, err := s.anchors.Present("relay-ca", c)
			if err != nil {
				return err
			}
			if err := birthcert.VerifyRelay(c, ca, role, time.Now()); err != nil {
				return fault.Errorf(fault.Peer, "%w: %w", ErrServer, err)
			}
			if err := c.VerifyHostname(host); err != nil {
				return fault.Errorf(fault.Peer, "%w: %w", ErrServer, err)
			}
			return nil
		},
	}, nil
}

// Login is what is known of a login.
type Login struct {
	Access, Account, User, Expires string
	World                          world.World
}

// Login describes the login.
func (s *Session) Login() Login {
	return Login{Access: s.login.Access, Account: s.login.Account, User: s.login.User, Expires: s.login.Expires, World: s.anchors.World}
}

var nameRE = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
