package page

import (
	"bytes"
	"strings"
	"testing"
	"time"

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
		s := proof.Safe{Safe: "work", Epoch: 1, Need: 3, Of: c.of, Alive: c.alive, Level: c.level, Last: "2027-01-03T08:00:00Z", Holders: []proof.Holder{{Name: "master1", Index: 1}, {Name: "master2", Index: 2, Alive: true, Last: "2027-01-14T07:59:00Z"}, {Name: "master3", Index: 3, Alive: true, Last: "2027-01-15T07:00:00Z"}}}
		var b bytes.Buffer
		if err := pages.ExecuteTemplate(&b, "shares", &sharesPage{Days: 92, Safes: []aliveSafe{{s}}, now: time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC)}); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(b.String(), `<p class="verdict `+c.class+`">`) || !strings.Contains(b.String(), c.want) || !strings.Contains(b.String(), "not proven") {
			t.Errorf("%d of %d: %s", c.alive, c.of, b.String())
		}
		for _, want := range []string{"<dd>2027-01-03 08:00:00 UTC, 12 days ago</dd>", ">2027-01-14 07:59:00 UTC, 1 day ago<", ">2027-01-15 07:00:00 UTC, today<", ">never<"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("no %q in %s", want, b.String())
			}
		}
	}
}
