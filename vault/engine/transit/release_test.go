package transit_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/transit"
	"keyrite/vault/seal"
	"keyrite/vault/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

// tokenRoom is an engine over a work token: keys that sign what they are asked for,
// and two that sign releases.
func tokenRoom(t *testing.T) (*room, *vaulttest.Vault) {
	t.Helper()
	v := vaulttest.NewWith(t, []vaulttest.Key{
		{ID: "free-p256", Algorithm: anchor.P256, Domain: anchor.DomainGeneral},
		{ID: "free-p384", Algorithm: anchor.P384, Domain: anchor.DomainGeneral},
		{ID: "free-ed25519", Algorithm: anchor.Ed25519, Domain: anchor.DomainGeneral},
		{ID: "free-rsa", Algorithm: anchor.RSA3072, Domain: anchor.DomainGeneral},
		{ID: "image", Algorithm: anchor.P256, Domain: "raw-image"},
		{ID: "boot", Algorithm: anchor.Ed25519, Domain: "raw-image"},
	})
	v.Approve(charter.TypeMount, charter.Mount{Engine: "transit", ID: "transit"})
	for _, id := range []string{"free-p256", "free-p384", "free-ed25519", "free-rsa", "image", "boot"} {
		v.Approve(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: id, TokenKey: id})
	}
	b := enginetest.Over(t, v.World, v.Store(), "transit")
	b.Host.Token = v.Open()
	return &room{b, transit.New(b.Host), t}, v
}

// TestTokenKeysSign: keys in a token sign for processes, each in its one scheme, and
// openssl verifies what comes out (R-CER-22).
func TestTokenKeysSign(t *testing.T) {
	r, _ := tokenRoom(t)
	msg := []byte("line 1, recipe 7")
	for _, c := range []struct {
		path    string
		params  body
		openssl []string
	}{
		{"free-p256", body{}, []string{"dgst", "-sha256"}},
		{"free-p384/sha2-384", body{}, []string{"dgst", "-sha384"}},
		{"free-rsa", body{"signature_algorithm": "pkcs1v15"}, []string{"dgst", "-sha256"}},
		{"free-rsa", body{}, []string{"dgst", "-sha256"}},
		{"free-ed25519", body{}, nil},
	} {
		c.params["input"] = b64(msg)
		sig := r.do("sign/"+c.path, c.params)
		key, _, _ := strings.Cut(c.path, "/")
		args := append(c.openssl, "-verify", "pub", "-signature", "sig", "msg")
		if c.openssl == nil {
			args = []string{"pkeyutl", "-verify", "-pubin", "-inkey", "pub", "-rawin", "-in", "msg", "-sigfile", "sig"}
		}
		if _, out, err := enginetest.OpenSSL(t, map[string][]byte{"pub": r.public(key), "sig": made(t, sig["signature"]), "msg": msg}, args...); err != nil {
			t.Errorf("%s: openssl refuses it: %s", c.path, out)
		}
		c.params["signature"] = sig["signature"]
		if got := r.do("verify/"+c.path, c.params); got["valid"] != true {
			t.Errorf("%s: %v", c.path, got)
		}
	}
	for what, c := range map[string]struct {
		path   string
		params body
	}{
		"another hash":    {"sign/free-p256/sha2-512", body{"input": "AAAA"}},
		"another padding": {"sign/free-rsa", body{"input": "AAAA", "signature_algorithm": "pss"}},
		"a digest":        {"sign/free-ed25519/sha2-512", body{"input": b64(make([]byte, 64)), "prehashed": true}},
		"hmac":            {"hmac/free-p256", body{"input": "AAAA"}},
		"encrypt":         {"encrypt/free-rsa", body{"plaintext": "AAAA"}},
	} {
		_, err := r.try(c.path, c.params)
		enginetest.Refused(r.t, what, fault.Usage, err)
	}
	for _, path := range []string{"random/seal", "random/all"} {
		if b := unb64(t, r.do(path, nil)["random_bytes"].(string)); len(b) != 32 {
			t.Error(path)
		}
	}
	r.Host.Token = nil
	_, err := r.try("sign/free-p256", body{"input": "AAAA"})
	enginetest.Refused(r.t, "no token", fault.Sealed, err)
}

// approve allows a key to sign msg.
func (r *room) approve(id, key string, sv int64, msg []byte) {
	r.t.Helper()
	sum := sha256.Sum256(msg)
	r.World.Approve(charter.TypeReleaseApproved, charter.ReleaseApproved{
		Digest: hex.EncodeToString(sum[:]), Expires: charter.FormatTime(artifacttest.Now().Add(time.Hour)), Format: "raw-image",
		Hash: "sha2-256", ID: id, Key: key, Product: "gw100", SecurityVersion: sv, Version: "1.2.3",
	})
}

func (r *room) states(key string) map[string]string {
	r.t.Helper()
	a, err := r.Do(r.e, engine.Read, "releases/"+key, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	out := map[string]string{}
	for _, x := range enginetest.Data(r.t, a)["releases"].([]any) {
		m := x.(map[string]any)
		out[m["id"].(string)] = m["state"].(string)
	}
	return out
}

// TestReleaseKeySignsApprovedBytesOnly: nothing without approval, each once, the same
// answer to the same request, and never a security version below one that was signed.
func TestReleaseKeySignsApprovedBytesOnly(t *testing.T) {
	r, _ := tokenRoom(t)
	one, two, three := []byte("image one"), []byte("image two"), []byte("image three")
	sign := func(key string, msg []byte) (string, error) {
		out, err := r.try("sign/"+key, body{"input": b64(msg)})
		s, _ := out["signature"].(string)
		return s, err
	}
	if _, err := sign("image", one); !errors.Is(err, transit.ErrRelease) || !strings.Contains(fault.HintOf(err), "release-approved") {
		t.Errorf("nothing was approved: %v", err)
	}
	r.approve("r1", "image", 1, one)
	r.approve("r2", "image", 2, two)
	r.approve("r3", "image", 2, three)
	r.approve("b1", "boot", 2, []byte("a loader"))
	first, err := sign("image", one)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"pub": r.public("image"), "sig": made(t, first), "msg": one}
	if _, out, err := enginetest.OpenSSL(t, files, "dgst", "-sha256", "-verify", "pub", "-signature", "sig", "msg"); err != nil {
		t.Error(out)
	}
	sum := sha256.Sum256(one)
	again := r.do("sign/image/sha2-256", body{"input": b64(sum[:]), "prehashed": true, "key_version": "0", "signature_algorithm": "pkcs1v15"})
	if again["signature"] != first {
		t.Error("the same request gave another signature")
	}
	if _, err := sign("boot", one); !errors.Is(err, transit.ErrRelease) {
		t.Errorf("approved for another key: %v", err)
	}
	if s, err := sign("boot", []byte("a loader")); err != nil || s == "" {
		t.Errorf("a key that signs messages: %v", err)
	}
	if _, err := sign("image", two); err != nil {
		t.Fatal(err)
	}
	if _, err := sign("image", three); err != nil {
		t.Errorf("the same security version again: %v", err)
	}
	if s, err := sign("image", one); err != nil || s != first {
		t.Errorf("what was signed before is not given again: %v", err)
	}
	_, err = r.try("sign/image", body{"batch_input": []body{{"input": b64(one)}}})
	enginetest.Refused(r.t, "a batch", fault.Usage, err)
	_, err = r.try("sign/image/sha2-512", body{"input": b64(one)})
	enginetest.Refused(r.t, "another hash", fault.Policy, err)
	_, err = r.try("sign/image", body{"input": b64(one), "key_version": 2})
	enginetest.Refused(r.t, "another version", fault.Policy, err)
	r.Caller.Bound = false
	if _, err := sign("image", one); !errors.Is(err, transit.ErrBound) {
		t.Errorf("a bearer token: %v", err)
	}
	if got := r.states("image"); got["r1"] != "signed" || got["r2"] != "signed" || len(got) != 3 {
		t.Error(got)
	}
	r.intents(t, 6)
}

// intents wants as many intents in the log as there were requests that came to the
// key, each with its result.
func (r *room) intents(t *testing.T, want int) {
	t.Helper()
	open, err := r.Journal.Open()
	if err != nil || len(open) > 0 {
		t.Errorf("%d intents without result: %v", len(open), err)
	}
	n := 0
	for i := range r.Store.Head().Size {
		raw, err := r.Store.Entry(uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		var leaf struct {
			Entry struct {
				Kind   string         `json:"kind"`
				Params map[string]any `json:"params"`
			} `json:"entry"`
		}
		if err := json.Unmarshal(raw, &leaf); err != nil {
			t.Fatal(err)
		}
		if leaf.Entry.Kind == "intent" {
			n++
			if leaf.Entry.Params["digest"] == nil || leaf.Entry.Params["product"] != "gw100" {
				t.Errorf("an intent says %v", leaf.Entry.Params)
			}
		}
	}
	if n != want {
		t.Errorf("%d intents, want %d", n, want)
	}
}

// TestReleaseRefusals: expired, rolled back, succeeded.
func TestReleaseRefusals(t *testing.T) {
	r, _ := tokenRoom(t)
	r.approve("low", "image", 1, []byte("low"))
	r.approve("high", "image", 5, []byte("high"))
	r.approve("late", "image", 5, []byte("late"))
	r.approve("old", "image", 5, []byte("old"))
	r.do("sign/image", body{"input": b64([]byte("high"))})
	if _, err := r.try("sign/image", body{"input": b64([]byte("low"))}); !errors.Is(err, transit.ErrRollback) {
		t.Errorf("rolled back: %v", err)
	}
	r.World.Approve(charter.TypeFloor, charter.Floor{Product: "gw100", Record: "keyrite/record/test", SecurityVersion: 6})
	if _, err := r.try("sign/image", body{"input": b64([]byte("late"))}); !errors.Is(err, transit.ErrRollback) {
		t.Errorf("below the floor: %v", err)
	}
	r.Now = r.Now.Add(time.Hour)
	if _, err := r.try("sign/image", body{"input": b64([]byte("late"))}); !errors.Is(err, transit.ErrExpired) {
		t.Errorf("expired: %v", err)
	}
	r.do("sign/image", body{"input": b64([]byte("high"))}) // the kept one does not expire
	r.World.Approve(charter.TypeKeyRetired, charter.KeyRetired{ID: "image", Reason: charter.ReasonCompromised, Record: "keyrite/record/test"})
	_, err := r.try("sign/image", body{"input": b64([]byte("old"))})
	enginetest.Refused(r.t, "a retired key", fault.Policy, err)
}

// TestReleaseThatIsLost: what was begun and has no result is not signed again, by
// this process or the next; where the token was surely not asked it is.
func TestReleaseThatIsLost(t *testing.T) {
	r, _ := tokenRoom(t)
	r.approve("r1", "image", 1, []byte("one"))
	r.approve("r2", "image", 1, []byte("two"))
	plan := func(msg string) *engine.Plan {
		p, err := r.e.Plan(r.Request(engine.Write, "sign/image", body{"input": b64([]byte(msg))}))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	reserve := func(p *engine.Plan) {
		_, err := r.Store.Update(t.Context(), seal.Strict, func(tx *seal.Tx) (any, error) { return "begun", p.Reserve(tx) })
		if err != nil {
			t.Fatal(err)
		}
	}
	// Work without the intent before it signs nothing.
	if err := plan("one").Work(t.Context()); fault.ClassOf(err) != fault.Unexpected {
		t.Errorf("work without intent: %v", err)
	}
	reserve(plan("one"))
	if _, err := r.try("sign/image", body{"input": b64([]byte("one"))}); !errors.Is(err, transit.ErrBusy) {
		t.Errorf("while it is signed: %v", err)
	}
	if got := r.states("image"); got["r1"] != "begun" || got["r2"] != "approved" {
		t.Error(got)
	}
	r.Now = r.Now.Add(6 * time.Minute)
	if _, err := r.try("sign/image", body{"input": b64([]byte("one"))}); !errors.Is(err, transit.ErrLost) {
		t.Errorf("nobody knows of it any more: %v", err)
	}
	r.e = transit.New(r.Host)
	if _, err := r.try("sign/image", body{"input": b64([]byte("one"))}); !errors.Is(err, transit.ErrLost) {
		t.Errorf("after a restart: %v", err)
	}
	if got := r.states("image"); got["r1"] != "lost" {
		t.Error(got)
	}
	r.approve("r1-anew", "image", 1, []byte("one"))
	r.do("sign/image", body{"input": b64([]byte("one"))})
	if got := r.states("image"); got["r1"] != "lost" || got["r1-anew"] != "signed" {
		t.Error(got)
	}
	tok := r.Host.Token
	r.Host.Token = nil
	_, err := r.try("sign/image", body{"input": b64([]byte("two"))})
	enginetest.Refused(r.t, "no token", fault.Sealed, err)
	if got := r.states("image"); got["r2"] != "approved" {
		t.Error(got)
	}
	r.Host.Token = tok
	r.do("sign/image", body{"input": b64([]byte("two"))})
}

// TestUndoneRelease: an approval whose intent the head did not get to know of is free
// again, and the entry says so; once the token was asked nothing gives it back, and
// nobody gives back what another request has taken since.
func TestUndoneRelease(t *testing.T) {
	r, v := tokenRoom(t)
	away := &enginetest.Away{}
	dir := t.TempDir()
	r.Bench = enginetest.Over(t, v.World, enginetest.StoreIn(t, dir, away), "transit")
	t.Cleanup(func() { _ = r.Store.Close() })
	r.Host.Token = v.Open()
	r.e = transit.New(r.Host)
	r.approve("r1", "image", 1, []byte("one"))
	r.approve("r2", "image", 1, []byte("two"))
	away.Gone.Store(true)
	if _, err := r.try("sign/image", body{"input": b64([]byte("one"))}); !errors.Is(err, seal.ErrUnconfirmed) {
		t.Fatalf("the head is out of reach: %v", err)
	}
	if got := r.states("image"); got["r1"] != "approved" {
		t.Error(got)
	}
	if log := r.Audit(); !strings.Contains(log, `"undone":"the token was not asked; the approval can be used again"`) {
		t.Error("the log does not say that it was given back")
	}
	away.Gone.Store(false)
	plan := func(msg string) *engine.Plan {
		p, err := r.e.Plan(r.Request(engine.Write, "sign/image", body{"input": b64([]byte(msg))}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Store.Update(t.Context(), seal.Strict, func(tx *seal.Tx) (any, error) { return "begun", p.Reserve(tx) }); err != nil {
			t.Fatal(err)
		}
		return p
	}
	undo := func(p *engine.Plan) (given bool) {
		_, err := r.Store.Update(t.Context(), seal.Durable, func(tx *seal.Tx) (any, error) {
			out, err := p.Undo(tx)
			given = out != nil
			return "undone", err
		})
		if err != nil {
			t.Fatal(err)
		}
		return given
	}
	first := plan("one")
	if !undo(first) {
		t.Error("what was taken, and the token not asked, is not given back")
	}
	second := plan("one")
	if undo(first) {
		t.Error("one request gave back what another has")
	}
	if err := second.Work(t.Context()); err != nil {
		t.Fatal(err)
	}
	if undo(second) {
		t.Error("it was signed, and its use is given back")
	}
	if got := r.states("image"); got["r1"] != "begun" || got["r2"] != "approved" {
		t.Error(got)
	}
	r.e = transit.New(r.Host)
	if _, err := r.try("sign/image", body{"input": b64([]byte("one"))}); !errors.Is(err, transit.ErrLost) {
		t.Errorf("signed, and its result never written: %v", err)
	}
}

// TestReleaseOfBefore: what a store of before says of a release is read, and lost stays
// lost.
func TestReleaseOfBefore(t *testing.T) {
	r, _ := tokenRoom(t)
	r.approve("r1", "image", 1, []byte("one"))
	before := `{"format":"keyrite/transit-release/v1","key":"image","state":"begun","time":"2026-01-01T00:00:00Z"}`
	if _, err := r.Store.Update(t.Context(), seal.Strict, func(tx *seal.Tx) (any, error) {
		return "before", tx.Put("releases", "r1", []byte(before))
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.try("sign/image", body{"input": b64([]byte("one"))}); !errors.Is(err, transit.ErrLost) {
		t.Errorf("begun by a program of before: %v", err)
	}
}

// TestSuccessorIsTheNextVersion: after a succession the name signs with the new key,
// as version 2, and version 1 is of no use.
func TestSuccessorIsTheNextVersion(t *testing.T) {
	r, v := tokenRoom(t)
	old := r.do("sign/free-p256", body{"input": "AAAA"})["signature"].(string)
	next := v.Later("free-p256-b", anchor.DomainGeneral, "free-p256")
	v.Approve(charter.TypeKeyRetired, charter.KeyRetired{ID: "free-p256", Reason: charter.ReasonRetired, Record: "keyrite/record/test"})
	_, err := r.try("sign/free-p256", body{"input": "AAAA"})
	enginetest.Refused(r.t, "between retirement and succession", fault.Policy, err)
	v.Approve(charter.TypeSuccessor, charter.Successor{ID: "free-p256", Record: "keyrite/record/test", Successor: next.ID})
	got := r.look("free-p256")
	if got["latest_version"] != 2.0 || got["min_decryption_version"] != 2.0 || got["keys"].(map[string]any)["2"] == nil {
		t.Error(got)
	}
	_, err = r.try("verify/free-p256", body{"input": "AAAA", "signature": old})
	enginetest.Refused(r.t, "a signature of the retired key", fault.Policy, err)
}
