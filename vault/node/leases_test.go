package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/redact"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
	"keyrite/vault/seal"
)

// rooms is an engine that gives out rooms for an hour and keeps those that are given.
type rooms struct{ host *engine.Host }

func newRooms(h *engine.Host) (engine.Engine, error) { return &rooms{h}, nil }

func (e *rooms) Plan(r *engine.Request) (*engine.Plan, error) {
	room := r.Path.String()
	return &engine.Plan{Needs: access.Update, Apply: func(tx *seal.Tx) (*engine.Answer, error) {
		return &engine.Answer{Data: "a key", Lease: &engine.Lease{TTL: time.Hour, Renewable: true, Object: room}}, tx.Put(e.host.Bucket("rooms"), room, nil)
	}}, nil
}

// End implements engine.Ender.
func (e *rooms) End(tx *seal.Tx, room string, _ time.Time) error {
	return tx.Delete(e.host.Bucket("rooms"), room)
}

const adminUID = 1003

// hotel is an open vault of rooms, with an identity that may do more than use them.
func hotel(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.Approve(charter.TypePolicy, charter.Policy{ID: "admin", Version: 1, Rules: []access.Rule{
		{Path: "auth/approle/role/guest/secret-id", Can: []access.Capability{access.Update}},
		{Path: "auth/token/revoke-accessor", Can: []access.Capability{access.Update}},
		{Path: "sys/leases/lookup/kv/*", Can: []access.Capability{access.List, access.Read}},
		{Path: "sys/leases/revoke-prefix/kv/*", Can: []access.Capability{access.Update}},
	}})
	b.Approve(charter.TypeIdentity, charter.Identity{ID: "admin", Policies: []string{"admin"}, TTL: 60, Unix: &charter.Unix{UID: adminUID}})
	b.Approve(charter.TypeIdentity, charter.Identity{ID: "guest", Policies: []string{"line1"}, TTL: 60, AppRole: &charter.AppRole{Networks: []string{"192.0.2.0/24"}}})
	b.writeCharter()
	b.check()
	return b
}

// check opens the vault of rooms.
func (b *bench) check() {
	b.t.Helper()
	cfg := b.state().config()
	cfg.Engines["kv"] = newRooms
	n, shut, err := b.state().openWith(b.t.Context(), cfg, b.store())
	b.ok(err)
	b.node, b.shut = n, func() { b.ok(shut()) }
}

func (b *bench) rooms() []string {
	b.t.Helper()
	var out []string
	b.ok(b.node.open.store.View(func(v *seal.View) error {
		out = v.Keys("rooms/kv", "")
		return nil
	}))
	return out
}

// gone waits until no room is out.
func (b *bench) gone() {
	b.t.Helper()
	for range 1000 {
		if len(b.rooms()) == 0 {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	b.t.Errorf("still out: %v", b.rooms())
}

func (b *bench) withToken(tok *redact.Secret, uid int, path, body string) (*Reply, error) {
	b.t.Helper()
	c := Call{Method: engine.Write, RawPath: path, Peer: identity.Peer{UID: uid, Remote: netip.MustParseAddr("192.0.2.7")}, Params: paramsOf(b.t, body)}
	if tok != nil {
		c.Token = *tok
	}
	return b.node.Do(b.t.Context(), c)
}

// TestLeasesOfANode: what an engine gives out has a lease that its holder renews and
// revokes, that ends with its token, and that outlives sealing; others need a rule.
func TestLeasesOfANode(t *testing.T) {
	b := hotel(t)
	defer func() { b.shut() }()
	in, err := b.call(mes, engine.Write, "auth/unix/login", "")
	b.ok(err)
	tok := redact.New([]byte(string(in.Answer.Auth.Token.Bytes())))
	r, err := b.withToken(tok, mes, "kv/data/line1/7", "")
	b.ok(err)
	if r.Lease == nil || !strings.HasPrefix(r.Lease.ID, "kv/data/line1/7/") || r.Lease.TTL > time.Minute || r.Lease.TTL < 50*time.Second {
		t.Fatalf("the lease of a token of a minute: %+v", r.Lease)
	}
	if last := b.entries(b.size() - 1)[0]; last.Result["lease"] != r.Lease.ID {
		t.Errorf("%+v", last)
	}
	body := fmt.Sprintf(`{"lease_id":%q}`, r.Lease.ID)
	again, err := b.withToken(tok, mes, "sys/leases/renew", body)
	b.ok(err)
	if again.Lease == nil || again.Lease.ID != r.Lease.ID {
		t.Errorf("%+v", again.Lease)
	}
	if _, err := b.call(adminUID, engine.Write, "sys/leases/revoke", body); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("another revokes it: %v", err)
	}
	if _, err := b.call(mes, engine.Write, "sys/leases/revoke-prefix/kv/data", ""); !errors.Is(err, access.ErrDenied) {
		t.Errorf("without a rule: %v", err)
	}
	if _, err := b.withToken(tok, mes, "auth/token/revoke-self", ""); err != nil {
		t.Fatal(err)
	}
	b.gone()
	r, err = b.call(mes, engine.Write, "kv/data/line1/6", "")
	b.ok(err)
	if _, err := b.call(adminUID, engine.Write, "sys/leases/revoke/"+r.Lease.ID, ""); !errors.Is(err, access.ErrDenied) {
		t.Errorf("another revokes it by its path: %v", err)
	}
	if _, err := b.call(mes, engine.Write, "sys/leases/revoke/"+r.Lease.ID, ""); err != nil || len(b.rooms()) != 0 {
		t.Errorf("its holder revokes it by its path: %v", err)
	}
	// Without a token: it is the identity's, and a restart ends nothing.
	r, err = b.call(mes, engine.Write, "kv/data/line1/8", "")
	b.ok(err)
	b.shut()
	b.check()
	if got := b.rooms(); len(got) != 1 {
		t.Errorf("after a restart: %v", got)
	}
	if a, err := b.call(adminUID, engine.List, "sys/leases/lookup/kv/data", ""); err != nil || !strings.Contains(fmt.Sprint(a.Answer.Data), "line1/8/") {
		t.Errorf("%v", err)
	}
	if a, err := b.call(adminUID, engine.Read, "sys/leases/lookup/"+r.Lease.ID, ""); err != nil || !strings.Contains(fmt.Sprint(a.Answer.Data), "identity:mes") {
		t.Errorf("%v", err)
	}
	_, err = b.call(adminUID, engine.Write, "sys/leases/revoke-prefix/kv/data", "")
	b.ok(err)
	if got := b.rooms(); len(got) != 0 {
		t.Errorf("revoked by prefix: %v", got)
	}
}

// TestRolesOfANode: a secret id goes to who may ask for it, and logs the role in; what
// there is under auth/ is not told to who may not ask.
func TestRolesOfANode(t *testing.T) {
	b := hotel(t)
	defer func() { b.shut() }()
	r, err := b.call(adminUID, engine.Write, "auth/approle/role/guest/secret-id", `{"ttl":"1m"}`)
	b.ok(err)
	d, _ := r.Answer.Data.(map[string]any)
	for _, role := range []string{"guest", "nobody"} {
		if _, err := b.call(mes, engine.Write, "auth/approle/role/"+role+"/secret-id", ""); !errors.Is(err, access.ErrDenied) {
			t.Errorf("%s, without a rule: %v", role, err)
		}
	}
	if _, err := b.call(mes, engine.Write, "auth/token/revoke-accessor", `{"accessor":"x"}`); !errors.Is(err, access.ErrDenied) {
		t.Errorf("without a rule: %v", err)
	}
	login := fmt.Sprintf(`{"role_id":"guest","secret_id":%q}`, d["secret_id"])
	in, err := b.withToken(nil, -1, "auth/approle/login", login)
	b.ok(err)
	if in.Answer.Auth.Identity != "guest" {
		t.Errorf("%+v", in.Answer.Auth)
	}
	_, err = b.withToken(nil, -1, "auth/approle/login", login)
	if fault.ClassOf(err) != fault.Peer || strings.Contains(err.Error(), "used") {
		t.Errorf("twice: %v", err)
	}
	last := b.entries(b.size() - 1)[0]
	if last.Identity != "guest" || !strings.Contains(fmt.Sprint(last.Result["cause"]), "used up") {
		t.Errorf("the audit has %+v", last)
	}
	for _, e := range b.entries(0) {
		if strings.Contains(fmt.Sprint(e), fmt.Sprint(d["secret_id"])) {
			t.Errorf("the secret id stands in the log: %+v", e)
		}
	}
	if _, err := b.call(adminUID, engine.Write, "auth/token/revoke-accessor", fmt.Sprintf(`{"accessor":%q}`, in.Answer.Auth.Accessor)); err != nil {
		t.Error(err)
	}
	tok := redact.New([]byte(string(in.Answer.Auth.Token.Bytes())))
	if _, err := b.withToken(tok, -1, "kv/data/line1/9", ""); fault.ClassOf(err) != fault.Peer {
		t.Errorf("after it was revoked: %v", err)
	}
}

func paramsOf(t testing.TB, body string) engine.Params {
	t.Helper()
	if body == "" {
		return nil
	}
	var p engine.Params
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatal(err)
	}
	return p
}
