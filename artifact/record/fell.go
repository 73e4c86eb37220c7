package record

// Fallen is a void ceremony with the person who called the incident that made it void.
type Fallen struct {
	By     string `json:"by"`     // a person of the charter, whose key signed the call
	Record string `json:"record"` // of the void ceremony, 16 hex digits
	Root   string `json:"root"`   // hex tree root that it ended with
}

// fallen is the incident that made this ceremony void, if somebody of the charter that
// it continued called and signed it. What the engine found, nobody signed for; and who
// was only about to come may be anybody.
func (c *checker) fallen() []Fallen {
	for _, x := range c.Incidents {
		if p := c.People[x.By]; x.Envelope != nil && p != nil && inForce(c.base, p, c.Roles[x.By]) {
			return []Fallen{{By: x.By, Record: c.Open.Record, Root: c.Root}}
		}
	}
	return nil
}
