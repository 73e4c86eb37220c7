// Package remind tells people what has to be done next: those whom reminders of the
// charter name, by webhook or mail. vault/node runs it while a vault is open.
//
//	r := remind.New(remind.Config{...})
//	r.Set(charter.Reminders) // and again when the charter changes; Set(nil) ends all
//
// Each thing is told of once for each level, and of what is late again each week. What
// was told is in the store, so a restart repeats nothing; a crash between telling and
// keeping that may. A receiver that hangs or refuses holds up nobody: it is tried again,
// less and less often, and its trouble shows in States.
//
// Nothing secret is told. This package must never wait where a request waits, follow a
// receiver to another place, or send what the charter names no receiver for.
package remind

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"sync"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
	"keyrite/vault/audit"
	"keyrite/vault/duty"
	"keyrite/vault/seal"
)

const (
	// period is how often what is due is looked at.
	period = 10 * time.Minute
	// sendTimeout bounds one try.
	sendTimeout = 30 * time.Second
	// firstRetry and lastRetry are how long is waited after the first and after many
	// failures.
	firstRetry = time.Minute
	lastRetry  = time.Hour
)

// Config says what is told, and of which vault. All but Now and Log are required.
type Config struct {
	World world.World
	Vault string
	Store *seal.Store
	// Journal writes what was told, with entries that Entry makes.
	Journal *audit.Journal
	Entry   func(operation string) *audit.Entry
	// Items are what is due. It must not wait for others.
	Items func() ([]duty.Item, error)
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Log is for the operator. Default: nothing is logged.
	Log *slog.Logger
}

// State is what a status page shows of a reminder.
type State struct {
	ID, Kind string
	Sent     time.Time // the last message that was taken; zero before the first
	// Error is why the last try failed, nil if it did not; Since is when the trouble
	// began.
	Error error
	Since time.Time
}

// Reminders are those that run.
type Reminders struct {
	c            Config
	every, retry time.Duration
	setting      sync.Mutex // one Set at a time; held while those that end are waited for

	mu      sync.Mutex // guards running
	running map[string]*reminder
}

// New runs none yet.
func New(c Config) *Reminders {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Reminders{c: c, every: period, retry: firstRetry, running: map[string]*reminder{}}
}

// message is what one receiver is told at once.
type message struct {
	at    time.Time
	items []duty.Item
	more  int // that are told later
}

// sender is one kind of receiver.
type sender interface {
	send(ctx context.Context, m *message) error
}

// reminder is one that runs.
type reminder struct {
	charter.Reminder
	all    *Reminders
	raw    []byte // the statement's body, to see whether it is another one
	out    sender
	wake   chan struct{}
	cancel context.CancelFunc
	ended  chan struct{}

	mu    sync.Mutex // guards the rest
	state State
}

// Set makes the reminders those of the charter: it starts new ones and ends those that
// are no more. Ended ones are waited for, which a try under way does not hold up.
func (r *Reminders) Set(want map[string]charter.Reminder) {
	r.setting.Lock()
	defer r.setting.Unlock()
	bodies := map[string][]byte{}
	for id, w := range want {
		raw, err := jcs.Marshal(w)
		if err != nil {
			r.c.Log.Error("a reminder cannot be run", slog.String("id", id), slog.String("error", err.Error()))
			continue
		}
		bodies[id] = raw
	}
	for _, x := range r.others(bodies) {
		x.cancel()
		<-x.ended
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, raw := range bodies {
		if r.running[id] == nil {
			r.running[id] = r.start(want[id], raw)
		}
	}
}

// others takes out those that run and are none of the bodies.
func (r *Reminders) others(bodies map[string][]byte) (out []*reminder) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, x := range r.running {
		if raw, ok := bodies[id]; !ok || !bytes.Equal(raw, x.raw) {
			out = append(out, x)
			delete(r.running, id)
		}
	}
	return out
}

// Wake has them look at what is due now. It never waits.
func (r *Reminders) Wake() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.running {
		select {
		case x.wake <- struct{}{}:
		default:
		}
	}
}

// States tells how each reminder is, by id.
func (r *Reminders) States() map[string]State {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]State{}
	for id, x := range r.running {
		x.mu.Lock()
		out[id] = x.state
		x.mu.Unlock()
	}
	return out
}

func (r *Reminders) start(w charter.Reminder, raw []byte) *reminder {
	ctx, cancel := context.WithCancel(context.Background())
	x := &reminder{Reminder: w, all: r, raw: raw, wake: make(chan struct{}, 1), cancel: cancel, ended: make(chan struct{})}
	x.state = State{ID: w.ID, Kind: w.Kind}
	if w.Kind == "mail" {
		x.out = &sendMail{Reminder: w, world: r.c.World, vault: r.c.Vault}
	} else {
		x.out = &webhook{Reminder: w, world: r.c.World, vault: r.c.Vault}
	}
	go x.run(ctx)
	return x
}

// run tells what is due until it is told to end.
func (x *reminder) run(ctx context.Context) {
	defer close(x.ended)
	wait := x.all.retry
	for {
		err := x.step(ctx)
		if ctx.Err() != nil {
			return
		}
		x.note(err)
		next := x.all.every
		if err != nil {
			next, wait = wait, min(2*wait, lastRetry)
		} else {
			wait = x.all.retry
		}
		t := time.NewTimer(next)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-x.wake:
			t.Stop()
		case <-t.C:
		}
	}
}

// note keeps what States shows, and tells the operator when trouble begins.
func (x *reminder) note(err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.state.Error = err
	switch {
	case err == nil:
		x.state.Since = time.Time{}
	case x.state.Since.IsZero():
		x.state.Since = x.all.c.Now()
		x.all.c.Log.Error("a reminder does not get through", slog.String("id", x.ID), slog.String("error", err.Error()))
	}
}

// step tells what has to be told now, and keeps that it was.
func (x *reminder) step(ctx context.Context) error {
	items, err := x.all.c.Items()
	if err != nil {
		return err
	}
	b, err := x.load()
	if err != nil {
		return err
	}
	now := x.all.c.Now().UTC().Truncate(time.Second)
	x.sent(b)
	m, next := x.pick(items, b, now)
	if len(m.items) > 0 {
		try, cancel := context.WithTimeout(ctx, sendTimeout)
		err := x.out.send(try, m)
		cancel()
		if err != nil {
			return err
		}
	} else if len(next.Told) == len(b.Told) {
		return nil
	}
	if err := x.save(ctx, next, len(m.items)); err != nil {
		return err
	}
	x.sent(next)
	return nil
}

func (x *reminder) sent(b *book) {
	at, err := charter.ParseTime(b.Sent)
	if err != nil {
		return // none yet
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.state.Sent = at
}

// What the store keeps: the book of each reminder under its id.
const (
	bucket     = "reminder"
	bookFormat = "keyrite/reminder-told/v1"
)

// load reads what was told; nothing if the reminder is new.
func (x *reminder) load() (*book, error) {
	b := &book{Format: bookFormat, Told: map[string]told{}}
	err := x.all.c.Store.View(func(v *seal.View) error {
		raw, err := v.Get(bucket, x.ID)
		if errors.Is(err, seal.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return jcs.Unmarshal(raw, b)
	})
	if err == nil && b.Format != bookFormat {
		err = fault.Errorf(fault.Verify, "what reminder %s told has format %.40q", x.ID, b.Format)
	}
	return b, err
}

// save keeps what was told, with its entry.
func (x *reminder) save(ctx context.Context, b *book, items int) error {
	raw, err := jcs.Marshal(b)
	if err != nil {
		return err
	}
	e := x.all.c.Entry("reminder")
	e.Params = map[string]any{"id": x.ID, "items": items, "kind": x.Kind}
	_, err = x.all.c.Journal.Do(ctx, seal.Durable, e, func(tx *seal.Tx) error { return tx.Put(bucket, x.ID, raw) })
	return err
}

// tlsOf is how a receiver of that name is known.
func tlsOf(name string, ca []byte) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name}
	if ca == nil {
		return c, nil
	}
	root, err := x509.ParseCertificate(ca)
	if err != nil {
		return nil, fault.Errorf(fault.Verify, "the CA of the receiver: %w", err)
	}
	c.RootCAs = x509.NewCertPool()
	c.RootCAs.AddCert(root)
	return c, nil
}
