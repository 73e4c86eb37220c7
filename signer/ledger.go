package signer

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/tlog"
	"keyrite/artifact/world"
	"keyrite/internal/durable"
	"keyrite/signer/releaselog"
)

// LedgerFormat names a line of the ledger.
const LedgerFormat = "keyrite/release-ledger/v1"

const (
	// LedgerFile is the ledger in the state folder.
	LedgerFile = "ledger.jsonl"
	// LogFolder holds the release log's tiles.
	LogFolder = "log"
)

// Kinds of line. The first is opened, written before anything else is made in
// the folder. A release is intent → result → logged → published; an intent
// that a crash left without a result becomes lost.
const (
	kindOpened    = "opened"
	kindIntent    = "intent"
	kindResult    = "result"
	kindLost      = "lost"
	kindLogged    = "logged"
	kindPublished = "published"
)

// line is one entry of the ledger, chained to the one before.
type line struct {
	Body   json.RawMessage `json:"body"`
	Format string          `json:"format"`
	Kind   string          `json:"kind"`
	Prev   string          `json:"prev"` // hex SHA-256 of the line before; 64 zeros for the first
	Seq    int             `json:"seq"`  // from 0
	Time   string          `json:"time"`
	Vault  string          `json:"vault"`
	World  world.World     `json:"world"`
}

// intent stands before a signature: from here on the approvals are spent.
type intent struct {
	Approvals       []string `json:"approvals"` // hex SHA-256 of each payload
	Product         string   `json:"product"`
	Request         string   `json:"request"` // hex SHA-256 of the payload
	SecurityVersion int64    `json:"security_version"`
	Statement       string   `json:"statement"` // base64, the payload to be signed
	Version         string   `json:"version"`
}

type result struct {
	Bundle string `json:"bundle"` // base64, the bundle file
	Intent int    `json:"intent"` // seq of the intent
}

type logged struct {
	Index  int64 `json:"index"`
	Intent int   `json:"intent"`
	// Proof is kept so that a .krf can be finished after a crash without the
	// token.
	Proof string `json:"proof"` // base64, the proof file
	Root  string `json:"root"`  // hex, of the tree in the proof
	Size  int64  `json:"size"`
}

type closing struct {
	Intent int `json:"intent"`
}

// Entry is the state of one release in the ledger.
type Entry struct {
	Seq             int // of the intent
	Request         string
	Product         string
	Version         string
	SecurityVersion int64
	State           string // kind of its last line
	Time            string // of the intent

	approvals []string
	statement []byte
	bundle    []byte
	proof     []byte
}

// Ledger is the signer's memory. It is for one process at a time.
type Ledger struct {
	world   world.World
	vault   string
	dir     string
	file    *durable.Append
	prev    string
	seq     int
	entries []*Entry
	bySeq   map[int]*Entry
	log     releaselog.State
	now     func() time.Time
}

// OpenLedger opens the ledger in folder dir, which is made if there is none. A
// folder that has a log but no ledger is refused: it has lost its memory.
// Intents without a result are closed as lost.
func OpenLedger(dir string, c *charter.State, now func() time.Time) (*Ledger, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Errorf(fault.Storage, "make state folder: %w", err)
	}
	_, logErr := os.Stat(filepath.Join(dir, LogFolder))
	file, lines, err := durable.OpenAppend(filepath.Join(dir, LedgerFile))
	if err != nil {
		return nil, err
	}
	l := &Ledger{world: c.World, vault: c.Vault, dir: dir, file: file, prev: strings.Repeat("0", 64), bySeq: map[int]*Entry{}, now: now}
	if len(lines) == 0 && logErr == nil {
		err = fault.Hint(fault.Errorf(fault.Verify, "%w: it is empty, but there is a release log beside it", ErrLedger), "put the ledger back from your copy")
	}
	for _, data := range lines {
		if err == nil {
			err = l.replay(data)
		}
	}
	if err == nil && l.seq == 0 {
		err = l.write(kindOpened, struct{}{})
	}
	if err == nil {
		err = l.closeLost()
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return l, nil
}

// Highest reads a ledger file, changing nothing, and returns the highest security
// version of each product that was, or may have been, signed. Nothing signs a ledger:
// it says what the machine that kept it knew.
func Highest(data []byte, c *charter.State) (map[string]int64, error) {
	if len(data) == 0 || data[len(data)-1] != '\n' {
		return nil, fault.Errorf(fault.Verify, "%w: it is empty or cut off", ErrLedger)
	}
	l := &Ledger{world: c.World, vault: c.Vault, prev: strings.Repeat("0", 64), bySeq: map[int]*Entry{}}
	for line := range bytes.Lines(data) {
		if err := l.replay(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return nil, err
		}
	}
	out := map[string]int64{}
	for _, e := range l.entries {
		out[e.Product] = max(out[e.Product], e.SecurityVersion)
	}
	return out, nil
}

// Close gives the ledger free.
func (l *Ledger) Close() error { return l.file.Close() }

// Entries lists the releases, oldest first.
func (l *Ledger) Entries() []*Entry { return l.entries }

func (l *Ledger) replay(data []byte) error {
	var n line
	if err := jcs.Unmarshal(data, &n); err != nil {
		return fault.Errorf(fault.Verify, "%w: line %d: %w", ErrLedger, l.seq, err)
	}
	if l.seq == 0 {
		// Told apart from an altered file, so that a wrong folder is called so.
		if err := world.Match(l.world, n.World); err != nil {
			return err
		}
		if n.Vault != l.vault {
			return charter.ErrVault
		}
	}
	if (n.Seq == 0) != (n.Kind == kindOpened) || n.Format != LedgerFormat || n.World != l.world || n.Vault != l.vault || n.Seq != l.seq || n.Prev != l.prev {
		return fault.Errorf(fault.Verify, "%w: line %d does not continue the one before", ErrLedger, l.seq)
	}
	if err := l.fold(&n); err != nil {
		return fault.Errorf(fault.Verify, "%w: line %d: %w", ErrLedger, l.seq, err)
	}
	l.prev, l.seq = hashOf(data), l.seq+1
	return nil
}

// follows says which kind may come after which.
func follows(kind, before string) bool {
	switch kind {
	case kindResult, kindLost:
		return before == kindIntent
	case kindLogged:
		return before == kindResult
	case kindPublished:
		return before == kindLogged
	}
	return false
}

var errLine = errors.New("is out of place")

func (l *Ledger) fold(n *line) error {
	switch n.Kind {
	case kindOpened:
		var b struct{}
		return jcs.Unmarshal(n.Body, &b)
	case kindIntent:
		var b intent
		if err := jcs.Unmarshal(n.Body, &b); err != nil {
			return err
		}
		stmt, err := base64.StdEncoding.DecodeString(b.Statement)
		if err != nil || len(b.Approvals) < 2 {
			return errLine
		}
		e := &Entry{
			Seq: n.Seq, Request: b.Request, Product: b.Product, Version: b.Version, SecurityVersion: b.SecurityVersion,
			State: kindIntent, Time: n.Time, approvals: b.Approvals, statement: stmt,
		}
		l.entries, l.bySeq[n.Seq] = append(l.entries, e), e
		return nil
	case kindResult:
		var b result
		return l.step(n, &b, &b.Intent, func(e *Entry) (err error) {
			e.bundle, err = base64.StdEncoding.DecodeString(b.Bundle)
			return err
		})
	case kindLogged:
		var b logged
		return l.step(n, &b, &b.Intent, func(e *Entry) (err error) {
			if l.log.Root, err = tlog.ParseHex(b.Root); err != nil || b.Size < l.log.Size {
				return errLine
			}
			l.log.Size = b.Size
			e.proof, err = base64.StdEncoding.DecodeString(b.Proof)
			return err
		})
	case kindLost, kindPublished:
		var b closing
		return l.step(n, &b, &b.Intent, func(*Entry) error { return nil })
	}
	return errLine
}

func (l *Ledger) step(n *line, body any, seq *int, then func(*Entry) error) error {
	if err := jcs.Unmarshal(n.Body, body); err != nil {
		return err
	}
	e, ok := l.bySeq[*seq]
	if !ok || !follows(n.Kind, e.State) {
		return errLine
	}
	e.State = n.Kind
	return then(e)
}

// write appends one line and folds it in. It returns when the line is durable.
func (l *Ledger) write(kind string, body any) error {
	b, err := jcs.Marshal(body)
	if err != nil {
		return err
	}
	n := line{Body: b, Format: LedgerFormat, Kind: kind, Prev: l.prev, Seq: l.seq, Time: charter.FormatTime(l.now()), Vault: l.vault, World: l.world}
	data, err := jcs.Marshal(n)
	if err != nil {
		return err
	}
	if err := l.file.Line(data); err != nil {
		return err
	}
	return l.replay(data)
}

// closeLost gives up intents without a result. The token may have made the
// signature, but it never left the process; so the approvals stay spent and
// nothing is signed twice.
func (l *Ledger) closeLost() error {
	for _, e := range l.entries {
		if e.State == kindIntent {
			if err := l.write(kindLost, closing{e.Seq}); err != nil {
				return err
			}
		}
	}
	return nil
}

// find returns the entry of a request.
func (l *Ledger) find(request string) (*Entry, bool) {
	for _, e := range l.entries {
		if e.Request == request {
			return e, true
		}
	}
	return nil, false
}

// spent says whether an approval was used.
func (l *Ledger) spent(approval string) bool {
	for _, e := range l.entries {
		if slices.Contains(e.approvals, approval) {
			return true
		}
	}
	return false
}

// highest is the highest security version of a product that was, or may have
// been, signed.
func (l *Ledger) highest(product string) int64 {
	var high int64
	for _, e := range l.entries {
		if e.Product == product {
			high = max(high, e.SecurityVersion)
		}
	}
	return high
}

// loggedCount is the number of releases in the log.
func (l *Ledger) loggedCount() int64 {
	var n int64
	for _, e := range l.entries {
		if e.State == kindLogged || e.State == kindPublished {
			n++
		}
	}
	return n
}
