package vpn

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"keyrite/artifact/policy"
	"keyrite/relay/ticket"
	"keyrite/wire/tunnel"
)

// stuck is a session, and a stream of one, whose end takes until it is released.
type stuck struct {
	net.Conn
	tunnel.Mux

	ending  chan struct{}
	release <-chan struct{}
}

func (s *stuck) Close() error {
	s.ending <- struct{}{}
	<-s.release
	return nil
}

// What one peer has lost is cut although others, who were cut before, do not
// read any more.
func TestRejudgeWaitsForNobody(t *testing.T) {
	var notes atomic.Int64
	v := New(Config{
		Policy: func(context.Context, string) (*policy.Policy, error) { return nil, nil },
		Live: func(_ context.Context, of *ticket.Ticket) error {
			if of.User == "off" {
				return errors.New("disabled")
			}
			return nil
		},
		Note: func(context.Context, Event) error { notes.Add(1); return nil },
		Now:  time.Now, Log: slog.New(slog.DiscardHandler),
	})
	ending, release := make(chan struct{}, 10), make(chan struct{})
	defer close(release)
	peer := func() *stuck { return &stuck{ending: ending, release: release} }
	for range 3 {
		v.enter(&session{ticket: &ticket.Ticket{Kind: ticket.KindUser, Account: "acme", User: "off"}, mux: peer()})
		on := &session{ticket: &ticket.Ticket{Kind: ticket.KindUser, Account: "acme", User: "ann"}, flows: map[*flow]struct{}{}}
		on.add(&flow{user: peer(), open: &tunnel.Open{}})
		v.enter(on)
	}
	done := make(chan struct{})
	go func() {
		v.Rejudge(t.Context())
		close(done)
	}()
	for i := range 6 {
		select {
		case <-ending:
		case <-time.After(5 * time.Second):
			t.Fatalf("%d of 6 were cut", i)
		}
	}
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Error("it waits for its peers")
	}
	noted := notes.Load()
	v.Rejudge(t.Context())
	if noted != 6 || notes.Load() != noted {
		t.Errorf("%d entries, then %d, for 6 cuts", noted, notes.Load())
	}
}
