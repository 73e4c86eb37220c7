// Package enroll makes a born gateway a member of an account, and keeps what it
// learnt there.
//
// keyrite-gateway calls Enrol once, with an activation file, and Load at every
// start. What a gateway believes stands in its secure element; the state folder
// holds only files that can be checked against it: the anchors (their hash is in
// the element since birth), the first TUF root (bound to the anchors), and the
// enrolment (its policy key is in the element). It must never take the policy
// key on the relay's word, and never talk to a server whose certificate is not
// of the anchors' relay CA and of the right role.
//
// Compatibility: docs/formats/enrolment.md, version 1 is read for ever.
package enroll

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"keyrite/artifact/activation"
	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
	"keyrite/gateway/secureelement"
	"keyrite/gateway/update"
	"keyrite/internal/durable"
	"keyrite/wire/control"
)

// Format names the enrolment file.
const Format = "keyrite/enrolment/v1"

// Files in the state folder.
const (
	anchorsFile   = "anchors.json"
	rootFile      = "tuf-root.json"
	enrolmentFile = "enrolment.json"
)

var (
	// ErrAnchors says that an anchors file is not the one of the birth.
	ErrAnchors = fault.New(fault.Verify, "the anchors are not those that the secure element was born with")
	// ErrNotEnrolled says that the gateway belongs to no account.
	ErrNotEnrolled = fault.New(fault.Usage, "the gateway is not enrolled")
	// ErrEnrolled says that it belongs to one already.
	ErrEnrolled = fault.New(fault.Exists, "the gateway is enrolled already")
	// ErrPolicyKey says that the relay named another policy key than the
	// activation file.
	ErrPolicyKey = fault.New(fault.Verify, "the access server names another policy key than the activation file")
	// ErrEnrolment says that the enrolment file cannot be used.
	ErrEnrolment = fault.New(fault.Verify, "the enrolment file is not valid")
	// ErrRelay says that a server is not a relay of ours in that role.
	ErrRelay = fault.New(fault.Peer, "the server is not a relay of these anchors in this role")
)

// Element is what this package needs of the secure element.
type Element interface {
	update.Element
	Certificate() ([]*x509.Certificate, error)
	TLSCertificate() (tls.Certificate, error)
	SetAccount(pub crypto.PublicKey) error
	CheckAccount(pub crypto.PublicKey) error
	Account() (*secureelement.Account, error)
}

// Enrolment is what the gateway learnt at enrolment.
type Enrolment struct {
	Access    string      `json:"access"` // HOST:PORT of the access server
	Account   string      `json:"account"`
	Format    string      `json:"format"`
	Gateway   string      `json:"gateway"`    // id within the account
	PolicyKey []byte      `json:"policy_key"` // DER SubjectPublicKeyInfo
	World     world.World `json:"world"`
}

var idRE = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

func (e *Enrolment) check(w world.World) error {
	if e.Format != Format || e.Access == "" || len(e.Access) > 300 || !idRE.MatchString(e.Account) || !idRE.MatchString(e.Gateway) {
		return ErrEnrolment
	}
	if _, err := birthcert.ParseSPKI(e.PolicyKey); err != nil {
		return fault.Errorf(fault.Verify, "%w: policy key: %w", ErrEnrolment, err)
	}
	return world.Match(w, e.World)
}

// ParseEnrolment reads an enrolment file of world w.
func ParseEnrolment(data []byte, w world.World) (*Enrolment, error) {
	var e Enrolment
	if err := jcs.Unmarshal(data, &e); err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: %w", ErrEnrolment, err)
	}
	return &e, e.check(w)
}

// Home is a gateway's state folder, checked against its secure element.
type Home struct {
	Dir       string
	Element   Element
	Anchors   *anchor.Anchors // as the gateway was born with them
	inForce   *anchor.Anchors // under the succession that it learnt of since
	Root      []byte          // first TUF root
	Serial    birthcert.DeviceSerial
	Product   string
	SPKI      string     // hex SHA-256 of the birth key
	Enrolment *Enrolment // nil before enrolment

	mu    sync.Mutex // guards the fields below
	floor time.Time  // the element's, as of read
	read  time.Time
}

// Load opens the state folder of a gateway that was enrolled.
func Load(dir string, e Element) (*Home, error) {
	h, err := identify(dir, e)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(filepath.Join(dir, enrolmentFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Hint(ErrNotEnrolled, "run keyrite-gateway enroll with the activation file of the account")
	}
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read the enrolment: %w", err)
	}
	if h.Enrolment, err = ParseEnrolment(data, h.Anchors.World); err != nil {
		return nil, err
	}
	key, err := birthcert.ParseSPKI(h.Enrolment.PolicyKey)
	if err != nil {
		return nil, err
	}
	return h, e.CheckAccount(key)
}

// identify reads anchors and TUF root and checks them.
func identify(dir string, e Element) (*Home, error) {
	files := map[string][]byte{}
	for _, name := range []string{anchorsFile, rootFile} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fault.Hint(ErrNotEnrolled, "run keyrite-gateway enroll with the activation file of the account")
		}
		if err != nil {
			return nil, fault.Errorf(fault.Storage, "read the state folder: %w", err)
		}
		files[name] = data
	}
	return verify(dir, e, files[anchorsFile], files[rootFile])
}

// verify checks anchors and TUF root against the element, and finds out who the
// gateway is.
func verify(dir string, e Element, anchors, root []byte) (*Home, error) {
	b, err := e.Birth()
	if err != nil {
		return nil, err
	}
	a, err := anchor.Parse(anchors)
	if err != nil {
		return nil, err
	}
	if err := world.Match(b.World, a.World); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(anchors); hex.EncodeToString(sum[:]) != b.Anchors || a.Vault != b.Vault {
		return nil, ErrAnchors
	}
	if err := update.CheckRoot(root, a); err != nil {
		return nil, err
	}
	chain, err := e.Certificate()
	if err != nil {
		return nil, err
	}
	x, err := update.LoadSuccession(filepath.Join(dir, update.BootDir), e)
	if err != nil {
		return nil, err
	}
	h := &Home{Dir: dir, Element: e, Anchors: a, inForce: x.InForce(a), Root: root, SPKI: birthcert.Hash(chain[0].RawSubjectPublicKeyInfo), Serial: birthcert.DeviceSerial(chain[0].Subject.SerialNumber)}
	h.Product, _, err = h.Serial.Split()
	return h, err
}

// Request is what an enrolment starts from.
type Request struct {
	Activation []byte // activation file
	Anchors    []byte // anchors file
	Root       []byte // 1.root.json
}

// Enrol joins the account of an activation file. The policy key is in the
// element before the enrolment is written down, so no half of it is ever used.
func Enrol(ctx context.Context, dir string, e Element, r Request) (*Home, error) {
	act, err := activation.Parse(r.Activation)
	if err != nil {
		return nil, err
	}
	h, err := verify(dir, e, r.Anchors, r.Root)
	if err != nil {
		return nil, err
	}
	if err := world.Match(h.Anchors.World, act.World); err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, enrolmentFile)); !errors.Is(err, fs.ErrNotExist) {
		return nil, ErrEnrolled
	}
	// An element that has an account keeps it; better to say so before the
	// activation key is used up.
	have, err := e.Account()
	if err != nil {
		return nil, err
	}
	if have != nil && have.Fingerprint != act.PolicyKey {
		return nil, secureelement.ErrAccount
	}
	client, err := h.Control(act.Access)
	if err != nil {
		return nil, err
	}
	got, err := client.Enrol(ctx, act.ActivationKey)
	if err != nil {
		return nil, err
	}
	if activation.Fingerprint(got.PolicyKey) != act.PolicyKey {
		return nil, ErrPolicyKey
	}
	h.Enrolment = &Enrolment{Access: act.Access, Account: got.Account, Format: Format, Gateway: got.Gateway, PolicyKey: got.PolicyKey, World: h.Anchors.World}
	return h, h.keep(r)
}

func (h *Home) keep(r Request) error {
	if err := h.Enrolment.check(h.Anchors.World); err != nil {
		return err
	}
	key, err := birthcert.ParseSPKI(h.Enrolment.PolicyKey)
	if err != nil {
		return err
	}
	if err := h.Element.SetAccount(key); err != nil {
		return err
	}
	if err := os.MkdirAll(h.Dir, 0o700); err != nil {
		return fault.Errorf(fault.Storage, "make the state folder: %w", err)
	}
	data, err := jcs.Marshal(h.Enrolment)
	if err != nil {
		return err
	}
	if err := durable.Replace(filepath.Join(h.Dir, anchorsFile), r.Anchors, 0o644); err != nil {
		return err
	}
	if err := durable.Replace(filepath.Join(h.Dir, rootFile), r.Root, 0o644); err != nil {
		return err
	}
	return durable.WriteNew(filepath.Join(h.Dir, enrolmentFile), data, 0o600)
}

// floorAge is how long a time floor once read is good: it moves by months, and
// reading it takes a TPM its time.
const floorAge = time.Minute

// Now is the clock, but never before the element's time floor.
func (h *Home) Now() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if now.Sub(h.read).Abs() >= floorAge {
		// An element that does not answer now has told its floor before.
		if f, err := h.Element.TimeFloor(); err == nil {
			h.floor, h.read = f, now
		}
	}
	if h.floor.After(now) {
		return h.floor
	}
	return now
}

// Control returns a client of the access server at addr.
func (h *Home) Control(addr string) (*control.Client, error) {
	conf, err := h.TLS("access", addr)
	if err != nil {
		return nil, err
	}
	return control.NewClient(addr, string(h.Anchors.World), conf), nil
}

// TLS is how the gateway talks to a relay server: TLS 1.3, its birth key, and a
// server with a certificate of the anchors' relay CA for role and this host. The
// check runs on resumed sessions too.
func (h *Home) TLS(role, addr string) (*tls.Config, error) {
	if _, err := h.inForce.Certificate("relay-ca"); err != nil {
		return nil, err
	}
	id, err := h.Element.TLSCertificate()
	if err != nil {
		return nil, err
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "relay address %.80q: %w", addr, err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: host, NextProtos: []string{control.ALPN}, CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256},
		// The birth certificate, whatever issuers the server says it takes.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id, nil },
		InsecureSkipVerify:   true, //nolint:gosec // VerifyConnection checks more than the default would: our CA, profile and role
		VerifyConnection: func(cs tls.ConnectionState) error {
			if len(cs.PeerCertificates) == 0 {
				return ErrRelay
			}
			c := cs.PeerCertificates[0]
			ca, err := h.inForce.Present("relay-ca", c)
			if err != nil {
				return err
			}
			if err := birthcert.VerifyRelay(c, ca, role, h.Now()); err != nil {
				return fault.Errorf(fault.Peer, "%w: %w", ErrRelay, err)
			}
			if err := c.VerifyHostname(host); err != nil {
				return fault.Errorf(fault.Peer, "%w: %w", ErrRelay, err)
			}
			return nil
		},
	}, nil
}

// Identity returns the device's serial and the hash of its birth key.
func Identity(e interface {
	Certificate() ([]*x509.Certificate, error)
},
) (serial, spki string, err error) {
	chain, err := e.Certificate()
	if err != nil {
		return "", "", err
	}
	return chain[0].Subject.SerialNumber, birthcert.Hash(chain[0].RawSubjectPublicKeyInfo), nil
}

// Product returns the product line of the birth certificate.
func Product(e interface {
	Certificate() ([]*x509.Certificate, error)
},
) (string, error) {
	serial, _, err := Identity(e)
	if err != nil {
		return "", err
	}
	product, _, err := birthcert.DeviceSerial(serial).Split()
	return product, err
}
