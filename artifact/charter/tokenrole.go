package charter

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
)

// TypeTokenRole is the statement of a kind of token that a token engine signs.
const TypeTokenRole = "token-role"

// TokenRole is a kind of short-lived token (RFC 7519) that processes get for other
// services. A later statement of the same mount and name replaces it; its key
// stays of the kind that it was.
type TokenRole struct {
	Audience string            `json:"audience"`
	Claims   map[string]string `json:"claims"` // beside the registered ones; may be empty
	// Issuer is an https URL. All roles of a mount have the same: services find the
	// keys by it.
	Issuer   string     `json:"issuer"`
	Mount    string     `json:"mount"`
	Name     string     `json:"name"`
	Software *TokenKeys `json:"software,omitempty"`
	// Subject has IdentityMark exactly once, where the id of the process stands that
	// asks.
	Subject  string `json:"subject"`
	TokenKey string `json:"token_key,omitempty"` // key id, of domain jwt; its successors take its place
	TTL      int    `json:"ttl"`                 // seconds: 1 to MaxTokenTTL
	Version  int    `json:"version"`             // 1, then one more each time
}

// TokenKeys are the keys of a role that the vault makes and keeps in its store.
// Oldest and Signing never sink, and Versions is raised one at a time: so a key can be
// published before it signs, and after it signed.
type TokenKeys struct {
	Algorithm string `json:"algorithm"` // ES256, ES384 or EdDSA
	Oldest    int    `json:"oldest"`    // that is published; older ones are destroyed
	Signing   int    `json:"signing"`   // that signs
	Versions  int    `json:"versions"`
}

// Limits of token roles.
const (
	MaxTokenTTL      = 60 * 60
	MaxTokenClaims   = 32
	MaxTokenVersions = 10_000
	maxTokenText     = 512
)

// IdentityMark stands in a subject for the id of whoever asks.
const IdentityMark = "{identity}"

var claimRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.:/-]{0,127}$`)

// registered are the claims that have a place of their own (RFC 7519, section 4.1).
func registered() []string { return []string{"iss", "aud", "sub", "exp", "nbf", "iat", "jti"} }

// shownText is what stands in tokens: printable ASCII, not empty, not long.
func shownText(s string) bool {
	return s != "" && len(s) <= maxTokenText && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

func (s *State) addTokenRole(r *TokenRole) error {
	id := At(r.Mount, r.Name)
	if err := s.checkMount(TypeTokenRole, r.Mount, "token"); err != nil {
		return err
	}
	had, again := s.TokenRoles[id]
	switch {
	case !idRE.MatchString(r.Name) || s.Access.ended[TypeTokenRole+"/"+id]:
		return badAccess(TypeTokenRole, id, "the name is no id, or was ended")
	case r.Version != had.Version+1 || r.Version < 1:
		return badAccess(TypeTokenRole, id, "the version does not follow")
	case r.TTL < 1 || r.TTL > MaxTokenTTL:
		return badAccess(TypeTokenRole, id, "tokens live 1 second to 1 hour")
	case !shownText(r.Audience):
		return badAccess(TypeTokenRole, id, "it has no audience, or one that is not plain text")
	case !shownText(r.Subject) || strings.Count(r.Subject, IdentityMark) != 1 || strings.ContainsAny(strings.Replace(r.Subject, IdentityMark, "", 1), "{}"):
		return badAccess(TypeTokenRole, id, "its subject has not "+IdentityMark+" once, and nothing else in braces")
	case (r.Software == nil) == (r.TokenKey == ""):
		return badAccess(TypeTokenRole, id, "its key is one of the vault's own, or one in a token")
	case again && (had.Software == nil) != (r.Software == nil):
		return badAccess(TypeTokenRole, id, "its key stays of the kind that it was")
	}
	if err := r.checkClaims(id); err != nil {
		return err
	}
	if err := s.checkIssuer(r); err != nil {
		return err
	}
	if err := s.checkTokenRoleKey(r, had.Software); err != nil {
		return err
	}
	s.TokenRoles[id] = *r
	return nil
}

func (r *TokenRole) checkClaims(id string) error {
	if r.Claims == nil || len(r.Claims) > MaxTokenClaims {
		return badAccess(TypeTokenRole, id, "claims are missing, or too many")
	}
	for k, v := range r.Claims {
		if !claimRE.MatchString(k) || !shownText(v) || slices.Contains(registered(), k) {
			return badAccess(TypeTokenRole, id, "a claim is no plain text, or has a place of its own")
		}
	}
	return nil
}

// checkIssuer wants one issuer for a mount.
func (s *State) checkIssuer(r *TokenRole) error {
	id := At(r.Mount, r.Name)
	u, err := url.Parse(r.Issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.String() != r.Issuer || !shownText(r.Issuer) || strings.HasSuffix(r.Issuer, "#") {
		return badAccess(TypeTokenRole, id, "its issuer is no https URL in its usual spelling, without query and fragment")
	}
	for other, o := range s.TokenRoles {
		if o.Mount == r.Mount && other != id && o.Issuer != r.Issuer {
			return badAccess(TypeTokenRole, id, "another role of the mount has the issuer "+o.Issuer)
		}
	}
	return nil
}

// checkTokenRoleKey wants keys that follow had, which is nil for a new role, or a key
// in force that signs tokens and nothing else, for this role alone.
func (s *State) checkTokenRoleKey(r *TokenRole, had *TokenKeys) error {
	id := At(r.Mount, r.Name)
	if k := r.Software; k != nil {
		return k.check(id, had)
	}
	if rec, ok := s.Keys[r.TokenKey]; !ok || rec.SuccessorOf != "" {
		return badAccess(TypeTokenRole, id, "no key in force is called "+r.TokenKey)
	}
	if _, err := s.Key(r.TokenKey, anchor.DomainJWT); err != nil {
		return fault.Errorf(fault.Verify, "%w: %w", ErrStatement, err)
	}
	for other, o := range s.TokenRoles {
		if o.TokenKey == r.TokenKey && other != id {
			return badAccess(TypeTokenRole, id, "the key signs for "+other+" already")
		}
	}
	return nil
}

func (k *TokenKeys) check(id string, had *TokenKeys) error {
	switch {
	case !slices.Contains([]string{"ES256", "ES384", "EdDSA"}, k.Algorithm):
		return badAccess(TypeTokenRole, id, "no such algorithm")
	case k.Oldest < 1 || k.Signing < k.Oldest || k.Versions < k.Signing || k.Versions > MaxTokenVersions:
		return badAccess(TypeTokenRole, id, "1 <= oldest <= signing <= versions must hold")
	case had == nil && k.Versions != 1:
		return badAccess(TypeTokenRole, id, "versions begin with 1")
	case had == nil:
		return nil
	case k.Algorithm != had.Algorithm:
		return badAccess(TypeTokenRole, id, "keys of a role keep their algorithm")
	case k.Versions < had.Versions || k.Versions > had.Versions+1:
		return badAccess(TypeTokenRole, id, "versions are raised one at a time")
	case k.Oldest < had.Oldest || k.Signing < had.Signing:
		return badAccess(TypeTokenRole, id, "a key that was shut out comes back")
	}
	return nil
}

// endTokenRole ends a role; its keys are destroyed with that.
func (s *State) endTokenRole(id string) bool {
	_, there := s.TokenRoles[id]
	delete(s.TokenRoles, id)
	return there
}

// TokenRoleEnded says whether a role of that id was ended.
func (s *State) TokenRoleEnded(id string) bool { return s.Access.ended[TypeTokenRole+"/"+id] }

// TokenRoleNames are the names of a mount's roles, in order.
func (s *State) TokenRoleNames(mount string) []string { return namesAt(s.TokenRoles, mount) }
