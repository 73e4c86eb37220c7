package main

import (
	"errors"
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/succession"
	"keyrite/artifact/world"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

const (
	maxAnchorBytes  = 1 << 20
	maxCharterBytes = 64 << 20
	// seenFile is, in the state folder, the newest charter that the vault had.
	seenFile = "charter-seen.json"
)

// seen says how long the charter was and what its head was.
type seen struct {
	Format string      `json:"format"`
	Head   string      `json:"head"`
	Size   int         `json:"size"`
	World  world.World `json:"world"`
}

const seenFormat = "keyrite/charter-seen/v1"

// charterFile is the charter of the vault: a file that others append to. What was in
// force stays in force until one is there that continues it.
type charterFile struct {
	path, seen string
	world      world.World
	vault      string
	keep       bool // whether it remembers the newest

	mu    sync.Mutex // guards state
	state *charter.State
}

// openCharter reads anchors and charter. An older charter than one that the vault had
// before, or another history, is refused; with keep, this one is remembered as the newest.
func openCharter(b *bind, stateDir string, keep bool) (*charterFile, error) {
	data, err := intake.Read(b.path(b.Anchors), maxAnchorBytes)
	if err != nil {
		return nil, err
	}
	var statement []byte
	if b.Succession != "" {
		if statement, err = intake.Read(b.path(b.Succession), succession.MaxBytes); err != nil {
			return nil, err
		}
	}
	a, err := succession.Effective(data, statement)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "anchors %q: %w", b.Anchors, err)
	}
	if err := world.Match(b.World, a.World); err != nil {
		return nil, err
	}
	c := &charterFile{path: b.path(b.Charter), seen: filepath.Join(stateDir, seenFile), world: a.World, vault: a.Vault, keep: keep}
	return c, c.Fresh()
}

// State is the charter in force. It must not be changed.
func (c *charterFile) State() *charter.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Fresh takes over what was appended since. After an error the charter in force stays.
func (c *charterFile) Fresh() error {
	data, err := intake.Read(c.path, maxCharterBytes)
	if err != nil {
		return err
	}
	next, err := charter.Fold(data, c.world, c.vault)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "charter %q: %w", c.path, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != nil && c.state.Head() == next.Head() {
		return nil
	}
	if err := c.continues(next); err != nil {
		return err
	}
	if c.keep {
		if err := c.remember(next); err != nil {
			return err
		}
	}
	c.state = next
	return nil
}

// freshPeriod is how often a sealed vault looks whether its charter has grown, when
// somebody asks who must be judged by it.
const freshPeriod = 5 * time.Second

// newest gives the newest charter, read again at most once in freshPeriod. One that
// cannot be read, or that does not continue what the vault had, is an error until it is
// remedied.
func (c *charterFile) newest(now func() time.Time) func() (*charter.State, error) {
	var mu sync.Mutex // guards the rest
	var at time.Time
	var last error
	return func() (*charter.State, error) {
		mu.Lock()
		defer mu.Unlock()
		if t := now(); at.IsZero() || t.Sub(at) >= freshPeriod {
			last = c.Fresh()
			at = t
		}
		return c.State(), last
	}
}

// continues wants every charter that the vault ever had to be the beginning of next.
func (c *charterFile) continues(next *charter.State) error {
	var s seen
	data, err := intake.Read(c.seen, 4<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = jcs.Unmarshal(data, &s)
	}
	if err != nil {
		return err
	}
	if s.Format != seenFormat || s.World != c.world {
		return fault.Errorf(fault.Policy, "%q is of another vault", c.seen)
	}
	if s.Size > next.Size() {
		return fault.Hint(fault.Errorf(fault.Policy, "charter %q has %d statements, and this vault had one of %d", c.path, next.Size(), s.Size), "an older charter was put back: bring the newest one")
	}
	return next.CheckHead(s.Size, s.Head)
}

func (c *charterFile) remember(s *charter.State) error {
	data, err := jcs.Marshal(seen{Format: seenFormat, Head: s.Head(), Size: s.Size(), World: c.world})
	if err != nil {
		return err
	}
	return durable.Replace(c.seen, data, 0o600)
}
