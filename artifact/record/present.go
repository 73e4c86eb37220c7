package record

import (
	"keyrite/artifact/charter"
	"keyrite/artifact/person"
)

// minWitnesses is how many witnesses every ceremony has.
const minWitnesses = 2

// checkPresent wants everybody who was there to be in the charter with that very
// key and role, before the ceremony or after it, and enough of them.
func (c *checker) checkPresent() error {
	if len(c.People) != len(c.Roles) {
		return bad("%w: %d people files, %d people identified", ErrRecord, len(c.People), len(c.Roles))
	}
	count := map[string]int{}
	for name, role := range c.Roles {
		p := c.People[name]
		if p == nil || !inForce(c.base, p, role) && !inForce(c.Charter, p, role) {
			return bad("%w: %.40q is not a %.20s of the charter", ErrRecord, name, role)
		}
		count[role]++
	}
	if count[charter.RoleConductor] != 1 || count[charter.RoleWitness] < minWitnesses {
		return bad("%w: %d conductors and %d witnesses were there", ErrRecord, count[charter.RoleConductor], count[charter.RoleWitness])
	}
	return nil
}

func inForce(s *charter.State, p *person.Person, role string) bool {
	m, ok := s.People.Person(p.Name)
	return ok && m.Role == role && m.Person.Equal(p)
}
