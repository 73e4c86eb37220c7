package update

import (
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
)

// Booted is what a start decided.
type Booted struct {
	Slot      string
	State     string // of the slot: Trial or Good
	Tries     int    // starts left after this one, of a trial
	Statement *firmware.Statement
	Refused   []Refused // slots that were looked at before and not taken
}

// Refused is a slot that is not started, and why.
type Refused struct {
	Slot string
	Err  error
}

// Boot chooses the slot to start, having verified every byte of it with the key
// in the element: a new release on trial while it has tries left, else the last
// one confirmed. A slot that does not verify is marked failed and never looked
// at again. The tries are counted before the start, so that a release that
// crashes the gateway counts too.
func (s *Slots) Boot() (*Booted, error) {
	st, err := s.State()
	if err != nil {
		return nil, err
	}
	floor, err := s.element.SecurityVersion()
	if err != nil {
		return nil, err
	}
	var refused []Refused
	for _, name := range order(st) {
		x := st.slot(name)
		if x.State == Trial && x.Tries == 0 {
			refused = append(refused, Refused{name, fault.Errorf(fault.Policy, "slot %s: started %d times and never confirmed", name, MaxTries)})
			x.State = Failed
			if err := s.save(st, "give a trial up"); err != nil {
				return nil, err
			}
			continue
		}
		statement, err := s.verify(name, x, floor)
		if err != nil {
			refused = append(refused, Refused{name, err})
			if err := s.fail(st, name, err); err != nil {
				return nil, err
			}
			continue
		}
		if x.State == Trial {
			x.Tries--
		}
		if x.State == Trial || st.Running != name {
			st.Running = name
			if err := s.save(st, "note what is started"); err != nil {
				return nil, err
			}
		}
		return &Booted{Slot: name, State: x.State, Tries: x.Tries, Statement: statement, Refused: refused}, nil
	}
	return nil, nothing(refused)
}

// order is the slots that may be started, the preferred one first.
func order(st *State) []string {
	var out []string
	for _, name := range []string{"a", "b"} {
		if st.slot(name).State == Trial {
			out = append(out, name)
		}
	}
	for _, name := range []string{st.Active, other(st.Active)} {
		if name != "" && st.slot(name).State == Good {
			out = append(out, name)
		}
	}
	return out
}

// fail marks a trial that does not verify. What only could not be read (a medium
// that is not there yet) is left as it is, and so is a confirmed release, which
// may be all that the gateway has.
func (s *Slots) fail(st *State, name string, why error) error {
	if c := fault.ClassOf(why); c != fault.Verify && c != fault.Policy || st.slot(name).State != Trial {
		return nil
	}
	st.slot(name).State = Failed
	return s.save(st, "mark a slot failed")
}

func nothing(refused []Refused) error {
	if len(refused) == 0 {
		return ErrNothing
	}
	first := refused[0].Err
	return fault.Errorf(fault.ClassOf(first), "%w: %w", ErrNothing, first)
}

// Confirm says that the system started last works: its release becomes the
// active one, and the element refuses older security versions from now on. The
// state comes first: a power cut between leaves the counter lower than it may
// be, and the next Confirm raises it; the other way round the old release would
// be refused while the new one is still on trial.
func (s *Slots) Confirm() (*firmware.Statement, error) {
	st, err := s.State()
	if err != nil {
		return nil, err
	}
	if st.Running == "" {
		return nil, nil //nolint:nilnil // nothing was started through Boot: nothing to confirm
	}
	x := st.slot(st.Running)
	if x.State != Trial && x.State != Good {
		return nil, fault.Errorf(fault.Policy, "slot %s is %s and cannot be confirmed", st.Running, x.State)
	}
	floor, err := s.element.SecurityVersion()
	if err != nil {
		return nil, err
	}
	// The way back closes here, so what it closes for must still start.
	statement, err := s.verify(st.Running, x, floor)
	if err != nil {
		return nil, err
	}
	if x.State == Trial || st.Active != st.Running {
		x.State, x.Tries, st.Active = Good, 0, st.Running
		if err := s.save(st, "confirm"); err != nil {
			return nil, err
		}
	}
	if err := s.step("close the way back to replaced keys"); err != nil {
		return nil, err
	}
	if err := s.succession.confirmed(x.Bundle); err != nil {
		return nil, err
	}
	if err := s.step("raise the security version"); err != nil {
		return nil, err
	}
	if floor >= statement.Predicate.SecurityVersion {
		return statement, nil
	}
	return statement, s.element.RaiseSecurityVersion(statement.Predicate.SecurityVersion)
}
