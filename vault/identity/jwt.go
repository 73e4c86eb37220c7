package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json" // case-sensitive, and refuses names that come twice

	"keyrite/artifact/charter"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Limits of tokens of CI systems.
const (
	// maxJWTBytes: those of GitHub and GitLab have 1 to 3 KiB.
	maxJWTBytes = 16 << 10
	// MaxJobLife is the longest from iat to exp.
	MaxJobLife = 15 * time.Minute
	// maxSkew is by how much the clocks of issuer and vault may differ.
	maxSkew = 30 * time.Second
	// maxIDBytes bounds jti.
	maxIDBytes = 256
)

// job is a token of a CI system (RFC 7519) as it was shown. Its claims are not even
// read before its signature holds.
type job struct {
	raw    string
	alg    jose.SignatureAlgorithm
	kid    string
	claims map[string]json.RawMessage
}

// algorithms are all that any key of the charter can have.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.RS256, jose.ES256, jose.ES384, jose.EdDSA}
}

// loginJWT takes a job's token. "role" names the identity, as clients of HashiCorp
// Vault call it.
func (r *Registry) loginJWT(state *charter.State, p engine.Params) (*proof, error) {
	if err := p.Only("role", "jwt"); err != nil {
		return nil, err
	}
	role, err := p.String("role")
	if err != nil {
		return nil, err
	}
	raw, err := p.String("jwt")
	if err != nil {
		return nil, err
	}
	x, ok := state.Access.Identities[role]
	if !ok || x.JWT == nil {
		return nil, refuse("token of a job for the role %.40q, which is none", role)
	}
	now := r.clock().Round(0)
	use, err := judgeJob(x.JWT, raw, now)
	if err == nil {
		err = r.view(func(v *seal.View) error { return use.unspent(v) })
	}
	if err != nil {
		return nil, concerning(err, "token of a job", x.ID)
	}
	return &proof{means: MeansJWT, identity: x, spend: func(tx *seal.Tx) error {
		return concerning(r.spendJob(tx, use), "token of a job", x.ID)
	}}, nil
}

// judgeJob checks a token wholly, but for whether it was shown before.
func judgeJob(want *charter.JWT, raw string, now time.Time) (*usedJob, error) {
	j, err := readJob(raw)
	if err != nil {
		return nil, err
	}
	if err := j.verify(want.Keys); err != nil {
		return nil, err
	}
	if err := j.checkNames(want); err != nil {
		return nil, err
	}
	exp, err := j.checkTimes(now)
	if err != nil {
		return nil, err
	}
	id, err := j.text("jti")
	if err != nil || len(id) > maxIDBytes {
		return nil, refuse("jti is missing or too long")
	}
	return newUsedJob(want.Issuer, id, exp), nil
}

// readJob takes a token in the compact form apart.
func readJob(raw string) (*job, error) {
	if raw == "" || len(raw) > maxJWTBytes {
		return nil, refuse("%d bytes, 1 to %d are allowed", len(raw), maxJWTBytes)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return nil, refuse("%d parts, not 3", len(parts))
	}
	var header []byte
	for i, p := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(p)
		if err != nil || len(b) == 0 || strings.ContainsAny(p, "\r\n") { // which the decoder passes over
			return nil, refuse("part %d is not base64url", i+1)
		}
		if i == 0 {
			header = b
		}
	}
	j := &job{raw: raw}
	return j, j.readHeader(header)
}

// readHeader takes algorithm and key id. Whatever would name or bring a key, or change
// what is signed, is refused: the keys are in the charter (RFC 8725, section 3.10).
func (j *job) readHeader(raw []byte) error {
	h, err := object(raw)
	if err != nil {
		return err
	}
	for _, k := range slices.Sorted(maps.Keys(h)) {
		switch k {
		case "alg", "kid", "typ", "x5t", "x5t#S256":
		default:
			return refuse("header %.40q is not taken", k)
		}
	}
	alg, err := text(h, "alg")
	if err != nil {
		return err
	}
	j.alg = jose.SignatureAlgorithm(alg)
	if !slices.Contains(algorithms(), j.alg) {
		return refuse("algorithm %.20q is not taken", alg)
	}
	j.kid, err = text(h, "kid")
	return err
}

// object reads one JSON object in which no name comes twice.
func object(raw []byte) (map[string]json.RawMessage, error) {
	var m map[string]json.RawMessage
	if !utf8.Valid(raw) || !bytes.HasPrefix(bytes.TrimSpace(raw), []byte("{")) {
		return nil, refuse("what should be an object of JSON is none")
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, refuse("%.200q", err.Error())
	}
	return m, nil
}

// text is a member that is there and is a text that is not empty.
func text(m map[string]json.RawMessage, name string) (string, error) {
	var s string
	raw, ok := m[name]
	if !ok || !bytes.HasPrefix(raw, []byte(`"`)) || json.Unmarshal(raw, &s) != nil || s == "" {
		return "", refuse("%s is missing or no text", name)
	}
	return s, nil
}

func (j *job) text(name string) (string, error) { return text(j.claims, name) }

// verify checks the signature with the key that the charter has under the token's key
// id, by the one algorithm of that kind of key, and reads the claims.
func (j *job) verify(keys []charter.JWTKey) error {
	i := slices.IndexFunc(keys, func(k charter.JWTKey) bool { return k.ID == j.kid })
	if i < 0 {
		return refuse("key id %.80q is not in the charter", j.kid)
	}
	pub, err := x509.ParsePKIXPublicKey(keys[i].Key)
	if err != nil {
		return refuse("key %.80q of the charter: %w", j.kid, err)
	}
	alg := algorithmOf(pub)
	if alg == "" || alg != j.alg {
		return refuse("key %.80q is for %s, not %s", j.kid, alg, j.alg)
	}
	sig, err := jose.ParseSignedCompact(j.raw, []jose.SignatureAlgorithm{alg})
	if err != nil {
		return refuse("%.200q", err.Error())
	}
	payload, err := sig.Verify(pub)
	if err != nil {
		return refuse("its signature does not hold")
	}
	j.claims, err = object(payload)
	return err
}

// algorithmOf is the one algorithm of a kind of key, "" if it has none here.
func algorithmOf(pub any) jose.SignatureAlgorithm {
	switch k := pub.(type) {
	case *rsa.PublicKey:
		return jose.RS256
	case *ecdsa.PublicKey:
		switch k.Curve.Params().BitSize {
		case 256:
			return jose.ES256
		case 384:
			return jose.ES384
		}
	case ed25519.PublicKey:
		return jose.EdDSA
	}
	return ""
}

// checkNames compares what the charter names, each whole.
func (j *job) checkNames(want *charter.JWT) error {
	if want.Issuer == "" || want.Audience == "" || want.Subject == "" {
		return refuse("the charter names no issuer, audience or subject")
	}
	all := map[string]string{"iss": want.Issuer, "sub": want.Subject}
	maps.Copy(all, want.Claims)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		got, err := j.text(name)
		if err != nil {
			return err
		}
		if got != all[name] {
			return refuse("%.40q is %.200q, not %.200q", name, got, all[name])
		}
	}
	return j.checkAudience(want.Audience)
}

// checkAudience wants the vault as the only audience: who else a token is for could
// show it here.
func (j *job) checkAudience(want string) error {
	var list []string
	raw := j.claims["aud"]
	if one, err := j.text("aud"); err == nil {
		list = []string{one}
	} else if !bytes.HasPrefix(raw, []byte("[")) || json.Unmarshal(raw, &list) != nil {
		return refuse("aud is missing, or neither a text nor a list of texts")
	}
	if len(list) != 1 || list[0] != want {
		return refuse("aud is %.200q, not %.200q alone", list, want)
	}
	return nil
}

// seconds is a time: a whole number, as every issuer writes it.
func (j *job) seconds(name string) (int64, error) {
	n, err := strconv.ParseInt(string(j.claims[name]), 10, 64)
	if err != nil || n < 1 || n > 1<<40 || strconv.FormatInt(n, 10) != string(j.claims[name]) {
		return 0, refuse("%s is missing or no time", name)
	}
	return n, nil
}

// checkTimes wants a token of at most MaxJobLife, now; it returns when it ends.
func (j *job) checkTimes(now time.Time) (exp int64, err error) {
	iat, err := j.seconds("iat")
	if err != nil {
		return 0, err
	}
	if exp, err = j.seconds("exp"); err != nil {
		return 0, err
	}
	nbf := iat
	if _, ok := j.claims["nbf"]; ok {
		if nbf, err = j.seconds("nbf"); err != nil {
			return 0, err
		}
	}
	skew, at := int64(maxSkew/time.Second), now.Unix()
	switch {
	case exp <= iat || exp-iat > int64(MaxJobLife/time.Second):
		return 0, refuse("it lives %d seconds, 1 to %d are allowed", exp-iat, int64(MaxJobLife/time.Second))
	case exp <= nbf:
		return 0, refuse("it ends before it begins")
	case iat > at+skew || nbf > at+skew:
		return 0, refuse("it is of a time to come: %d seconds from now", max(iat, nbf)-at)
	case exp+skew <= at:
		return 0, refuse("its time is over since %d seconds", at-exp)
	}
	return exp, nil
}
