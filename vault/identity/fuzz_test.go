package identity

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/internal/redact"
)

// fuzzIssuer is an issuer whose key nobody has: nothing that a fuzzer finds holds.
func fuzzIssuer(f *testing.F) *charter.JWT {
	pub, err := x509.MarshalPKIXPublicKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize)).Public())
	if err != nil {
		f.Fatal(err)
	}
	return &charter.JWT{Audience: "a", Claims: map[string]string{}, Issuer: "i", Subject: "s", Keys: []charter.JWTKey{{ID: "k", Key: pub}}}
}

// FuzzJWT: no token without the issuer's signature is taken, however it is spelt.
func FuzzJWT(f *testing.F) {
	enc := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	claims := enc(`{"iss":"i","aud":"a","sub":"s","jti":"1","iat":1800000000,"exp":1800000300}`)
	for _, h := range []string{`{"alg":"EdDSA","kid":"k"}`, `{"alg":"none","kid":"k"}`, `{"alg":"HS256","kid":"k"}`, `{"alg":"EdDSA","alg":"none","kid":"k"}`, `{"alg":"EdDSA","kid":"k","crit":["exp"]}`, `[]`} {
		f.Add(enc(h) + "." + claims + "." + enc(strings.Repeat("\x00", 64)))
		f.Add(enc(h) + "." + claims + ".")
	}
	f.Add("..")
	want := fuzzIssuer(f)
	f.Fuzz(func(t *testing.T, raw string) {
		if _, err := judgeJob(want, raw, time.Unix(1_800_000_010, 0)); err == nil {
			t.Errorf("taken: %q", raw)
		}
	})
}

// FuzzClaims: what signed claims make is decided without a crash, and only those that
// name issuer, audience, subject, id and times of at most 15 minutes pass.
func FuzzClaims(f *testing.F) {
	for _, s := range []string{
		`{"iss":"i","aud":"a","sub":"s","jti":"1","iat":1800000000,"exp":1800000300}`, `{"iss":"i","aud":["a"],"sub":"s","jti":"1","iat":1800000000,"exp":1800000300,"nbf":1799999999}`,
		`{"iss":"i","iss":"j"}`, `{"exp":1e10}`, `{"exp":null}`, `{}`, `null`, `[]`, `{"aud":[[]]}`,
	} {
		f.Add([]byte(s))
	}
	want := fuzzIssuer(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := object(raw)
		if err != nil {
			return
		}
		j := &job{claims: m}
		if j.checkNames(want) != nil {
			return
		}
		exp, err := j.checkTimes(time.Unix(1_800_000_010, 0))
		if err == nil && (exp <= 1_799_999_980 || exp > 1_800_000_010+30+900) {
			t.Errorf("ends at %d: %q", exp, raw)
		}
	})
}

// FuzzToken: a token has one spelling.
func FuzzToken(f *testing.F) {
	f.Add("")
	f.Add(TokenPrefix + strings.Repeat("A", 43))
	f.Add(TokenPrefix + strings.Repeat("A", 42) + "B")
	f.Add(TokenPrefix + strings.Repeat("A", 42) + "\n")
	f.Fuzz(func(t *testing.T, s string) {
		if _, err := hashSecret(TokenPrefix, redact.New([]byte(s))); err != nil {
			return
		}
		raw, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(s, TokenPrefix))
		if err != nil || len(raw) != secretBytes || TokenPrefix+base64.RawURLEncoding.EncodeToString(raw) != s {
			t.Errorf("%q is read as a token", s)
		}
	})
}
