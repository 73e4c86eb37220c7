// Package duty says what has to be done next, before it is too late: from when each
// thing that ends must be renewed, and by what. It is a pure function of the charter, of
// how the shares stand, and of what others found that ends; vault/node gathers that and
// shows it, vault/remind tells of it.
//
//	items := duty.Due(duty.Input{Charter: st, Shares: safes, Things: things}, now)
//
// It is for people who have to act. It decides nothing, and must never be asked whether
// something may still be used. Nothing in an item is secret.
package duty

import (
	"cmp"
	"slices"
	"time"

	"keyrite/artifact/charter"
	"keyrite/vault/proof"
)

// Level says how near it is.
type Level string

// The levels, in their order.
const (
	Fine Level = "fine"
	Soon Level = "soon" // it is time to do it
	Late Level = "late" // it has ended, or nobody knows
)

// rank orders the levels.
func (l Level) rank() int { return slices.Index([]Level{Fine, Soon, Late}, l) }

// AtLeast says whether l is from or above it.
func (l Level) AtLeast(from Level) bool { return l.rank() >= from.rank() }

// Item is one thing that has to be done at a time.
type Item struct {
	// ID is the same as long as the item is about the same thing.
	ID    string    `json:"id"`
	Kind  string    `json:"kind"`
	About string    `json:"about"`        // what it is, in words
	Due   time.Time `json:"due,omitzero"` // UTC, whole seconds; zero: now
	Level Level     `json:"level"`
	Act   string    `json:"act"` // the command or page that remedies it
}

// Thing is something that ends.
type Thing struct {
	Kind  string // one of the kinds
	Name  string // tells it from others of its kind
	About string // what it is, in words
	// From is when it began, if that is known: what lives shortly is renewed shortly
	// before its end.
	From, Ends time.Time
	// Fault is why it is not known when it ends; empty if it is.
	Fault string
}

// Input is what is looked at. Charter is required.
type Input struct {
	Charter *charter.State
	Shares  []proof.Safe
	Things  []Thing
	// Unvouched says that nobody outside vouches for a time, so that what waits for one
	// is never used.
	Unvouched bool
}

// Due lists what there is, what is most urgent first.
func Due(in Input, now time.Time) []Item {
	out := []Item{}
	things := slices.Concat(OfCharter(in.Charter), in.Things)
	if in.Unvouched {
		things = append(things, unvouched(in.Charter)...)
	}
	for _, t := range things {
		if x, ok := item(t, now); ok {
			out = append(out, x)
		}
	}
	for i := range in.Shares {
		out = append(out, ofShares(&in.Shares[i], now))
	}
	slices.SortFunc(out, func(a, b Item) int {
		return cmp.Or(cmp.Compare(b.Level.rank(), a.Level.rank()), a.Due.Compare(b.Due), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// item is what a thing comes to; false if nobody has to do anything any more.
func item(t Thing, now time.Time) (Item, bool) {
	k := kinds()[t.Kind]
	x := Item{ID: t.Kind + "/" + t.Name, Kind: t.Kind, About: t.About, Due: t.Ends.UTC().Truncate(time.Second), Level: Fine, Act: k.act}
	if k.over && !t.Ends.IsZero() && !now.Before(t.Ends) {
		return x, false
	}
	if t.Fault != "" {
		x.About, x.Due, x.Level = t.About+": "+t.Fault, time.Time{}, Late
		return x, true
	}
	lead := k.lead
	if !t.From.IsZero() && t.Ends.After(t.From) {
		lead = min(lead, t.Ends.Sub(t.From)/3)
	}
	switch {
	case !now.Before(t.Ends):
		x.Level = Late
	case !now.Before(t.Ends.Add(-lead)):
		x.Level = Soon
	}
	return x, true
}

// Count says how many are soon, and how many late.
func Count(items []Item) (soon, late int) {
	for i := range items {
		switch items[i].Level {
		case Soon:
			soon++
		case Late:
			late++
		case Fine:
		}
	}
	return soon, late
}
