// Package record is what remains of a ceremony: a folder that a stranger can
// verify without us.
//
// It holds script.yaml (the exact bytes that ran), transcript.jsonl (a chained
// log of entries), checkpoint (its tree head, signed by the conductor and
// cosigned), people/ and outputs/, and report.html, which is rendered from the
// rest and is not evidence. Writer makes entries; Verify checks a folder and
// names the first wrong entry. Nothing secret can be in a record: entries take
// only the data types of this package, all of them public.
//
// Compatibility: docs/formats/record.md, version 1 is read for ever.
package record

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/tlog"
)

// Names in the folder.
const (
	ScriptFile     = "script.yaml"
	TranscriptFile = "transcript.jsonl"
	CheckpointFile = "checkpoint"
	ReportFile     = "report.html"
	PeopleDir      = "people"
	OutputsDir     = "outputs"
	AdmissionsFile = "admissions.json" // in OutputsDir
)

const (
	originPrefix = "keyrite/record/"
	// MaxEntryBytes bounds one entry: 65,535 bytes is the entry limit of
	// c2sp.org/tlog-tiles, so that a transcript can be published there.
	MaxEntryBytes = 65535
)

// Entry is one line of the transcript.
type Entry struct {
	Data json.RawMessage `json:"data"`
	Mono int64           `json:"mono"` // milliseconds since the first entry, monotonic clock
	Prev string          `json:"prev"` // hex SHA-256 of the line before, 64 zeros for the first
	Seq  int64           `json:"seq"`  // from 0
	Step string          `json:"step"` // id of the script's step, "" outside steps
	Time string          `json:"time"` // RFC 3339, UTC, whole seconds
	Type string          `json:"type"`
}

var (
	// ErrEntry says that an entry is malformed or does not follow the one before.
	ErrEntry = fault.New(fault.Verify, "entry is wrong")
	// ErrRecord says that a record is incomplete or contradicts itself.
	ErrRecord = fault.New(fault.Verify, "record does not hold")
	// ErrVoid says that the record is of a void ceremony.
	ErrVoid = fault.New(fault.Void, "the ceremony is void")

	// ErrFew says that a ceremony fell before its conductor and witnesses were there.
	ErrFew = fault.Errorf(fault.Verify, "%w: too few people", ErrRecord)

	// errChain says that an entry does not carry the hash of the one before it;
	// Read finds out which of the two was altered.
	errChain = fault.Errorf(fault.Verify, "%w: it does not follow the one before it", ErrEntry)

	idRE = regexp.MustCompile(`^[0-9a-f]{16}$`)
)

// Origin is the checkpoint origin of the record with that id (16 hex digits).
func Origin(id string) string { return originPrefix + id }

// Transcript is a transcript being written or read.
type Transcript struct {
	tree  tlog.Tree
	prev  [32]byte
	mono  int64
	time  string // of the last entry
	first bool   // no entry yet
}

// NewTranscript returns an empty transcript.
func NewTranscript() *Transcript { return &Transcript{first: true} }

// Size and Root state the log so far.
func (t *Transcript) Size() int64 { return t.tree.Size() }

// Root is the tree root over all lines so far.
func (t *Transcript) Root() tlog.Hash { return t.tree.Root() }

// RootAt is the root when the transcript had size entries.
func (t *Transcript) RootAt(size int64) (tlog.Hash, error) { return t.tree.RootAt(size) }

func (t *Transcript) prevHex() string {
	if t.first {
		return strings.Repeat("0", 64)
	}
	return hex.EncodeToString(t.prev[:])
}

// Next returns the line of the next entry. It becomes part of the transcript
// only by Take, after it is durable.
func (t *Transcript) Next(step string, d Data, at time.Time, mono time.Duration) ([]byte, error) {
	body, err := jcs.Marshal(d)
	if err != nil {
		return nil, err
	}
	line, err := jcs.Marshal(Entry{
		Data: body, Mono: max(mono.Milliseconds(), t.mono), Prev: t.prevHex(), Seq: t.tree.Size(), Step: step,
		Time: at.UTC().Format(timeFormat), Type: d.entryType(),
	})
	if err == nil && len(line) > MaxEntryBytes {
		err = fault.Errorf(fault.Unexpected, "entry of %d bytes is longer than %d", len(line), MaxEntryBytes)
	}
	return line, err
}

const timeFormat = "2006-01-02T15:04:05Z"

// Take checks that line is the next entry and adds it.
func (t *Transcript) Take(line []byte) (*Entry, Data, error) {
	e := &Entry{}
	fail := func(err error) (*Entry, Data, error) {
		return nil, nil, fault.Errorf(fault.Verify, "%w: entry %d: %w", ErrEntry, t.tree.Size(), err)
	}
	if len(line) > MaxEntryBytes {
		return fail(fault.New(fault.Verify, "too long"))
	}
	if quick, ok := parseEntry(line); ok {
		e = quick
	} else if err := jcs.Unmarshal(line, e); err != nil {
		return fail(err)
	}
	switch {
	case !t.isTime(e.Time):
		return fail(fault.New(fault.Verify, "time is not RFC 3339 UTC in whole seconds"))
	case e.Seq != t.tree.Size():
		return fail(fault.Errorf(fault.Verify, "carries number %d", e.Seq))
	case e.Prev != t.prevHex():
		return nil, nil, errChain
	case e.Mono < t.mono:
		return fail(fault.New(fault.Verify, "is timed before the one before it"))
	}
	d, err := parseData(e.Type, e.Data)
	if err != nil {
		return fail(err)
	}
	if err := t.tree.Append(line); err != nil {
		return fail(err)
	}
	t.prev, t.mono, t.time, t.first = sha256.Sum256(line), e.Mono, e.Time, false
	return e, d, nil
}

// isTime says whether s is RFC 3339 in UTC with whole seconds.
func (t *Transcript) isTime(s string) bool {
	if s == t.time && !t.first {
		return true // nearly always: entries of one second
	}
	at, err := time.Parse(timeFormat, s)
	return err == nil && at.UTC().Format(timeFormat) == s
}

// Read takes a whole transcript, line by line, and hands each entry to each.
func (t *Transcript) Read(from io.Reader, each func(*Entry, Data) error) error {
	in := bufio.NewReaderSize(from, 2*MaxEntryBytes)
	line, err := t.line(in)
	if errors.Is(err, io.EOF) {
		return fault.Errorf(fault.Verify, "%w: the transcript is empty", ErrRecord)
	}
	for ; !errors.Is(err, io.EOF); line, err = t.line(in) {
		if err != nil {
			return err
		}
		e, d, err := t.Take(line)
		if errors.Is(err, errChain) {
			return t.broken(bytes.Clone(line), in)
		}
		if err != nil {
			return err
		}
		if err := each(e, d); err != nil {
			return fault.Errorf(fault.ClassOf(err), "entry %d: %w", e.Seq, err)
		}
	}
	return nil
}

// line reads the next line, which is good until the next call; io.EOF at the end.
func (t *Transcript) line(in *bufio.Reader) ([]byte, error) {
	line, err := in.ReadSlice('\n')
	switch {
	case err == nil:
		return line[:len(line)-1], nil
	case errors.Is(err, io.EOF) && len(line) == 0:
		return nil, io.EOF
	case errors.Is(err, io.EOF):
		return nil, fault.Errorf(fault.Verify, "%w: entry %d is cut off", ErrEntry, t.tree.Size())
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fault.Errorf(fault.Verify, "%w: entry %d: too long", ErrEntry, t.tree.Size())
	}
	return nil, fault.Errorf(fault.Storage, "read transcript: %w", err)
}

// broken names the entry that breaks the chain at line: if the entry after line
// still carries line's hash, line is as it was and the one before it is not.
func (t *Transcript) broken(line []byte, in *bufio.Reader) error {
	n := t.tree.Size()
	next, _ := in.ReadSlice('\n') // a cut one says as much
	sum := sha256.Sum256(line)
	if n > 0 && len(next) == 0 { // the last: only the checkpoint knows which of the two it was
		return fault.Errorf(fault.Verify, "%w: entry %d or entry %d was altered, removed or moved", ErrEntry, n-1, n)
	}
	if n > 0 && bytes.Contains(next, []byte(`"prev":"`+hex.EncodeToString(sum[:])+`"`)) {
		n--
	}
	return fault.Errorf(fault.Verify, "%w: entry %d was altered, removed or moved", ErrEntry, n)
}
