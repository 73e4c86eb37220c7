package record

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/succession"
)

// A list that revokes another certificate than the script says, and as many, is
// refused, though its issuer signed it.
func TestCRLOfOtherSerialsIsRefused(t *testing.T) {
	w := artifacttest.New(t)
	root, err := w.Anchors.Certificate("birth-root")
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := new(big.Int).SetString("4a5f", 16)
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: serial, RevocationTime: time.Now()}},
	}, root, w.Keys["birth-root"])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	for _, tt := range []struct{ said, text string }{{"004A5F", ""}, {"4a5e", "other certificates"}, {"", "other certificates"}} {
		c := &checker{fsys: fstest.MapFS{"outputs/birth-root.crl.pem": {Data: pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})}}}
		c.load([]byte("crls: [{id: birth-root, issuer: birth-root, number: 1, revoked: [{serial: \"" + tt.said + "\"}]}]"))
		c.Charter = w.State
		c.crls = map[string]*CRL{"birth-root": {ID: "birth-root", Issuer: "birth-root", Number: 1, Revoked: 1, SHA256: hex.EncodeToString(sum[:])}}
		if err := c.checkCRLs(); (err == nil) != (tt.text == "") || err != nil && !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%q: %v", tt.said, err)
		}
	}
}

// What a key issues that an earlier ceremony retired does not count.
func TestRetiredIssuerIsRefused(t *testing.T) {
	c := &checker{}
	c.base, c.Charter = &charter.State{Retired: map[string]charter.KeyRetired{"birth-root": {ID: "birth-root", Reason: "compromised"}}}, artifacttest.New(t).State
	if err := c.signedBy(&x509.RevocationList{}, "birth-root"); !errors.Is(err, ErrRecord) {
		t.Error(err)
	}
}

// A succession statement that puts one key more in force than the script says, and
// of which the transcript tells only the others, is refused.
func TestSuccessionWithAnEntryMoreIsRefused(t *testing.T) {
	w := artifacttest.New(t)
	var said []succession.Entry
	for _, id := range []string{"firmware", "log"} {
		old, to := w.State.Keys[id], w.State.Keys[id]
		to.ID, to.SuccessorOf = id+"-2", id
		w.State.Keys[to.ID] = to
		said = append(said, succession.Entry{From: succession.Hash(old.Public), ID: id, Reason: "lost", To: to})
	}
	c := &checker{}
	c.Charter, c.base = w.State, w.State
	c.load([]byte("successions: [{id: firmware, by: firmware-2, reason: lost}]"))
	if !c.nothingElse(&succession.Statement{Entries: said[:1]}) {
		t.Error("what the script says is refused")
	}
	if c.nothingElse(&succession.Statement{Entries: said}) {
		t.Error("log was replaced in passing")
	}
	stranger := said[0].To
	stranger.Public = w.SPKI("factory-ca")
	if c.nothingElse(&succession.Statement{Entries: []succession.Entry{{From: said[0].From, ID: "firmware", Reason: "lost", To: stranger}}}) {
		t.Error("a key that the charter does not know came in force")
	}
	w.State.Retired = map[string]charter.KeyRetired{"log": {ID: "log", Reason: "lost", Record: "x"}}
	if !c.nothingElse(&succession.Statement{Entries: said}) {
		t.Error("what an earlier ceremony replaced is refused")
	}
}

// A statement tells of exactly the keys that were made where it was signed.
func TestSuccessionThatHidesANewKeyIsRefused(t *testing.T) {
	w := artifacttest.New(t)
	role, twin := w.Later("firmware-gw200", "dsse", ""), w.Later("firmware-3", "dsse", "firmware")
	earlier := w.Later("firmware-gw300", "dsse", "")
	c := &checker{stored: map[string]KeyMade{role.ID: {Key: role}, twin.ID: {Key: twin}}}
	type list = []anchor.KeyRecord
	for name, x := range map[string]struct {
		s    succession.Statement
		e    Succession
		good bool
	}{
		"as it was":        {succession.Statement{Added: list{role}, Dormant: list{twin}}, Succession{Added: []string{role.ID}, Dormant: []string{twin.ID}}, true},
		"beside earlier":   {succession.Statement{Added: list{earlier, role}, Dormant: list{twin}}, Succession{Added: []string{role.ID}, Dormant: []string{twin.ID}}, true},
		"left out":         {succession.Statement{Dormant: list{twin}}, Succession{Dormant: []string{twin.ID}}, false},
		"not told":         {succession.Statement{Added: list{role}, Dormant: list{twin}}, Succession{Dormant: []string{twin.ID}}, false},
		"twin not told":    {succession.Statement{Added: list{role}, Dormant: list{twin}}, Succession{Added: []string{role.ID}}, false},
		"told, not stated": {succession.Statement{Added: list{role}}, Succession{Added: []string{role.ID}, Dormant: []string{twin.ID}}, false},
		"earlier as new":   {succession.Statement{Added: list{earlier, role}, Dormant: list{twin}}, Succession{Added: []string{role.ID, earlier.ID}, Dormant: []string{twin.ID}}, false},
	} {
		if err := c.checkNewInField(&x.s, &x.e); x.good != (err == nil) || err != nil && !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A key that moved since is still the same; one that was made here must lie where
	// the statement says, and one that nobody admitted is nobody's.
	base := *w.State
	base.Keys = map[string]anchor.KeyRecord{earlier.ID: earlier}
	c.Charter, c.base = w.State, &base
	moved := earlier
	moved.Token.Label = "elsewhere"
	w.State.Keys[earlier.ID] = moved
	away := role
	away.Token.Label = "elsewhere"
	for _, x := range []struct {
		k    anchor.KeyRecord
		good bool
	}{{earlier, true}, {role, true}, {away, false}, {anchor.KeyRecord{ID: "stranger"}, false}} {
		if got := c.charters(x.k); got != x.good {
			t.Errorf("%s in %s: %v", x.k.ID, x.k.Token.Label, got)
		}
	}
}

// Where a release key gives way every product's security version is carried over, and
// nowhere else is one stated.
func TestFloorsAreCarriedOver(t *testing.T) {
	w := artifacttest.New(t)
	before := *w.State
	before.Floors = map[string]charter.Floor{"gw100": {Product: "gw100", Record: "keyrite/record/before", SecurityVersion: 3}}
	here := charter.Floor{Product: "gw100", Record: Origin("0123456789abcdef"), SecurityVersion: 3}
	other := charter.Floor{Product: "gw900", Record: "keyrite/record/elsewhere", SecurityVersion: 1}
	for name, x := range map[string]struct {
		gives  string
		floors map[string]charter.Floor
		good   bool
	}{
		"carried":                        {"firmware", map[string]charter.Floor{"gw100": here}, true},
		"with the log's key":             {"log", map[string]charter.Floor{"gw100": here}, true},
		"left as it was":                 {"firmware", before.Floors, false},
		"none":                           {"firmware", nil, false},
		"another ceremony's":             {"log", map[string]charter.Floor{"gw100": here, "gw900": other}, false},
		"no release key, none stated":    {"tuf-root", before.Floors, true},
		"no release key, and one stated": {"tuf-root", map[string]charter.Floor{"gw100": here}, false},
	} {
		c := &checker{}
		now := *w.State
		now.Floors = x.floors
		c.Charter, c.base, c.Open.Record = &now, &before, "0123456789abcdef"
		c.load([]byte("successions: [{id: " + x.gives + ", by: " + x.gives + "-2, reason: lost}]"))
		if err := c.checkFloors(); x.good != (err == nil) || err != nil && !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A roll names everybody; a destroyed key was sought where it lay.
func TestRollsAndSafes(t *testing.T) {
	w := artifacttest.New(t)
	c := &checker{rolls: [][]string{{"conductor"}}}
	c.Roles = map[string]string{"conductor": "conductor", "witness1": "witness"}
	if err := c.checkRolls(); !errors.Is(err, ErrRecord) {
		t.Errorf("a roll of one: %v", err)
	}
	c.rolls[0] = []string{"conductor", "witness1"}
	if err := c.checkRolls(); err != nil {
		t.Error(err)
	}
	c.base = w.State
	c.destroyed = []*Retired{{Key: "firmware", Safe: "elsewhere"}}
	if err := c.inTheirSafes(); !errors.Is(err, ErrRecord) {
		t.Errorf("destroyed where it was not: %v", err)
	}
}
