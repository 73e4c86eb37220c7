package trail_test

import (
	"strings"
	"testing"

	"keyrite/artifact/trail"
)

// TestWhatTakesACharterOver: every entry by which a charter came into force must say
// which it was, and no other entry is taken for one.
func TestWhatTakesACharterOver(t *testing.T) {
	result := map[string]any{"size": 7.0, "head": strings.Repeat("ab", 32)}
	for name, c := range map[string]struct {
		e    trail.Entry
		want bool
	}{
		"by itself":          {trail.Entry{Kind: trail.Life, Operation: trail.OpCharter}, true},
		"from a caller":      {trail.Entry{Kind: trail.Request, Operation: "update", Path: "keyrite/charter"}, true},
		"a proposal":         {trail.Entry{Kind: trail.Request, Operation: "update", Path: "keyrite/proposals/0a/append"}, true},
		"read":               {trail.Entry{Kind: trail.Request, Operation: "read", Path: "keyrite/charter"}, false},
		"refused":            {trail.Entry{Kind: trail.Refused, Operation: "update", Path: "keyrite/proposals/0a/append"}, false},
		"an approval":        {trail.Entry{Kind: trail.Request, Operation: "update", Path: "keyrite/proposals/0a/approvals"}, false},
		"of no proposal":     {trail.Entry{Kind: trail.Request, Operation: "update", Path: "keyrite/proposals/append"}, false},
		"further below":      {trail.Entry{Kind: trail.Request, Operation: "update", Path: "keyrite/proposals/0a/b/append"}, false},
		"below another path": {trail.Entry{Kind: trail.Request, Operation: "update", Path: "kv/keyrite/proposals/0a/append"}, false},
	} {
		c.e.Result = result
		size, head, ok, err := c.e.TookOver()
		if err != nil || ok != c.want || ok && (size != 7 || head != result["head"]) {
			t.Errorf("%s: %d %q %t, %v", name, size, head, ok, err)
		}
		c.e.Result = nil
		if _, _, ok, err := c.e.TookOver(); ok || (err != nil) != c.want {
			t.Errorf("%s, without saying which: %t, %v", name, ok, err)
		}
	}
}
