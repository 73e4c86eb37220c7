package actions

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/signrequest"
	"keyrite/ceremony"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

const (
	// answerLimit is how long the ceremony waits for one answer.
	answerLimit = 15 * time.Minute
	// answerPoll is how often it looks for one.
	answerPoll = 200 * time.Millisecond
)

// elsewhere asks a person who signs on his own machine, by files in a folder that
// stands for the medium which goes to and fro: NAME-1.request out, NAME-1.answer
// back. Whatever comes is only taken if it is his signature over the very message.
type elsewhere struct {
	person *person.Person
	dir    string
	limit  time.Duration

	mu   sync.Mutex // guards the rest
	n    int
	done chan struct{} // closed by Lock
	say  func(level, text string)
}

// Tell implements ceremony.Teller: the room hears which request goes out, with the
// words that the person sees on his machine.
func (e *elsewhere) Tell(say func(level, text string)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.say = say
}

// Unlock implements ceremony.Unlocker. Nothing is asked: there is no secret here.
func (e *elsewhere) Unlock(context.Context, ceremony.Ask) (*person.Key, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done == nil {
		e.done = make(chan struct{})
	}
	return signrequest.Elsewhere(e.person, e.ask, nil)
}

// Lock implements ceremony.Unlocker; whoever waits for an answer gives up.
func (e *elsewhere) Lock() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done != nil {
		close(e.done)
		e.done = nil
	}
}

func (e *elsewhere) ask(message []byte) ([]byte, error) {
	e.mu.Lock()
	e.n++
	base, done, say := filepath.Join(e.dir, e.person.Name+"-"+strconv.Itoa(e.n)), e.done, e.say
	e.mu.Unlock()
	r, err := signrequest.New(e.person, "ceremony, signature "+strconv.Itoa(e.n)+" of "+e.person.Name, message, time.Now(), e.limit)
	if err != nil {
		return nil, err
	}
	data, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	if err := durable.WriteNew(base+".request", data, 0o644); err != nil {
		return nil, err
	}
	if say != nil {
		_, words := r.Digest()
		say("", e.person.Name+" signs elsewhere: "+base+".request; its digest in words: "+words)
	}
	end := time.NewTimer(e.limit)
	defer end.Stop()
	look := time.NewTicker(answerPoll)
	defer look.Stop()
	for {
		if _, err := os.Lstat(base + ".answer"); err == nil {
			answer, err := intake.Read(base+".answer", signrequest.MaxBytes)
			if err != nil {
				return nil, err
			}
			return signrequest.Verify(answer, r, e.person)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fault.Errorf(fault.Storage, "look for an answer: %w", err)
		}
		select {
		case <-look.C:
		case <-done:
			return nil, fault.Errorf(fault.Interrupted, "nobody waits for the answer of %s any more", e.person.Name)
		case <-end.C:
			return nil, fault.Errorf(fault.Unreachable, "no answer of %s in %s", e.person.Name, e.limit)
		}
	}
}
