package page

import (
	"bytes"
	"strings"
	"testing"

	"keyrite/artifact/share"
	"keyrite/vault/proof"
)

// TestVerdictOnShares: how a safe stands is said in words, red at the threshold and below
// it, and each level has its own style.
func TestVerdictOnShares(t *testing.T) {
	pages, err := newPages()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		alive, of int
		level     share.Level
		class     string
		want      string
	}{
		{5, 5, share.Good, "good", "Good: 5 of 5 shares are alive; it opens with 3."},
		{4, 5, share.Warning, "wait", "Warning: 4 of 5 shares are alive; one more lost share leaves none to spare."},
		{4, 4, share.Warning, "wait", "Warning: all 4 shares are alive"},
		{3, 5, share.Red, "bad", "Red: 3 of 5 shares are alive, and all of these are needed."},
		{2, 5, share.Red, "bad", "Red: only 2 of 5 shares are proven"},
		{0, 5, share.Red, "bad", "nothing opens this safe again"},
	} {
		s := proof.Safe{Safe: "work", Epoch: 1, Need: 3, Of: c.of, Alive: c.alive, Level: c.level, Holders: []proof.Holder{{Name: "master1", Index: 1}}}
		var b bytes.Buffer
		if err := pages.ExecuteTemplate(&b, "shares", &sharesPage{Days: 92, Safes: []aliveSafe{{s}}}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), `<p class="verdict `+c.class+`">`) || !strings.Contains(b.String(), c.want) || !strings.Contains(b.String(), "not proven") {
			t.Errorf("%d of %d: %s", c.alive, c.of, b.String())
		}
	}
}
