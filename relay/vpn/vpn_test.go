package vpn

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keyrite/artifact/fault"
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
		on.add(&flow{user: peer(), open: &tunnel.Open{}, accepted: true})
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

// A flow that a new policy cuts while it is being judged is refused with its reason,
// not hung up on: the user learns that it is the policy and not the line.
func TestCutWhileItIsJudged(t *testing.T) {
	var v *Server
	s := &session{ticket: &ticket.Ticket{Kind: ticket.KindUser, Account: "acme", User: "ann"}, flows: map[*flow]struct{}{}}
	judged := false
	v = New(Config{
		Policy: func(ctx context.Context, _ string) (*policy.Policy, error) {
			if !judged { // by whoever serves the flow, which is listed by now
				judged = true
				v.Rejudge(ctx)
				for _, f := range s.list() {
					f.drop() // as the goroutine of Rejudge does, whenever it comes
				}
			}
			return nil, nil
		},
		Live: func(context.Context, *ticket.Ticket) error { return nil },
		Note: func(context.Context, Event) error { return nil },
		Now:  time.Now, Log: slog.New(slog.DiscardHandler),
	})
	v.enter(s)
	user, relay := net.Pipe()
	defer user.Close()
	served := make(chan struct{})
	go func() {
		v.flow(t.Context(), s, relay)
		close(served)
	}()
	o := &tunnel.Open{Format: tunnel.FormatOpen, World: "rehearsal:abcdefgh", Flow: strings.Repeat("ab", 16), User: "ann", Gateway: "press-7", Proto: "tcp", Addr: "192.168.10.2", Port: 80, PolicyVersion: 1}
	raw, err := o.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := tunnel.WriteMessage(user, raw); err != nil {
		t.Fatal(err)
	}
	a, err := tunnel.ReadAnswer(user)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	if err := a.Err(); fault.ClassOf(err) != fault.Policy {
		t.Errorf("answer: %v", err)
	}
	<-served
	if _, err := user.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the flow goes on: %v", err)
	}
}

// One that is cut before its user is told that it is open is never open.
func TestCutBeforeItIsAccepted(t *testing.T) {
	user, relay := net.Pipe()
	defer user.Close()
	f := &flow{user: relay}
	if !f.cutNow() {
		t.Fatal("cut twice")
	}
	if err := f.accept(); fault.ClassOf(err) != fault.Policy {
		t.Errorf("accepted: %v", err)
	}
}
