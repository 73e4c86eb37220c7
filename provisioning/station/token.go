package station

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"keyrite/artifact/fault"
	"keyrite/hsm"
	"keyrite/internal/durable"
	"keyrite/provisioning/birthca"
)

// Files of the state folder beside the ledger.
const (
	pinFile    = "token.pin"        // user PIN, one line; 0600
	tokenDir   = "token"            // store of a SoftHSM token
	tlsKeyFile = "tls.key"          // key of the birth dialogue; 0600
	CertFile   = "station-cert.pem" // its certificate, which devices pin
	CSRFile    = "factory-ca.csr"   // for the genesis binding
	ReportCSR  = "report.csr"       // for the genesis binding
)

// Token is the open factory token. It survives the loss of its module process.
type Token struct {
	sup *hsm.Supervisor
	id  hsm.TokenID
	tag hsm.Tag

	mu   sync.Mutex // guards pool
	pool *hsm.Pool  // nil before the first key is asked for
}

// moduleEnv is the environment of the module: SoftHSM gets a store of the
// station's own, so that it never sees tokens of anybody else.
func moduleEnv(dir, module string) ([]string, error) {
	if !strings.Contains(filepath.Base(module), "softhsm") {
		return os.Environ(), nil
	}
	abs, err := filepath.Abs(filepath.Join(dir, tokenDir))
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "state folder: %w", err)
	}
	return []string{"SOFTHSM2_CONF=" + filepath.Join(abs, "softhsm2.conf")}, nil
}

// hsm is the configuration of the module. hsmd is empty for the keyrite-hsmd beside the
// program.
func (s *Settings) hsm(hsmd string, env []string) hsm.Config {
	x := &s.Sandbox
	return hsm.Config{Module: s.Module, HSMD: hsmd, Env: env, Sockets: x.Sockets, Folders: x.Folders, StateDir: x.PINCounters}
}

func makeStore(dir, module string) error {
	if !strings.Contains(filepath.Base(module), "softhsm") {
		return nil
	}
	abs, err := filepath.Abs(filepath.Join(dir, tokenDir))
	if err != nil {
		return fault.Errorf(fault.Unexpected, "state folder: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(abs, "tokens"), 0o700); err != nil {
		return fault.Errorf(fault.Storage, "make token store: %w", err)
	}
	conf := "directories.tokendir = " + filepath.Join(abs, "tokens") + "\nobjectstore.backend = file\nlog.level = ERROR\n"
	return durable.WriteNew(filepath.Join(abs, "softhsm2.conf"), []byte(conf), 0o600)
}

// SetupOptions says what to make.
type SetupOptions struct {
	Module  string // path of the PKCS#11 module
	HSMD    string // keyrite-hsmd; empty for the one beside the program
	Factory string
	Station string
	Sandbox Sandbox // of the module
}

// Setup makes a station: a token with random PINs, the keys factory-ca and
// report in it, the key of the birth dialogue, and the requests for the genesis.
// It never repairs a half one: nothing is certified yet, so it is made anew.
func Setup(ctx context.Context, dir string, o SetupOptions) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fault.Errorf(fault.Usage, "make state folder: %w", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, pinFile)); err == nil {
		return fault.Hint(fault.Errorf(fault.Exists, "%s: there is a station already", dir), "choose another folder; a half-made station is removed by removing its folder")
	}
	if err := makeStore(dir, o.Module); err != nil {
		return err
	}
	env, err := moduleEnv(dir, o.Module)
	if err != nil {
		return err
	}
	set := Settings{Factory: o.Factory, Module: o.Module, Sandbox: o.Sandbox, Station: o.Station}
	sup, err := hsm.Start(ctx, set.hsm(o.HSMD, env))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sup.Close()) }()
	label := o.Factory + "-" + o.Station
	if len(label) > 32 { // CK_TOKEN_INFO.label
		return fault.Errorf(fault.Usage, "factory and station are together longer than 31 characters")
	}
	id, err := initToken(ctx, sup, dir, label)
	if err != nil {
		return err
	}
	sess, err := sup.Open(ctx, id)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sess.Close()) }()
	tag, err := hsm.NewTag()
	if err != nil {
		return err
	}
	set.Tag, set.TokenLabel, set.TokenSerial = tag.String(), id.Label, id.Serial
	if set.CA, err = makeKey(ctx, sess, dir, tag, KeyCA, CSRFile); err != nil {
		return err
	}
	if set.Report, err = makeKey(ctx, sess, dir, tag, KeyReport, ReportCSR); err != nil {
		return err
	}
	if err := makeTLS(dir, label); err != nil {
		return err
	}
	s, err := New(dir, set, Options{Clock: time.Now})
	if err != nil {
		return err
	}
	return s.Close()
}

// initToken initialises a token and puts PINs of its own in: the user PIN goes
// to a file of the station, the SO PIN to nobody.
func initToken(ctx context.Context, sup *hsm.Supervisor, dir, label string) (hsm.TokenID, error) {
	pin := make([]byte, 20)
	rand.Read(pin)
	text := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(pin)
	if err := durable.WriteNew(filepath.Join(dir, pinFile), []byte(text+"\n"), 0o600); err != nil {
		return hsm.TokenID{}, err
	}
	id, err := sup.InitToken(ctx, label)
	if err != nil {
		return id, err
	}
	so := make([]byte, 20)
	rand.Read(so)
	r, w, err := os.Pipe()
	if err != nil {
		return id, fault.Errorf(fault.Unexpected, "make pipe: %w", err)
	}
	defer r.Close()
	err = hsm.WritePINs(w, []byte(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(so)), []byte(text))
	if err = errors.Join(err, w.Close()); err != nil {
		return id, err
	}
	if err := sup.TakePINs(ctx, id, r, hsm.Next); err != nil {
		return id, err
	}
	return id, sup.ChangePINs(ctx, id)
}

var keyNumbers = map[string]uint64{KeyCA: 1, KeyReport: 2}

// makeKey makes one key in the token and its request.
func makeKey(ctx context.Context, sess *hsm.Session, dir string, tag hsm.Tag, label, csrFile string) ([]byte, error) {
	spec := hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.ECDSAP256, KeyID: hsm.NewKeyID(tag, keyNumbers[label]), Label: label}
	st, err := sess.Generate(ctx, spec)
	if err != nil {
		return nil, err
	}
	if err := sess.SyncToken(ctx); err != nil {
		return nil, err
	}
	k, err := sess.Signer(ctx, st.KeyID)
	if err != nil {
		return nil, err
	}
	csr, err := birthca.NewRequest(label, k)
	if err != nil {
		return nil, err
	}
	return st.SPKI, durable.WriteNew(filepath.Join(dir, csrFile), csr, 0o644)
}

// makeTLS makes the key and self-signed certificate of the birth dialogue. It is
// a key in a file: it protects one conversation on the line, and no certificate
// of a device rests on it.
func makeTLS(dir, name string) error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fault.Errorf(fault.Unexpected, "make TLS key: %w", err)
	}
	serial := make([]byte, 16)
	rand.Read(serial)
	serial[0] &= 0x7f
	tpl := &x509.Certificate{
		SerialNumber: new(big.Int).SetBytes(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSNames: []string{name},
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	if err != nil {
		return fault.Errorf(fault.Unexpected, "make TLS certificate: %w", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return fault.Errorf(fault.Unexpected, "encode TLS key: %w", err)
	}
	if err := durable.WriteNew(filepath.Join(dir, tlsKeyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600); err != nil {
		return err
	}
	return durable.WriteNew(filepath.Join(dir, CertFile), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

// LoadTLS reads the key and certificate of the birth dialogue.
func LoadTLS(dir string) (tls.Certificate, error) {
	f, err := openSecret(filepath.Join(dir, tlsKeyFile))
	if err != nil {
		return tls.Certificate{}, err
	}
	_ = f.Close()
	c, err := tls.LoadX509KeyPair(filepath.Join(dir, CertFile), filepath.Join(dir, tlsKeyFile))
	if err != nil {
		return c, fault.Errorf(fault.Usage, "TLS key of the station: %w", err)
	}
	return c, nil
}

// openSecret opens a file that only this user may read.
func openSecret(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "open secret file: %w", err)
	}
	st, err := f.Stat()
	if err == nil {
		err = checkMode(path, st)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func checkMode(path string, st fs.FileInfo) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !st.Mode().IsRegular() || st.Mode().Perm() != 0o600 || !ok || int(sys.Uid) != os.Geteuid() {
		return fault.Hint(fault.Errorf(fault.Token, "%s may be read by others than this user", path), "chmod 600 it and find out who could read it; with the token's folder its reader can sign")
	}
	return nil
}

// OpenToken opens the factory token with the PIN of its file. hsmd is empty for
// the keyrite-hsmd beside the program.
func OpenToken(ctx context.Context, dir, hsmd string, set Settings) (*Token, error) {
	pin, err := openSecret(filepath.Join(dir, pinFile))
	if err != nil {
		return nil, err
	}
	defer pin.Close()
	env, err := moduleEnv(dir, set.Module)
	if err != nil {
		return nil, err
	}
	t := &Token{id: hsm.TokenID{Label: set.TokenLabel, Serial: set.TokenSerial}}
	if err := t.tag.UnmarshalText([]byte(set.Tag)); err != nil {
		return nil, fault.Errorf(fault.Verify, "settings: %w", err)
	}
	if t.sup, err = hsm.Start(ctx, set.hsm(hsmd, env)); err != nil {
		return nil, err
	}
	if err := t.sup.TakeUserPIN(ctx, t.id, pin); err != nil {
		return nil, errors.Join(err, t.sup.Close())
	}
	return t, nil
}

// Signer gives a key of the token. The token is opened for the first of them.
func (t *Token) Signer(ctx context.Context, id string) (crypto.Signer, error) {
	n, ok := keyNumbers[id]
	if !ok {
		return nil, fault.Errorf(fault.Usage, "the station has no key %q", id)
	}
	p, err := t.open(ctx)
	if err != nil {
		return nil, err
	}
	return p.Signer(ctx, hsm.NewKeyID(t.tag, n))
}

func (t *Token) open(ctx context.Context) (*hsm.Pool, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pool != nil {
		return t.pool, nil
	}
	var err error
	t.pool, err = hsm.NewPool(ctx, t.sup, t.id, hsm.PoolConfig{})
	return t.pool, err
}

// Close logs out and ends the module's process.
func (t *Token) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var err error
	if t.pool != nil {
		err = t.pool.Close()
	}
	return errors.Join(err, t.sup.Close())
}
