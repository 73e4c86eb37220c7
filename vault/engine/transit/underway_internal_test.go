package transit

import (
	"testing"
	"time"
)

// A release that was begun is under way until it ends, or nobody waits for it any more.
func TestUnderway(t *testing.T) {
	u := underway{since: map[string]time.Time{}}
	at := time.Unix(1.8e9, 0)
	u.begin("r1", at)
	if !u.is("r1", at) || u.is("r2", at) {
		t.Error("begun, and not under way; or another is")
	}
	if u.is("r1", at.Add(maxSigning)) {
		t.Error("never ended, and under way for ever")
	}
	u.end("r1")
	if u.is("r1", at) {
		t.Error("ended, and under way")
	}
}
