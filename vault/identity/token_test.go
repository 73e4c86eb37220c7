package identity_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
	"keyrite/vault/seal"
)

// TestTokenIsBound: a token that was given out over mutual TLS is nothing without that
// certificate, one of a user nothing to another, and the audit learns whose it is.
func TestTokenIsBound(t *testing.T) {
	b, m := newBench(t), newMaker(t)
	b.decide(charter.TypeIdentity, certIdentity("mes", mes, m.ca("ca", "plant CA", "")))
	b.decide(charter.TypeIdentity, unixIdentity("backup", 1000))
	mine, other := m.leaf("ca", "x", clientExt+uri(mes)), m.leaf("ca", "x", clientExt+uri(mes))
	auth := b.mustLogin(identity.MeansCertificate, params(t, map[string]string{"name": "mes"}), withCert(mine))
	c, err := b.reg.Caller(auth.Token, withCert(mine))
	if err != nil || c.Identity != "mes" || !c.Bound || c.Accessor != auth.Accessor || c.Means != identity.MeansCertificate {
		t.Fatalf("%+v %v", c, err)
	}
	local := b.mustLogin(identity.MeansUnix, params(t, map[string]string{"role": "backup"}), onHost(1000))
	if c, err := b.reg.Caller(local.Token, onHost(1000)); err != nil || c.Identity != "backup" || c.Bound {
		t.Fatalf("%+v %v", c, err)
	}
	for name, try := range map[string]struct {
		auth *engine.Auth
		peer identity.Peer
	}{
		"without a certificate":                           {auth, network()},
		"with another certificate of the same identity":   {auth, withCert(other)},
		"with the certificate behind another":             {auth, withCert(other, mine)},
		"over the Unix socket":                            {auth, onHost(1000)},
		"of a user, over the network":                     {local, network()},
		"of a user, by another":                           {local, onHost(1001)},
		"of a user, by root":                              {local, onHost(0)},
		"of a user, over the network, with a certificate": {local, withCert(mine)},
	} {
		_, err := b.reg.Caller(try.auth.Token, try.peer)
		wantRefused(t, err)
		var r *identity.Refusal
		if !errors.As(err, &r) || r.Identity() != try.auth.Identity || r.Accessor() != try.auth.Accessor {
			t.Errorf("%s: the audit does not learn whose token it is: %v", name, err)
		}
	}
	for _, p := range []engine.Params{params(t, map[string]string{"name": "backup"}), params(t, map[string]string{"name": "MES"})} {
		_, err := b.reg.Login(identity.MeansCertificate, p, withCert(mine))
		wantRefused(t, err)
	}
	for _, p := range []engine.Params{params(t, map[string]any{"name": 5}), params(t, map[string]string{"role": "mes"})} {
		if _, err := b.reg.Login(identity.MeansCertificate, p, withCert(mine)); fault.ClassOf(err) != fault.Usage {
			t.Errorf("%v: %v", p, err)
		}
	}
}

// TestTokenLife: a token ends at its time, and is renewed where the charter says so, up
// to where it says so.
func TestTokenLife(t *testing.T) {
	b := newBench(t)
	x := unixIdentity("job", 1000)
	x.TTL, x.MaxTTL = 600, 900
	b.decide(charter.TypeIdentity, x)
	b.decide(charter.TypeIdentity, unixIdentity("fixed", 1001))
	auth := b.mustLogin(identity.MeansUnix, nil, onHost(1000))
	if auth.TTL != 10*time.Minute || !auth.Renewable || !slices.Equal(auth.Policies, []string{"reader"}) {
		t.Errorf("%+v", auth)
	}
	renew := func(p engine.Params) (*engine.Auth, error) {
		c, err := b.reg.Caller(auth.Token, onHost(1000))
		if err != nil {
			return nil, err
		}
		plan, err := b.reg.Self(c, identity.RenewSelf, p)
		if err != nil {
			return nil, err
		}
		a, err := b.do(plan)
		if err != nil {
			return nil, err
		}
		return a.Auth, nil
	}
	for _, step := range []struct {
		at   time.Duration
		want string // increment
		ttl  time.Duration
	}{
		{4 * time.Minute, "", 10 * time.Minute}, {5 * time.Minute, "60", time.Minute}, {5*time.Minute + 30*time.Second, "5h", 9*time.Minute + 30*time.Second}, {14 * time.Minute, "", time.Minute},
	} {
		b.at(step.at)
		got, err := renew(params(t, map[string]string{"increment": step.want}))
		if step.want == "" {
			got, err = renew(nil)
		}
		if err != nil {
			t.Fatalf("renew at %v: %v %s", step.at, err, cause(err))
		}
		if d := got.TTL - step.ttl; d > 0 || d < -time.Second || got.Token.Len() != 0 {
			t.Errorf("renewed at %v for %v, want %v", step.at, got.TTL, step.ttl)
		}
	}
	b.at(15 * time.Minute)
	_, err := renew(nil)
	wantRefused(t, err)
	if !b.reg.Gone(auth.Accessor) {
		t.Error("a token whose time is over is not gone")
	}
	b.at(0)
	c, err := b.reg.Caller(b.mustLogin(identity.MeansUnix, nil, onHost(1001)).Token, onHost(1001))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.reg.Self(c, identity.RenewSelf, nil); !errors.Is(err, identity.ErrNotRenewed) {
		t.Errorf("a token that is not renewable: %v", err)
	}
}

func TestLookupAndRevoke(t *testing.T) {
	b := newBench(t)
	b.decide(charter.TypeIdentity, unixIdentity("job", 1000))
	auth := b.mustLogin(identity.MeansUnix, nil, onHost(1000))
	c, err := b.reg.Caller(auth.Token, onHost(1000))
	if err != nil {
		t.Fatal(err)
	}
	do := func(c engine.Caller, op string) (*engine.Answer, error) {
		plan, err := b.reg.Self(c, op, nil)
		if err != nil {
			return nil, err
		}
		return b.do(plan)
	}
	a, err := do(c, identity.LookupSelf)
	if err != nil {
		t.Fatal(err)
	}
	if d, ok := a.Data.(map[string]any); !ok || d["accessor"] != auth.Accessor || d["display_name"] != "job" || d["ttl"] == 0 || strings.Contains(fmt.Sprint(d), string(auth.Token.Bytes())) {
		t.Errorf("%v", a.Data)
	}
	direct, err := b.reg.Caller(secret(""), onHost(1000))
	if err != nil {
		t.Fatal(err)
	}
	if a, err := do(direct, identity.LookupSelf); err != nil || !strings.Contains(fmt.Sprint(a.Data), "job") {
		t.Errorf("a process without a token: %v %v", a, err)
	}
	for _, op := range []string{identity.RenewSelf, identity.RevokeSelf} {
		if _, err := do(direct, op); !errors.Is(err, identity.ErrNoToken) {
			t.Errorf("%s without a token: %v", op, err)
		}
	}
	if _, err := b.reg.Self(c, "create", nil); !errors.Is(err, engine.ErrNoPath) {
		t.Errorf("an operation nobody knows: %v", err)
	}
	if _, err := do(c, identity.RevokeSelf); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(b.ended, []string{auth.Accessor}) || !b.reg.Gone(auth.Accessor) {
		t.Errorf("told of the end of %v", b.ended)
	}
	_, err = b.reg.Caller(auth.Token, onHost(1000))
	wantRefused(t, err)
	for _, op := range []string{identity.LookupSelf, identity.RevokeSelf} {
		if _, err := do(c, op); !errors.Is(err, engine.ErrNotThere) {
			t.Errorf("%s of a revoked token: %v", op, err)
		}
	}
}

// TestCharterEndsTokens: what the charter takes away counts at the next request, and
// what nobody asks for is dropped when the charter is taken over.
func TestCharterEndsTokens(t *testing.T) {
	b := newBench(t)
	b.decide(charter.TypeIdentity, unixIdentity("one", 1000))
	b.decide(charter.TypeIdentity, unixIdentity("two", 1001))
	one, two := b.mustLogin(identity.MeansUnix, nil, onHost(1000)), b.mustLogin(identity.MeansUnix, nil, onHost(1001))
	late, err := b.reg.Login(identity.MeansUnix, nil, onHost(1000))
	if err != nil {
		t.Fatal(err)
	}
	before := b.charter().Size()
	b.end("one")
	_, err = b.reg.Caller(one.Token, onHost(1000))
	wantRefused(t, err)
	_, err = b.reg.Caller(secret(""), onHost(1000))
	wantRefused(t, err)
	if !b.reg.Gone(one.Accessor) || b.reg.Gone(two.Accessor) {
		t.Error("the token of an identity that was ended is not gone, or another is")
	}
	_, err = b.do(late)
	wantRefused(t, err)
	if c, err := b.reg.Caller(two.Token, onHost(1001)); err != nil || c.Charter != before+1 {
		t.Errorf("%+v %v", c, err)
	}
	b.decide(charter.TypeIdentity, unixIdentity("three", 1000)) // the user again, under a new id
	_, err = b.reg.Caller(one.Token, onHost(1000))
	wantRefused(t, err)
}

func TestSealForgets(t *testing.T) {
	b := newBench(t)
	b.decide(charter.TypeIdentity, unixIdentity("one", 1000))
	auth := b.mustLogin(identity.MeansUnix, nil, onHost(1000))
	late, err := b.reg.Login(identity.MeansUnix, nil, onHost(1000))
	if err != nil {
		t.Fatal(err)
	}
	b.reg.Seal()
	if _, err := b.do(late); !errors.Is(err, identity.ErrSealed) {
		t.Errorf("a login that was begun before: %v", err)
	}
	for name, err := range map[string]error{
		"token":  second(b.reg.Caller(auth.Token, onHost(1000))),
		"socket": second(b.reg.Caller(secret(""), onHost(1000))),
		"login":  second(b.reg.Login(identity.MeansUnix, nil, onHost(1000))),
	} {
		if !errors.Is(err, identity.ErrSealed) || fault.ClassOf(err) != fault.Sealed {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b.reg.Gone(auth.Accessor) {
		t.Error("sealing passes for the end of what was given out")
	}
}

func second[T any](_ T, err error) error { return err }

// TestNothingIsNobody: no combination of values that are zero, empty or half there
// logs in, whatever identities there are (R-CER-17).
func TestNothingIsNobody(t *testing.T) {
	b, m := newBench(t), newMaker(t)
	b.decide(charter.TypeIdentity, certIdentity("mes", mes, m.ca("ca", "plant CA", "")))
	b.decide(charter.TypeIdentity, unixIdentity("backup", 1000))
	b.decide(charter.TypeIdentity, newIssuer(t).identity("build", map[string]string{}))
	b.decide(charter.TypeIdentity, roleIdentity("historian", "10.0.0.0/8"))
	synctest.Test(t, func(t *testing.T) { // where the time of refusals costs none
		r := b.other(t)
		var peers []identity.Peer
		for _, uid := range []int{0, -1, 1, 999, 65534, -1000} {
			for _, a := range []netip.Addr{{}, netip.MustParseAddr("10.0.0.1"), netip.IPv6Unspecified(), netip.IPv4Unspecified()} {
				peers = append(peers, identity.Peer{UID: uid, Remote: a})
			}
		}
		for _, peer := range peers {
			for _, token := range []string{"", identity.TokenPrefix, "\x00", " ", identity.TokenPrefix + strings.Repeat("A", 43), strings.Repeat("\x00", 47)} {
				_, err := r.Caller(secret(token), peer)
				wantRefusedQuick(t, err)
			}
			for _, means := range []string{identity.MeansCertificate, identity.MeansUnix, identity.MeansJWT, identity.MeansAppRole} {
				for _, body := range []string{
					"{}", `{"name":""}`, `{"role":""}`, `{"name":null}`, `{"role":null}`, `{"role":"build"}`, `{"role":"build","jwt":""}`, `{"role":"build","jwt":null}`, `{"role":"","jwt":"."}`,
					`{"role_id":"historian"}`, `{"role_id":"historian","secret_id":""}`, `{"role_id":"historian","secret_id":null}`, `{"role_id":"","secret_id":""}`, `{"role_id":null,"secret_id":"krs."}`,
				} {
					_, err := r.Login(means, params(t, rawJSON(body)), peer)
					if c := fault.ClassOf(err); c != fault.Peer && c != fault.Usage {
						t.Errorf("%s %s by %+v: %v", means, body, peer, err)
					}
				}
			}
			for _, means := range []string{"", "token", "Cert", "userpass", "../cert"} {
				if _, err := r.Login(means, nil, peer); !errors.Is(err, engine.ErrNoPath) {
					t.Errorf("login by %q: %v", means, err)
				}
			}
		}
	})
	if _, err := identity.New(identity.Config{}); err == nil {
		t.Error("a registry of nothing")
	}
}

// wantRefusedQuick is wantRefused for many.
func wantRefusedQuick(t *testing.T, err error) {
	t.Helper()
	if fault.ClassOf(err) != fault.Peer || !errors.Is(err, identity.ErrUnknown) {
		t.Errorf("%v", err)
	}
}

// TestRefusalsTakeOneTime: the answer to whoever is not known comes after one time,
// whatever was wrong.
func TestRefusalsTakeOneTime(t *testing.T) {
	m := newMaker(t)
	ca := m.ca("ca", "plant CA", "")
	b := newBench(t)
	b.decide(charter.TypeIdentity, certIdentity("mes", mes, ca))
	b.decide(charter.TypeIdentity, unixIdentity("backup", 1000))
	strange, wrong := m.leaf("ca", "x", clientExt), m.leaf("ca", "x", strings.Replace(clientExt, "clientAuth", "serverAuth", 1)+uri(mes))
	synctest.Test(t, func(t *testing.T) {
		r := b.other(t)
		took := map[time.Duration]bool{}
		for _, peer := range []identity.Peer{{}, network(), onHost(1), withCert(strange), withCert(wrong)} {
			for _, tok := range []string{"", "x", "hvs.AAAA", identity.TokenPrefix + strings.Repeat("A", 43)} {
				began := time.Now()
				_, err := r.Caller(secret(tok), peer)
				wantRefused(t, err)
				took[time.Since(began)] = true
			}
			for _, means := range []string{identity.MeansCertificate, identity.MeansUnix} {
				began := time.Now()
				_, err := r.Login(means, nil, peer)
				wantRefused(t, err)
				took[time.Since(began)] = true
			}
		}
		if len(took) != 1 || took[0] {
			t.Errorf("refusals took %v", took)
		}
	})
}

// TestTokensAreCounted: one identity cannot fill the memory; tokens whose time is over
// make room.
func TestTokensAreCounted(t *testing.T) {
	b := newBench(t)
	b.decide(charter.TypeIdentity, unixIdentity("one", 1000))
	b.decide(charter.TypeIdentity, unixIdentity("two", 1001))
	plans := func(uid, n int) (out []*engine.Plan) {
		for range n {
			p, err := b.reg.Login(identity.MeansUnix, nil, onHost(uid))
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, p)
		}
		return out
	}
	for i, p := range plans(1000, identity.MaxTokens+1) {
		_, err := p.Apply(nil) // no store is asked: it is the count that matters here
		if full := i >= identity.MaxTokens; full != errors.Is(err, identity.ErrTooMany) {
			t.Fatalf("token %d: %v", i, err)
		}
	}
	b.mustLogin(identity.MeansUnix, nil, onHost(1001))
	b.at(11 * time.Minute)
	b.mustLogin(identity.MeansUnix, nil, onHost(1000))
}

// TestLoginsThatUseSomethingUp: a secret id and a job's token are used up in a transaction
// that the keeper of the head confirms, since a store put back would revive them; who
// shows what counts again waits for nobody.
func TestLoginsThatUseSomethingUp(t *testing.T) {
	b, i, m := newBench(t), newIssuer(t), newMaker(t)
	b.decide(charter.TypeIdentity, i.identity("build", map[string]string{}))
	b.decide(charter.TypeIdentity, roleIdentity("historian", "10.1.0.0/16"))
	b.decide(charter.TypeIdentity, unixIdentity("local", 1000))
	b.decide(charter.TypeIdentity, certIdentity("mes", mes, m.ca("ca", "plant CA", "")))
	many, _ := b.secretID("historian", map[string]any{"num_uses": 3})
	b.away.Gone.Store(true)
	b.mustLogin(identity.MeansUnix, nil, onHost(1000))
	b.mustLogin(identity.MeansCertificate, nil, withCert(m.leaf("ca", "x", clientExt+uri(mes))))
	tok := i.sign(i.header(), i.claims())
	if err := b.loginJob("build", tok); !errors.Is(err, seal.ErrUnconfirmed) {
		t.Errorf("a job's token: %v (%s)", err, cause(err))
	}
	if _, err := b.loginRole("historian", many, from("10.1.2.3")); !errors.Is(err, seal.ErrUnconfirmed) {
		t.Errorf("a secret id: %v (%s)", err, cause(err))
	}
	b.away.Gone.Store(false)
	wantRefused(t, b.loginJob("build", tok))
	for range 2 {
		if _, err := b.loginRole("historian", many, from("10.1.2.3")); err != nil {
			t.Error(cause(err))
		}
	}
	_, err := b.loginRole("historian", many, from("10.1.2.3"))
	wantRefused(t, err)
}

// TestTokensAreHashed: the vault keeps no token, and what is printed shows none.
func TestTokensAreHashed(t *testing.T) {
	b := newBench(t)
	b.decide(charter.TypeIdentity, unixIdentity("one", 1000))
	plan, err := b.reg.Login(identity.MeansUnix, nil, onHost(1000))
	if err != nil {
		t.Fatal(err)
	}
	a, err := b.do(plan)
	if err != nil {
		t.Fatal(err)
	}
	tok := string(a.Auth.Token.Bytes())
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(tok, identity.TokenPrefix))
	if err != nil || len(raw) != 32 {
		t.Fatalf("token of %d bytes: %v", len(raw), err)
	}
	shown := fmt.Sprintf("%+v %+v %#v %v %v", b.reg, plan.Shown, a.Result, a.Auth, a)
	last, err := b.store.Entry(uint64(b.store.Head().Size - 1))
	if err != nil {
		t.Fatal(err)
	}
	all := shown + string(last)
	if strings.Contains(all, tok) || strings.Contains(all, tok[len(identity.TokenPrefix):]) || strings.Contains(all, fmt.Sprint(raw)) { //nolint:staticcheck // the bytes as a list of numbers, as a print of a slice shows them
		t.Error("the token shows")
	}
	// Spellings of the same bytes are not the token.
	for _, s := range []string{tok + "=", tok + "\n", " " + tok, tok[:len(tok)-1], strings.ToUpper(tok), strings.TrimPrefix(tok, identity.TokenPrefix), "hvs." + strings.TrimPrefix(tok, identity.TokenPrefix), tok[:len(tok)-1] + next(tok[len(tok)-1])} {
		_, err := b.reg.Caller(secret(s), onHost(1000))
		wantRefused(t, err)
	}
}

// next is the character after c in the alphabet: 43 characters have two bits too many,
// so a lax decoder reads the same bytes.
func next(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[(strings.IndexByte(alphabet, c)+1)%len(alphabet)])
}

// TestManyAtOnce: logins, requests, revocations and changes of the charter at once
// leave nobody in who should be out.
func TestManyAtOnce(t *testing.T) {
	b := newBench(t)
	for i := range 4 {
		b.decide(charter.TypeIdentity, unixIdentity(fmt.Sprintf("job%d", i), 1000+i))
	}
	var mu sync.Mutex
	var revoked []*engine.Auth
	var wg sync.WaitGroup
	for w := range 8 {
		uid := 1000 + w%4
		wg.Go(func() {
			for range 20 {
				auth, err := b.login(identity.MeansUnix, nil, onHost(uid))
				if err != nil {
					continue // its identity was ended
				}
				c, err := b.reg.Caller(auth.Token, onHost(uid))
				if err != nil {
					continue
				}
				plan, err := b.reg.Self(c, identity.RevokeSelf, nil)
				if err == nil {
					_, err = b.do(plan)
				}
				if err == nil || errors.Is(err, engine.ErrNotThere) {
					mu.Lock()
					revoked = append(revoked, auth)
					mu.Unlock()
				}
			}
		})
	}
	b.end("job3")
	wg.Wait()
	for i, a := range revoked {
		if i%10 == 0 { // each refusal takes its time
			_, err := b.reg.Caller(a.Token, onHost(1000))
			wantRefusedQuick(t, err)
		}
		if !b.reg.Gone(a.Accessor) {
			t.Errorf("token %s is out", a.Accessor)
		}
	}
	if len(revoked) < 40 {
		t.Errorf("only %d tokens came and went", len(revoked))
	}
}

type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }
