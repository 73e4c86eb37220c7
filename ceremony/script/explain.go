package script

import (
	"fmt"
	"strings"
)

// Explain says in plain words what the script makes, who is needed, what nobody
// can do alone afterwards, and what can go wrong.
func (s *Script) Explain() []string {
	r := s.Roles
	out := []string{
		s.Title + ": " + s.Purpose,
		"",
		"Who must be there",
		fmt.Sprintf("  1 conductor (reads aloud and types), %d key masters, %d witnesses, %d approvers. Nobody has two roles.", r.KeyMasters.Of, r.Witnesses, r.Approvers.Of),
		"",
		"What is made",
	}
	for _, x := range s.Safes {
		out = append(out, fmt.Sprintf("  token %s (safe %s), opened only by %d of %d key masters:", x.Token, x.Name, r.KeyMasters.Need, r.KeyMasters.Of))
		for _, k := range s.Keys {
			if k.Safe == x.Name {
				out = append(out, fmt.Sprintf("    key %s (%s): %s", k.ID, k.Algorithm, k.Purpose))
			}
		}
	}
	for _, c := range s.Certificates {
		from := "its own key"
		if c.CSR != "" {
			from = "the request " + c.CSR
		}
		valid := "without an end"
		if c.Days > 0 {
			valid = fmt.Sprintf("for %d days", c.Days)
		}
		out = append(out, fmt.Sprintf("  certificate %s for %s, issued by %s, valid %s", c.ID, from, c.Issuer, valid))
	}
	for _, f := range s.Factories {
		out = append(out, fmt.Sprintf("  factory %s may make devices %s-%d to %d", f.ID, f.Product, f.SerialFrom, f.SerialTo))
	}
	for _, p := range s.Pipelines {
		out = append(out, fmt.Sprintf("  pipeline %s may request releases of %s", p.ID, strings.Join(p.Products, ", ")))
	}
	return append(out, "",
		"Who can do what afterwards",
		fmt.Sprintf("  Fewer than %d key masters open nothing. Approvers decide, %d together, and open nothing.", r.KeyMasters.Need, r.Approvers.Need),
		"  Nobody, alone or together, can read a key: keys are born in the token and never leave it.",
		"",
		"What can go wrong",
		"  Until step 1 is over nothing counts: test every passphrase there.",
		"  From ARMED on a mistyped passphrase or answer may be repeated; anything else that is not in the script,",
		"  and an incident called by anybody, voids the whole ceremony: keys are destroyed and it starts again from step 1.",
		fmt.Sprintf("  If %d key masters lose their shares, the tokens can never be opened again. Nothing helps then.", r.KeyMasters.Of-r.KeyMasters.Need+1),
	)
}
