package update

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
	"keyrite/internal/durable"
)

// StateFormat names the boot state.
const StateFormat = "keyrite/boot-state/v1"

// MaxTries is how often a new release is started before the old one comes back.
const MaxTries = 3

// States of a slot.
const (
	Empty  = "empty"  // nothing in it may be started
	Trial  = "trial"  // verified and written, not yet confirmed
	Good   = "good"   // confirmed by a system that worked
	Failed = "failed" // did not verify, or was never confirmed
)

// Slot is one of the two places for a release.
type Slot struct {
	Bundle []byte `json:"bundle"` // the signed statement of what is in it
	State  string `json:"state"`
	Tries  int    `json:"tries"` // starts left of a trial
}

// State is the boot state file. It changes as a whole, so there is always one.
type State struct {
	A       Slot        `json:"a"`
	Active  string      `json:"active"` // slot of the last confirmed release: "a", "b", or "" before the first
	B       Slot        `json:"b"`
	Format  string      `json:"format"`
	Running string      `json:"running"` // slot started last, "" before the first start
	World   world.World `json:"world"`
}

func (s *State) slot(name string) *Slot {
	if name == "b" {
		return &s.B
	}
	return &s.A
}

func other(name string) string {
	if name == "a" {
		return "b"
	}
	return "a"
}

func (s *State) check(w world.World) error {
	if s.Format != StateFormat {
		return fault.Errorf(fault.Verify, "%w: format %.40q", ErrState, s.Format)
	}
	if err := world.Match(w, s.World); err != nil {
		return err
	}
	for _, n := range []string{s.Active, s.Running} {
		if n != "" && n != "a" && n != "b" {
			return fault.Errorf(fault.Verify, "%w: slot %.10q", ErrState, n)
		}
	}
	for _, x := range []Slot{s.A, s.B} {
		known := x.State == Empty || x.State == Trial || x.State == Good || x.State == Failed
		if !known || x.Tries < 0 || x.Tries > MaxTries || x.Bundle == nil || len(x.Bundle) > firmware.MaxBundleBytes || (x.State == Trial || x.State == Good) && len(x.Bundle) == 0 {
			return fault.Errorf(fault.Verify, "%w: a slot contradicts itself", ErrState)
		}
	}
	return nil
}

// Slots is the pair of slots of one gateway, in a folder: a.img, b.img and
// state.json.
type Slots struct {
	dir     string
	element Element
	device  Device
	world   world.World
	step    func(string) error // called before each effect; tests cut the power there
	lock    *os.File

	succession *Succession
}

// OpenSlots opens the pair in dir, made if it does not exist, for one process at
// a time: a second one gets an error of class sealed. Close gives it free.
func OpenSlots(dir string, e Element, d Device) (*Slots, error) {
	b, err := e.Birth()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Errorf(fault.Storage, "open slots: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "open slots: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fault.New(fault.Sealed, "the slots are in use by another process")
	}
	s := &Slots{dir: dir, element: e, device: d, world: b.World, step: func(string) error { return nil }, lock: lock}
	if _, err = s.State(); err == nil {
		s.succession, err = LoadSuccession(dir, e)
	}
	if err == nil {
		err = s.succession.finish()
	}
	if err != nil {
		_ = lock.Close()
		return nil, err
	}
	return s, nil
}

// Succession is what is known of replaced keys; updates add to it.
func (s *Slots) Succession() *Succession { return s.succession }

// ViewSlots opens the pair in dir to look at it, beside whoever else uses it.
func ViewSlots(dir string, e Element, d Device) (*Slots, error) {
	b, err := e.Birth()
	if err != nil {
		return nil, err
	}
	x, err := LoadSuccession(dir, e)
	if err != nil {
		return nil, err
	}
	return &Slots{dir: dir, element: e, device: d, world: b.World, step: func(string) error { return errView }, succession: x}, nil
}

var errView = fault.New(fault.Unexpected, "the slots were opened to look at them only")

// Close gives the slots free.
func (s *Slots) Close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// State reads the boot state; a pair that was never used is empty.
func (s *Slots) State() (*State, error) {
	data, err := os.ReadFile(s.statePath())
	if errors.Is(err, fs.ErrNotExist) {
		return &State{Format: StateFormat, World: s.world, A: empty(), B: empty()}, nil
	}
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read the boot state: %w", err)
	}
	return parseState(data, s.world)
}

func parseState(data []byte, w world.World) (*State, error) {
	var st State
	if err := jcs.Unmarshal(data, &st); err != nil {
		return nil, fault.Errorf(fault.Verify, "%w: %w", ErrState, err)
	}
	return &st, st.check(w)
}

func empty() Slot { return Slot{Bundle: []byte{}, State: Empty} }

func (s *Slots) statePath() string         { return filepath.Join(s.dir, "state.json") }
func (s *Slots) imagePath(n string) string { return filepath.Join(s.dir, n+".img") }

func (s *Slots) save(st *State, why string) error {
	if err := s.step(why); err != nil {
		return err
	}
	data, err := jcs.Marshal(st)
	if err != nil {
		return err
	}
	return durable.Replace(s.statePath(), data, 0o600)
}

// Statement returns the verified statement of a slot, without looking at the
// image.
func (s *Slots) Statement(x *Slot) (*firmware.Statement, error) {
	st, err := s.State()
	if err != nil {
		return nil, err
	}
	active := []byte{}
	if st.Active != "" {
		active = st.slot(st.Active).Bundle
	}
	return s.succession.started(x.Bundle, active)
}

// verify reads the image of a slot and checks everything about it, as if it
// came from outside. floor is the element's security version.
func (s *Slots) verify(name string, x *Slot, floor int64) (*firmware.Statement, error) {
	st, err := s.Statement(x)
	if err != nil {
		return nil, err
	}
	if err := admit(st, s.device, s.world, floor); err != nil {
		return nil, err
	}
	f, err := os.Open(s.imagePath(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Errorf(fault.Verify, "slot %s: %w: it is missing", name, firmware.ErrImage)
	}
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read slot %s: %w", name, err)
	}
	defer func() { _ = f.Close() }() // read only
	dropCache(f)
	if err := st.CheckImage(f); err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "slot %s: %w", name, err)
	}
	return st, nil
}

// dropCache makes the next read come from the medium rather than from what was
// written a moment ago. Where the kernel declines, the check is still one of
// what it holds.
func dropCache(f *os.File) {
	const dontNeed = 4 // POSIX_FADV_DONTNEED, posix_fadvise(2)
	_, _, _ = syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, dontNeed, 0, 0)
}

// Image is the path of a slot's image.
func (s *Slots) Image(name string) string { return s.imagePath(name) }

// Check verifies the releases in the slots that may be started, by slot, and
// changes nothing.
func (s *Slots) Check() (map[string]*firmware.Statement, error) {
	st, err := s.State()
	if err != nil {
		return nil, err
	}
	floor, err := s.element.SecurityVersion()
	if err != nil {
		return nil, err
	}
	out := map[string]*firmware.Statement{}
	for _, name := range order(st) {
		statement, err := s.verify(name, st.slot(name), floor)
		if errors.Is(err, ErrRollback) && name != st.Active && st.slot(name).State == Good {
			continue // the old release, which a newer one has closed the way back to
		}
		if err != nil {
			return nil, err
		}
		out[name] = statement
	}
	return out, nil
}
