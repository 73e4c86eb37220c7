package charter_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

const engineVectors = "../../testdata/vectors/charter-engines"

// engineCase is a statement about an engine, and what it is worth.
type engineCase struct {
	typ, expect string
	body        any
}

func kvConfig(edit func(*charter.KVConfig)) charter.KVConfig {
	c := charter.KVConfig{MaxVersions: 10, Mount: "kv", Version: 1}
	if edit != nil {
		edit(&c)
	}
	return c
}

func tokenRole(edit func(*charter.TokenRole)) charter.TokenRole {
	r := charter.TokenRole{
		Audience: "https://mes.example", Claims: map[string]string{}, Issuer: "https://vault.example:8200/v1/tokens", Mount: "tokens", Name: "mes",
		Software: &charter.TokenKeys{Algorithm: "ES256", Oldest: 1, Signing: 1, Versions: 1}, Subject: "{identity}", TTL: 300, Version: 1,
	}
	if edit != nil {
		edit(&r)
	}
	return r
}

func tokenCases(out map[string]engineCase) {
	role := func(name, expect string, edit func(*charter.TokenRole)) {
		out["token-role-"+name] = engineCase{charter.TypeTokenRole, expect, tokenRole(edit)}
	}
	inToken := func(key string) func(*charter.TokenRole) {
		return func(r *charter.TokenRole) { r.Software, r.TokenKey = nil, key }
	}
	role("least", "ok", nil)
	role("whole", "ok", func(r *charter.TokenRole) {
		r.Claims, r.Subject, r.TTL = map[string]string{"line": "1", "https://plant.example/cell": "7"}, "spiffe://plant/{identity}", charter.MaxTokenTTL
	})
	role("in-token", "ok", inToken("jwt1"))
	role("in-token-of-another-domain", "verify", inToken("firmware"))
	role("in-token-unknown", "verify", inToken("jwt9"))
	role("in-token-dormant", "verify", inToken("jwt1-2"))
	role("both-keys", "verify", func(r *charter.TokenRole) { r.TokenKey = "jwt1" })
	role("no-key", "verify", inToken(""))
	role("no-mount", "verify", func(r *charter.TokenRole) { r.Mount = "" })
	role("mount-of-another-engine", "verify", func(r *charter.TokenRole) { r.Mount = "kv" })
	for n, name := range map[string]string{"empty": "", "upper": "MES", "path": "a/b", "long": strings.Repeat("a", 33)} {
		role("name-"+n, "verify", func(r *charter.TokenRole) { r.Name = name })
	}
	role("version-0", "verify", func(r *charter.TokenRole) { r.Version = 0 })
	role("version-skipped", "verify", func(r *charter.TokenRole) { r.Version = 2 })
	role("no-life", "verify", func(r *charter.TokenRole) { r.TTL = 0 })
	role("long-life", "verify", func(r *charter.TokenRole) { r.TTL = charter.MaxTokenTTL + 1 })
	for n, aud := range map[string]string{"empty": "", "newline": "a\nb", "not-ascii": "é", "long": strings.Repeat("a", 513)} {
		role("audience-"+n, "verify", func(r *charter.TokenRole) { r.Audience = aud })
	}
	for n, iss := range map[string]string{
		"empty": "", "http": "http://vault.example", "no-host": "https:///v1", "query": "https://vault.example/?a=1", "empty-query": "https://vault.example/?",
		"fragment": "https://vault.example/#a", "empty-fragment": "https://vault.example/#", "user": "https://a@vault.example", "odd": "https://vault.example/%zz",
	} {
		role("issuer-"+n, "verify", func(r *charter.TokenRole) { r.Issuer = iss })
	}
	for n, sub := range map[string]string{"empty": "", "fixed": "admin", "twice": "{identity}{identity}", "other-mark": "{identity}-{role}", "newline": "{identity}\n"} {
		role("subject-"+n, "verify", func(r *charter.TokenRole) { r.Subject = sub })
	}
	role("claims-missing", "verify", func(r *charter.TokenRole) { r.Claims = nil })
	for n, c := range map[string]string{"iss": "iss", "sub": "sub", "aud": "aud", "exp": "exp", "nbf": "nbf", "iat": "iat", "jti": "jti", "no-name": "", "spaced": "a b"} {
		role("claim-"+n, "verify", func(r *charter.TokenRole) { r.Claims = map[string]string{c: "1"} })
	}
	role("claim-empty", "verify", func(r *charter.TokenRole) { r.Claims = map[string]string{"a": ""} })
	for n, k := range map[string]charter.TokenKeys{
		"no-algorithm": {Oldest: 1, Signing: 1, Versions: 1}, "none": {Algorithm: "none", Oldest: 1, Signing: 1, Versions: 1}, "hmac": {Algorithm: "HS256", Oldest: 1, Signing: 1, Versions: 1},
		"no-versions": {Algorithm: "EdDSA"}, "two-at-once": {Algorithm: "EdDSA", Oldest: 1, Signing: 1, Versions: 2},
		"signing-unborn": {Algorithm: "EdDSA", Oldest: 1, Signing: 2, Versions: 1}, "signing-unpublished": {Algorithm: "EdDSA", Oldest: 2, Signing: 1, Versions: 2},
	} {
		role("keys-"+n, "verify", func(r *charter.TokenRole) { r.Software = &k })
	}
}

const lower, upper, digits = "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789"

func passwordPolicy(edit func(*charter.PasswordPolicy)) charter.PasswordPolicy {
	p := charter.PasswordPolicy{Alphabets: []charter.Alphabet{{Characters: lower}}, Length: 14, Mount: "passwords", Name: "plc", Version: 1}
	if edit != nil {
		edit(&p)
	}
	return p
}

func passwordCases(out map[string]engineCase) {
	policy := func(name, expect string, edit func(*charter.PasswordPolicy)) {
		out["password-policy-"+name] = engineCase{charter.TypePasswordPolicy, expect, passwordPolicy(edit)}
	}
	alphabets := func(a ...charter.Alphabet) func(*charter.PasswordPolicy) {
		return func(p *charter.PasswordPolicy) { p.Alphabets = a }
	}
	policy("least", "ok", nil) // 26^14 is 2^65.8
	policy("whole", "ok", func(p *charter.PasswordPolicy) {
		p.Alphabets = []charter.Alphabet{{Characters: "!#$%&+-./:=?@_", Min: 2}, {Characters: digits, Min: 2}, {Characters: upper, Min: 1}, {Characters: lower, Min: 1}}
		p.Excluded, p.Length, p.History, p.RotateAfter = "01IOl", charter.MaxPasswordLength, charter.MaxPasswordHistory, charter.MaxRotation
	})
	policy("13-letters", "verify", func(p *charter.PasswordPolicy) { p.Length = 13 }) // 2^61.1
	policy("16-hex", "ok", func(p *charter.PasswordPolicy) { p.Length, p.Alphabets[0].Characters = 16, digits+"abcdef" })
	policy("16-hex-one-excluded", "verify", func(p *charter.PasswordPolicy) {
		p.Length, p.Alphabets[0].Characters, p.Excluded = 16, digits+"abcdef", "0"
	})
	policy("16-hex-with-a-digit", "verify", func(p *charter.PasswordPolicy) { // some of 2^64 are without one
		p.Length, p.Alphabets = 16, []charter.Alphabet{{Characters: digits, Min: 1}, {Characters: "abcdef"}}
	})
	policy("too-rare", "verify", alphabets(charter.Alphabet{Characters: lower, Min: 1}, charter.Alphabet{Characters: digits, Min: 13}))
	policy("too-long", "verify", func(p *charter.PasswordPolicy) { p.Length = charter.MaxPasswordLength + 1 })
	policy("no-length", "verify", func(p *charter.PasswordPolicy) { p.Length = 0 })
	policy("no-alphabet", "verify", alphabets())
	policy("empty-alphabet", "verify", alphabets(charter.Alphabet{Characters: lower}, charter.Alphabet{}))
	policy("seven-alphabets", "verify", alphabets(charter.Alphabet{Characters: "a"}, charter.Alphabet{Characters: "b"}, charter.Alphabet{Characters: "c"}, charter.Alphabet{Characters: "d"}, charter.Alphabet{Characters: "e"}, charter.Alphabet{Characters: "f"}, charter.Alphabet{Characters: lower[6:]}))
	policy("all-excluded", "verify", func(p *charter.PasswordPolicy) { p.Excluded = lower })
	policy("excluded-unsorted", "verify", func(p *charter.PasswordPolicy) { p.Excluded = "ba" })
	policy("character-twice", "verify", alphabets(charter.Alphabet{Characters: "a" + lower}))
	policy("character-in-two", "verify", alphabets(charter.Alphabet{Characters: lower}, charter.Alphabet{Characters: "ax"}))
	policy("space", "verify", alphabets(charter.Alphabet{Characters: " " + lower}))
	policy("not-ascii", "verify", alphabets(charter.Alphabet{Characters: lower + "é"}))
	policy("control", "verify", alphabets(charter.Alphabet{Characters: "\n" + lower}))
	policy("negative-least", "verify", alphabets(charter.Alphabet{Characters: lower, Min: -1}))
	policy("more-than-places", "verify", alphabets(charter.Alphabet{Characters: lower, Min: 8}, charter.Alphabet{Characters: digits, Min: 7}))
	policy("version-0", "verify", func(p *charter.PasswordPolicy) { p.Version = 0 })
	policy("version-skipped", "verify", func(p *charter.PasswordPolicy) { p.Version = 2 })
	policy("history-negative", "verify", func(p *charter.PasswordPolicy) { p.History = -1 })
	policy("history-long", "verify", func(p *charter.PasswordPolicy) { p.History = charter.MaxPasswordHistory + 1 })
	policy("rotation-fast", "verify", func(p *charter.PasswordPolicy) { p.RotateAfter = charter.MinRotation - 1 })
	policy("rotation-slow", "verify", func(p *charter.PasswordPolicy) { p.RotateAfter = charter.MaxRotation + 1 })
	policy("no-mount", "verify", func(p *charter.PasswordPolicy) { p.Mount = "" })
	policy("mount-of-another-engine", "verify", func(p *charter.PasswordPolicy) { p.Mount = "kv" })
	policy("no-name", "verify", func(p *charter.PasswordPolicy) { p.Name = "" })
	policy("name-as-path", "verify", func(p *charter.PasswordPolicy) { p.Name = "a/b" })
}

// engineCases are statements that follow a charter with the mounts of withEngines.
func engineCases() map[string]engineCase {
	out := map[string]engineCase{}
	kv := func(name, expect string, edit func(*charter.KVConfig)) {
		out["kv-config-"+name] = engineCase{charter.TypeKVConfig, expect, kvConfig(edit)}
	}
	kv("least", "ok", nil)
	kv("whole", "ok", func(c *charter.KVConfig) {
		c.CASRequired, c.DeleteVersionAfter, c.MaxVersions = true, charter.MaxKVSeconds, charter.MaxKVVersions
	})
	kv("no-mount", "verify", func(c *charter.KVConfig) { c.Mount = "" })
	kv("unknown-mount", "verify", func(c *charter.KVConfig) { c.Mount = "elsewhere" })
	kv("mount-of-another-engine", "verify", func(c *charter.KVConfig) { c.Mount = "tokens" })
	kv("no-versions", "verify", func(c *charter.KVConfig) { c.MaxVersions = 0 })
	kv("too-many-versions", "verify", func(c *charter.KVConfig) { c.MaxVersions = charter.MaxKVVersions + 1 })
	kv("negative-life", "verify", func(c *charter.KVConfig) { c.DeleteVersionAfter = -1 })
	kv("life-too-long", "verify", func(c *charter.KVConfig) { c.DeleteVersionAfter = charter.MaxKVSeconds + 1 })
	kv("version-0", "verify", func(c *charter.KVConfig) { c.Version = 0 })
	kv("version-skipped", "verify", func(c *charter.KVConfig) { c.Version = 2 })
	tokenCases(out)
	passwordCases(out)
	maps.Copy(out, trailCases())
	maps.Copy(out, reminderCases())
	return out
}

// withEngines is a vault with one mount of each of these engines.
func withEngines(t *testing.T) *vault {
	t.Helper()
	v := newVault(t)
	for id, engine := range map[string]string{"kv": "kv", "tokens": "token", "passwords": "password"} {
		v.decide(charter.TypeMount, charter.Mount{Engine: engine, ID: id})
	}
	v.Later("jwt1", anchor.DomainJWT, "")
	v.Later("jwt1-2", anchor.DomainJWT, "jwt1")
	return v
}

// What approvers say of an engine is whole and of that engine, or the charter does
// not hold; one approver alone says nothing.
func TestEngineStatements(t *testing.T) {
	v := withEngines(t)
	for name, c := range engineCases() {
		got := "ok"
		if err := v.propose(c.typ, c.body); err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != c.expect {
			t.Errorf("%s: %s, want %s", name, got, c.expect)
		}
		if err := v.try(c.typ, c.body, "approver1"); fault.ClassOf(err) != fault.Quorum {
			t.Errorf("%s by one approver: %v", name, err)
		}
	}
}

// A later configuration replaces the one before it, in order, and ends with its mount.
func TestKVConfigFollows(t *testing.T) {
	v := withEngines(t)
	v.decide(charter.TypeKVConfig, kvConfig(nil))
	if err := v.propose(charter.TypeKVConfig, kvConfig(nil)); fault.ClassOf(err) != fault.Verify {
		t.Errorf("version 1 again: %v", err)
	}
	v.decide(charter.TypeKVConfig, kvConfig(func(c *charter.KVConfig) { c.Version, c.MaxVersions = 2, 3 }))
	if c := v.refold().KV["kv"]; c.MaxVersions != 3 || c.Version != 2 {
		t.Errorf("in force: %+v", c)
	}
	v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "kv", Type: charter.TypeMount})
	if n := len(v.refold().KV); n != 0 {
		t.Errorf("%d configurations of mounts that ended", n)
	}
}

// Versions of a role's keys go on one at a time and never back; a key in a token is
// one role's, and a mount has one issuer.
func TestTokenRoleFollows(t *testing.T) {
	v := withEngines(t)
	keys := func(version, oldest, signing, versions int) charter.TokenRole {
		return tokenRole(func(r *charter.TokenRole) {
			r.Version, r.Software = version, &charter.TokenKeys{Algorithm: "ES256", Oldest: oldest, Signing: signing, Versions: versions}
		})
	}
	v.decide(charter.TypeTokenRole, keys(1, 1, 1, 1))
	for i, next := range []charter.TokenRole{keys(2, 1, 1, 2), keys(3, 1, 2, 2), keys(4, 2, 2, 2)} {
		v.decide(charter.TypeTokenRole, next)
		if got := v.refold().TokenRoles["tokens/mes"]; got.Software.Signing != next.Software.Signing || got.Version != i+2 {
			t.Errorf("in force: %+v", got)
		}
	}
	other := keys(5, 2, 2, 2)
	other.Software.Algorithm = "EdDSA"
	inToken := keys(5, 2, 2, 2)
	inToken.Software, inToken.TokenKey = nil, "jwt1"
	for name, r := range map[string]charter.TokenRole{
		"the version again": keys(4, 2, 2, 2), "oldest sinks": keys(5, 1, 2, 2), "signing sinks": keys(5, 1, 1, 2), "two new versions": keys(5, 2, 2, 4),
		"fewer versions": keys(5, 1, 1, 1), "another algorithm": other, "another kind of key": inToken,
	} {
		if err := v.propose(charter.TypeTokenRole, r); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
	second := func(edit func(*charter.TokenRole)) charter.TokenRole {
		return tokenRole(func(r *charter.TokenRole) {
			r.Name, r.Software, r.TokenKey = "erp", nil, "jwt1"
			edit(r)
		})
	}
	if err := v.propose(charter.TypeTokenRole, second(func(r *charter.TokenRole) { r.Issuer += "x" })); fault.ClassOf(err) != fault.Verify {
		t.Errorf("a second issuer at the mount: %v", err)
	}
	v.decide(charter.TypeTokenRole, second(func(*charter.TokenRole) {}))
	if err := v.propose(charter.TypeTokenRole, second(func(r *charter.TokenRole) { r.Name = "third" })); fault.ClassOf(err) != fault.Verify {
		t.Errorf("one key for two roles: %v", err)
	}
	end := charter.AccessEnded{ID: "tokens", Type: charter.TypeMount}
	if err := v.propose(charter.TypeAccessEnded, end); fault.ClassOf(err) != fault.Verify {
		t.Errorf("a mount with roles ends: %v", err)
	}
	for _, id := range []string{"tokens/mes", "tokens/erp"} {
		v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: id, Type: charter.TypeTokenRole})
	}
	if err := v.propose(charter.TypeTokenRole, keys(1, 1, 1, 1)); fault.ClassOf(err) != fault.Verify {
		t.Errorf("a role comes back: %v", err)
	}
	v.decide(charter.TypeAccessEnded, end)
}

// A policy is replaced in order, ends for good, and before its mount.
func TestPasswordPolicyFollows(t *testing.T) {
	v := withEngines(t)
	v.decide(charter.TypePasswordPolicy, passwordPolicy(nil))
	if err := v.propose(charter.TypePasswordPolicy, passwordPolicy(nil)); fault.ClassOf(err) != fault.Verify {
		t.Errorf("version 1 again: %v", err)
	}
	v.decide(charter.TypePasswordPolicy, passwordPolicy(func(p *charter.PasswordPolicy) { p.Version, p.Length = 2, 20 }))
	if p := v.refold().Passwords["passwords/plc"]; p.Length != 20 || p.Bits() != 94 {
		t.Errorf("in force: %+v, worth %d bits", p, p.Bits())
	}
	end := charter.AccessEnded{ID: "passwords", Type: charter.TypeMount}
	if err := v.propose(charter.TypeAccessEnded, end); fault.ClassOf(err) != fault.Verify {
		t.Errorf("a mount with policies ends: %v", err)
	}
	v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "passwords/plc", Type: charter.TypePasswordPolicy})
	if err := v.propose(charter.TypePasswordPolicy, passwordPolicy(nil)); fault.ClassOf(err) != fault.Verify {
		t.Errorf("a policy comes back: %v", err)
	}
	v.decide(charter.TypeAccessEnded, end)
}

// Each vector is a statement that follows charter.jsonl beside it.
func TestEngineVectors(t *testing.T) {
	if *update {
		v := withEngines(t)
		v.Save(engineVectors)
		for name, c := range engineCases() {
			artifacttest.WriteVector(t, engineVectors, artifacttest.Vector{Name: name, Expect: c.expect, Body: v.line(c.typ, c.body, "approver1", "approver2")}, strings.ReplaceAll(name, "-", " "))
		}
	}
	a, _ := artifacttest.Load(t, engineVectors)
	lines, err := os.ReadFile(filepath.Join(engineVectors, "charter.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]bool{}
	for _, x := range artifacttest.Vectors(t, engineVectors) {
		have[x.Name] = true
		got := "ok"
		if _, err := charter.Fold(slices.Concat(lines, x.Body, []byte("\n")), a.World, a.Vault); err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != x.Expect {
			t.Errorf("%s: %s, want %s", x.Name, got, x.Expect)
		}
	}
	for name := range engineCases() {
		if !have[name] {
			t.Errorf("no vector %s: go test -run TestEngineVectors -update", name)
		}
	}
}
