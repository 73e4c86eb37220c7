// Package watch reads when files of the vault's host end: its own certificate, the
// reports that admit its token, and what the binding has it watch, such as a folder of
// TUF metadata. cmd/keyrite-vault makes one and runs it; vault/node asks it for what
// ends, which never waits for a disk.
//
//	w := watch.New(watch.Config{...})
//	go w.Run(ctx)
//	things := w.Things(charter)
//
// What is read here is told to people and decides nothing: no signature is verified, but
// those that a format's own parser verifies. A file that cannot be read is told of like
// one that has ended. This package must never write, and never hold up who asks.
package watch

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/charter"
	"keyrite/vault/duty"
)

// Period is how often the files are read.
const Period = 10 * time.Minute

// MaxFiles bounds what a binding has watched.
const MaxFiles = 64

// Files are what a binding names.
type Files struct {
	TUF          []string // folders with TUF metadata
	Bundles      []string // bundles of factories
	Rehearsals   []string // records of rehearsals, or folders of records
	CRLs         []string // lists of others, DER or PEM
	Certificates []string // others' certificates, DER or PEM; the first of a file counts
}

// all are the files with their readers.
func (f *Files) all() []source {
	var out []source
	add := func(paths []string, read func(*Watch, string) []duty.Thing) {
		for _, p := range paths {
			out = append(out, source{p, read})
		}
	}
	add(f.TUF, (*Watch).tuf)
	add(f.Bundles, (*Watch).bundle)
	add(f.Rehearsals, (*Watch).rehearsals)
	add(f.CRLs, (*Watch).crl)
	add(f.Certificates, func(w *Watch, p string) []duty.Thing { return w.certificate(duty.Certificate, "certificate", p) })
	return out
}

// source is one file or folder, and how it is read.
type source struct {
	path string
	read func(*Watch, string) []duty.Thing
}

// Config says what is watched. Everything may be empty.
type Config struct {
	Files
	// Server is the certificate of the vault's own listener, PEM.
	Server string
	// Admissions are reports, as unseal.Config has them.
	Admissions [][]byte
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Watch has what the files said when they were read last.
type Watch struct {
	c       Config
	records map[string]seenRecord // by folder; of the one goroutine that looks

	mu     sync.Mutex // guards the rest
	things []duty.Thing
	looked time.Time // before the first time: when it was made
}

// New watches nothing yet.
func New(c Config) *Watch {
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Watch{c: c, records: map[string]seenRecord{}, looked: c.Now()}
}

// Run looks at once, and then each Period, until ctx ends. One goroutine at a time may
// run it.
func (w *Watch) Run(ctx context.Context) {
	tick := time.NewTicker(Period)
	defer tick.Stop()
	for {
		w.Look()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Look reads all files now. It may not be called while Run is.
func (w *Watch) Look() {
	var out []duty.Thing
	if w.c.Server != "" {
		out = append(out, w.certificate(duty.ServerCert, "certificate of the vault's listener", w.c.Server)...)
	}
	for _, s := range w.c.all() {
		out = append(out, s.read(w, s.path)...)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.things, w.looked = out, w.c.Now()
}

// Things are what the files said, and the reports that admit the tokens of st. Files
// that were not read for long, or never, are told of: somebody's disk hangs.
func (w *Watch) Things(st *charter.State) []duty.Thing {
	out := w.admissions(st)
	w.mu.Lock()
	defer w.mu.Unlock()
	out = append(out, w.things...)
	if since := w.c.Now().Sub(w.looked); since > 3*Period {
		out = append(out, duty.Thing{Kind: duty.Certificate, Name: "watch", About: "files that the binding watches", Fault: fmt.Sprintf("they could not be read for %s", since.Round(time.Minute))})
	}
	return out
}

// unreadable is a thing of which it is not known when it ends.
func unreadable(kind, name, about string, err error) duty.Thing {
	return duty.Thing{Kind: kind, Name: name, About: about, Fault: strings.ToValidUTF8(err.Error(), "�")}
}

// admissions are the newest reports of the tokens that st has safes in. One that is
// signed by nobody of the charter is told of as unreadable.
func (w *Watch) admissions(st *charter.State) []duty.Thing {
	type token struct{ label, serial string } // another firmware does not make another token
	newest := map[token]*admission.Report{}
	var out []duty.Thing
	for i, data := range w.c.Admissions {
		signed, err := admission.OpenAny(data, st.World, &st.People)
		if err != nil {
			out = append(out, unreadable(duty.Admission, fmt.Sprintf("%d", i+1), fmt.Sprintf("admission report %d of the binding", i+1), err))
			continue
		}
		for _, x := range signed {
			of := token{x.Report.Token.Label, x.Report.Token.Serial}
			if had := newest[of]; had == nil || had.Made < x.Report.Made {
				newest[of] = x.Report
			}
		}
	}
	for _, e := range st.Epochs {
		t := token{e.Token.Label, e.Token.Serial}
		r := newest[t]
		if r == nil {
			continue
		}
		x := duty.Thing{Kind: duty.Admission, Name: t.label + "/" + t.serial, About: "admission report of token " + t.label + " with serial " + t.serial}
		made, err1 := charter.ParseTime(r.Made)
		ends, err2 := charter.ParseTime(r.Expires)
		if err1 != nil || err2 != nil {
			x.Fault = "it has no times"
		}
		x.From, x.Ends = made, ends
		out = append(out, x)
	}
	return out
}
