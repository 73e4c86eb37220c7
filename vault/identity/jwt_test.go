package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/identity"
	"keyrite/vault/seal"
)

// issuer is a CI system with a key of each kind.
type issuer struct {
	t    testing.TB
	rsa  *rsa.PrivateKey
	p256 *ecdsa.PrivateKey
	p384 *ecdsa.PrivateKey
	ed   ed25519.PrivateKey
	n    int
	mu   sync.Mutex // guards n
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	i := &issuer{t: t}
	var err [4]error
	i.rsa, err[0] = rsa.GenerateKey(rand.Reader, 2048)
	i.p256, err[1] = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	i.p384, err[2] = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, i.ed, err[3] = ed25519.GenerateKey(rand.Reader)
	for _, e := range err {
		if e != nil {
			t.Fatal(e)
		}
	}
	return i
}

func spki(t testing.TB, pub crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

const (
	ciIssuer   = "https://ci.example.com"
	ciAudience = "https://vault.plant.example:8200"
	ciSubject  = "project_path:plant/firmware:ref_type:branch:ref:main"
)

func (i *issuer) identity(id string, claims map[string]string) charter.Identity {
	return charter.Identity{ID: id, Policies: []string{"reader"}, TTL: 600, JWT: &charter.JWT{
		Audience: ciAudience, Claims: claims, Issuer: ciIssuer, Subject: ciSubject,
		Keys: []charter.JWTKey{{ID: "rsa", Key: spki(i.t, i.rsa.Public())}, {ID: "p256", Key: spki(i.t, i.p256.Public())}, {ID: "p384", Key: spki(i.t, i.p384.Public())}, {ID: "ed", Key: spki(i.t, i.ed.Public())}},
	}}
}

func (i *issuer) header() map[string]any {
	return map[string]any{"alg": "RS256", "kid": "rsa", "typ": "JWT"}
}

// claims are those of a good token, each with an id of its own.
func (i *issuer) claims() map[string]any {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.n++
	now := time.Now().Unix()
	return map[string]any{"iss": ciIssuer, "aud": ciAudience, "sub": ciSubject, "iat": now, "nbf": now - 5, "exp": now + 300, "jti": fmt.Sprintf("job-%d", i.n), "ref": "refs/heads/main", "ref_protected": "true", "run": 7}
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func encode(t testing.TB, v any) string {
	t.Helper()
	if s, ok := v.(rawJSON); ok {
		return b64([]byte(s))
	}
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b64(raw)
}

// sign makes a token whose signature holds under the algorithm of its header, with the
// standard library alone.
func (i *issuer) sign(header, claims any) string {
	i.t.Helper()
	alg := "RS256"
	if h, ok := header.(map[string]any); ok {
		alg = fmt.Sprint(h["alg"])
	}
	return i.signAs(alg, header, claims)
}

func (i *issuer) signAs(alg string, header, claims any) string {
	i.t.Helper()
	body := encode(i.t, header) + "." + encode(i.t, claims)
	s256, s384 := sha256.Sum256([]byte(body)), sha512.Sum384([]byte(body))
	var sig []byte
	var err error
	switch alg {
	case "RS256":
		sig, err = rsa.SignPKCS1v15(nil, i.rsa, crypto.SHA256, s256[:])
	case "PS256":
		sig, err = rsa.SignPSS(rand.Reader, i.rsa, crypto.SHA256, s256[:], nil)
	case "ES256":
		sig = rawECDSA(i.t, i.p256, s256[:], 32)
	case "ES384":
		sig = rawECDSA(i.t, i.p384, s384[:], 48)
	case "EdDSA":
		sig = ed25519.Sign(i.ed, []byte(body))
	case "HS256":
		m := hmac.New(sha256.New, spki(i.t, i.rsa.Public()))
		m.Write([]byte(body))
		sig = m.Sum(nil)
	}
	if err != nil {
		i.t.Fatal(err)
	}
	return body + "." + b64(sig)
}

func rawECDSA(t testing.TB, k *ecdsa.PrivateKey, digest []byte, n int) []byte {
	t.Helper()
	r, s, err := ecdsa.Sign(rand.Reader, k, digest)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, 2*n)
	r.FillBytes(out[:n])
	s.FillBytes(out[n:])
	return out
}

func (b *bench) loginJob(role, jwt string) error {
	_, err := b.login(identity.MeansJWT, params(b.t, map[string]string{"role": role, "jwt": jwt}), network())
	return err
}

// with is a map with one value changed, or taken out.
func with(m map[string]any, k string, v any) map[string]any {
	m = maps.Clone(m)
	if v == nil {
		delete(m, k)
	} else {
		m[k] = v
	}
	return m
}

// TestJobsLogIn: tokens of every algorithm, also those that openssl signed in the form
// of GitHub and GitLab, log in once.
func TestJobsLogIn(t *testing.T) {
	b, i := newBench(t), newIssuer(t)
	b.decide(charter.TypeIdentity, i.identity("build", map[string]string{"ref": "refs/heads/main", "ref_protected": "true"}))
	for alg, kid := range map[string]string{"RS256": "rsa", "ES256": "p256", "ES384": "p384", "EdDSA": "ed"} {
		tok := i.sign(map[string]any{"alg": alg, "kid": kid}, i.claims())
		auth, err := b.login(identity.MeansJWT, params(t, map[string]string{"role": "build", "jwt": tok}), network())
		if err != nil {
			t.Errorf("%s: %v %s", alg, err, cause(err))
			continue
		}
		if c, err := b.reg.Caller(auth.Token, network()); err != nil || c.Identity != "build" || c.Bound || c.Means != identity.MeansJWT {
			t.Errorf("%s: %+v %v", alg, c, err)
		}
		err = b.loginJob("build", tok)
		wantRefused(t, err)
		if !strings.Contains(cause(err), "used before") {
			t.Errorf("%s, again: %s", alg, cause(err))
		}
	}
	for name, tok := range map[string]string{
		"one audience in a list":  i.sign(i.header(), with(i.claims(), "aud", []string{ciAudience})),
		"without nbf":             i.sign(i.header(), with(i.claims(), "nbf", nil)),
		"of 15 minutes":           i.sign(i.header(), with(i.claims(), "exp", time.Now().Unix()+900)),
		"with x5t, as GitHub's":   i.sign(with(i.header(), "x5t", "eA"), i.claims()),
		"deep where nobody looks": i.sign(i.header(), with(i.claims(), "x", rawJSON(strings.Repeat("[", 5000)+strings.Repeat("]", 5000)))),
		"signed by openssl":       opensslToken(t, i),
	} {
		if err := b.loginJob("build", tok); err != nil {
			t.Errorf("%s: %v %s", name, err, cause(err))
		}
	}
}

// opensslToken has openssl sign.
func opensslToken(t *testing.T, i *issuer) string {
	m := newMaker(t)
	der, err := x509.MarshalPKCS8PrivateKey(i.rsa)
	if err != nil {
		t.Fatal(err)
	}
	m.write("k.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	body := encode(t, i.header()) + "." + encode(t, i.claims())
	m.write("body", body)
	m.run("openssl", "dgst", "-sha256", "-sign", "k.pem", "-out", "sig", "body")
	sig, err := os.ReadFile(filepath.Join(m.dir, "sig"))
	if err != nil {
		t.Fatal(err)
	}
	return body + "." + b64(sig)
}

// TestHostileJobs: no token but one that is right in everything logs in (RFC 8725).
func TestHostileJobs(t *testing.T) {
	b, i := newBench(t), newIssuer(t)
	b.decide(charter.TypeIdentity, i.identity("build", map[string]string{"ref": "refs/heads/main"}))
	b.decide(charter.TypeIdentity, unixIdentity("local", 1000))
	now := time.Now().Unix()
	h := func(k string, v any) string { return i.sign(with(i.header(), k, v), i.claims()) }
	c := func(k string, v any) string { return i.sign(i.header(), with(i.claims(), k, v)) }
	good := func() string { return i.sign(i.header(), i.claims()) }
	claimsText := func() string {
		raw, err := json.Marshal(i.claims())
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	doubled := func(extra string) rawJSON { return rawJSON(strings.TrimSuffix(claimsText(), "}") + "," + extra + "}") }
	parts := func() []string { return strings.Split(good(), ".") }
	pubPEM := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki(t, i.rsa.Public())})
	jwk := map[string]any{"kty": "RSA", "n": b64(i.rsa.N.Bytes()), "e": "AQAB", "kid": "rsa"}
	hostile := map[string]string{
		"algorithm none":                  strings.Join(append(strings.Split(h("alg", "none"), ".")[:2], ""), "."),
		"algorithm none, with bytes":      h("alg", "none") + "AA",
		"algorithm None":                  h("alg", "None") + "AA",
		"HMAC with the public key":        h("alg", "HS256"),
		"HMAC with the public key as PEM": hmacToken(t, i, pubPEM),
		"no algorithm":                    i.signAs("RS256", map[string]any{"kid": "rsa"}, i.claims()),
		"algorithm as a list":             i.signAs("RS256", with(i.header(), "alg", []string{"RS256"}), i.claims()),
		"PSS":                             h("alg", "PS256"),
		"ES256 by the RSA key":            i.signAs("ES256", map[string]any{"alg": "ES256", "kid": "rsa"}, i.claims()),
		"ES256 by the P-384 key":          i.signAs("ES384", map[string]any{"alg": "ES256", "kid": "p384"}, i.claims()),
		"RS256 that ES256 signed":         i.signAs("ES256", map[string]any{"alg": "RS256", "kid": "p256"}, i.claims()),
		"rs256 in small letters":          i.signAs("RS256", with(i.header(), "alg", "rs256"), i.claims()),
		"a signature of zeros":            i.signAs("", map[string]any{"alg": "ES256", "kid": "p256"}, i.claims()) + b64(make([]byte, 64)),
		"an ECDSA signature as DER":       derToken(t, i),
		"another's signature":             newIssuer(t).sign(i.header(), i.claims()),
		"another's claims":                parts()[0] + "." + encode(t, with(i.claims(), "jti", "other")) + "." + parts()[2],
		"no key id":                       i.signAs("RS256", map[string]any{"alg": "RS256"}, i.claims()),
		"an empty key id":                 h("kid", ""),
		"an unknown key id":               h("kid", "rsa2"),
		"a key id that is a path":         h("kid", "../../dev/null"),
		"a key id that is a query":        h("kid", "x' UNION SELECT 'rsa"),
		"a key id that is a number":       h("kid", 1),
		"a key id of other case":          h("kid", "RSA"),
		"its own key":                     h("jwk", jwk),
		"the address of a key":            h("jku", "https://attacker.example/jwks.json"),
		"a certificate":                   h("x5c", []string{"AAAA"}),
		"the address of a certificate":    h("x5u", "https://attacker.example/c.pem"),
		"critical headers":                h("crit", []string{"exp"}),
		"payload not encoded":             h("b64", false),
		"compressed":                      h("zip", "DEF"),
		"nested":                          h("cty", "JWT"),
		"a nonce":                         h("nonce", "x"),
		"a header nobody knows":           h("role", "root"),
		"header twice alg":                i.signAs("RS256", rawJSON(`{"alg":"RS256","kid":"rsa","alg":"none"}`), i.claims()),
		"header is a list":                i.signAs("RS256", rawJSON(`[{"alg":"RS256","kid":"rsa"}]`), i.claims()),
		"header is null":                  i.signAs("RS256", rawJSON(`null`), i.claims()),
		"header with a tail":              i.signAs("RS256", rawJSON(`{"alg":"RS256","kid":"rsa"}{}`), i.claims()),
		"header not UTF-8":                i.signAs("RS256", rawJSON("{\"alg\":\"RS256\",\"kid\":\"rsa\",\"typ\":\"\xff\"}"), i.claims()),

		"another issuer":             c("iss", "https://ci.example.org"),
		"issuer with a slash":        c("iss", ciIssuer+"/"),
		"no issuer":                  c("iss", nil),
		"issuer as a list":           c("iss", []string{ciIssuer}),
		"another audience":           c("aud", "https://other.example"),
		"no audience":                c("aud", nil),
		"no audience in a list":      c("aud", []string{}),
		"two audiences":              c("aud", []string{ciAudience, "https://other.example"}),
		"the audience twice":         c("aud", []string{ciAudience, ciAudience}),
		"audience as an object":      c("aud", map[string]string{"a": ciAudience}),
		"another subject":            c("sub", "project_path:plant/other:ref_type:branch:ref:main"),
		"subject that begins so":     c("sub", ciSubject+"-2"),
		"subject with a zero byte":   c("sub", ciSubject+"\x00"),
		"no subject":                 c("sub", nil),
		"another claim":              c("ref", "refs/heads/other"),
		"no claim":                   c("ref", nil),
		"claim as a list":            c("ref", []string{"refs/heads/main"}),
		"claim of other case":        i.sign(i.header(), with(with(i.claims(), "ref", nil), "Ref", "refs/heads/main")),
		"claim as a pattern":         c("ref", "refs/heads/*"),
		"no id":                      c("jti", nil),
		"an empty id":                c("jti", ""),
		"an id that is a number":     c("jti", 5),
		"a long id":                  c("jti", strings.Repeat("x", 257)),
		"no end":                     c("exp", nil),
		"no time of issue":           c("iat", nil),
		"over":                       i.sign(i.header(), with(with(with(i.claims(), "iat", now-400), "nbf", nil), "exp", now-60)),
		"of a time to come":          i.sign(i.header(), with(with(i.claims(), "iat", now+90), "exp", now+300)),
		"not before a time to come":  c("nbf", now+90),
		"not before it ends":         i.sign(i.header(), with(with(i.claims(), "nbf", now+20), "exp", now+10)),
		"of 15 minutes and a second": i.sign(i.header(), with(with(i.claims(), "iat", now), "exp", now+901)),
		"for ever":                   c("exp", int64(1)<<41),
		"an end before its issue":    i.sign(i.header(), with(with(i.claims(), "iat", now+20), "exp", now+10)),
		"an end that is a text":      c("exp", fmt.Sprint(now+300)),
		"an end with a point":        c("exp", rawJSON(fmt.Sprintf("%d.0", now+300))),
		"an end with an exponent":    c("exp", rawJSON("1e10")),
		"an endless end":             c("exp", rawJSON("1e999")),
		"an end below zero":          c("exp", -5),
		"an end of null":             c("exp", rawJSON("null")),
		"an issue below zero":        c("iat", int64(-1)<<62),
		"exp twice":                  i.sign(i.header(), doubled(fmt.Sprintf(`"exp":%d`, now+301))),
		"sub twice":                  i.sign(i.header(), doubled(`"sub":"other"`)),
		"sub twice, once escaped":    i.sign(i.header(), doubled(`"\u0073ub":"other"`)),
		"claims as a list":           i.sign(i.header(), rawJSON("["+claimsText()+"]")),
		"claims as a text":           i.sign(i.header(), rawJSON(`"x"`)),
		"claims with a tail":         i.sign(i.header(), rawJSON(claimsText()+"x")),
		"open brackets":              i.sign(i.header(), doubled(`"x":`+strings.Repeat("[", 9000))),
		"huge":                       i.sign(i.header(), with(i.claims(), "x", strings.Repeat("y", 20000))),

		"empty":                     "",
		"dots":                      "..",
		"one part":                  parts()[0],
		"no signature":              strings.Join(parts()[:2], "."),
		"an empty signature":        strings.Join(parts()[:2], ".") + ".",
		"four parts":                good() + ".AA",
		"a detached payload":        parts()[0] + ".." + parts()[2],
		"padding":                   good() + "=",
		"a space before":            " " + good(),
		"a line's end behind":       good() + "\n",
		"a line's end within":       strings.Replace(good(), ".", "\n.", 1),
		"base64 of the other kind":  strings.NewReplacer("-", "+", "_", "/").Replace(good() + "-"),
		"bits too many":             strings.Join(parts()[:2], ".") + "." + strings.Repeat("A", 341) + "B",
		"JSON serialisation":        fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, parts()[1], parts()[0], parts()[2]),
		"flattened":                 fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, parts()[1], parts()[0], parts()[2]),
		"a token of the vault's":    identity.TokenPrefix + strings.Repeat("A", 43),
		"with Bearer before it":     "Bearer " + good(),
		"an encrypted token's form": good() + ".AA.AA",
	}
	for name, tok := range hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // a refusal takes its time
			wantRefused(t, b.loginJob("build", tok))
		})
	}
	for _, role := range []string{"", "local", "Build", "build2", "../build", "build\x00"} {
		t.Run("role "+role, func(t *testing.T) {
			t.Parallel()
			wantRefused(t, b.loginJob(role, good()))
		})
	}
	t.Run("what is no request", func(t *testing.T) {
		for _, p := range []any{map[string]any{"role": "build", "jwt": 5}, map[string]any{"role": 1, "jwt": good()}, map[string]any{"role": "build", "jwt": good(), "ttl": 5}} {
			if _, err := b.reg.Login(identity.MeansJWT, params(t, p), network()); fault.ClassOf(err) != fault.Usage {
				t.Errorf("%v", err)
			}
		}
	})
	if err := b.loginJob("build", good()); err != nil {
		t.Errorf("the good one: %s", cause(err))
	}
}

// hmacToken signs with a public key as the secret (CVE-2015-9235).
func hmacToken(t *testing.T, i *issuer, key []byte) string {
	t.Helper()
	body := encode(t, with(i.header(), "alg", "HS256")) + "." + encode(t, i.claims())
	m := hmac.New(sha256.New, key)
	m.Write([]byte(body))
	return body + "." + b64(m.Sum(nil))
}

func derToken(t *testing.T, i *issuer) string {
	t.Helper()
	body := encode(t, map[string]any{"alg": "ES256", "kid": "p256"}) + "." + encode(t, i.claims())
	sum := sha256.Sum256([]byte(body))
	sig, err := ecdsa.SignASN1(rand.Reader, i.p256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return body + "." + b64(sig)
}

// TestEveryFlippedBitOfAJob: no bit of a token can be another.
func TestEveryFlippedBitOfAJob(t *testing.T) {
	b, i := newBench(t), newIssuer(t)
	b.decide(charter.TypeIdentity, i.identity("build", map[string]string{}))
	x := b.charter().Access.Identities["build"]
	tok := i.sign(map[string]any{"alg": "ES256", "kid": "p256"}, i.claims())
	if err := identity.JudgeJob(x.JWT, tok, time.Now()); err != nil {
		t.Fatal(cause(err))
	}
	for at := range len(tok) {
		for bit := range 8 {
			raw := []byte(tok)
			raw[at] ^= 1 << bit
			if err := identity.JudgeJob(x.JWT, string(raw), time.Now()); err == nil {
				t.Errorf("byte %d, bit %d", at, bit)
			}
		}
	}
}

// TestJobOnce: of a hundred that show one token at once, one logs in, also after the
// vault was restarted and its clock set back.
func TestJobOnce(t *testing.T) {
	b, i := newBench(t), newIssuer(t)
	b.decide(charter.TypeIdentity, i.identity("build", map[string]string{}))
	tok := i.sign(i.header(), i.claims())
	var in atomic.Int32
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			err := b.loginJob("build", tok)
			if err == nil {
				in.Add(1)
				return
			}
			wantRefusedQuick(t, err)
		})
	}
	wg.Wait()
	if in.Load() != 1 {
		t.Errorf("%d logged in", in.Load())
	}
	again := func(tok string) error {
		r, err := identity.New(identity.Config{Charter: b.charter, View: b.store.View, Now: func() time.Time { b.mu.Lock(); defer b.mu.Unlock(); return b.now() }})
		if err != nil {
			t.Fatal(err)
		}
		plan, err := r.Login(identity.MeansJWT, params(t, map[string]string{"role": "build", "jwt": tok}), network())
		if err == nil {
			_, err = b.do(plan)
		}
		return err
	}
	wantRefused(t, again(tok))
	// Two days later what was used is cleared; with the clock back, it still counts.
	b.at(48 * time.Hour)
	later := with(with(with(i.claims(), "iat", time.Now().Unix()+48*3600), "nbf", nil), "exp", time.Now().Unix()+48*3600+300)
	if err := again(i.sign(i.header(), later)); err != nil {
		t.Fatal(cause(err))
	}
	b.at(0)
	err := again(tok)
	wantRefused(t, err)
	if !strings.Contains(cause(err), "so long ago") {
		t.Errorf("it was not cleared: %s", cause(err))
	}
	if err := again(i.sign(i.header(), with(i.claims(), "exp", time.Now().Unix()+600))); err != nil {
		t.Errorf("a new one after that: %s", cause(err))
	}
}

// TestUsedJobsAreClearedAsFastAsTheyCome: what is remembered of used tokens does not grow
// for ever, however many jobs log in.
func TestUsedJobsAreClearedAsFastAsTheyCome(t *testing.T) {
	b, i := newBench(t), newIssuer(t)
	b.decide(charter.TypeIdentity, i.identity("build", map[string]string{}))
	old := time.Now().Add(-72 * time.Hour).Unix()
	for part := range 5 {
		if _, err := b.store.Update(t.Context(), seal.Durable, func(tx *seal.Tx) (any, error) {
			for n := range 500 {
				if err := tx.Put("identity/jwt", fmt.Sprintf("%012d/%064x", old, part*500+n), nil); err != nil {
					return nil, err
				}
			}
			return "used", nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	r, err := identity.New(identity.Config{Charter: b.charter, View: b.store.View, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	for range 3 {
		plan, err := r.Login(identity.MeansJWT, params(t, map[string]string{"role": "build", "jwt": i.sign(i.header(), with(i.claims(), "jti", rand.Text()))}), network())
		if err == nil {
			_, err = b.do(plan)
		}
		if err != nil {
			t.Fatal(cause(err))
		}
		if err := b.store.View(func(v *seal.View) error { left = len(v.Keys("identity/jwt", "")); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if left != 3 {
		t.Errorf("%d are remembered after three logins, 2,500 of them of three days ago", left)
	}
}
