package node

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/vault/audit"
	"keyrite/vault/identity"
	"keyrite/vault/seal"
)

// Look is a call to one of the few paths that need no caller and that the front answers
// by itself: how far the opening is, what there is to call.
type Look struct {
	Operation string // "read" or "update"
	Path      string // one of those that the front has; not what a client made up
	Peer      identity.Peer
	Refused   error // nil if it was answered
}

// lookWait bounds how long an answer of how the vault is waits for its entry: it must
// come also while the store cannot write.
const lookWait = time.Second

// Looked has a look written before it is answered, as far as a flood of them may be; the
// rest is counted and told in the next summary. While the vault is sealed there is
// nothing to write into: what was asked is counted and told when it is opened.
func (n *Node) Looked(ctx context.Context, l Look) {
	v, ctx, leave, err := n.enter(ctx)
	if err != nil {
		n.sealed.add(l.Operation + " " + l.Path)
		return
	}
	defer leave()
	if !v.looks.take() {
		return
	}
	e := v.newEntry(audit.Request)
	e.Charter, e.Operation, e.Path = v.charter().Size(), l.Operation, l.Path
	if l.Peer.Remote.IsValid() {
		e.Remote = l.Peer.Remote.String()
	}
	if l.Refused != nil {
		e.Kind, e.Class, e.Error = audit.Refused, string(fault.ClassOf(l.Refused)), shown(l.Refused)
	}
	v.writeLook(ctx, e)
}

// writeLook writes the entry of a look, or counts it.
func (v *vault) writeLook(ctx context.Context, e *audit.Entry) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookWait)
	defer cancel()
	if _, err := v.journal.Do(ctx, seal.Durable, e, nil); err != nil {
		v.looks.miss()
	}
}

// whileSealed counts what a sealed vault was asked: by path for those that the front
// answers, together for the rest, which is refused. It is so as small as the list of
// those paths.
type whileSealed struct {
	now func() time.Time

	mu       sync.Mutex // guards the rest
	counts   map[string]uint64
	from, to time.Time
}

// refusedSealed stands for every call that a sealed vault refuses.
const refusedSealed = "refused"

func (s *whileSealed) add(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to = s.now()
	if len(s.counts) == 0 {
		s.from, s.counts = s.to, map[string]uint64{}
	}
	s.counts[what]++
}

func (s *whileSealed) drain() (counts map[string]uint64, from, to time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	counts, s.counts = s.counts, nil
	return counts, s.from, s.to
}

// tellSealed writes what the vault was asked while it was sealed, if anything. It is
// called when calls are taken on again, so that none falls between.
func (n *Node) tellSealed(ctx context.Context) {
	v, ctx, leave, err := n.enter(ctx)
	if err != nil {
		return // sealed again already: it is told the next time
	}
	defer leave()
	counts, from, to := n.sealed.drain()
	if len(counts) == 0 {
		return
	}
	e := v.life("asked while sealed")
	e.Result = map[string]any{"from": trail.FormatTime(from), "to": trail.FormatTime(to), "counts": counts}
	if _, err := v.journal.Do(context.WithoutCancel(ctx), seal.Durable, e, nil); err != nil {
		v.cfg.Log.ErrorContext(ctx, "what was asked while the vault was sealed could not be written", slog.Any("counts", counts), slog.String("error", err.Error()))
	}
}
