package script

import (
	"reflect"
	"slices"
	"strings"

	"keyrite/artifact/anchor"
)

func (s *Script) lintThings() error {
	seen := map[string]bool{}
	own := func(path, kind, name string) error {
		if !nameRE.MatchString(name) || seen[kind+name] {
			return s.bad(path, kind+" "+name, "needs a name of its own: a-z, 0-9 and -, at most 32")
		}
		seen[kind+name] = true
		return nil
	}
	for i := range s.Safes {
		x, path := &s.Safes[i], join("safes", itoa(i))
		if err := own(join(path, "name"), "safe", x.Name); err != nil {
			return err
		}
		if err := own(join(path, "token"), "token", x.Token); err != nil {
			return err
		}
		if err := s.lintSafe(x, path); err != nil {
			return err
		}
	}
	for i := range s.Keys {
		if err := own(join("keys."+itoa(i), "id"), "key", s.Keys[i].ID); err != nil {
			return err
		}
		if err := s.lintKey(&s.Keys[i], "keys."+itoa(i)); err != nil {
			return err
		}
	}
	for i := range s.Existing {
		k, path := &s.Existing[i], "existing."+itoa(i)
		if err := own(join(path, "id"), "key", k.ID); err != nil {
			return err
		}
		if x, ok := s.SafeByName(k.Safe); k.Safe != "" && (!ok || !s.IsExisting(x)) {
			return s.bad(join(path, "safe"), "key "+k.ID, "its safe %.40q is no existing safe of the script", k.Safe)
		}
	}
	for i := range s.Certificates {
		if err := own(join("certificates."+itoa(i), "id"), "certificate", s.Certificates[i].ID); err != nil {
			return err
		}
		if err := s.lintCert(&s.Certificates[i], "certificates."+itoa(i)); err != nil {
			return err
		}
	}
	if err := s.lintCRLs(own); err != nil {
		return err
	}
	return s.lintSuccessions()
}

func (s *Script) lintSafe(x *Safe, path string) error {
	where := "safe " + x.Name
	kind, _ := KindByName(s.Kind)
	switch {
	case x.State != StateFresh && x.State != StateExisting:
		return s.bad(join(path, "state"), where, "is fresh or existing, not %.40q", x.State)
	case x.State == StateFresh && !kind.Fresh || x.State == StateExisting && !kind.Opens:
		return s.bad(join(path, "state"), where, "a ceremony of kind %s has no safe that is %s", s.Kind, x.State)
	case x.Adopts && (!kind.Adopts || x.State != StateExisting):
		return s.bad(join(path, "adopts"), where, "a ceremony of kind %s adopts no epoch; a reshare does, of an existing safe", s.Kind)
	case x.Adopts && !s.deals(x.Name):
		return s.bad(join(path, "adopts"), where, "an epoch that is adopted is replaced at once: shares.deal for the safe is missing")
	case x.Group != "" && !nameRE.MatchString(x.Group):
		return s.bad(join(path, "group"), where, "group %.40q is no name: a-z, 0-9 and -, at most 32", x.Group)
	case !(Quorum{x.Need, x.Of}).good():
		return s.bad(path, where, "need and of: need at least 2, at most as many as there are (255)")
	case x.Group == "" && x.Of != s.Roles.KeyMasters.Of:
		return s.bad(join(path, "of"), where, "has %d holders, but there are %d key masters without a group", x.Of, s.Roles.KeyMasters.Of)
	}
	for i := range s.Safes {
		if y := &s.Safes[i]; y.Group == x.Group && y.Of != x.Of {
			return s.bad(join(path, "of"), where, "group %s has %d key masters here and %d for safe %s", x.Group, x.Of, y.Of, y.Name)
		}
	}
	return nil
}

func (s *Script) deals(safe string) bool {
	return slices.ContainsFunc(s.Run, func(st Step) bool { return st.Do == "shares.deal" && st.Safe == safe })
}

func (s *Script) lintKey(k *Key, path string) error {
	where := "key " + k.ID
	if _, ok := s.SafeByName(k.Safe); !ok {
		return s.bad(join(path, "safe"), where, "its safe %q is not in the script", k.Safe)
	}
	if k.Purpose == "" {
		return s.bad(path, where, "purpose is required")
	}
	if domains := anchor.Domains(); !slices.Contains(domains, k.Domain) {
		err := s.bad(join(path, "domain"), where, "signing domain %.40q is none of %s", k.Domain, strings.Join(domains, ", "))
		err.Hint = meant(k.Domain, domains)
		return err
	}
	if want := algorithms(k.Domain); !slices.Contains(want, k.Algorithm) {
		err := s.bad(join(path, "algorithm"), where, "a key of domain %s is %s, not %.40q", k.Domain, strings.Join(want, " or "), k.Algorithm)
		err.Hint = meant(k.Algorithm, want)
		return err
	}
	if k.SuccessorOf != "" {
		of, ok := s.KeyByID(k.SuccessorOf)
		if _, old := s.ExistingByID(k.SuccessorOf); !ok && !old || k.SuccessorOf == k.ID {
			return s.bad(join(path, "successor_of"), where, "takes the place of %.40q, which is no other key of the script", k.SuccessorOf)
		}
		if ok && (of.Safe == k.Safe || of.Domain != k.Domain || of.SuccessorOf != "") {
			return s.bad(join(path, "successor_of"), where, "a successor lies in another safe than %s, has its domain, and is no successor's successor", of.ID)
		}
	}
	if err := s.lintAttestation(k, path); err != nil {
		return err
	}
	return s.lintUsage(k, path)
}

// algorithms are those that a domain has: what the formats of others need, and
// one for ours. Logs are signed with Ed25519 (tessera takes only that). Keys that
// wrap stand in no script: key.transfer makes them for one move.
func algorithms(domain string) []string {
	switch domain {
	case "note":
		return []string{anchor.Ed25519}
	case "x509":
		return slices.DeleteFunc(anchor.Algorithms(domain), func(a string) bool { return a == anchor.Ed25519 })
	}
	return []string{anchor.P256}
}

func (s *Script) lintUsage(k *Key, path string) error {
	names, fields := membersOf(reflect.TypeFor[Usage]())
	for i, name := range names {
		if _, stated := s.marks[join(join(path, "usage"), name)]; !stated && required(fields[i]) {
			return s.bad(join(path, "usage"), "key "+k.ID, "usage does not say whether the key may %s: true or false", name)
		}
	}
	want := Usage{Sign: true, Sensitive: true, Destroyable: true, AlwaysAuthenticate: k.Usage.AlwaysAuthenticate}
	text := "a signing key signs, is sensitive and destroyable, and does nothing else"
	if k.Movable {
		// A login for each signature is set at birth by the token's PIN, and would
		// be another token's; no module wraps Ed25519.
		want.Extractable, want.WrapWithTrusted, want.AlwaysAuthenticate = true, true, false
		text = "a movable key signs, is sensitive, destroyable and extractable, and only under a trusted key (wrap_with_trusted), without a login for each signature"
		if k.Algorithm == anchor.Ed25519 {
			return s.bad(join(path, "algorithm"), "key "+k.ID, "a key of ed25519 cannot be movable: tokens do not wrap it")
		}
	}
	if k.Usage != want {
		return s.bad(join(path, "usage"), "key "+k.ID, "%s", text)
	}
	return nil
}

// signs says whether id is a key of that domain, made here or found here.
func (s *Script) signs(id, domain string) bool {
	if k, ok := s.KeyByID(id); ok {
		return k.Domain == domain
	}
	k, ok := s.ExistingByID(id)
	return ok && k.Domain == domain && k.Safe != ""
}

// maxRelayDays is how long a relay server's certificate holds (design: at most
// 30 days).
const maxRelayDays = 30

func (s *Script) lintCert(c *Certificate, path string) error {
	where := "certificate " + c.ID
	if !s.signs(c.Issuer, "x509") {
		return s.bad(join(path, "issuer"), where, "its issuer %q is no x509 key of the script", c.Issuer)
	}
	subjects := 0
	for _, x := range []string{c.Key, c.CSR, c.Public} {
		if x != "" {
			subjects++
		}
	}
	if subjects != 1 || c.Public != "" && c.Profile != "ca" {
		return s.bad(path, where, "is of a key of the script or of a CSR in the binding (with profile ca also of a public key in the binding), one of them")
	}
	if _, ok := s.KeyByID(c.Key); c.Key != "" && !ok {
		return s.bad(join(path, "key"), where, "its key %.40q is not made by the script", c.Key)
	}
	if (c.Profile == "ca") != !c.CA.empty() {
		return s.bad(path, where, "profile ca has a ca that says everything, and no other profile has one")
	}
	if (c.Profile == "relay") != (c.Days > 0) {
		return s.bad(path, where, "only a relay's certificate has days; the chain above devices has no end (IEEE 802.1AR)")
	}
	switch c.Profile {
	case "birth-root", "relay-ca":
		if c.Key != c.ID || c.Issuer != c.Key {
			return s.bad(path, where, "a root is issued by itself, and bears the name of its key")
		}
	case "factory-ca":
		if _, ok := find(s.Factories, func(f *Factory) bool { return f.ID == c.Factory && f.CA == c.ID }); !ok || c.CSR == "" {
			return s.bad(path, where, "needs a CSR and a factory that names it as its ca")
		}
	case "relay":
		if c.CSR == "" || c.Role != "access" && c.Role != "vpn" || len(c.Names) == 0 || c.Days > maxRelayDays {
			return s.bad(path, where, "needs a CSR, a role access or vpn, names, and at most 30 days")
		}
	case "ca":
		return s.lintAuthority(c, path)
	default:
		profiles := []string{"birth-root", "relay-ca", "factory-ca", "relay", "ca"}
		err := s.bad(join(path, "profile"), where, "profile %.40q is not known", c.Profile)
		err.Hint = meant(c.Profile, profiles)
		return err
	}
	return nil
}
