package transit

import (
	"testing"
	"time"
)

// What a try surely did not do says nothing of the next one: a release that was begun
// again and never ended is not free after its time.
func TestUnderway(t *testing.T) {
	u := underway{since: map[string]time.Time{}, undone: map[string]bool{}}
	at := time.Unix(1.8e9, 0)
	u.begin("r1", at)
	u.end("r1", true)
	if now, undone := u.is("r1", at); now || !undone {
		t.Errorf("after a try that did nothing: under way %v, undone %v", now, undone)
	}
	u.begin("r1", at)
	if now, undone := u.is("r1", at); !now || undone {
		t.Errorf("begun again: under way %v, undone %v", now, undone)
	}
	if now, undone := u.is("r1", at.Add(maxSigning)); now || undone {
		t.Errorf("never ended: under way %v, undone %v", now, undone)
	}
}
