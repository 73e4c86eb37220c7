package script

import (
	"fmt"
	"slices"
	"strings"
)

func (s *Script) explainAfterwards() []string {
	var out []string
	for _, g := range s.quorums() {
		out = append(out, fmt.Sprintf("Safe %s: fewer than %d key masters%s open nothing; any %d of the %d open it.", g.safes, g.need, g.who, g.need, g.of))
	}
	if n := s.Roles.Approvers.Need; n > 0 {
		out = append(out, fmt.Sprintf("Approvers decide, %d together, and open nothing.", n))
	}
	if len(s.Keys) > 0 {
		out = append(out, "Nobody, alone or together, can read a key: keys are born in the token and never leave it.")
	}
	if slices.ContainsFunc(s.Keys, func(k Key) bool { return k.Movable }) || s.uses("key.transfer") {
		out = append(out, "A movable key leaves its token only wrapped for another token that this vault admitted.")
	}
	if !s.uses("charter.append") && s.Kind != "genesis" {
		out = append(out, "The charter stays as it is: nobody has a right that he had not before.")
	}
	return append(out, "Everybody can verify the record without us: keyrite-verify record, and trace from any file back to here.")
}

// explainPlanned says what is no incident, step by step.
func (s *Script) explainPlanned() []string {
	var out []string
	for _, c := range s.Contingencies {
		var at []string
		for _, st := range s.allSteps() {
			if slices.Contains(st.Planned, c.ID) {
				at = append(at, st.ID)
			}
		}
		means, then := c.On, "then the step is begun again, as often as it may be tried"
		for _, x := range Causes() {
			if x.Name == c.On {
				means = x.Means
			}
		}
		if c.Then == "next" {
			then = "then the step is left out"
		}
		var what []string
		for _, st := range c.Steps {
			what = append(what, st.Title)
		}
		out = append(out, fmt.Sprintf("%s (in step %s): %s.", sentence(means), strings.Join(at, ", "), strings.Join(append(what, then), ", ")))
	}
	return append(out, "A mistyped passphrase or answer may be repeated, as often as the step says; each miss is recorded.")
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func (s *Script) explainWrong() []string {
	out := []string{
		"Until the first phase is over nothing counts: test every passphrase, card and share there.",
		"From ARMED on anything else that is not in the script, and an incident called by anybody, voids the whole",
		"ceremony: what it made is destroyed, and it starts again from step 1.",
	}
	if s.uses("safe.open") {
		out = append(out, "If it ends void after shares were given, those shares count as exposed, and the next ceremony is a reshare.")
	}
	if s.uses("token.repin") {
		out = append(out, "If it ends void before the PINs are changed, the old shares stay in force; a crash in between is finished by keyrite ceremony recover.")
	}
	if s.uses("key.destroy") || s.uses("token.destroy") {
		out = append(out, "What is destroyed stays destroyed, also if the ceremony ends void afterwards.")
	}
	for _, g := range s.quorums() {
		out = append(out, fmt.Sprintf("If %d key masters%s lose their shares of safe %s, its token can never be opened again. Nothing helps then.", g.of-g.need+1, g.who, g.safes))
		if g.of == g.need {
			out = append(out, "That is a single one of them: give one more person a share, or make twins of the keys.")
		}
	}
	if len(s.Safes) > 0 && s.Environment.Network == "any" {
		out = append(out, "The script does not demand that the network is down: it is for rehearsals.")
	}
	return out
}

type quorum struct {
	safes, who string
	need, of   int
}

// quorums are the quorums that hold after the ceremony, each with its safes.
func (s *Script) quorums() []quorum {
	var out []quorum
	for _, x := range s.Safes {
		if s.does("token.destroy", x.Name) {
			continue
		}
		q := quorum{x.Name, "", x.Need, x.Of}
		if x.Group != "" {
			q.who = " of group " + x.Group
		}
		i := slices.IndexFunc(out, func(o quorum) bool { return o.who == q.who && o.need == q.need && o.of == q.of })
		if i < 0 {
			out = append(out, q)
		} else {
			out[i].safes += ", " + x.Name
		}
	}
	return out
}
