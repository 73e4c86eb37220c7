package charter

import (
	"keyrite/artifact/fault"
)

// Deciding is the set of people who decide on a statement that continues this log:
// the approvers, but where its type says who else. Of a people statement it is the
// approvers in force; those to come sign as well.
func (s *State) Deciding(st *Statement) (Set, error) {
	if _, ok := deciders()[st.Type]; !ok && st.Type != TypePeople {
		return Set{}, fault.Errorf(fault.Verify, "%w: unknown type %.40q", ErrStatement, st.Type)
	}
	if who := otherSets()[st.Type]; who != nil {
		return who(s, st)
	}
	return s.People.Sets.Approvers, nil
}

// otherSets are the types of statement that others than the approvers decide on.
func otherSets() map[string]func(*State, *Statement) (Set, error) {
	return map[string]func(*State, *Statement) (Set, error){
		TypeBreakGlassPulled: (*State).pullers,
		TypeReleaseApproved:  (*State).releasers,
	}
}
