package enroll_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"keyrite/artifact/activation"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
	"keyrite/gateway/enroll"
	"keyrite/gateway/secureelement"
	"keyrite/gateway/secureelement/setest"
	"keyrite/wire/control"
	"keyrite/wire/problem"
)

// account is the other side: an access server of a world and an account's key.
type account struct {
	t       *testing.T
	w       *artifacttest.World
	addr    string
	key     []byte // policy key that the server names
	enrols  atomic.Int64
	refuse  atomic.Bool
	request enroll.Request
	act     activation.Activation
}

// relayCertificate makes a server certificate of role in world w.
func relayCertificate(t *testing.T, w *artifacttest.World, role string, ips ...string) tls.Certificate {
	t.Helper()
	k := setest.Key(t)
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	if ips == nil {
		ips = []string{"127.0.0.1"}
	}
	from := time.Now().Add(-time.Minute).UTC().Truncate(time.Second)
	der := w.Certificate(birthcert.Template{
		Profile: birthcert.Relay, SPKI: spki, Issuer: birthcert.IssuerOf(w.Parsed(w.Anchors.Certificates["relay-ca"])), Role: role,
		IPs: ips, NotBefore: from, NotAfter: from.Add(time.Hour),
	}, "relay-ca")
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
}

func root(t *testing.T, w *artifacttest.World) []byte {
	t.Helper()
	r := metadata.Root(time.Now().Add(time.Hour))
	for role, id := range map[string]string{"root": "tuf-root", "targets": "tuf-targets", "snapshot": "tuf-online", "timestamp": "tuf-online"} {
		k, err := metadata.KeyFromPublicKey(w.Keys[id].Public())
		if err == nil {
			err = r.Signed.AddKey(k, role)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Sign(tufSigner(t, w.Keys["tuf-root"])); err != nil {
		t.Fatal(err)
	}
	b, err := r.ToBytes(false)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func newAccount(t *testing.T, w *artifacttest.World, cert tls.Certificate) *account {
	t.Helper()
	key, err := x509.MarshalPKIXPublicKey(setest.Key(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	a := &account{t: t, w: w, key: key}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAnyClientCert}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	a.addr = srv.Listener.Addr().String()
	anchors, err := w.Anchors.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	a.act = activation.Activation{Access: a.addr, ActivationKey: "ABCDEFGHIJKLMNOPQRSTUVWXYZ", Format: activation.Format, PolicyKey: activation.Fingerprint(key), World: w.World}
	a.request = enroll.Request{Activation: a.file(a.act), Anchors: anchors, Root: root(t, w)}
	return a
}

func (a *account) file(act activation.Activation) []byte {
	a.t.Helper()
	b, err := act.Marshal()
	if err != nil {
		a.t.Fatal(err)
	}
	return b
}

func (a *account) serve(w http.ResponseWriter, r *http.Request) {
	var in control.Enrol
	if err := control.Read(w, r, &in); err != nil || r.URL.Path != control.PathEnrol || a.refuse.Load() {
		problem.Write(w, "policy", "the activation key is not valid for this device")
		return
	}
	a.enrols.Add(1)
	control.Write(w, &control.Enrolled{Account: "acme", Format: control.Format, Gateway: "press-7", PolicyKey: a.key, World: string(a.w.World)})
}

func wantClass(t *testing.T, err error, want fault.Class) {
	t.Helper()
	if got := fault.ClassOf(err); got != want {
		t.Errorf("class %q, want %q: %v", got, want, err)
	}
}

func TestEnrol(t *testing.T) {
	w := artifacttest.New(t)
	b := setest.Birth(t, w, 7)
	a := newAccount(t, w, relayCertificate(t, w, "access"))
	dir := filepath.Join(t.TempDir(), "state")
	if _, err := enroll.Load(dir, b); !errors.Is(err, enroll.ErrNotEnrolled) {
		t.Errorf("before: %v", err)
	}
	h, err := enroll.Enrol(t.Context(), dir, b, a.request)
	if err != nil {
		t.Fatal(err)
	}
	if h.Enrolment.Account != "acme" || h.Serial != "gw100-00000007" || h.Product != "gw100" {
		t.Errorf("%+v", h.Enrolment)
	}
	acc, err := b.Account()
	if err != nil || acc == nil || acc.Fingerprint != a.act.PolicyKey {
		t.Errorf("in the element: %+v %v", acc, err)
	}
	b.TPM.Restart()
	e := b.TPM.Open()
	if _, err := enroll.Load(dir, e); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if _, err := enroll.Enrol(t.Context(), dir, e, a.request); !errors.Is(err, enroll.ErrEnrolled) {
		t.Errorf("again: %v", err)
	}
	// Every file of the state folder changed, one at a time.
	for _, name := range []string{"anchors.json", "tuf-root.json", "enrolment.json"} {
		path := filepath.Join(dir, name)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(good)
		bad[len(bad)/2] ^= 1
		for _, data := range [][]byte{bad, good[:len(good)-1], {}} {
			if err := os.WriteFile(path, data, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := enroll.Load(dir, e); err == nil {
				t.Errorf("%s changed and taken", name)
			}
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// An enrolment file with another policy key does not get past the element.
	n := *h.Enrolment
	if n.PolicyKey, err = x509.MarshalPKIXPublicKey(setest.Key(t).Public()); err != nil {
		t.Fatal(err)
	}
	data, err := jcs.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "enrolment.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := enroll.Load(dir, e); !errors.Is(err, secureelement.ErrAccount) {
		t.Errorf("other policy key: %v", err)
	}
}

func TestEnrolRefuses(t *testing.T) {
	w, other := artifacttest.New(t), artifacttest.New(t)
	b := setest.Birth(t, w, 7)
	good := newAccount(t, w, relayCertificate(t, w, "access"))
	foreignAnchors, err := other.Anchors.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	moved := *w.Anchors
	moved.RosterHash = activation.Fingerprint([]byte("x"))
	movedAnchors, err := moved.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(a *account)) *account {
		a := newAccount(t, w, relayCertificate(t, w, "access"))
		change(a)
		return a
	}
	act := func(change func(*activation.Activation)) func(*account) {
		return func(a *account) {
			change(&a.act)
			a.request.Activation = a.file(a.act)
		}
	}
	for _, tt := range []struct {
		name string
		a    *account
		want fault.Class
		asks bool // the activation key is used up
	}{
		{"VPN server in the place of the access server", newAccount(t, w, relayCertificate(t, w, "vpn")), fault.Peer, false},
		{"server of another world's relay CA", newAccount(t, w, relayCertificate(t, other, "access")), fault.Peer, false},
		{"birth certificate as a server's", newAccount(t, w, deviceAsServer(t, w)), fault.Peer, false},
		{"server of another address", newAccount(t, w, relayCertificate(t, w, "access", "10.0.0.1")), fault.Peer, false},
		{"no server", with(act(func(a *activation.Activation) { a.Access = "127.0.0.1:1" })), fault.Unreachable, false},
		{"activation refused", with(func(a *account) { a.refuse.Store(true) }), fault.Policy, false},
		{"anchors of another world", with(func(a *account) { a.request.Anchors = foreignAnchors }), fault.Policy, false},
		{"other anchors of this world", with(func(a *account) { a.request.Anchors = movedAnchors }), fault.Verify, false},
		{"TUF root of another world", with(func(a *account) { a.request.Root = root(t, other) }), fault.Verify, false},
		{"activation file of another world", with(act(func(a *activation.Activation) { a.World = world.Live })), fault.Policy, false},
		{"damaged activation file", with(func(a *account) { a.request.Activation = []byte("{}") }), fault.Verify, false},
		{"relay names another policy key", with(func(a *account) {
			k, err := x509.MarshalPKIXPublicKey(setest.Key(t).Public())
			if err != nil {
				t.Fatal(err)
			}
			a.key = k
		}), fault.Verify, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			_, err := enroll.Enrol(t.Context(), dir, b, tt.a.request)
			wantClass(t, err, tt.want)
			if got := tt.a.enrols.Load() > 0; got != tt.asks {
				t.Errorf("activation key used up: %v", got)
			}
			if _, err := os.Stat(dir); err == nil {
				t.Error("a state folder was left")
			}
			if acc, err := b.Account(); err != nil || acc != nil {
				t.Errorf("the element has an account: %+v %v", acc, err)
			}
		})
	}
	if _, err := enroll.Enrol(t.Context(), filepath.Join(t.TempDir(), "state"), b, good.request); err != nil {
		t.Error(err)
	}
	// The element has its account now; another activation finds a new folder.
	late := newAccount(t, w, relayCertificate(t, w, "access"))
	_, err = enroll.Enrol(t.Context(), filepath.Join(t.TempDir(), "state"), b, late.request)
	wantClass(t, err, fault.Policy)
	if late.enrols.Load() != 0 {
		t.Error("the activation key of another account was used up")
	}
}

func deviceAsServer(t *testing.T, w *artifacttest.World) tls.Certificate {
	t.Helper()
	if _, ok := w.State.Factories["factory1"]; !ok {
		w.FoundFactory()
	}
	d := w.Birth(9, setest.BundleID)
	return tls.Certificate{Certificate: [][]byte{d.Cert.Raw}, PrivateKey: d.Key}
}

func FuzzEnrolment(f *testing.F) {
	const w = world.World("rehearsal:0123456789ab")
	key, err := x509.MarshalPKIXPublicKey(setest.Key(f).Public())
	if err != nil {
		f.Fatal(err)
	}
	good, err := jcs.Marshal(enroll.Enrolment{Access: "h:1", Account: "acme", Format: enroll.Format, Gateway: "g", PolicyKey: key, World: w})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := enroll.ParseEnrolment(data, w)
		if err != nil {
			return
		}
		if again, err := jcs.Marshal(e); err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted bytes come back differently: %v", err)
		}
	})
}
