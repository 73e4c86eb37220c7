package update

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/succession"
	"keyrite/internal/durable"
)

// SuccessionTarget is the name under which the repository offers the succession
// statement.
const SuccessionTarget = "succession.json"

// BootDir is the folder of slots and succession in a gateway's state folder.
const BootDir = "boot"

const anchorsFile = "anchors.json"

// ErrReplaced says that a release is signed by a key that was replaced, or that
// the succession statement by which it was is missing.
var ErrReplaced = fault.New(fault.Policy, "the firmware key has been replaced")

// Succession is what a gateway knows of keys that gave way to others: the
// statement and, since it is verified anew each time, the anchors of the birth.
// The element counts twice the counter of the statement that was seen, and one
// more once a release under it was confirmed: until then a gateway still starts
// what it had, and nothing is bricked; from then on never again.
type Succession struct {
	dir     string
	element Element
	anchors *anchor.Anchors       // as read aloud; nil if nothing was replaced
	st      *succession.Statement // nil if nothing was replaced
	eff     *anchor.Anchors       // in force under st
	done    bool                  // the element counted a release under st, or was born without the counter
	counted bool                  // the element has the counter

	step func(string) error // called before each effect; tests cut the power there
}

// LoadSuccession reads what dir holds.
func LoadSuccession(dir string, e Element) (*Succession, error) {
	x := &Succession{dir: dir, element: e, step: func(string) error { return nil }}
	data, err := os.ReadFile(filepath.Join(dir, SuccessionTarget))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Errorf(fault.Storage, "read the succession: %w", err)
	}
	if err == nil {
		if err := x.read(data); err != nil {
			return nil, err
		}
	}
	return x, x.weigh()
}

// finish has the element count a statement that was kept when the power was cut. Until
// then an older state folder could have been put back.
func (x *Succession) finish() error { return x.count(2 * x.counter()) }

// read takes a stored statement, with the stored anchors that the element names.
func (x *Succession) read(data []byte) error {
	anchors, err := os.ReadFile(filepath.Join(x.dir, anchorsFile))
	if err != nil {
		return fault.Errorf(fault.Storage, "read the succession's anchors: %w", err)
	}
	b, err := x.element.Birth()
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(anchors); hex.EncodeToString(sum[:]) != b.Anchors {
		return fault.Errorf(fault.Verify, "%w: its anchors are not those of the birth", ErrState)
	}
	if x.anchors, err = anchor.Parse(anchors); err != nil {
		return err
	}
	st, err := succession.Verify(data, x.anchors)
	if err != nil {
		return err
	}
	return x.set(st)
}

func (x *Succession) set(st *succession.Statement) (err error) {
	x.st = st
	x.eff, err = succession.Apply(x.anchors, st)
	return err
}

func (x *Succession) counter() int64 {
	if x.st == nil {
		return 0
	}
	return x.st.Counter
}

// weigh holds the statement against the element's counter. One that is ahead of it is
// left by a power cut between the two.
func (x *Succession) weigh() error {
	v, ok, err := x.element.Succession()
	if err != nil {
		return err
	}
	if x.counted = ok; !ok {
		return nil
	}
	if 2*x.counter() < v&^1 {
		return fault.Hint(fault.Errorf(fault.Policy, "%w, and the statement that says so is older than the one seen before", ErrReplaced),
			"somebody put an older state folder back: bring "+SuccessionTarget+" and "+anchorsFile+" back to "+x.dir)
	}
	x.done = x.st != nil && v == 2*x.counter()+1
	return nil
}

// InForce are the anchors under the succession; a if nothing was replaced.
func (x *Succession) InForce(a *anchor.Anchors) *anchor.Anchors {
	if x == nil || x.st == nil {
		return a
	}
	return x.eff
}

// Counter is that of the statement in force, 0 without one.
func (x *Succession) Counter() int64 {
	if x == nil {
		return 0
	}
	return x.counter()
}

// take verifies a statement that was offered against the anchors of the birth and
// puts it in force if it goes further: first on disk, then in the element. The
// one in force, or an older one that it continues, changes nothing.
func (x *Succession) take(data []byte, a *anchor.Anchors) error {
	st, err := succession.Verify(data, a)
	if err != nil {
		return err
	}
	if err := st.Follow(x.st); err != nil {
		if errors.Is(err, succession.ErrOlder) {
			return nil
		}
		return err
	}
	anchors, err := a.Marshal()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(x.dir, 0o700); err != nil {
		return fault.Errorf(fault.Storage, "keep the succession: %w", err)
	}
	if err := x.step("keep the anchors"); err != nil {
		return err
	}
	if err := durable.Replace(filepath.Join(x.dir, anchorsFile), anchors, 0o600); err != nil {
		return err
	}
	if err := x.step("keep the statement"); err != nil {
		return err
	}
	if err := durable.Replace(filepath.Join(x.dir, SuccessionTarget), data, 0o600); err != nil {
		return err
	}
	x.anchors = a
	if err := x.set(st); err != nil {
		return err
	}
	return x.count(2 * st.Counter)
}

// count raises the element's counter.
func (x *Succession) count(v int64) error {
	if !x.counted {
		return nil
	}
	have, _, err := x.element.Succession()
	if err != nil || have >= v {
		return err
	}
	if err := x.step("count the statement"); err != nil {
		return err
	}
	if err := x.element.RaiseSuccession(v); err != nil {
		return err
	}
	return x.weigh()
}

// confirmed closes the way back to the keys before, after a release of the key in
// force has shown that it works.
func (x *Succession) confirmed(bundle []byte) error {
	if x.st == nil {
		return nil
	}
	t, err := firmware.TrustOf(x.eff)
	if err != nil {
		return err
	}
	if _, err := firmware.Open(bundle, t); err != nil {
		return nil //nolint:nilerr // a release of the key before: the way back stays open
	}
	return x.count(2*x.counter() + 1)
}

// started verifies the statement of a release that is in a slot already: one of
// the key in force, or of a key before it as long as no release of the one in
// force was confirmed here. active is the statement of the last confirmed one.
func (x *Succession) started(bundle, active []byte) (*firmware.Statement, error) {
	if x.st == nil {
		t, err := trust(x.element, nil)
		if err != nil {
			return nil, err
		}
		return firmware.Open(bundle, t)
	}
	t, err := firmware.TrustOf(x.eff)
	if err != nil {
		return nil, err
	}
	st, err := firmware.Open(bundle, t)
	if !errors.Is(err, firmware.ErrGone) || x.done {
		return st, err
	}
	if _, aerr := firmware.Open(active, t); !x.counted && aerr == nil {
		return nil, err
	}
	for _, before := range t.Before() {
		if st, berr := firmware.Open(bundle, before); berr == nil {
			return st, nil
		}
	}
	return nil, err
}
