package script

import (
	"regexp"
	"slices"
	"time"
)

// Verbs of the language, each with the phase it belongs to and what it needs.
type verb struct {
	phase string
	needs string // "", "safe", "key" or "cert"
}

func verbs() map[string]verb {
	return map[string]verb{
		"environment.check": {"summon", ""},
		"people.identify":   {"summon", ""},
		"documents.see":     {"summon", ""},
		"genesis.sign":      {"run", ""},
		"token.init":        {"run", "safe"},
		"token.admit":       {"run", "safe"},
		"shares.deal":       {"run", "safe"},
		"shares.receipts":   {"run", "safe"},
		"token.pins":        {"run", "safe"},
		"key.generate":      {"run", "key"},
		"cert.issue":        {"run", "cert"},
		"charter.append":    {"run", ""},
		"update.root":       {"run", ""},
		"pause":             {"run", ""},
		"keys.store":        {"seal", "safe"},
		"keys.prove":        {"seal", "safe"},
		"outputs.write":     {"seal", ""},
		"read.aloud":        {"seal", ""},
	}
}

var (
	stepRE = regexp.MustCompile(`^[1-9][0-9]{0,2}(\.[1-9][0-9]{0,2})?$`)
	nameRE = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	hashRE = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// maxLimit bounds a step's time limit.
const maxLimit = 24 * time.Hour

// Lint checks the script and walks all its steps. Each fault is an *Error that
// names the step.
func (s *Script) Lint() error {
	for _, check := range []func() error{s.lintHead, s.lintThings, s.lintCerts, s.lintStatements, s.lintSteps} {
		if err := check(); err != nil {
			return err
		}
	}
	return s.walk()
}

func (s *Script) lintHead() error {
	switch {
	case s.Format != Format:
		return bad("format", "is %q, not %q", s.Format, Format)
	case s.Kind != "genesis":
		return bad("kind", "%q is not known to this version; it knows genesis", s.Kind)
	case s.Title == "" || s.Purpose == "":
		return bad("title", "title and purpose are required")
	case !hashRE.MatchString(s.Pins.Keyrite) || !hashRE.MatchString(s.Pins.HSMD) || !hashRE.MatchString(s.Pins.Module):
		return bad("pins", "keyrite, hsmd and module each need a SHA-256 in hex; 'keyrite ceremony new' fills them in")
	case !slices.Contains([]string{"down", "any"}, s.Environment.Network) || !slices.Contains([]string{"off", "any"}, s.Environment.Swap):
		return bad("environment", "network is down or any, swap is off or any")
	}
	r := s.Roles
	switch {
	case r.Conductor != 1:
		return bad("roles", "there is one conductor")
	case !r.ConductorOperates:
		return bad("roles", "this version needs conductor_operates: true")
	case r.Witnesses < 2:
		return bad("roles", "at least 2 witnesses")
	case r.KeyMasters.Need < 2 || r.KeyMasters.Need > r.KeyMasters.Of || r.KeyMasters.Of > 255:
		return bad("roles", "key masters: need at least 2, at most as many as there are")
	case r.Approvers.Need < 2 || r.Approvers.Need > r.Approvers.Of:
		return bad("roles", "approvers: need at least 2, at most as many as there are")
	}
	return nil
}

func (s *Script) lintThings() error {
	seen := map[string]bool{}
	fresh := func(kind, name string) error {
		if !nameRE.MatchString(name) || seen[kind+name] {
			return bad(kind+" "+name, "needs a name of its own: a-z, 0-9 and -, at most 32")
		}
		seen[kind+name] = true
		return nil
	}
	if len(s.Safes) == 0 || len(s.Keys) == 0 {
		return bad("safes", "a genesis has safes and keys")
	}
	for _, x := range s.Safes {
		if err := fresh("safe", x.Name); err != nil {
			return err
		}
		if err := fresh("token", x.Token); err != nil {
			return err
		}
	}
	for i := range s.Keys {
		if err := fresh("key", s.Keys[i].ID); err != nil {
			return err
		}
		if err := s.lintKey(&s.Keys[i]); err != nil {
			return err
		}
	}
	for _, c := range s.Certificates {
		if err := fresh("certificate", c.ID); err != nil {
			return err
		}
	}
	return nil
}

func (s *Script) lintKey(k *Key) error {
	where := "key " + k.ID
	if _, ok := s.SafeByName(k.Safe); !ok {
		return bad(where, "its safe %q is not in the script", k.Safe)
	}
	domains := []string{"dsse", "note", "x509", "tuf-root", "tuf-targets", "tuf-online"}
	switch {
	case k.Purpose == "":
		return bad(where, "purpose is required")
	case !slices.Contains(domains, k.Domain):
		return bad(where, "signing domain %q is none of %v", k.Domain, domains)
	case k.Algorithm != "p256" && k.Algorithm != "ed25519":
		return bad(where, "algorithm is p256 or ed25519")
	case (k.Domain == "note") != (k.Algorithm == "ed25519"):
		return bad(where, "logs are signed with ed25519, everything else with p256")
	}
	u := k.Usage
	u.AlwaysAuthenticate = false
	if u != (Usage{Sign: true, Sensitive: true, Destroyable: true}) {
		return bad(where, "a signing key signs, is sensitive and destroyable, and does nothing else")
	}
	return nil
}

func (s *Script) lintCerts() error {
	for _, c := range s.Certificates {
		where := "certificate " + c.ID
		issuer, ok := s.KeyByID(c.Issuer)
		if !ok || issuer.Domain != "x509" {
			return bad(where, "its issuer %q is no x509 key of the script", c.Issuer)
		}
		if (c.Key == "") == (c.CSR == "") {
			return bad(where, "is of a key of the script or of a CSR in the binding, one of the two")
		}
		if (c.Profile == "relay") != (c.Days > 0) {
			return bad(where, "only a relay's certificate has days; the chain above devices has no end (IEEE 802.1AR)")
		}
		switch c.Profile {
		case "birth-root", "relay-ca":
			if c.Key != c.ID || c.Issuer != c.Key {
				return bad(where, "a root is issued by itself, and bears the name of its key")
			}
		case "factory-ca":
			if _, ok := find(s.Factories, func(f *Factory) bool { return f.ID == c.Factory && f.CA == c.ID }); !ok || c.CSR == "" {
				return bad(where, "needs a CSR and a factory that names it as its ca")
			}
		case "relay":
			if c.CSR == "" || c.Role != "access" && c.Role != "vpn" || len(c.Names) == 0 || c.Days > 30 {
				return bad(where, "needs a CSR, a role access or vpn, names, and at most 30 days")
			}
		default:
			return bad(where, "profile %q is not known", c.Profile)
		}
	}
	return nil
}

func (s *Script) lintStatements() error {
	for _, f := range s.Factories {
		c, ok := s.CertByID(f.CA)
		if !ok || c.Profile != "factory-ca" || f.SerialFrom < 1 || f.SerialTo < f.SerialFrom || f.Evidence == "" || !nameRE.MatchString(f.ID) || !nameRE.MatchString(f.Product) {
			return bad("factory "+f.ID, "needs id, product, a serial range from 1, evidence and a factory-ca certificate")
		}
	}
	for _, x := range s.Stations {
		if _, ok := find(s.Factories, func(f *Factory) bool { return f.ID == x.Factory }); !ok || x.ReportKey == "" || !nameRE.MatchString(x.ID) {
			return bad("station "+x.ID, "needs id, a factory of the script and a report_key")
		}
	}
	for _, p := range s.Pipelines {
		if len(p.Products) == 0 || p.Key == "" || !nameRE.MatchString(p.ID) {
			return bad("pipeline "+p.ID, "needs id, products and key; an empty list grants nothing and is refused")
		}
	}
	for _, r := range s.Relays {
		c, ok := s.CertByID(r.Certificate)
		if !ok || c.Profile != "relay" || c.Role != r.Role || !nameRE.MatchString(r.ID) {
			return bad("relay "+r.ID, "needs id and a relay certificate of the same role")
		}
	}
	return nil
}

func (s *Script) lintSteps() error {
	vs, seen := verbs(), map[string]bool{}
	roles := []string{"conductor", "key-master", "witness", "approver"}
	for _, ph := range s.Phases() {
		if len(ph.Steps) == 0 {
			return bad(ph.Name, "has no step")
		}
		for _, st := range ph.Steps {
			where := "step " + st.ID
			v, ok := vs[st.Do]
			switch {
			case !stepRE.MatchString(st.ID) || seen[st.ID]:
				return bad(where, "needs a number of its own like 2.1")
			case !ok:
				return bad(where, "verb %q is not in the language", st.Do)
			case v.phase != ph.Name:
				return bad(where, "%s belongs under %s, not %s", st.Do, v.phase, ph.Name)
			case (v.needs == "safe") != (st.Safe != "") || (v.needs == "key") != (st.Key != "") || (v.needs == "cert") != (st.Cert != ""):
				return bad(where, "%s takes %s and nothing else", st.Do, orNothing(v.needs))
			case st.Title == "" || st.Limit <= 0 || st.Limit > maxLimit:
				return bad(where, "title and a limit of at most 24h are required")
			case st.Tries < 1 || st.Tries > 10:
				return bad(where, "tries is 1 to 10")
			}
			for _, r := range st.Confirm {
				if !slices.Contains(roles, r) {
					return bad(where, "confirm names the role %q, which is none of %v", r, roles)
				}
			}
			seen[st.ID] = true
		}
	}
	return nil
}

func orNothing(s string) string {
	if s == "" {
		return "no object"
	}
	return "a " + s
}
