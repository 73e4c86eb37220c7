package script

import (
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

func (a *Authority) empty() bool { return reflect.ValueOf(*a).IsZero() }

// Window is the time for which the certificate holds as the script states it.
func (a *Authority) Window() (from, to time.Time, err error) {
	if from, err = time.Parse(time.RFC3339, a.NotBefore); err == nil {
		to, err = time.Parse(time.RFC3339, a.NotAfter)
	}
	return from.UTC(), to.UTC(), err
}

// SignatureOf says how a key of the algorithm signs certificates, in the words of
// Authority.Signature; "" if it signs none.
func SignatureOf(algorithm string) string {
	return map[string]string{"p256": "ecdsa-sha256", "p384": "ecdsa-sha384", "rsa3072": "rsa-sha256", "rsa4096": "rsa-sha256"}[algorithm]
}

var (
	countryRE = regexp.MustCompile(`^[A-Z]{2}$`)
	oidRE     = regexp.MustCompile(`^[0-2](\.(0|[1-9][0-9]{0,9})){1,30}$`)
	skiRE     = regexp.MustCompile(`^([0-9a-f]{2}){1,32}$`)
)

// maxName bounds a name: RFC 5280, appendix A.1 (ub-common-name).
const maxName = 64

// plain says whether s has 1 to limit characters, none of them of Unicode category C
// (controls and the like). Not a regular expression: every start of the program,
// and of each child that it starts, would pay some 10 ms to compile it.
func plain(s string, limit int) bool {
	n := utf8.RuneCountInString(s)
	return n >= 1 && n <= limit && !strings.ContainsFunc(s, func(c rune) bool { return unicode.Is(unicode.C, c) })
}

// maxPath bounds a path length that is stated.
const maxPath = 9

func (s *Script) lintAuthority(c *Certificate, path string) error {
	a, where := &c.CA, "certificate "+c.ID
	at := join(path, "ca")
	from, to, err := a.Window()
	switch {
	case !plain(a.CommonName, maxName) || !plain(a.Organization, maxName):
		return s.bad(at, where, "common_name and organization are required, 64 characters each at most")
	case !countryRE.MatchString(a.Country):
		return s.bad(join(at, "country"), where, "country is two capital letters, not %.40q", a.Country)
	case err != nil || !from.Before(to) || !strings.HasSuffix(a.NotBefore, "Z") || !strings.HasSuffix(a.NotAfter, "Z"):
		return s.bad(join(at, "not_before"), where, "not_before and not_after are times like 2026-11-22T00:00:00Z, the first before the second")
	case a.PathLength < -1 || a.PathLength > maxPath:
		return s.bad(join(at, "path_length"), where, "path_length is -1 (no limit) to %d", maxPath)
	case a.SubjectKeyID != "" && !skiRE.MatchString(a.SubjectKeyID):
		return s.bad(join(at, "subject_key_id"), where, "subject_key_id is hex, at most 32 bytes")
	case !slices.Contains(a.KeyUsages, "cert-sign"):
		return s.bad(join(at, "key_usages"), where, "an authority has the key usage cert-sign")
	}
	if k, ok := s.KeyByID(c.Issuer); ok && SignatureOf(k.Algorithm) != a.Signature {
		return s.bad(join(at, "signature"), where, "its issuer %s is a %s key and cannot sign with %.40q", k.ID, k.Algorithm, a.Signature)
	}
	for _, x := range []struct {
		member string
		list   []string
		of     []string
	}{
		{"signature", []string{a.Signature}, []string{"ecdsa-sha256", "ecdsa-sha384", "rsa-sha256"}},
		{"key_usages", a.KeyUsages, []string{"cert-sign", "crl-sign", "digital-signature"}},
		{"ext_key_usages", a.ExtKeyUsages, []string{"server-auth", "client-auth"}},
	} {
		for i, v := range x.list {
			if !slices.Contains(x.of, v) || slices.Contains(x.list[:i], v) {
				err := s.bad(join(at, x.member), where, "%s %.40q is none of %s, or stands twice", x.member, v, strings.Join(x.of, ", "))
				err.Hint = meant(v, x.of)
				return err
			}
		}
	}
	return s.lintPlaces(a, at, where)
}

// lintPlaces checks identifiers and addresses.
func (s *Script) lintPlaces(a *Authority, at, where string) error {
	for i, oid := range a.Policies {
		if !oidRE.MatchString(oid) || slices.Contains(a.Policies[:i], oid) {
			return s.bad(join(at, "policies"), where, "policy %.60q is no object identifier, or stands twice", oid)
		}
	}
	for _, x := range [][2]string{{"crl_url", a.CRLURL}, {"issuer_url", a.IssuerURL}, {"ocsp_url", a.OCSPURL}} {
		member, v := x[0], x[1]
		u, err := url.Parse(v)
		// Whoever follows the address has no certificate yet that he could check.
		if v != "" && (err != nil || u.Scheme != "http" || u.Host == "" || u.User != nil || u.Fragment != "") {
			return s.bad(join(at, member), where, "%s %.80q is no http address", member, v)
		}
	}
	return nil
}
