package script

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

func (s *Script) lintStatements() error {
	for i, f := range s.Factories {
		c, ok := s.CertByID(f.CA)
		if !ok || c.Profile != "factory-ca" || f.SerialFrom < 1 || f.SerialTo < f.SerialFrom || f.Evidence == "" || !nameRE.MatchString(f.ID) || !nameRE.MatchString(f.Product) {
			return s.bad("factories."+itoa(i), "factory "+f.ID, "needs id, product, a serial range from 1, evidence and a factory-ca certificate")
		}
	}
	for i, x := range s.Stations {
		if _, ok := find(s.Factories, func(f *Factory) bool { return f.ID == x.Factory }); !ok && s.Kind != "enrol" || x.ReportKey == "" || !nameRE.MatchString(x.ID) || !nameRE.MatchString(x.Factory) {
			return s.bad("stations."+itoa(i), "station "+x.ID, "needs id, a factory of the script (in an enrolment also one of the charter) and a report_key")
		}
	}
	for i, p := range s.Pipelines {
		if len(p.Products) == 0 || p.Key == "" || !nameRE.MatchString(p.ID) {
			return s.bad("pipelines."+itoa(i), "pipeline "+p.ID, "needs id, products and key; an empty list grants nothing and is refused")
		}
		for _, product := range p.Products {
			if !nameRE.MatchString(product) {
				return s.bad("pipelines."+itoa(i), "product "+product, "is no id: a-z first, then a-z, 0-9 and -, 32 at most; nothing of that name could be released")
			}
		}
	}
	for i, r := range s.Relays {
		c, ok := s.CertByID(r.Certificate)
		if !ok || c.Profile != "relay" || c.Role != r.Role || !nameRE.MatchString(r.ID) {
			return s.bad("relays."+itoa(i), "relay "+r.ID, "needs id and a relay certificate of the same role")
		}
	}
	return nil
}

// maxCRLDays bounds how long a revocation list is good: an offline issuer is
// brought out once a year, with a month to spare.
const maxCRLDays = 400

var serialRE = regexp.MustCompile(`^[0-9a-f]{2,40}$`) // RFC 5280, Section 4.1.2.2: at most 20 octets

// crlReasons are those of RFC 5280, Section 5.3.1, that an entry may bear here:
// a hold is no revocation, and removeFromCRL is for delta lists.
func crlReasons() []string {
	return []string{"unspecified", "keyCompromise", "cACompromise", "affiliationChanged", "superseded", "cessationOfOperation", "privilegeWithdrawn", "aACompromise"}
}

func (s *Script) lintCRLs(own func(path, kind, name string) error) error {
	for i := range s.CRLs {
		c, path := &s.CRLs[i], "crls."+itoa(i)
		if err := own(join(path, "id"), "CRL", c.ID); err != nil {
			return err
		}
		switch {
		case !s.signs(c.Issuer, "x509"):
			return s.bad(join(path, "issuer"), "CRL "+c.ID, "its issuer %.40q is no x509 key of the script", c.Issuer)
		case c.Number < 1:
			return s.bad(join(path, "number"), "CRL "+c.ID, "needs a number from 1, higher than that of every list before")
		case c.Days < 1 || c.Days > maxCRLDays:
			return s.bad(join(path, "days"), "CRL "+c.ID, "days is 1 to %d", maxCRLDays)
		}
		seen := map[string]bool{}
		for j, x := range c.Revoked {
			at := join(path, "revoked."+itoa(j))
			_, err := time.Parse(time.DateOnly, x.Date)
			switch {
			case !serialRE.MatchString(x.Serial) || len(x.Serial)%2 != 0 || seen[x.Serial]:
				return s.bad(join(at, "serial"), "CRL "+c.ID, "serial %.50q is no serial number in hex (lower case, at most 20 bytes), or stands twice", x.Serial)
			case err != nil:
				return s.bad(join(at, "date"), "CRL "+c.ID, "date %.40q is not like 2026-11-22", x.Date)
			case !slices.Contains(crlReasons(), x.Reason):
				e := s.bad(join(at, "reason"), "CRL "+c.ID, "reason %.40q is none of %s", x.Reason, strings.Join(crlReasons(), ", "))
				e.Hint = meant(x.Reason, crlReasons())
				return e
			}
			seen[x.Serial] = true
		}
	}
	return nil
}

func successionReasons() []string { return []string{"compromised", "lost", "retired"} }

func (s *Script) lintSuccessions() error {
	seen := map[string]bool{}
	reasons := successionReasons()
	for i, x := range s.Successions {
		path := "successions." + itoa(i)
		_, old := s.ExistingByID(x.ID)
		_, dormant := s.ExistingByID(x.By)
		_, born := s.KeyByID(x.By)
		switch {
		case !old || seen[x.ID]:
			return s.bad(join(path, "id"), "succession "+x.ID, "is of one key of existing, once")
		case !dormant && !born || x.By == x.ID || seen[x.By]:
			return s.bad(join(path, "by"), "succession "+x.ID, "%.40q is no other key of the script, or takes over twice", x.By)
		case !slices.Contains(reasons, x.Reason):
			return s.bad(join(path, "reason"), "succession "+x.ID, "reason is %s, not %.40q", strings.Join(reasons, ", "), x.Reason)
		}
		seen[x.ID], seen[x.By] = true, true
	}
	return nil
}
