package remind

import (
	"time"

	"keyrite/artifact/charter"
	"keyrite/vault/duty"
)

const (
	// again is when what is late is told of again.
	again = 7 * 24 * time.Hour
	// mailEvery is how often a mail comes at most.
	mailEvery = 24 * time.Hour
	// forgotten is how long what is not due any more is remembered: what comes and goes
	// is not told of each time.
	forgotten = 24 * time.Hour
	// maxItems bounds what is told at once.
	maxItems = 100
)

// book is what a receiver was told.
type book struct {
	Format string          `json:"format"`
	Sent   string          `json:"sent"` // RFC 3339, the last message; empty before the first
	Told   map[string]told `json:"told"` // by id of the item
}

// told is what was told of one thing.
type told struct {
	At    string     `json:"at"` // RFC 3339
	Level duty.Level `json:"level"`
}

// wants says whether the receiver wants to know of an item.
func wants(r *charter.Reminder, x *duty.Item, now time.Time) bool {
	if x.Level.AtLeast(duty.Level(r.Level)) {
		return true
	}
	return r.Days > 0 && !x.Due.IsZero() && !now.Before(x.Due.AddDate(0, 0, -r.Days))
}

// due says whether an item has to be told of, after what was told of it.
func (b *book) due(x *duty.Item, now time.Time) bool {
	t, ok := b.Told[x.ID]
	if !ok || x.Level != t.Level && x.Level.AtLeast(t.Level) {
		return true
	}
	at, err := charter.ParseTime(t.At)
	return x.Level == duty.Late && (err != nil || now.Before(at) || !now.Before(at.Add(again)))
}

// pick is what has to be told now, and the book after that.
func (x *reminder) pick(items []duty.Item, b *book, now time.Time) (*message, *book) {
	next := &book{Format: bookFormat, Sent: b.Sent, Told: map[string]told{}}
	m := &message{at: now}
	last, err := charter.ParseTime(b.Sent)
	// What was told by a clock that was ahead keeps nothing back.
	quiet := x.Kind == "mail" && err == nil && !now.Before(last) && now.Before(last.Add(mailEvery))
	for i := range items {
		if !wants(&x.Reminder, &items[i], now) {
			continue
		}
		had, ok := b.Told[items[i].ID]
		switch {
		case !b.due(&items[i], now):
			next.Told[items[i].ID] = had
		case quiet || len(m.items) >= maxItems:
			m.more++
			if ok {
				next.Told[items[i].ID] = had
			}
		default:
			m.items = append(m.items, items[i])
			next.Told[items[i].ID] = told{At: charter.FormatTime(now), Level: items[i].Level}
		}
	}
	for id, t := range b.Told {
		at, err := charter.ParseTime(t.At)
		if _, kept := next.Told[id]; !kept && err == nil && now.Before(at.Add(forgotten)) {
			next.Told[id] = t
		}
	}
	if len(m.items) > 0 {
		next.Sent = charter.FormatTime(now)
	}
	return m, next
}
