package unseal

import (
	"context"
	"slices"
	"sync"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/internal/secmem"
	"keyrite/vault/quorum"
)

// Progress is how far an attempt is. Nothing in it is secret.
type Progress struct {
	Attempt   string   `json:"attempt"` // number, hex
	Operation string   `json:"operation"`
	Expires   string   `json:"expires"`
	Words     string   `json:"words"` // of the request, as holders see them
	Given     []string `json:"given"` // holders whose shares were found good, sorted
	Need      int      `json:"need"`
	Open      bool     `json:"open"`              // whether this answer opened the vault
	Carried   bool     `json:"carried,omitempty"` // whether it opened the store's key, of Carry
}

// attempt is one try to open the vault.
type attempt struct {
	id      string
	by      string
	request *openrequest.Request
	file    []byte // the signed request
	words   string
	epoch   charter.Epoch // whose shares it takes
	timer   *time.Timer

	generation int      // set once, under Attempts.mu
	progress   Progress // guarded by Attempts.mu

	mu       sync.Mutex     // guards the rest; held while a share is weighed, and through the opening
	once     *secmem.Buffer // wiped when it ends
	ended    error
	given    []quorum.Contribution
	openings []*envelope.Envelope // in the order of given
}

func (x *attempt) until() time.Time {
	t, err := charter.ParseTime(x.request.Expires)
	if err != nil {
		return time.Time{} // it was checked when it was made; a zero time has passed
	}
	return t
}

// end wipes the one-time key; what was given can never be opened any more.
func (x *attempt) end(why error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.finish(why)
}

// finish is end for a caller that holds x.mu.
func (x *attempt) finish(why error) {
	if x.ended == nil {
		x.ended = why
	}
	if x.timer != nil {
		x.timer.Stop()
	}
	x.once.Wipe()
	x.given, x.openings = nil, nil
}

// shown is the progress of an attempt as it is now; the caller holds x.mu, or the
// attempt is nobody else's yet. It is what Progress lists from now on.
func (a *Attempts) shown(x *attempt) Progress {
	p := Progress{Attempt: x.id, Operation: x.request.Operation, Expires: x.request.Expires, Words: x.words, Given: []string{}, Need: x.epoch.Need}
	for _, g := range x.given {
		p.Given = append(p.Given, g.Holder)
	}
	slices.Sort(p.Given)
	a.mu.Lock()
	defer a.mu.Unlock()
	x.progress = p
	return p
}

// live refuses an attempt that is over. The caller holds x.mu.
func (a *Attempts) live(x *attempt) error {
	if x.ended != nil {
		return x.ended
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case x.generation != a.generation:
		return fault.Errorf(fault.Policy, "%w: the vault was opened or sealed meanwhile", ErrEnded)
	case a.c.Now().After(x.until()):
		return expired(x.request)
	}
	return nil
}

// take judges an answer and counts it. The caller holds x.mu.
func (a *Attempts) take(ctx context.Context, x *attempt, ans *openrequest.Answer, st *charter.State) error {
	if err := a.live(x); err != nil {
		return err
	}
	// The charter may have gone on since: what was signed would rule no more.
	if err := x.request.Check(st, a.c.Now()); err != nil {
		return err
	}
	place, err := ans.Verify(x.request, st)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(x.given, func(g quorum.Contribution) bool { return g.Holder == place.Holder }) {
		return fault.Errorf(fault.Quorum, "%s: %w", place.Holder, ErrTwice)
	}
	g := quorum.Contribution{Holder: place.Holder, Share: ans.Share}
	select {
	case a.children <- struct{}{}:
		defer func() { <-a.children }()
	case <-ctx.Done():
		return fault.Errorf(fault.Unreachable, "weigh the share of %s: %w", place.Holder, ctx.Err())
	}
	if err := a.c.Quorum.Weigh(ctx, quorum.Given{State: st, Epoch: x.epoch, Once: x.once, Contributions: []quorum.Contribution{g}}); err != nil {
		return err
	}
	x.given, x.openings = append(x.given, g), append(x.openings, &ans.Opening)
	return nil
}
