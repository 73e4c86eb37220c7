// Package artifacttest founds a small rehearsal world with software keys, for
// tests of everything that reads anchors and charter. Only tests may import it.
package artifacttest

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"testing"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/person"
	"keyrite/artifact/world"
)

// World is a founded rehearsal world. Keys holds the private halves by key id;
// Factory "factory1" (product "gw100", serials 1 to 1000) has station
// "station1"; pipeline "pipeline1" may request releases of "gw100".
type World struct {
	World   world.World
	People  map[string]*person.Key // conductor, master1…5, witness1…2, approver1…2
	Keys    map[string]crypto.Signer
	State   *charter.State
	Charter []byte
	Anchors *anchor.Anchors

	t  testing.TB
	at time.Time // of the newest statement that was signed here
}

// Now is the time of the founding.
func Now() time.Time { return time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC) }

// Key ids and their domains, as genesis makes them.
func domains() [][2]string {
	return [][2]string{
		{"birth-root", "x509"},
		{"relay-ca", "x509"},
		{"firmware", "dsse"},
		{"acceptance", "dsse"},
		{"provision-a", "dsse"},
		{"provision-b", "dsse"},
		{"tuf-root", "tuf-root"},
		{"tuf-targets", "tuf-targets"},
		{"tuf-online", "tuf-online"},
		{"log", "note"},
	}
}

// New founds a world. The people named in cards have P-256 keys outside a key
// file, as on a card.
func New(t testing.TB, cards ...string) *World {
	t.Helper()
	id := make([]byte, 6)
	rand.Read(id)
	w := &World{World: world.World("rehearsal:" + hex.EncodeToString(id)), People: map[string]*person.Key{}, Keys: map[string]crypto.Signer{}, t: t}
	g := w.genesis(cards)
	w.State = &charter.State{}
	payload := w.must(w.State.Propose(charter.TypeGenesis, g, Now()))
	var all []crypto.Signer
	for _, m := range g.Roster {
		all = append(all, w.People[m.Person.Name].Signer())
	}
	w.append(payload, all...)
	w.Anchors = &anchor.Anchors{Certificates: map[string][]byte{}, Format: anchor.Format, Successors: []anchor.KeyRecord{}, Vault: w.State.Vault, World: w.World}
	var err error
	if w.Anchors.RosterHash, err = g.RosterHash(); err != nil {
		t.Fatal(err)
	}
	for _, d := range domains() {
		w.admit(d[0], d[1])
	}
	for _, ca := range []string{"birth-root", "relay-ca"} {
		w.Anchors.Certificates[ca] = w.SelfSigned(ca)
	}
	if err := w.Anchors.Check(); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"factory-ca", "report", "pipeline1"} {
		w.Keys[k] = w.p256()
	}
	w.Approve(charter.TypePipeline, charter.Pipeline{ID: "pipeline1", Key: w.SPKI("pipeline1"), Products: []string{"gw100"}})
	return w
}

// AddFactory puts factory1 and station1 in the charter. ca is the DER
// certificate of the factory CA, made by the caller with the key "factory-ca".
func (w *World) AddFactory(ca []byte) {
	w.Approve(charter.TypeFactory, charter.Factory{CA: ca, Evidence: "test", ID: "factory1", Product: "gw100", SerialFrom: 1, SerialTo: 1000})
	w.Approve(charter.TypeStation, charter.Station{Factory: "factory1", ID: "station1", ReportKey: w.SPKI("report")})
}

// AddHost puts a host in the charter on which the vault may run; its key is Keys[id].
func (w *World) AddHost(id string) crypto.Signer {
	w.t.Helper()
	w.Keys[id] = w.p256()
	w.Approve(charter.TypeHost, charter.Host{ID: id, Key: w.SPKI(id)})
	return w.Keys[id]
}

// Approve appends a statement with both approvers' signatures.
func (w *World) Approve(typ string, body any) {
	w.t.Helper()
	w.SignedBy(typ, body, "approver1", "approver2")
}

// SignedBy appends a statement that those people signed.
func (w *World) SignedBy(typ string, body any, names ...string) {
	w.t.Helper()
	w.signedAt(typ, body, Now(), names)
}

// ApproveAt is Approve at another time than Now: for what must be in force by the clock
// of the host. Later statements are not before it.
func (w *World) ApproveAt(typ string, body any, at time.Time) {
	w.t.Helper()
	w.signedAt(typ, body, at, []string{"approver1", "approver2"})
}

func (w *World) signedAt(typ string, body any, at time.Time, names []string) {
	w.t.Helper()
	var ks []crypto.Signer
	for _, n := range names {
		ks = append(ks, w.People[n].Signer())
	}
	if at.Before(w.at) {
		at = w.at // time does not go back in a charter
	}
	w.at = at
	w.append(w.must(w.State.Propose(typ, body, at)), ks...)
}

// SPKI returns the DER public key of key id.
func (w *World) SPKI(id string) []byte {
	return w.must(x509.MarshalPKIXPublicKey(w.Keys[id].Public()))
}

// SelfSigned returns a root certificate of key id, in the profile of a relay CA
// if it is one and of a birth root otherwise.
func (w *World) SelfSigned(id string) []byte { return w.selfSigned(id, id) }

func (w *World) selfSigned(id, as string) []byte {
	w.t.Helper()
	profile := birthcert.BirthRoot
	if as == "relay-ca" {
		profile = birthcert.RelayCA
	}
	return w.Certificate(birthcert.Template{Profile: profile, SPKI: w.SPKI(id)}, id)
}

func (w *World) must(b []byte, err error) []byte {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *World) append(payload []byte, signers ...crypto.Signer) {
	w.t.Helper()
	env, err := envelope.Sign(charter.PayloadType, payload, signers...)
	if err != nil {
		w.t.Fatal(err)
	}
	line := w.must(env.Marshal())
	if err := w.State.Apply(line); err != nil {
		w.t.Fatal(err)
	}
	w.Charter = append(append(w.Charter, line...), '\n')
}

func (w *World) p256() crypto.Signer {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

// AddSuccessors makes the key "succession" and a dormant twin X-2 of every key
// X, as a genesis with successor safes does.
func (w *World) AddSuccessors() {
	w.t.Helper()
	w.Anchors.Keys = append(w.Anchors.Keys, w.key("succession", "dsse", ""))
	for _, k := range w.Anchors.Keys {
		w.Anchors.Successors = append(w.Anchors.Successors, w.key(k.ID+"-2", k.Domain, k.ID))
		if w.Anchors.Certificates[k.ID] != nil {
			w.Anchors.Certificates[k.ID+"-2"] = w.selfSigned(k.ID+"-2", k.ID)
		}
	}
	if err := w.Anchors.Check(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *World) card(name string) *person.Key {
	w.t.Helper()
	sign := w.p256()
	x, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	id, err := person.NewIdentity(x)
	if err != nil {
		w.t.Fatal(err)
	}
	pub, _ := sign.Public().(*ecdsa.PublicKey)
	point := w.must(pub.Bytes())
	k, err := person.Card(&person.Person{Format: person.Format, Name: name, P256: point, Recipient: id.Recipient(), World: w.World}, sign, id, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

func (w *World) admit(id, domain string) {
	w.t.Helper()
	w.Anchors.Keys = append(w.Anchors.Keys, w.key(id, domain, ""))
}

// Later makes a key as a ceremony after the founding does: the charter admits it, and
// the anchors do not know it.
func (w *World) Later(id, domain, successorOf string) anchor.KeyRecord {
	w.t.Helper()
	return w.key(id, domain, successorOf)
}

// key makes a key and admits it to the charter.
func (w *World) key(id, domain, successorOf string) anchor.KeyRecord {
	w.t.Helper()
	alg := "p256"
	w.Keys[id] = w.p256()
	if domain == "note" {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			w.t.Fatal(err)
		}
		w.Keys[id], alg = k, "ed25519"
	}
	spec := sha256.Sum256([]byte(id))
	rec := anchor.KeyRecord{
		Algorithm: alg, Domain: domain, ID: id, Public: w.SPKI(id), Record: "keyrite/record/test",
		SpecHash: hex.EncodeToString(spec[:]), SuccessorOf: successorOf, Token: anchor.Token{Label: "test-work", Serial: "0"},
	}
	w.Approve(charter.TypeKey, rec)
	return rec
}

func (w *World) genesis(cards []string) *charter.Genesis {
	g := &charter.Genesis{Nonce: make([]byte, 32), ScriptHash: hex.EncodeToString(make([]byte, 32)), World: w.World}
	rand.Read(g.Nonce)
	masters := []string{"master1", "master2", "master3", "master4", "master5"}
	approvers := []string{"approver1", "approver2"}
	add := func(role string, names ...string) {
		for _, n := range names {
			k, err := person.New(n, w.World)
			if err != nil {
				w.t.Fatal(err)
			}
			if slices.Contains(cards, n) {
				k = w.card(n)
			}
			w.People[n] = k
			g.Roster = append(g.Roster, charter.Member{Person: *k.Public(), Role: role})
		}
	}
	add(charter.RoleConductor, "conductor")
	add(charter.RoleKeyMaster, masters...)
	add(charter.RoleWitness, "witness1", "witness2")
	add(charter.RoleApprover, approvers...)
	both := charter.Set{Members: approvers, Need: 2}
	g.Sets = charter.Sets{Approvers: both, Releases: both}
	for _, s := range []string{"root", "work"} {
		g.Safes = append(g.Safes, charter.Safe{Name: s, Openers: charter.Set{Members: masters, Need: 3}})
	}
	return g
}
