package identity_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
	"keyrite/vault/seal"
)

func roleIdentity(id string, networks ...string) charter.Identity {
	return charter.Identity{ID: id, Policies: []string{"reader"}, TTL: 600, AppRole: &charter.AppRole{Networks: networks}}
}

// ask plans and makes a request under auth/ as somebody whom a policy allows it.
func (b *bench) ask(m engine.Method, path string, p any) (*engine.Answer, error) {
	b.t.Helper()
	q := &engine.Request{Caller: engine.Caller{Identity: "orchestrator"}, Method: m, Rest: strings.Split(path, "/")}
	var err error
	if q.Path, err = access.ParsePath("auth/" + path); err != nil {
		b.t.Fatal(err)
	}
	if p != nil {
		q.Params = params(b.t, p)
	}
	b.mu.Lock()
	q.Now = b.now()
	b.mu.Unlock()
	plan, err := b.reg.Plan(q)
	if err != nil {
		return nil, err
	}
	if plan.Needs == "" {
		b.t.Errorf("%s needs no capability", path)
	}
	return b.do(plan)
}

// secretID asks for a secret id of a role.
func (b *bench) secretID(role string, p any) (secret, accessor string) {
	b.t.Helper()
	a, err := b.ask(engine.Write, "approle/role/"+role+"/secret-id", p)
	if err != nil {
		b.t.Fatal(err)
	}
	d, _ := a.Data.(map[string]any)
	secret, _ = d["secret_id"].(string)
	accessor, _ = d["secret_id_accessor"].(string)
	if len(secret) != 47 || len(accessor) != 32 {
		b.t.Fatalf("%v", a.Data)
	}
	return secret, accessor
}

func from(addr string) identity.Peer {
	return identity.Peer{Remote: netip.MustParseAddr(addr), UID: -1}
}

func (b *bench) loginRole(role, secret string, peer identity.Peer) (*engine.Auth, error) {
	return b.login(identity.MeansAppRole, params(b.t, map[string]string{"role_id": role, "secret_id": secret}), peer)
}

// TestAppRole: a secret id counts for as many logins and as long as was said, for its
// role, from its networks.
func TestAppRole(t *testing.T) {
	b := newBench(t)
	b.decide(charter.TypeIdentity, roleIdentity("historian", "10.1.0.0/16", "2001:db8:1::/48"))
	b.decide(charter.TypeIdentity, roleIdentity("archiver", "10.1.0.0/16"))
	b.decide(charter.TypeIdentity, unixIdentity("local", 1000))
	secret1, _ := b.secretID("historian", nil)
	auth, err := b.loginRole("historian", secret1, from("10.1.2.3"))
	if err != nil {
		t.Fatal(cause(err))
	}
	if c, err := b.reg.Caller(auth.Token, from("::ffff:10.1.9.9")); err != nil || c.Identity != "historian" || c.Means != identity.MeansAppRole || c.Bound {
		t.Errorf("%+v %v", c, err)
	}
	for _, peer := range []identity.Peer{from("10.2.0.1"), from("2001:db8:2::1"), {UID: -1}, onHost(1000)} {
		_, err := b.reg.Caller(auth.Token, peer)
		wantRefused(t, err)
	}
	refused := func(role, secret string, peer identity.Peer, why string) {
		t.Helper()
		_, err := b.loginRole(role, secret, peer)
		wantRefused(t, err)
		if !strings.Contains(cause(err), why) {
			t.Errorf("cause %q, want %q", cause(err), why)
		}
	}
	refused("historian", secret1, from("10.1.2.3"), "used up")
	many, _ := b.secretID("historian", map[string]any{"num_uses": "3", "ttl": "1h"})
	refused("archiver", many, from("10.1.2.4"), "never given")
	refused("local", many, from("10.1.2.5"), "is none")
	refused("", many, from("10.1.2.5"), "is none")
	refused("historian", many, from("10.2.2.3"), "outside its networks")
	refused("historian", many, identity.Peer{UID: -1}, "outside its networks")
	refused("historian", many, onHost(1000), "outside its networks")
	refused("historian", "", from("10.1.2.6"), "not of the form")
	refused("historian", many+" ", from("10.1.2.7"), "not of the form")
	refused("historian", string(auth.Token.Bytes()), from("10.1.2.8"), "not of the form")
	for _, addr := range []string{"10.1.0.0", "2001:db8:1:ffff::1", "::ffff:10.1.0.7"} {
		if _, err := b.loginRole("historian", many, from(addr)); err != nil {
			t.Errorf("%s: %s", addr, cause(err))
		}
	}
	refused("historian", many, from("10.1.3.1"), "used up")
	short, _ := b.secretID("historian", map[string]any{"ttl": 60})
	b.at(61 * time.Second)
	refused("historian", short, from("10.1.4.1"), "over")
}

// TestSecretIDs: they are listed, looked up and taken back by accessor; limits hold;
// all else is the charter's.
func TestSecretIDs(t *testing.T) {
	b := newBench(t)
	b.decide(charter.TypeIdentity, roleIdentity("historian", "10.0.0.0/8"))
	b.decide(charter.TypeIdentity, unixIdentity("local", 1000))
	if a, err := b.ask(engine.Read, "approle/role/historian/role-id", nil); err != nil || fmt.Sprint(a.Data) != "map[role_id:historian]" {
		t.Errorf("%v %v", a, err)
	}
	if a, err := b.ask(engine.Read, "approle/role/historian", nil); err != nil || !strings.Contains(fmt.Sprint(a.Data), "secret_id_bound_cidrs:[10.0.0.0/8]") {
		t.Errorf("%v %v", a, err)
	}
	if _, err := b.ask(engine.List, "approle/role/historian/secret-id", nil); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("list of none: %v", err)
	}
	secret, name := b.secretID("historian", map[string]any{"num_uses": 5})
	if a, err := b.ask(engine.List, "approle/role/historian/secret-id", nil); err != nil || fmt.Sprint(a.Data) != "map[keys:["+name+"]]" {
		t.Errorf("%v %v", a, err)
	}
	by := map[string]string{"secret_id_accessor": name}
	if a, err := b.ask(engine.Write, "approle/role/historian/secret-id-accessor/lookup", by); err != nil || !strings.Contains(fmt.Sprint(a.Data), "issued_by:orchestrator") || strings.Contains(fmt.Sprint(a.Data), secret) {
		t.Errorf("%v %v", a, err)
	}
	if _, err := b.ask(engine.Write, "approle/role/historian/secret-id-accessor/destroy", by); err != nil {
		t.Error(err)
	}
	_, err := b.loginRole("historian", secret, from("10.0.0.1"))
	wantRefused(t, err)
	if _, err := b.ask(engine.Write, "approle/role/historian/secret-id-accessor/destroy", by); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("again: %v", err)
	}
	for name, c := range map[string]struct {
		path  string
		p     any
		class fault.Class
	}{
		"no login":             {"approle/role/historian/secret-id", map[string]any{"num_uses": 0}, fault.Usage},
		"less than none":       {"approle/role/historian/secret-id", map[string]any{"num_uses": -1}, fault.Usage},
		"too many logins":      {"approle/role/historian/secret-id", map[string]any{"num_uses": 1001}, fault.Usage},
		"for ever":             {"approle/role/historian/secret-id", map[string]any{"ttl": 0}, fault.Usage},
		"for too long":         {"approle/role/historian/secret-id", map[string]any{"ttl": "2161h"}, fault.Usage},
		"networks of its own":  {"approle/role/historian/secret-id", map[string]any{"cidr_list": []string{"0.0.0.0/0"}}, fault.Usage},
		"of no role":           {"approle/role/nobody/secret-id", nil, fault.Policy},
		"of another means":     {"approle/role/local/secret-id", nil, fault.Policy},
		"an accessor of path":  {"approle/role/historian/secret-id-accessor/destroy", map[string]any{"secret_id_accessor": "../x"}, fault.Usage},
		"no accessor":          {"approle/role/historian/secret-id-accessor/destroy", nil, fault.Usage},
		"a secret id of one's": {"approle/role/historian/custom-secret-id", map[string]any{"secret_id": "x"}, fault.Policy},
		"a role":               {"approle/role/historian", map[string]any{"secret_id_num_uses": 0}, fault.Policy},
		"certificates":         {"cert/certs/web", map[string]any{}, fault.Policy},
		"keys of jobs":         {"jwt/config", map[string]any{"jwks_url": "https://x"}, fault.Policy},
		"tokens":               {"token/create", map[string]any{"policies": []string{"root"}}, fault.Policy},
		"a way nobody knows":   {"userpass/users/x", nil, fault.Usage},
		"an operation nobody":  {"approle/role/historian/x", nil, fault.Usage},
	} {
		if _, err := b.ask(engine.Write, c.path, c.p); fault.ClassOf(err) != c.class {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := b.ask(engine.Write, "jwt/config", nil); !errors.Is(err, engine.ErrByCharter) || !strings.Contains(fault.HintOf(err), "keyrite charter propose") {
		t.Errorf("%v: %s", err, fault.HintOf(err))
	}
	b.secretID("historian", nil)
	b.end("historian")
	if _, err := audit.NewJournal(b.store).Do(t.Context(), seal.Durable, lifeEntry(), func(tx *seal.Tx) error {
		return b.reg.Found(tx, b.charter(), time.Now())
	}); err != nil {
		t.Fatal(err)
	}
	if err := b.store.View(func(v *seal.View) error {
		if k := v.Keys("identity/secret-id", ""); len(k) != 0 {
			t.Errorf("secret ids of a role that was ended: %v", k)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestSecretIDOnce: of many that show a secret id for one login at once, one logs in.
func TestSecretIDOnce(t *testing.T) {
	b := newBench(t)
	b.decide(charter.TypeIdentity, roleIdentity("historian", "10.0.0.0/8"))
	secret, _ := b.secretID("historian", nil)
	var in atomic.Int32
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if _, err := b.loginRole("historian", secret, from(fmt.Sprintf("10.0.0.%d", i))); err == nil {
				in.Add(1)
			}
		})
	}
	wg.Wait()
	if in.Load() != 1 {
		t.Errorf("%d logged in", in.Load())
	}
}

// TestSecretIDsAreHashed: neither file nor log of the store has one.
func TestSecretIDsAreHashed(t *testing.T) {
	b := newBench(t)
	b.decide(charter.TypeIdentity, roleIdentity("historian", "10.0.0.0/8"))
	secret, _ := b.secretID("historian", map[string]any{"num_uses": 2})
	if err := b.store.View(func(v *seal.View) error {
		for _, k := range v.Keys("identity/secret-id", "") {
			raw, err := v.Get("identity/secret-id", k)
			if err != nil || bytes.Contains(raw, []byte(secret)) || strings.Contains(k, secret) {
				t.Errorf("%s: %s %v", k, raw, err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for n := range b.store.Head().Size {
		e, err := b.store.Entry(uint64(n))
		if err != nil || bytes.Contains(e, []byte(secret)) {
			t.Errorf("entry %d: %s %v", n, e, err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(b.dir, seal.FileName))
	if err != nil || bytes.Contains(raw, []byte(secret)) {
		t.Errorf("the file shows it: %v", err)
	}
}

// TestGuessingIsSlow: after a few wrong secret ids the next count only after a wait
// that grows; who is outside a role's networks cannot make it wait.
func TestGuessingIsSlow(t *testing.T) {
	b := newBench(t)
	b.decide(charter.TypeIdentity, roleIdentity("historian", "10.1.0.0/16"))
	secret, _ := b.secretID("historian", map[string]any{"num_uses": 10})
	wrong := identity.SecretPrefix + strings.Repeat("A", 43)
	b.at(0)
	for range 30 {
		if _, err := b.loginRole("historian", wrong, from("10.9.0.1")); err == nil {
			t.Fatal("logged in")
		}
	}
	if _, err := b.loginRole("historian", secret, from("10.1.0.1")); err != nil {
		t.Errorf("a stranger outside the networks holds it up: %s", cause(err))
	}
	for range 6 {
		if _, err := b.loginRole("historian", wrong, from("10.1.0.2")); err == nil {
			t.Fatal("logged in")
		}
	}
	for _, peer := range []identity.Peer{from("10.1.0.2"), from("10.1.0.1")} {
		_, err := b.loginRole("historian", secret, peer)
		wantRefused(t, err)
		if !strings.Contains(cause(err), "too many wrong") {
			t.Errorf("%s", cause(err))
		}
	}
	b.at(2 * time.Second)
	if _, err := b.loginRole("historian", secret, from("10.1.0.1")); err != nil {
		t.Errorf("after the wait: %s", cause(err))
	}
}

// TestTokensOfOthers: an accessor is enough to look a token up and to end it, not to
// use it.
func TestTokensOfOthers(t *testing.T) {
	b := newBench(t)
	b.decide(charter.TypeIdentity, unixIdentity("local", 1000))
	auth := b.mustLogin(identity.MeansUnix, nil, onHost(1000))
	by := map[string]string{"accessor": auth.Accessor}
	if a, err := b.ask(engine.Write, "token/lookup-accessor", by); err != nil || !strings.Contains(fmt.Sprint(a.Data), "display_name:local") {
		t.Errorf("%v %v", a, err)
	}
	_, err := b.reg.Caller(secret(auth.Accessor), onHost(1000))
	wantRefused(t, err)
	if _, err := b.ask(engine.Write, "token/revoke-accessor", by); err != nil {
		t.Fatal(err)
	}
	if len(b.ended) != 1 || b.ended[0] != auth.Accessor {
		t.Errorf("told of the end of %v", b.ended)
	}
	_, err = b.reg.Caller(auth.Token, onHost(1000))
	wantRefused(t, err)
	for _, p := range []any{by, nil, map[string]string{"accessor": ""}, map[string]string{"accessor": strings.Repeat("0", 32)}} {
		for _, op := range []string{"token/lookup-accessor", "token/revoke-accessor"} {
			if _, err := b.ask(engine.Write, op, p); !errors.Is(err, engine.ErrNotThere) {
				t.Errorf("%s %v: %v", op, p, err)
			}
		}
	}
}
