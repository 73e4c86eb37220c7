package node

import (
	"testing"

	"keyrite/artifact/charter"
)

// Who brings a statement is answered only after whoever wants to know of it was told,
// and had the charter in force then.
func TestChangedBeforeTheAnswer(t *testing.T) {
	b := newBench(t)
	var told []int
	b.openChanged(func(c *Config) {
		c.Changed = func() { told = append(told, b.node.Charter().Size()) }
	})
	before := len(b.Charter)
	b.Approve(charter.TypeAccessEnded, charter.AccessEnded{Type: charter.TypeIdentity, ID: "mes"})
	st, err := b.node.Append(t.Context(), b.lines(before))
	b.ok(err)
	if len(told) != 1 || told[0] != st.Size() {
		t.Errorf("told of %v, and %d are in force", told, st.Size())
	}
}
