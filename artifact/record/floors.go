package record

import (
	"strings"

	"keyrite/artifact/charter"
)

// checkFloors wants a ceremony in which a firmware key or the release log's key gives
// way to carry over the security version of every product: whoever signs from then on
// may begin with an empty ledger. No other ceremony states one.
func (c *checker) checkFloors() error {
	if c.base == nil {
		return nil
	}
	carries := false
	for _, x := range c.script.Successions {
		k := c.Charter.Keys[x.ID]
		role := k.Role()
		carries = carries || role == "firmware" || role == "log" || strings.HasPrefix(role, "firmware-")
	}
	here := Origin(c.Open.Record)
	if carries {
		for _, product := range Products(c.base) {
			if c.Charter.Floors[product].Record != here {
				return bad("%w: the security version of product %.40q is not carried over", ErrRecord, product)
			}
		}
	}
	for product, f := range c.Charter.Floors {
		if before := c.base.Floors[product]; f != before && (!carries || f.Record != here) {
			return bad("%w: a security version of product %.40q that was not carried over here", ErrRecord, product)
		}
	}
	return nil
}

// Products are those that a pipeline of the charter may ask releases for.
func Products(s *charter.State) []string {
	seen := map[string]bool{}
	var out []string
	for _, p := range s.Pipelines {
		for _, product := range p.Products {
			if !seen[product] {
				seen[product] = true
				out = append(out, product)
			}
		}
	}
	return out
}
