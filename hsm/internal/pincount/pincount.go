// Package pincount counts, on disk, how often a token was given a wrong PIN by
// programs of keyrite, and says when the next try is allowed. Many tokens lock
// after a few wrong PINs, which may destroy what is in them; SoftHSM never does,
// and can be asked for ever. So keyrite has a limit of its own (CWE-307): after
// three wrong PINs in a row it waits, longer each time, and after ten it stops
// until a person resets the counter.
//
// A try is counted, durably, before the PIN is given: a process that is killed,
// or a machine that loses power, in between has used a try up. What cannot be
// read or written allows no try. The module half of keyrite-hsmd uses this package,
// around each PIN that it gives a token; it never sees one.
package pincount

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

// Who is the owner of a PIN.
type Who string

// The owners.
const (
	User Who = "user"
	SO   Who = "so"
)

// The limits, per token and owner, of wrong PINs in a row.
const (
	// free tries come without a wait, as a person mistypes.
	free = 3
	// Limit wrong PINs lock the counter until somebody resets it.
	Limit = 10
	// firstWait follows the last free try; each further one doubles it.
	firstWait = 30 * time.Second
)

// What a caller can tell apart.
var (
	// ErrSpent: the limit is reached.
	ErrSpent = errors.New("too many wrong PINs")
	// ErrDamaged: the counter is there and cannot be believed.
	ErrDamaged = errors.New("the PIN counter is damaged")
)

// WaitError says how long no PIN is tried.
type WaitError struct {
	Wrong int
	Left  time.Duration
}

func (e *WaitError) Error() string {
	return fmt.Sprintf("%d wrong PINs in a row; no PIN is tried for another %v", e.Wrong, e.Left.Round(time.Second))
}

// Tries is the state of one owner's PIN.
type Tries struct {
	Wrong int       `json:"wrong"` // in a row; a try under way counts
	Since time.Time `json:"since"` // of the last try, by the clock of this machine
}

// Reset is one reset by a person.
type Reset struct {
	Time   time.Time `json:"time"`
	UID    int       `json:"uid"`
	Reason string    `json:"reason"`
	User   int       `json:"user"` // wrong PINs that it made forgotten, -1 if they could not be read
	SO     int       `json:"so"`
}

const (
	format    = "keyrite/pin-counter/v1"
	maxBytes  = 64 << 10
	maxResets = 20 // the oldest goes
	// MaxReason bounds what a person writes, in bytes.
	MaxReason = 200
)

// State is what the file says.
type State struct {
	Format string  `json:"format"`
	Serial string  `json:"serial"`
	User   Tries   `json:"user"`
	SO     Tries   `json:"so"`
	Resets []Reset `json:"resets"`
}

func (s *State) tries(w Who) *Tries {
	if w == SO {
		return &s.SO
	}
	return &s.User
}

// Counter is the counter of one token.
type Counter struct {
	Dir    string // folder of the file, which must exist
	Serial string // of the token
	Now    func() time.Time
}

// Path is the file:
//
//	one line   State as JSON
//	one line   SHA-256 of the first line without its newline, hex
func (c *Counter) Path() string {
	// A serial number may hold any character.
	return filepath.Join(c.Dir, ".keyrite-"+hex.EncodeToString([]byte(c.Serial))+".pins")
}

// Lock keeps other processes away until the returned function is called. It is
// held from before Begin until after the outcome is known, so that two processes
// cannot both have the last try.
func (c *Counter) Lock() (func(), error) {
	f, err := os.OpenFile(c.Path()+".lock", os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the PIN counter: %w", err)
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the PIN counter: %w", err)
	}
	return func() { f.Close() }, nil
}

// Load reads the counter; one that does not exist has counted nothing.
func (c *Counter) Load() (*State, error) {
	f, err := intake.Open(c.Path())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &State{Format: format, Serial: c.Serial, Resets: []Reset{}}, nil
	case errors.Is(err, intake.ErrKind), errors.Is(err, intake.ErrEmpty):
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	case err != nil:
		return nil, fmt.Errorf("read the PIN counter: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("%w: others than the owner of %s may write it", ErrDamaged, c.Path())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err == nil {
		err = f.Unchanged()
	}
	if err != nil {
		return nil, fmt.Errorf("read the PIN counter: %w", err)
	}
	s, err := parse(data)
	if err == nil && s.Serial != c.Serial {
		err = errors.New("it is another token's")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, c.Path(), err)
	}
	return s, nil
}

func parse(data []byte) (*State, error) {
	line, sum, ok := bytes.Cut(data, []byte("\n"))
	want := sha256.Sum256(line)
	if !ok || len(data) > maxBytes || string(sum) != hex.EncodeToString(want[:])+"\n" {
		return nil, errors.New("its checksum does not fit")
	}
	var s State
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return nil, err
	}
	for _, t := range []Tries{s.User, s.SO} {
		if t.Wrong < 0 || t.Wrong > Limit {
			return nil, errors.New("impossible number of tries")
		}
	}
	if s.Format != format {
		return nil, fmt.Errorf("format %q", s.Format)
	}
	return &s, nil
}

func (c *Counter) store(s *State) error {
	if s.User.Wrong == 0 && s.SO.Wrong == 0 && len(s.Resets) == 0 {
		// Nothing to remember is no file.
		err := os.Remove(c.Path())
		if err == nil {
			err = durable.SyncDir(c.Dir)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("write the PIN counter: %w", err)
		}
		return nil
	}
	line, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("write the PIN counter: %w", err)
	}
	sum := sha256.Sum256(line)
	out := append(append(line, '\n'), hex.EncodeToString(sum[:])+"\n"...)
	if err := durable.Replace(c.Path(), out, 0o600); err != nil {
		return fmt.Errorf("write the PIN counter: %w", err)
	}
	return nil
}

// Begin counts a try that is about to be made, or says why none is made. low
// says that the token itself remembers a wrong PIN, which somebody else may have
// given it. The counter must be locked.
func (c *Counter) Begin(w Who, low bool) error {
	s, err := c.Load()
	if err != nil {
		return err
	}
	t := s.tries(w)
	if t.Wrong >= Limit {
		return ErrSpent
	}
	now := c.Now().UTC()
	if t.Wrong == 0 && low {
		t.Wrong = 1
	}
	if wait := backOff(t.Wrong); wait > 0 {
		if now.Before(t.Since) {
			// The clock was set back: the whole wait begins again, once.
			t.Since = now
			if err := c.store(s); err != nil {
				return err
			}
		}
		if left := wait - now.Sub(t.Since); left > 0 {
			return &WaitError{t.Wrong, left}
		}
	}
	t.Wrong++
	t.Since = now
	return c.store(s)
}

// backOff is the wait after so many wrong PINs in a row.
func backOff(wrong int) time.Duration {
	if wrong < free {
		return 0
	}
	return firstWait << (min(wrong, Limit) - free)
}

// Good forgets the tries: the PIN was right, or replaced by who may.
func (c *Counter) Good(w Who) error {
	s, err := c.Load()
	if err != nil {
		return err
	}
	if *s.tries(w) == (Tries{}) {
		return nil
	}
	*s.tries(w) = Tries{}
	return c.store(s)
}

// GiveBack takes back one try of which the token said nothing: it failed for
// another reason before or after it looked at the PIN.
func (c *Counter) GiveBack(w Who) error {
	s, err := c.Load()
	if err != nil {
		return err
	}
	t := s.tries(w)
	if t.Wrong--; t.Wrong <= 0 {
		*t = Tries{}
	}
	return c.store(s)
}

// Restore puts the tries back to what they were, after the token refused the first
// of two PINs of which it has one. The second is then tried at once, and counts.
func (c *Counter) Restore(w Who, t Tries) error {
	s, err := c.Load()
	if err != nil {
		return err
	}
	*s.tries(w) = t
	return c.store(s)
}

// Of gives the tries of one of the two.
func (s *State) Of(w Who) Tries { return *s.tries(w) }

// Reset forgets everything, and remembers who did that and why. It is the way
// out of a damaged counter, too. The counter must be locked.
func (c *Counter) Reset(uid int, reason string) (*State, error) {
	r := Reset{Time: c.Now().UTC(), UID: uid, Reason: reason, User: -1, SO: -1}
	s, err := c.Load()
	switch {
	case errors.Is(err, ErrDamaged):
		s = &State{Format: format, Serial: c.Serial}
	case err != nil:
		return nil, err
	default:
		r.User, r.SO = s.User.Wrong, s.SO.Wrong
	}
	s.User, s.SO = Tries{}, Tries{}
	s.Resets = append(s.Resets, r)
	s.Resets = s.Resets[max(0, len(s.Resets)-maxResets):]
	return s, c.store(s)
}
