package ceremony

import (
	"context"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/ceremony/script"
	"keyrite/internal/redact"
)

// Participant is one person with his role and what unlocks his key.
type Participant struct {
	Person *person.Person
	Role   string
	Group  string // of key masters: whose safes he holds shares of, as safes[].group of the script
	Key    Unlocker
}

// Ask asks a person for the passphrase or PIN of his key. wrong is nil the first
// time; from then on it says why the one before was refused, which is recorded as
// a miss. When the tries are used up it returns a Contingency of cause passphrase.
// The caller wipes the secret.
type Ask func(ctx context.Context, wrong error) (*redact.Secret, error)

// Unlocker is a person's key before it is unlocked.
type Unlocker interface {
	// Unlock opens the key, which is held until Lock. A card that wants its PIN
	// for every signature keeps ask, which serves until then.
	Unlock(ctx context.Context, ask Ask) (*person.Key, error)
	// Lock wipes what Unlock left. It may be called more than once, and without it.
	Lock()
}

// Attended is an Unlocker whose signatures wait for somebody who is not in the room.
type Attended interface {
	// Attend lends it the room until leave is called. Its signatures wait no longer
	// than ctx, and ask nobody outside of that time.
	Attend(ctx context.Context, r *Run) (leave func())
}

// KeyFile unlocks NAME.key, the file given, with the passphrase of its person.
func KeyFile(data []byte) Unlocker { return &keyFile{data: data} }

type keyFile struct {
	data []byte
	key  *person.Key
}

func (f *keyFile) Unlock(ctx context.Context, ask Ask) (*person.Key, error) {
	var wrong error
	for {
		pass, err := ask(ctx, wrong)
		if err != nil {
			return nil, err
		}
		f.key, err = person.Open(f.data, pass.Bytes())
		pass.Zero()
		if fault.ClassOf(err) != fault.Token {
			return f.key, err
		}
		wrong = err
	}
}

func (f *keyFile) Lock() {
	if f.key != nil {
		f.key.Zero()
		f.key = nil
	}
}

// defaultTries is how often an answer or passphrase may be given outside steps.
const defaultTries = 3

// askFor returns how the key of that person asks for its secret.
func (r *Run) askFor(name string) Ask {
	try := 0
	return func(ctx context.Context, wrong error) (*redact.Secret, error) {
		if wrong == nil {
			try = 0
		} else {
			try++
			if err := r.miss("passphrase", name, try); err != nil {
				return nil, err
			}
			r.Console.Say("bad", name+": "+wrong.Error())
			if of := r.allowed(); try >= of {
				return nil, &Contingency{CausePassphrase, fault.Errorf(fault.Token, "%s: %w, %d times", name, wrong, of)}
			}
		}
		return r.Console.Secret(ctx, name)
	}
}

// allowed is how many tries there are in this step.
func (r *Run) allowed() int {
	if r.tries > 0 {
		return r.tries
	}
	return defaultTries
}

// miss records a planned miss. Nothing follows the end: who cosigns then may
// mistype unrecorded.
func (r *Run) miss(what, name string, try int) error {
	if r.ended {
		return nil
	}
	return r.Record(&record.Miss{Of: r.allowed(), Try: try, What: what, Who: name})
}

// Unlock unlocks a person's key, once; it is held until the attempt ends.
func (r *Run) Unlock(ctx context.Context, name string) error {
	if r.held[name] != nil {
		return nil
	}
	p, ok := r.Participant(name)
	if !ok {
		return fault.Errorf(fault.Policy, "%s takes no part in this ceremony", name)
	}
	key, err := p.Key.Unlock(ctx, r.askFor(name))
	if err != nil {
		return err
	}
	if got := key.Public(); got.Name != name || !got.Equal(p.Person) || got.World != r.World {
		p.Key.Lock()
		return fault.Errorf(fault.Verify, "the key file of %s is of another person or world", name)
	}
	r.held[name] = key
	return nil
}

// Holds says whether the person's key is unlocked.
func (r *Run) Holds(name string) bool { return r.held[name] != nil }

// WithKey lends f a person's key, to sign what. If it is held already, he is asked
// to say yes; otherwise he unlocks it, which says as much.
func (r *Run) WithKey(ctx context.Context, name, what string, f func(k *person.Key) error) error {
	if r.held[name] == nil {
		if err := r.Unlock(ctx, name); err != nil {
			return err
		}
	} else if err := r.signs(ctx, name, what); err != nil {
		return err
	}
	return r.use(ctx, name, f)
}

// use lends f a key that is held.
func (r *Run) use(ctx context.Context, name string, f func(k *person.Key) error) error {
	p, _ := r.Participant(name)
	if a, ok := p.Key.(Attended); ok {
		defer a.Attend(ctx, r)()
	}
	return f(r.held[name])
}

// signs asks a person whether his key may be used now. The yes is not an entry:
// what he signs is.
func (r *Run) signs(ctx context.Context, name, what string) error {
	_, err := r.choose(ctx, &script.Step{ID: r.Step()}, name, "Sign "+what+"?", "yes")
	return err
}

// lock wipes every key.
func (r *Run) lock() {
	for _, p := range r.People {
		p.Key.Lock()
	}
	clear(r.held)
}

// Participant returns the person of that name.
func (r *Run) Participant(name string) (*Participant, bool) {
	for i := range r.People {
		if r.People[i].Person.Name == name {
			return &r.People[i], true
		}
	}
	return nil, false
}

// Names returns the names of all with that role, in the order of the binding.
func (r *Run) Names(role string) []string {
	var out []string
	for _, p := range r.People {
		if p.Role == role {
			out = append(out, p.Person.Name)
		}
	}
	return out
}

// Members is the roster for the charter.
func (r *Run) Members() []charter.Member {
	var out []charter.Member
	for _, p := range r.People {
		out = append(out, charter.Member{Person: *p.Person, Role: p.Role})
	}
	return out
}
