package actions

import (
	"encoding/hex"
	"encoding/pem"
	"os"
	"slices"
	"strconv"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony/script"
	"keyrite/hsm"
	"keyrite/vault/quorum"
)

// genesisOutput is the founding statement among the outputs.
const genesisOutput = record.OutputsDir + "/genesis.dsse.json"

// Actions are the verbs of one attempt. They are used by one goroutine.
type Actions struct {
	bind   *Bind
	script *script.Script
	quorum quorum.Config
	hsmd   string // empty: beside the executable
	// process is what bound the newest process of the module.
	process *record.Process

	sup   *hsm.Supervisor
	tag   hsm.Tag
	vault *vault // nil in a genesis
	state charter.State
	lines []byte // charter file so far

	safes map[string]*safe
	begun map[string]bool // safes whose token is being, or was, initialised

	records  []earlier            // that the binding names, once they were verified
	reports  *Reports             // of the binding, once they were read
	admitted map[string]*Admitted // by safe that is opened, from before ARMED on
	keys     map[string]*key
	order    []string // key ids as born
	moves    []*move
	certs    map[string][]byte
	root     []byte // root of the update repository, nil without one
	crls     map[string][]byte

	rootVersion int64
	floors      map[string]int64 // security version by product, to be carried over
	followed    []byte           // the root that it follows, nil in a genesis
	statement   []byte           // succession statement, nil without one
	destroyed   []string         // ids of keys
	origins     origins
	wiped       []string // safes whose token was erased
}

// safe is one token on its way.
type safe struct {
	name      string
	token     hsm.TokenID
	dealing   *quorum.Dealing
	pins      *os.File      // read end: from the dealing child to the supervisor
	epoch     charter.Epoch // dealt here
	inForce   charter.Epoch // of a safe that exists
	exposed   bool          // its shares in force were, or may have been, combined
	opened    bool          // its user PIN is held
	destroyed []string      // keys of the charter destroyed here: that cannot be undone
	repinning bool          // its PINs may be of either epoch
	birth     *hsm.Session  // one session from the first key to the end of SEALING
	fresh     *hsm.Session  // a new process that reads what was stored
	admitted  *Admitted     // why it may hold keys
	receiver  *receiver     // of keys that come here, nil before the first
}

// key is one key on its way.
type key struct {
	spec   hsm.GenerateSpec
	rec    anchor.KeyRecord
	signer *hsm.Key // as born
}

// New prepares the actions of a script; those of any kind but a genesis load the
// vault that they continue. hsmd is empty except in tests.
func New(s *script.Script, b *Bind, q quorum.Config, hsmd string) (*Actions, error) {
	if err := supported(s); err != nil {
		return nil, err
	}
	if b.Shares == "" {
		return nil, fault.New(fault.Usage, "the binding names no folder for the shares")
	}
	if err := b.checkBrought(s); err != nil {
		return nil, err
	}
	a := &Actions{bind: b, script: s, quorum: q, hsmd: hsmd, safes: map[string]*safe{}, begun: map[string]bool{}, admitted: map[string]*Admitted{}, keys: map[string]*key{}, certs: map[string][]byte{}, crls: map[string][]byte{}}
	if s.Kind == "genesis" {
		if err := b.checkFresh(s); err != nil {
			return nil, err
		}
		return a, a.loadOrigins()
	}
	if err := a.load(); err != nil {
		return nil, err
	}
	return a, a.loadOrigins()
}

// Close ends the supervisor and with it every session and PIN.
func (a *Actions) Close() {
	for _, s := range a.safes {
		if s.dealing != nil {
			s.dealing.Abandon()
		}
		if s.pins != nil {
			_ = s.pins.Close()
		}
	}
	if a.sup != nil {
		_ = a.sup.Close()
		a.sup = nil
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

func sorted(list []string) []string {
	out := slices.Clone(list)
	slices.Sort(out)
	return out
}

func pemBlock(typ string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
}

func hexID(k hsm.KeyID) string { return hex.EncodeToString(k[:]) }
