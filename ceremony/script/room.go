package script

import (
	"maps"
	"slices"
	"strings"
)

// maxStates bounds the states of one thing: a bit each, as walked.
const maxStates = 64

// lintRoom checks what the script says of physical things.
func (s *Script) lintRoom() error {
	seen := map[string]bool{}
	for i, x := range s.Media {
		path := "media." + itoa(i)
		if !nameRE.MatchString(x.Name) || seen[x.Name] {
			return s.bad(join(path, "name"), "medium "+x.Name, "needs a name of its own: a-z, 0-9 and -, at most 32")
		}
		seen[x.Name] = true
		if x.Label == "" {
			return s.bad(path, "medium "+x.Name, "needs a label, as it is written on it")
		}
	}
	for _, thing := range slices.Sorted(maps.Keys(s.Model)) {
		states := s.Model[thing]
		if len(states) == 0 || len(states) > maxStates {
			return s.bad(join("model", thing), "model "+thing, "needs its states, at most %d, the first of them the one at the start", maxStates)
		}
		for i, x := range states {
			if !nameRE.MatchString(x) || slices.Contains(states[:i], x) {
				return s.bad(join(join("model", thing), itoa(i)), "model "+thing, "state %.40q needs a name of its own: a-z, 0-9 and -, at most 32", x)
			}
		}
	}
	return nil
}

// lintModelOf checks that a step speaks of things and states of the model.
func (s *Script) lintModelOf(st *Step) error {
	for _, m := range []struct {
		member string
		of     map[string]string
	}{{"requires", st.Requires}, {"sets", st.Sets}} {
		for _, thing := range slices.Sorted(maps.Keys(m.of)) {
			path := join(join(st.path, m.member), thing)
			states, ok := s.Model[thing]
			if !ok {
				err := s.bad(path, "step "+st.ID, "%s %s, which is not in the model", m.member, thing)
				err.Hint = meant(thing, slices.Sorted(maps.Keys(s.Model)))
				return err
			}
			if !slices.Contains(states, m.of[thing]) {
				err := s.bad(path, "step "+st.ID, "%s has no state %.40q, only %s", thing, m.of[thing], strings.Join(states, ", "))
				err.Hint = meant(m.of[thing], states)
				return err
			}
		}
	}
	return nil
}

// lintContingencies checks that each can come about: some step plans it whose
// verb can report its cause, in a phase in which its own steps may stand.
func (s *Script) lintContingencies() error {
	verbs, ids := verbTable(), map[string]bool{}
	var causes []string
	for _, c := range Causes() {
		causes = append(causes, c.Name)
	}
	seen := map[string]bool{}
	for i := range s.Contingencies {
		c, path := &s.Contingencies[i], "contingencies."+itoa(i)
		where := "contingency " + c.ID
		switch {
		case !nameRE.MatchString(c.ID) || ids[c.ID]:
			return s.bad(join(path, "id"), where, "needs a name of its own: a-z, 0-9 and -, at most 32")
		case !slices.Contains(causes, c.On):
			err := s.bad(join(path, "on"), where, "cause %.40q is none of %s", c.On, strings.Join(causes, ", "))
			err.Hint = meant(c.On, causes)
			return err
		case c.Then != "again" && c.Then != "next":
			return s.bad(join(path, "then"), where, "goes on with again or next, not %.40q", c.Then)
		}
		ids[c.ID] = true
		for j := range c.Steps {
			st := &c.Steps[j]
			if !plannedRE.MatchString(st.ID) || seen[st.ID] {
				return s.bad(join(st.path, "id"), "step "+st.ID, "needs a number of its own like A.1, for it stands in a contingency")
			}
			if seen[st.ID] = true; len(st.Planned) > 0 {
				return s.bad(join(st.path, "planned"), "step "+st.ID, "a contingency plans no further contingency: what goes wrong in it is an incident")
			}
		}
	}
	if err := s.lintPlanned(verbs); err != nil {
		return err
	}
	for i := range s.Contingencies {
		if err := s.lintReach(&s.Contingencies[i], "contingencies."+itoa(i), verbs); err != nil {
			return err
		}
	}
	return nil
}

// lintReach checks the steps of a contingency in each phase from which it is
// reached, and that it is reached at all.
func (s *Script) lintReach(c *Contingency, path string, verbs map[string]*Verb) error {
	reached := false
	for _, ph := range s.Phases() {
		if !slices.ContainsFunc(ph.Steps, func(st Step) bool { return slices.Contains(st.Planned, c.ID) }) {
			continue
		}
		reached = true
		for j := range c.Steps {
			if err := s.lintStep(&c.Steps[j], verbs, ph.Name); err != nil {
				return err
			}
		}
	}
	if !reached {
		return s.bad(path, "contingency "+c.ID, "no step plans it, so it can never be reached")
	}
	return nil
}

func (s *Script) lintPlanned(verbs map[string]*Verb) error {
	known := each(s.Contingencies, "", func(c *Contingency) (string, bool) { return c.ID, true })
	for _, ph := range s.Phases() {
		for i := range ph.Steps {
			st := &ph.Steps[i]
			causes := map[string]string{}
			for j, id := range st.Planned {
				path, where := join(join(st.path, "planned"), itoa(j)), "step "+st.ID
				c, ok := s.ContingencyByID(id)
				if !ok {
					err := s.bad(path, where, "contingency %.40q is not in the script", id)
					err.Hint = meant(id, known)
					return err
				}
				if !slices.Contains(verbs[st.Do].Raises, c.On) {
					return s.bad(path, where, "%s cannot meet %s (%s), so contingency %s can never be reached from here", st.Do, c.On, orNone(verbs[st.Do].Raises), id)
				}
				if causes[c.On] != "" {
					return s.bad(path, where, "plans %s twice, with %s and %s", c.On, causes[c.On], id)
				}
				causes[c.On] = id
			}
		}
	}
	return nil
}

func orNone(causes []string) string {
	if len(causes) == 0 {
		return "nothing can be planned for it"
	}
	return "it can meet " + strings.Join(causes, ", ")
}
