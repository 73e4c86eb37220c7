package duty

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/share"
	"keyrite/vault/proof"
)

// ofShares is what has to be done about the shares of a safe. Where all are alive there
// is nothing to ask for, however few they are: it is due when the first proof lapses.
func ofShares(s *proof.Safe, now time.Time) Item {
	x := Item{
		ID: Shares + "/" + s.Safe, Kind: Shares, Level: Fine, Act: kinds()[Shares].act,
		About: fmt.Sprintf("safe %s: %d of %d shares alive, %d open it", s.Safe, s.Alive, s.Of, s.Need),
	}
	if missing := missing(s); len(missing) > 0 {
		x.About += "; not proven: " + strings.Join(missing, ", ")
	}
	switch {
	case s.Level == share.Red && s.Alive < s.Of:
		x.Level = Late
	case s.Level == share.Red, s.Level == share.Warning && s.Alive < s.Of:
		x.Level = Soon
	default:
		x.Due = lapse(s)
		if !now.Before(x.Due.Add(-kinds()[Shares].lead)) {
			x.Level = Soon
		}
	}
	return x
}

func missing(s *proof.Safe) []string {
	var out []string
	for _, h := range s.Holders {
		if !h.Alive {
			out = append(out, h.Name)
		}
	}
	return out
}

// lapse is when so many proofs have lapsed that the safe stands worse: that of the
// first where nothing is to spare, else that which leaves one lost share to spare.
func lapse(s *proof.Safe) time.Time {
	var proofs []time.Time
	for _, h := range s.Holders {
		if at, err := charter.ParseTime(h.Last); err == nil && h.Alive {
			proofs = append(proofs, at)
		}
	}
	slices.SortFunc(proofs, time.Time.Compare)
	n := min(max(len(proofs)-s.Need-1, 1), len(proofs)) // so many may lapse
	if n == 0 {
		return time.Time{}
	}
	return proofs[n-1].Add(proof.AliveFor)
}
