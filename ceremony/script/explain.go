package script

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Explain says in plain words what the script makes, who has to be there and how
// long, who can do what afterwards, and what can go wrong.
func (s *Script) Explain() []string {
	out := []string{s.Title + ": " + s.Purpose}
	if k, ok := KindByName(s.Kind); ok {
		out = append(out, "A ceremony of kind "+k.Name+", which is there to "+k.Does+".")
	}
	for _, section := range []struct {
		title string
		lines []string
	}{
		{"Who must be there", s.explainPeople()},
		{"What others bring", s.explainBrought()},
		{"How long it takes", s.explainTime()},
		{"What is opened and used", s.explainUsed()},
		{"What is made", s.explainMade()},
		{"What ends", s.explainEnds()},
		{"Who can do what afterwards", s.explainAfterwards()},
		{"What is planned for, and goes on", s.explainPlanned()},
		{"What can go wrong", s.explainWrong()},
	} {
		if len(section.lines) == 0 {
			continue
		}
		out = append(out, "", section.title)
		for _, l := range section.lines {
			out = append(out, "  "+l)
		}
	}
	return out
}

// uses says whether some step has the verb.
func (s *Script) uses(verb string) bool {
	return slices.ContainsFunc(s.allSteps(), func(st *Step) bool { return st.Do == verb })
}

func (s *Script) explainPeople() []string {
	r := s.Roles
	types := "reads aloud and types"
	if !r.ConductorOperates {
		types = "reads aloud"
	}
	out := []string{"1 conductor, who " + types + "."}
	if r.Operator > 0 {
		out = append(out, "1 operator, who types and decides nothing.")
	}
	all := s.Kind == "genesis" || s.uses("shares.deal")
	seen := map[string]bool{}
	for _, x := range s.Safes {
		if seen[x.Group] {
			continue
		}
		seen[x.Group] = true
		who := "key masters"
		if x.Group != "" {
			who += " of group " + x.Group
		}
		if all {
			out = append(out, fmt.Sprintf("All %d %s: each takes a share home and signs for it.", x.Of, who))
		} else {
			out = append(out, fmt.Sprintf("At least %d of the %d %s; up to %d may be absent.", x.Need, x.Of, who, x.Of-x.Need))
		}
	}
	out = append(out, fmt.Sprintf("%d witnesses, who watch and cosign; one of them signs on a machine of his own.", r.Witnesses))
	switch {
	case r.Approvers.Of > 0 && s.Kind == "genesis":
		out = append(out, fmt.Sprintf("All %d approvers, of whom %d decide together from now on.", r.Approvers.Of, r.Approvers.Need))
	case r.Approvers.Of > 0:
		out = append(out, fmt.Sprintf("At least %d of the %d approvers.", r.Approvers.Need, r.Approvers.Of))
	}
	if r.Auditors > 0 {
		out = append(out, fmt.Sprintf("Auditors who watch for others: %d.", r.Auditors))
	}
	return append(out, "Nobody has two roles.")
}

// Brought are the names under which the binding must give certificate requests and
// public keys.
func (s *Script) Brought() (requests, keys []string) {
	for _, c := range s.Certificates {
		requests, keys = append(requests, c.CSR), append(keys, c.Public)
	}
	for _, x := range s.Stations {
		requests = append(requests, x.ReportKey)
	}
	for _, x := range s.Pipelines {
		keys = append(keys, x.Key)
	}
	tidy := func(list []string) []string {
		slices.Sort(list)
		return slices.DeleteFunc(slices.Compact(list), func(n string) bool { return n == "" })
	}
	return tidy(requests), tidy(keys)
}

// explainBrought names what the binding must give a file for, which is looked at in
// the first step.
func (s *Script) explainBrought() []string {
	var out []string
	request := func(name, what string) {
		out = append(out, "Certificate request "+name+", "+what+" (binding, requests).")
	}
	key := func(name, what string) { out = append(out, "Public key "+name+", "+what+" (binding, keys).") }
	for _, c := range s.Certificates {
		if c.CSR != "" {
			request(c.CSR, "for certificate "+c.ID)
		}
		if c.Public != "" {
			key(c.Public, "for certificate "+c.ID)
		}
	}
	for _, x := range s.Stations {
		request(x.ReportKey, "with which station "+x.ID+" reports")
	}
	for _, x := range s.Pipelines {
		key(x.Key, "of pipeline "+x.ID)
	}
	for _, m := range s.Media {
		out = append(out, "Medium "+m.Name+" (binding, media).")
	}
	required := slices.ContainsFunc(s.Keys, func(k Key) bool { return k.Attestation == AttestationRequired })
	if required && s.Kind == "genesis" {
		out = append(out, "Root certificate of the maker of the HSM, which must attest keys (binding, attestation_roots).")
	}
	return out
}

// usualMinutes is a guess at how long people take over a step of a verb when all
// goes well; what a step says of itself goes before it.
func usualMinutes() map[string]int {
	return map[string]int{
		"environment.check": 5, "people.identify": 20, "documents.see": 15, "vault.load": 10, "genesis.sign": 20, "people.change": 20, "charter.append": 15, "update.root": 10,
		"token.init": 3, "token.admit": 5, "shares.deal": 5, "shares.receipts": 20, "token.pins": 3, "safe.open": 20, "token.repin": 15, "token.destroy": 5,
		"key.generate": 3, "key.transfer": 20, "key.find": 5, "key.destroy": 5, "cert.issue": 3, "crl.issue": 5, "succession.sign": 10, "keys.store": 3, "keys.prove": 3, "births.sign": 10,
		"outputs.write": 2, "read.aloud": 15, "paper.print": 10, "break": 60, "pause": 60, "medium.in": 3, "medium.out": 3,
	}
}

// quarter is as exact as the sum of guesses is said.
const quarter = 15 * time.Minute

// explainTime adds up what the steps take.
func (s *Script) explainTime() []string {
	minutes, steps := 0, 0
	var limit time.Duration
	for _, ph := range s.Phases() {
		for _, st := range ph.Steps {
			steps++
			limit += st.Limit
			switch {
			case st.Minutes > 0:
				minutes += st.Minutes
			case time.Duration(usualMinutes()[st.Do])*time.Minute > st.Limit:
				minutes += int(st.Limit.Minutes())
			default:
				minutes += usualMinutes()[st.Do]
			}
		}
	}
	return []string{
		fmt.Sprintf("%d steps, about %s when all goes well; a rehearsal with the same people shows it better.", steps, spell((time.Duration(minutes) * time.Minute).Round(quarter))),
		fmt.Sprintf("No step may take longer than its limit; all limits together are %s.", spell(limit)),
		"Plan the whole day: a void ceremony starts again from step 1.",
	}
}

// spell writes a time as people say it.
func spell(d time.Duration) string {
	h, m := int(d.Hours()), int(d.Minutes())%60
	hours := fmt.Sprintf("%d hours", h)
	if h == 1 {
		hours = "1 hour"
	}
	switch {
	case h == 0:
		return fmt.Sprintf("%d minutes", m)
	case m == 0:
		return hours
	}
	return fmt.Sprintf("%s %d minutes", hours, m)
}

func (s *Script) explainUsed() []string {
	var out []string
	for _, x := range s.Safes {
		if s.IsExisting(&x) {
			out = append(out, fmt.Sprintf("Token %s (safe %s) is opened by %d of %d key masters, for this ceremony only.", x.Token, x.Name, x.Need, x.Of))
			if x.Adopts {
				out = append(out, fmt.Sprintf("  If the void ceremony before this one (--after) left safe %s under shares that it dealt, those open it here and are taken over into the charter, with the void record as the proof.", x.Name))
			}
		}
	}
	for _, k := range s.Existing {
		if k.Safe == "" {
			out = append(out, "Key "+k.ID+" is spoken of; it need not be there any more.")
		} else {
			out = append(out, "Key "+k.ID+" of safe "+k.Safe+".")
		}
	}
	for _, m := range s.Media {
		text := "Medium " + m.Label
		if m.Purpose != "" {
			text += ": " + m.Purpose
		}
		if m.ReadOnly {
			text += " (only read)"
		}
		out = append(out, text+".")
	}
	return out
}

func (s *Script) explainMade() []string {
	var out []string
	for _, x := range s.Safes {
		switch {
		case !s.IsExisting(&x):
			text := fmt.Sprintf("Token %s (safe %s), opened only by %d of %d key masters", x.Token, x.Name, x.Need, x.Of)
			if x.Dormant {
				text += "; it lies apart and is opened only when what it holds must take over"
			}
			out = append(out, text+".")
		case s.does("shares.deal", x.Name):
			out = append(out, fmt.Sprintf("A new secret and %d new shares for token %s (safe %s); the old shares open nothing any more.", x.Of, x.Token, x.Name))
		}
		for _, k := range s.Keys {
			if k.Safe == x.Name {
				out = append(out, explainKey(&k))
			}
		}
	}
	for _, c := range s.Certificates {
		out = append(out, explainCert(&c))
	}
	for _, c := range s.CRLs {
		out = append(out, fmt.Sprintf("Revocation list %s, number %d, issued by %s, with %d certificates; the next is due in %d days.", c.ID, c.Number, c.Issuer, len(c.Revoked), c.Days))
	}
	for _, f := range s.Factories {
		out = append(out, fmt.Sprintf("Factory %s may make devices %s-%d to %d.", f.ID, f.Product, f.SerialFrom, f.SerialTo))
	}
	for _, x := range s.Stations {
		out = append(out, fmt.Sprintf("Station %s may report what factory %s made.", x.ID, x.Factory))
	}
	for _, p := range s.Pipelines {
		out = append(out, fmt.Sprintf("Pipeline %s may request releases of %s.", p.ID, strings.Join(p.Products, ", ")))
	}
	for _, x := range s.Relays {
		out = append(out, fmt.Sprintf("Relay server %s may serve in the role %s.", x.ID, x.Role))
	}
	return out
}

// does says whether a step has the verb for the thing of that name.
func (s *Script) does(verb, name string) bool {
	return slices.ContainsFunc(s.allSteps(), func(st *Step) bool {
		return st.Do == verb && (st.Safe == name || st.Key == name)
	})
}

func explainKey(k *Key) string {
	text := fmt.Sprintf("  key %s (%s): %s", k.ID, k.Algorithm, k.Purpose)
	if k.SuccessorOf != "" {
		text += "; it signs nothing until it takes the place of " + k.SuccessorOf
	}
	if k.Movable {
		text += "; it may be moved to another token once, wrapped, in a ceremony"
	}
	return text + explainAttestation(k)
}

func explainCert(c *Certificate) string {
	of := "its own key"
	switch {
	case c.CSR != "":
		of = "the request " + c.CSR
	case c.Public != "":
		of = "the public key " + c.Public
	case c.Key != c.Issuer:
		of = "the key " + c.Key
	}
	valid := "without an end"
	switch {
	case c.Days > 0:
		valid = fmt.Sprintf("for %d days", c.Days)
	case c.CA.NotAfter != "":
		valid = "to " + c.CA.NotAfter
	}
	return fmt.Sprintf("Certificate %s for %s, issued by %s, valid %s.", c.ID, of, c.Issuer, valid)
}

func (s *Script) explainEnds() []string {
	var out []string
	for _, st := range s.allSteps() {
		switch st.Do {
		case "key.transfer":
			out = append(out, fmt.Sprintf("Key %s leaves safe %s for safe %s, and is destroyed where it was.", st.Key, st.Safe, st.To))
		case "key.find":
			out = append(out, fmt.Sprintf("Key %s, which a void transfer left in safe %s, is looked for there; the charter then says so, and what is left of it in safe %s is destroyed.", st.Key, st.To, st.Safe))
		case "key.destroy":
			out = append(out, "Key "+st.Key+" is destroyed. Nothing brings it back.")
		case "token.destroy":
			out = append(out, "Everything in the token of safe "+st.Safe+" is destroyed.")
		}
	}
	for _, x := range s.Successions {
		out = append(out, fmt.Sprintf("Key %s is %s; %s takes its place, and devices in the field follow the signed statement.", x.ID, x.Reason, x.By))
	}
	if s.uses("succession.sign") {
		for _, k := range s.Keys {
			out = append(out, "Devices in the field and every verifier learn of key "+k.ID+" by the signed statement.")
		}
	}
	if s.uses("people.change") {
		out = append(out, "Whoever leaves his role can do nothing with what he still holds.")
	}
	return out
}
