package update

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/internal/durable"
)

// Installed says what Install did.
type Installed struct {
	Slot      string
	Statement *firmware.Statement
	UpToDate  bool // nothing was written: the slot holds this release already
}

// Install brings an offer into the slot that is not in use. Until the last
// write, which marks the slot for trial, a power cut leaves the gateway with
// what it had; after it, with both.
func (s *Slots) Install(ctx context.Context, o *Offer) (*Installed, error) {
	st, err := s.State()
	if err != nil {
		return nil, err
	}
	floor, err := s.element.SecurityVersion()
	if err != nil {
		return nil, err
	}
	if name, ok := s.holds(st, o.Statement, floor); ok {
		return &Installed{Slot: name, Statement: o.Statement, UpToDate: true}, nil
	}
	name, err := s.free(st)
	if err != nil {
		return nil, err
	}
	if err := admit(o.Statement, s.device, s.world, floor); err != nil {
		return nil, err
	}
	// From here on the slot is not to be started, whatever is left in it.
	*st.slot(name) = empty()
	if err := s.save(st, "mark the slot empty"); err != nil {
		return nil, err
	}
	bundle, err := s.write(ctx, name, o)
	if err != nil {
		return nil, err
	}
	next := Slot{Bundle: bundle, State: Trial, Tries: MaxTries}
	statement, err := s.verify(name, &next, floor)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "read back what was written: %w", err)
	}
	*st.slot(name) = next
	if err := s.save(st, "mark the slot for trial"); err != nil {
		return nil, err
	}
	return &Installed{Slot: name, Statement: statement}, s.sawTime(statement)
}

// sawTime raises the time floor to the time that was signed.
func (s *Slots) sawTime(st *firmware.Statement) error {
	at, err := charter.ParseTime(st.Predicate.Time)
	if err != nil || at.After(time.Now().Add(24*time.Hour)) {
		// A statement a day ahead of our clock says more about the clock of
		// the signer than about ours; the floor stays.
		return err
	}
	return s.element.RaiseTimeFloor(at)
}

// holds says which slot has this very release ready to start, every byte of it.
func (s *Slots) holds(st *State, want *firmware.Statement, floor int64) (string, bool) {
	for _, name := range order(st) {
		x := st.slot(name)
		if x.State == Good && name != st.Active {
			continue // the old release: offered again, it is installed again
		}
		if x.State == Trial && x.Tries == 0 {
			continue // given up at the next start
		}
		have, err := s.Statement(x)
		if err != nil || have.Image() != want.Image() || have.Predicate.Version != want.Predicate.Version {
			continue
		}
		if _, err := s.verify(name, x, floor); err == nil {
			return name, true
		}
	}
	return "", false
}

// free is the slot that neither runs nor is the last one known to work.
func (s *Slots) free(st *State) (string, error) {
	name := "a"
	switch {
	case st.Active != "":
		name = other(st.Active)
	case st.Running != "":
		name = other(st.Running)
	}
	if x := st.slot(name); name == st.Running && (x.State == Trial || x.State == Good) {
		return "", fault.Errorf(fault.Sealed, "slot %s runs on trial; confirm it or start the gateway again before the next update", name)
	}
	return name, nil
}

func (s *Slots) write(ctx context.Context, name string, o *Offer) ([]byte, error) {
	if err := s.step("open the image"); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(s.imagePath(name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "write slot %s: %w", name, err)
	}
	bundle, err := o.copyTo(ctx, &stepped{f, s.step})
	if err == nil {
		err = s.step("sync the image")
	}
	if err == nil {
		if serr := f.Sync(); serr != nil {
			err = fault.Errorf(fault.Storage, "write slot %s: %w", name, serr)
		}
	}
	if cerr := f.Close(); err == nil && cerr != nil {
		err = fault.Errorf(fault.Storage, "write slot %s: %w", name, cerr)
	}
	if err != nil {
		// What was written is of no use, and on a small disk in the way.
		if terr := os.Truncate(s.imagePath(name), 0); terr != nil {
			err = errors.Join(err, fault.Errorf(fault.Storage, "empty slot %s: %w", name, terr))
		}
		return nil, err
	}
	return bundle, durable.SyncDir(s.dir)
}

// stepped is a writer whose every write tests may cut.
type stepped struct {
	w    io.Writer
	step func(string) error
}

func (s *stepped) Write(b []byte) (int, error) {
	if err := s.step("write the image"); err != nil {
		n, _ := s.w.Write(b[:len(b)/2]) // what a power cut leaves of a write
		return n, err
	}
	return s.w.Write(b)
}
