package actions

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/lines"
	"keyrite/artifact/person"
	"keyrite/artifact/signrequest"
	"keyrite/ceremony"
	"keyrite/ceremony/paper"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

const (
	// answerLimit is how long the ceremony waits for one answer, if the step's own
	// limit does not end it before.
	answerLimit = 15 * time.Minute
	// answerPoll is how often it looks for one.
	answerPoll = 200 * time.Millisecond
	// answerStill is how often a file must look the same before it is judged: a
	// medium is slow, and half an answer is no miss.
	answerStill = 5
)

// elsewhere asks a person who signs on his own machine. The request goes out as a
// file and a sheet to print, in a folder that stands for the medium, and is shown
// on request; the answer comes back as a file there, or is typed or scanned at the
// terminal. Whatever comes is only taken if it is his signature over the very
// message; anything else is a planned miss.
type elsewhere struct {
	person *person.Person
	dir    string
	limit  time.Duration

	mu  sync.Mutex // guards the rest
	n   int
	ask func(message []byte) ([]byte, error) // nil: nobody waits for answers
}

// Unlock implements ceremony.Unlocker. Nothing is asked: there is no secret here.
func (e *elsewhere) Unlock(context.Context, ceremony.Ask) (*person.Key, error) {
	if info, err := os.Stat(e.dir); err != nil || !info.IsDir() {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "%s signs elsewhere, and there is no folder %q for his requests", e.person.Name, e.dir),
			"mount the medium there, or make the folder; the binding names it (elsewhere)")
	}
	return signrequest.Elsewhere(e.person, e.sign, nil)
}

// Lock implements ceremony.Unlocker: nothing is asked from here on.
func (e *elsewhere) Lock() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ask = nil
}

// Attend implements ceremony.Attended.
func (e *elsewhere) Attend(ctx context.Context, r *ceremony.Run) func() {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.ask
	e.ask = func(message []byte) ([]byte, error) { return e.request(ctx, r, message) }
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.ask = before
	}
}

func (e *elsewhere) sign(message []byte) ([]byte, error) {
	e.mu.Lock()
	ask := e.ask
	e.mu.Unlock()
	if ask == nil {
		return nil, fault.Errorf(fault.Interrupted, "nobody waits for the answer of %s", e.person.Name)
	}
	return ask(message)
}

// errand is one request on its way.
type errand struct {
	e     *elsewhere
	r     *ceremony.Run
	q     *signrequest.Request
	base  string       // path without .request and .answer
	typed *lines.Sheet // lines of the answer so far
	tries int          // answers that could not be used
	file  []byte       // what came by file, the last time it was looked at
	still int          // how often it looked the same; judged ones stay at -1
	shown *signrequest.Shown
}

// request asks for one signature and waits for it.
func (e *elsewhere) request(ctx context.Context, r *ceremony.Run, message []byte) ([]byte, error) {
	e.mu.Lock()
	e.n++
	n := strconv.Itoa(e.n)
	e.mu.Unlock()
	q, err := signrequest.New(e.person, "ceremony "+r.ID+", signature "+n+" of "+e.person.Name, message, time.Now(), e.limit)
	if err != nil {
		return nil, err
	}
	// The attempt's id is in the name: what an earlier one left is not in the way.
	a := &errand{e: e, r: r, q: q, base: filepath.Join(e.dir, e.person.Name+"-"+r.ID[:8]+"-"+n), typed: &lines.Sheet{}}
	if err := a.write(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, e.limit, fault.Errorf(fault.Unreachable, "no answer of %s in %s", e.person.Name, e.limit))
	defer cancel()
	sig, err := a.wait(ctx)
	if err != nil && ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return sig, err
}

// write puts the request on the medium, and a sheet beside it where one holds it.
func (a *errand) write() error {
	data, err := a.q.Marshal()
	if err != nil {
		return err
	}
	if a.shown, err = a.q.Show(); err != nil {
		return err
	}
	if err := durable.WriteNew(a.base+".request", data, 0o644); err != nil {
		return err
	}
	_, words := a.q.Digest()
	a.r.Console.Say("", a.e.person.Name+" signs elsewhere: "+a.base+".request; its digest in words: "+words)
	if len(data) > paper.MaxRequestBytes {
		return nil
	}
	sheet, err := paper.Request(a.q, a.shown)
	if err != nil {
		return err
	}
	return durable.WriteNew(a.base+".html", sheet, 0o644)
}

// heard is what somebody at the terminal said.
type heard struct {
	text string
	err  error
}

// wait takes what comes first, by file or at the terminal, until one answer is good.
func (a *errand) wait(ctx context.Context) ([]byte, error) {
	look := time.NewTicker(answerPoll)
	defer look.Stop()
	nobody := false
	for {
		answers := make(chan heard, 1)
		actx, take := context.WithCancel(ctx)
		if !nobody {
			go func() { answers <- a.prompt(actx) }()
		}
		sig, said, err := a.first(ctx, look.C, answers)
		take()
		if said == nil && !nobody {
			// The question is taken back before the next one; an incident that was
			// called at the same moment goes first.
			if h := <-answers; errors.Is(h.err, ceremony.ErrIncident) {
				return nil, h.err
			}
		}
		switch {
		case err != nil || sig != nil:
			return sig, err
		case said == nil:
		case errors.Is(said.err, ceremony.ErrNoTerminal):
			nobody = true // files only
		case said.err != nil:
			return nil, said.err
		default:
			if sig, err = a.hear(ctx, said.text); err != nil || sig != nil {
				return sig, err
			}
		}
	}
}

// first waits for a file that can be judged, or for somebody at the terminal.
func (a *errand) first(ctx context.Context, look <-chan time.Time, answers <-chan heard) ([]byte, *heard, error) {
	for {
		select {
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case h := <-answers:
			return nil, &h, nil
		case <-look:
			data := a.look()
			if data == nil {
				continue
			}
			sig, err := a.judge(data)
			return sig, nil, err
		}
	}
}

// Words that somebody at the terminal says instead of an answer's lines.
const (
	sayLook     = "look"
	sayShow     = "show"
	sayUnsigned = "unsigned"
)

// optional says whether the ceremony goes its way without the signature: an incident
// voids it all the same, and who does not cosign now does it later.
func (a *errand) optional() bool {
	return a.shown.Purpose == signrequest.Incident || a.shown.Purpose == signrequest.Cosign
}

// prompt asks whoever carries the answer.
func (a *errand) prompt(ctx context.Context) heard {
	want := []string{sayLook, sayShow}
	if a.optional() {
		want = append(want, sayUnsigned)
	}
	_, words := a.q.Digest()
	text := "signs elsewhere: " + words + ". Bring " + filepath.Base(a.base) + ".answer, or type or scan the answer's lines"
	if a.typed.Begun() {
		text += " (" + a.typed.Missing() + " to come)"
	}
	said, err := a.r.Ask(ctx, a.e.person.Name, text, want...)
	return heard{said, err}
}

// hear takes what was said: one of the words, or a line.
func (a *errand) hear(ctx context.Context, text string) ([]byte, error) {
	switch {
	case text == sayLook:
		return nil, nil
	case text == sayShow:
		return nil, a.show(ctx)
	case text == sayUnsigned && a.optional():
		return nil, fault.Errorf(fault.Unreachable, "%s did not sign it elsewhere", a.e.person.Name)
	}
	if err := a.typed.Add(text); err != nil {
		// A misread line costs nothing: it can only be typed again.
		a.r.Console.Say("bad", err.Error())
		return nil, nil
	}
	if a.typed.Missing() != "" {
		return nil, nil
	}
	data, err := a.typed.Bytes()
	a.typed = &lines.Sheet{}
	if err != nil {
		return nil, a.miss(err)
	}
	answer, err := signrequest.FromShort(data, a.q)
	if err != nil {
		return nil, a.miss(err)
	}
	file, err := answer.Marshal()
	if err != nil {
		return nil, err
	}
	return a.judge(file)
}

// show shows the request as it would be on its sheet.
func (a *errand) show(ctx context.Context) error {
	data, err := a.q.Marshal()
	if err != nil {
		return err
	}
	digest, words := a.q.Digest()
	rows := append(append([]string{}, a.shown.Lines...), "digest "+digest, "in words: "+words)
	if len(data) > paper.MaxRequestBytes {
		return a.r.Console.Page(ctx, a.e.person.Name+" is asked: "+a.base+".request (too long for a code: bring the file)", "", rows)
	}
	rows = append(rows, "the request in lines, for keyrite person sign:")
	typed, err := lines.Of(data)
	if err != nil {
		return err
	}
	return a.r.Console.Page(ctx, a.e.person.Name+" is asked: "+a.base+".request; to print: .html", string(data), append(rows, typed...))
}

// look reads the answer's file. It is nil until it looks the same for a while, and
// again once it was judged.
func (a *errand) look() []byte {
	data, err := intake.Read(a.base+".answer", signrequest.MaxBytes)
	if err != nil {
		a.file, a.still = nil, 0
		return nil
	}
	if string(data) != string(a.file) {
		a.file, a.still = data, 0
	}
	if a.still < 0 {
		return nil
	}
	// A good one needs no patience.
	if _, err := signrequest.Verify(data, a.q, a.e.person); err != nil {
		if a.still++; a.still < answerStill {
			return nil
		}
	}
	a.still = -1
	return data
}

// judge takes the signature out of an answer, or counts a miss.
func (a *errand) judge(data []byte) ([]byte, error) {
	sig, err := signrequest.Verify(data, a.q, a.e.person)
	if err != nil {
		return nil, a.miss(err)
	}
	return sig, nil
}

func (a *errand) miss(err error) error {
	a.tries++
	return a.r.Missed(a.e.person.Name, a.tries, fault.Hint(err, "bring the answer to "+filepath.Base(a.base)+".request, which names this ceremony"))
}
