package record

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strings"

	"keyrite/artifact/admission"
	"keyrite/artifact/anchor"
	"keyrite/artifact/attestation"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/succession"
	"keyrite/artifact/tlog"
	"keyrite/artifact/world"
)

// MaxTranscriptBytes bounds a transcript: 1,000,000 entries of 1 KiB.
const MaxTranscriptBytes = 1 << 30

// Verified is what a record proves.
type Verified struct {
	Open         Open
	State        string // CLOSED, or the last state
	Cause        string // of a void ceremony
	Entries      int64
	Root         string
	People       map[string]*person.Person
	Roles        map[string]string
	Charter      *charter.State  // nil unless CLOSED
	Anchors      *anchor.Anchors // the record's own, nil unless CLOSED
	Keys         []KeyMade       // as stored
	Certificates []Certificate
	Moved        []Transferred
	Succession   *succession.Statement           // signed here and verified, nil without
	Admissions   []admission.Signed              // of the tokens that were attacked or opened in it, and that it hands on
	Attested     map[string]attestation.Attested // by id of the key, what its HSM said
	Statements   []string                        // types of the charter's statements, in order
	Incidents    []Incident
	Fell         []Fallen // void ceremonies before it whose records lie in it, newest first
	Cosigners    []string
	Missing      []string // who has yet to cosign
	Timeline     []Line   // at most maxTimeline and the last few, for a report

	note []byte // the checkpoint that was verified, for Cosign
}

// Line is one entry for a report.
type Line struct {
	Entry
	Data Data
}

// maxOutputBytes bounds one file under outputs/ or people/.
const maxOutputBytes = 64 << 20

// leftoverRE matches the temporary names of package durable.
var leftoverRE = regexp.MustCompile(`^\.(checkpoint|report\.html)\.[0-9a-f]{16}$`)

// Leftover says whether name, in a record folder, is what an interrupted write
// of the checkpoint or the report left behind.
func Leftover(name string) bool { return leftoverRE.MatchString(name) }

// checker holds what has been seen while reading.
type checker struct {
	Verified
	fsys     fs.FS
	tr       *Transcript
	lines    [][]byte       // of the charter among the outputs
	base     *charter.State // that it continues, nil in a genesis
	openings []given
	opened   map[opening][]string // holders who gave their shares
	epochs   map[string]int       // announced to be opened, by safe
	follow   follower
	signed   []Line                       // what people signed beside the charter
	received []Line                       // receipts
	words    []Line                       // read aloud
	last     [lastLines]Line              // beyond maxTimeline
	admitted map[string]*admission.Report // by safe
	relied   []Line                       // admissions
	states   map[string]string            // verbStates
	makers   map[string][]string          // doneBy
	outputs  map[string]Output
	script   scriptFile
	tokens   map[string]anchor.Token // by safe
	intents  map[string]intent       // object ids announced
	born     map[string]KeyMade
	stored   map[string]KeyMade
	proven   map[string]bool
	bornAt   map[string]string // time of the entry, by key
	saw      *Watched          // nil before it
	dealt    map[string]charter.Epoch
	receipts map[string]bool        // safe/holder
	progress map[string]int         // of safes, see safeNew
	moved    map[string]Transferred // by key
	found    map[string]Found       // by key
	left     Left                   // what is adopted here
	cleanups []*Cleanup
	ending   Intent             // to destroy, until the proof that it is gone
	leaving  map[Place][]string // object ids announced to be destroyed
	gone     map[Place][]string // object ids destroyed
	stmts    []Statement
	certs    map[string]Certificate
	ends
	ended    bool
	step, do string          // step under way and its verb
	began    int64           // entry that began it
	roll     []string        // who was there before the break under way, empty after it
	rolls    [][]string      // of all breaks
	inDrive  map[string]bool // media by name
}

// Verify checks the record in fsys. trusted are the anchors that the reader
// holds; for a genesis that he checks by the words read aloud, they are the
// record's own. A record that is void, or not yet cosigned by all, is an error
// of class void or quorum together with what was found; any other error means
// that nothing in the record can be relied on.
func Verify(fsys fs.FS, trusted *anchor.Anchors) (*Verified, error) {
	c, err := read(fsys)
	if err != nil {
		return nil, err
	}
	if trusted == nil {
		return nil, fault.New(fault.Unexpected, "verification without anchors")
	}
	if err := world.Match(trusted.World, c.Open.World); err != nil {
		return nil, err
	}
	if err := c.checkFiles(); err != nil {
		return nil, err
	}
	if c.State != "CLOSED" {
		return &c.Verified, c.checkVoid()
	}
	if err := c.checkClosed(trusted); err != nil {
		return nil, err
	}
	if len(c.Missing) > 0 {
		return &c.Verified, fault.Hint(fault.Errorf(fault.Quorum, "the record is not cosigned by %s", strings.Join(c.Missing, ", ")),
			"each of them verifies the record on a machine of his own and runs: keyrite-verify cosign RECORD --key NAME.key --anchor FILE")
	}
	return &c.Verified, nil
}

// VerifyOwn is Verify against the record's own anchors, for a reader who checks
// their words against those read aloud, or who asks only whether the record
// agrees with itself.
func VerifyOwn(fsys fs.FS) (*Verified, error) {
	data, err := readFile(fsys, OutputsDir+"/anchors.json", 1<<20)
	if err != nil {
		return nil, err
	}
	own, err := anchor.Parse(data)
	if err != nil {
		return nil, err
	}
	return Verify(fsys, own)
}

// Read replays a record without anchors, as far as it goes: for a report of a
// ceremony that did not close. The error says what it is; nothing read this way
// may be relied on.
func Read(fsys fs.FS) (*Verified, error) {
	c, err := read(fsys)
	if err != nil {
		return nil, err
	}
	if err := c.checkFiles(); err != nil {
		return &c.Verified, err
	}
	return &c.Verified, c.checkVoid()
}

func read(fsys fs.FS) (*checker, error) {
	c := &checker{
		fsys: fsys, tr: NewTranscript(), outputs: map[string]Output{}, tokens: map[string]anchor.Token{}, intents: map[string]intent{}, born: map[string]KeyMade{}, stored: map[string]KeyMade{},
		proven: map[string]bool{}, bornAt: map[string]string{}, moved: map[string]Transferred{}, found: map[string]Found{}, leaving: map[Place][]string{}, gone: map[Place][]string{}, dealt: map[string]charter.Epoch{}, receipts: map[string]bool{}, progress: map[string]int{}, certs: map[string]Certificate{},
		inDrive: map[string]bool{}, admitted: map[string]*admission.Report{}, opened: map[opening][]string{}, epochs: map[string]int{}, states: verbStates(), makers: doneBy(),
	}
	c.Roles, c.People = map[string]string{}, map[string]*person.Person{}
	if script, err := readFile(fsys, ScriptFile, 1<<20); err == nil { // checkFiles says what is wrong with it
		c.load(script)
	}
	if err := statFile(fsys, TranscriptFile, MaxTranscriptBytes); err != nil {
		return nil, err
	}
	file, err := fsys.Open(TranscriptFile)
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read %s: %w", TranscriptFile, err)
	}
	defer file.Close()
	// The conductor's key stands in people/, whose files the transcript names,
	// so a transcript altered at its end is noticed only by the checkpoint.
	if err := c.tr.Read(io.LimitReader(file, MaxTranscriptBytes), c.entry); err != nil {
		return nil, err
	}
	c.Entries, c.Root = c.tr.Size(), tlog.Hex(c.tr.Root())
	for seq := max(maxTimeline, c.Entries-lastLines); seq < c.Entries; seq++ {
		c.Timeline = append(c.Timeline, c.last[seq%lastLines])
	}
	return c, nil
}

// A report shows the beginning of a transcript and its end. Verification needs
// neither, and must not grow with it.
const (
	maxTimeline = 50_000 // entries; a genesis has a few hundred
	lastLines   = 500
)

// statFile wants a regular file of at most limit bytes.
func statFile(fsys fs.FS, name string, limit int64) error {
	info, err := fs.Stat(fsys, name)
	if err != nil || !info.Mode().IsRegular() || info.Size() > limit {
		return fault.Errorf(fault.Verify, "%w: no usable %s", ErrRecord, name)
	}
	return nil
}

func readFile(fsys fs.FS, name string, limit int64) ([]byte, error) {
	if err := statFile(fsys, name, limit); err != nil {
		return nil, err
	}
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read %s: %w", name, err)
	}
	return data, nil
}

func bad(format string, args ...any) error { return fault.Errorf(fault.Verify, format, args...) }

// checkFiles checks the script's hash and that the folder holds the files that
// the transcript names and no other.
func (c *checker) checkFiles() error {
	script, err := readFile(c.fsys, ScriptFile, 1<<20)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(script); hex.EncodeToString(sum[:]) != c.Open.ScriptHash {
		return bad("%w: script.yaml is not the script that ran", ErrRecord)
	}
	found := map[string]bool{}
	err = fs.WalkDir(c.fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return fault.Errorf(fault.Storage, "read record: %w", err)
		}
		if d.IsDir() {
			return nil
		}
		if !d.Type().IsRegular() {
			return bad("%w: %.80q is no regular file", ErrRecord, p)
		}
		found[p] = true
		return nil
	})
	if err != nil {
		return err
	}
	for _, p := range []string{ScriptFile, TranscriptFile, CheckpointFile, ReportFile} {
		delete(found, p)
	}
	for p, o := range c.outputs {
		if !found[p] {
			return bad("%w: %s is missing", ErrRecord, p)
		}
		delete(found, p)
		data, err := readFile(c.fsys, p, min(o.Size, maxOutputBytes))
		if err != nil {
			return err
		}
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != o.SHA256 || int64(len(data)) != o.Size {
			return bad("%w: %s was altered", ErrRecord, p)
		}
		if err := c.takePerson(p, data); err != nil {
			return err
		}
	}
	if len(found) > 0 {
		name := slices.Sorted(mapKeys(found))[0]
		err := bad("%w: %.80q is not listed in the transcript", ErrRecord, name)
		if leftoverRE.MatchString(name) {
			err = fault.Hint(err, "an interrupted write left this file behind; remove it")
		}
		return err
	}
	if err := c.checkSteps(script); err != nil {
		return err
	}
	return c.checkSigned()
}

func mapKeys(m map[string]bool) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (c *checker) takePerson(path string, data []byte) error {
	if !strings.HasPrefix(path, PeopleDir+"/") {
		return nil
	}
	p, err := person.Parse(data)
	if err != nil {
		return err
	}
	if path != PeopleDir+"/"+p.Name+".person" {
		return bad("%w: %s holds %s", ErrRecord, path, p.Name)
	}
	c.People[p.Name] = p
	return world.Match(c.Open.World, p.World)
}

func (c *checker) conductor() (tlog.Signer, error) {
	for name, role := range c.Roles {
		if p := c.People[name]; role == charter.RoleConductor && p != nil {
			return tlog.Signer{Name: name, Public: p.PublicKey()}, nil
		}
	}
	return tlog.Signer{}, bad("%w: no conductor among its people", ErrRecord)
}

// checkSignatures opens the checkpoint over exactly this transcript.
func (c *checker) checkSignatures() error {
	note, err := readFile(c.fsys, CheckpointFile, tlog.MaxCheckpointBytes)
	if err != nil {
		return err
	}
	log, err := c.conductor()
	if err != nil {
		return err
	}
	var cosigners []tlog.Signer
	for name, p := range c.People {
		cosigners = append(cosigners, tlog.Signer{Name: name, Public: p.PublicKey()})
	}
	o, err := tlog.Open(note, Origin(c.Open.Record), c.Open.World, log, cosigners)
	if err != nil {
		return err
	}
	if o.Size != c.tr.Size() || o.Root != c.tr.Root() {
		return bad("%w: entry %d was altered, or entries after it are missing or added: the checkpoint signs %d entries, the transcript has %d",
			ErrEntry, min(o.Size, c.tr.Size())-1, o.Size, c.tr.Size())
	}
	c.Cosigners, c.note = o.Cosigners, note
	return nil
}

// checkVoid reports a record that did not close.
func (c *checker) checkVoid() error {
	if !c.ended {
		if slices.Contains([]string{"LINTED", "REHEARSED", "SUMMONED"}, c.State) {
			return fault.Errorf(fault.Void, "%w: it ended in state %s, before anything was done", ErrVoid, c.State)
		}
		return fault.Hint(fault.Errorf(fault.Void, "%w: it stopped in state %s and was not cleaned up", ErrVoid, c.State), "its owner runs: keyrite ceremony recover --record DIR --bind FILE --opener SAFE=KEYFILE:SHAREFILE …")
	}
	if err := c.checkSignatures(); err != nil && !isMissing(c.fsys, CheckpointFile) {
		return err
	}
	return fault.Errorf(fault.Void, "%w: %s", ErrVoid, c.Cause)
}

func isMissing(fsys fs.FS, name string) bool {
	_, err := fs.Stat(fsys, name)
	return err != nil
}
