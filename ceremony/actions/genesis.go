package actions

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"os"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/hsm"
	"keyrite/signer/tuf"
	"keyrite/vault/quorum"
)

// genesisOutput is the founding statement among the outputs.
const genesisOutput = record.OutputsDir + "/genesis.dsse.json"

// Genesis are the actions of a genesis. They are used by one goroutine.
type Genesis struct {
	bind   *Bind
	script *script.Script
	quorum quorum.Config
	hsmd   string // empty: beside the executable

	sup   *hsm.Supervisor
	tag   hsm.Tag
	state charter.State
	lines []byte // charter file so far

	safes map[string]*safe
	begun map[string]bool // safes whose token is being, or was, initialised
	keys  map[string]*key
	order []string // key ids as born
	certs map[string][]byte
	root  []byte // first root of the update repository, nil without one
}

// safe is one token on its way.
type safe struct {
	name    string
	token   hsm.TokenID
	dealing *quorum.Dealing
	pins    *os.File // read end: from the dealing child to the supervisor
	epoch   charter.Epoch
	birth   *hsm.Session // one session from the first key to the end of SEALING
	fresh   *hsm.Session // a new process that reads what was stored
}

// key is one key on its way.
type key struct {
	spec   hsm.GenerateSpec
	rec    anchor.KeyRecord
	signer crypto.Signer // as born
}

// New prepares the actions of a genesis. hsmd is empty except in tests.
func New(s *script.Script, b *Bind, q quorum.Config, hsmd string) (*Genesis, error) {
	if err := b.checkFresh(s); err != nil {
		return nil, err
	}
	if b.Shares == "" {
		return nil, fault.New(fault.Usage, "the binding names no folder for the shares")
	}
	return &Genesis{bind: b, script: s, quorum: q, hsmd: hsmd, safes: map[string]*safe{}, begun: map[string]bool{}, keys: map[string]*key{}, certs: map[string][]byte{}}, nil
}

// Do carries out one step.
func (g *Genesis) Do(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	switch st.Do {
	case "environment.check":
		return g.checkEnvironment(ctx, r)
	case "people.identify":
		return g.identify(ctx, r)
	case "documents.see":
		return g.documents(ctx, r)
	case "genesis.sign":
		return g.found(ctx, r)
	case "token.init":
		return g.initToken(ctx, r, st.Safe)
	case "token.admit":
		return g.admit(ctx, r, st.Safe)
	case "shares.deal":
		return g.deal(ctx, r, st.Safe)
	case "shares.receipts":
		return g.receipts(ctx, r, st.Safe)
	case "token.pins":
		return g.changePINs(ctx, r, st.Safe)
	case "key.generate":
		return g.generate(ctx, r, st.Key)
	case "cert.issue":
		return g.issue(ctx, r, st.Cert)
	case "charter.append":
		return g.charter(ctx, r)
	case "update.root":
		return g.updateRoot(ctx, r)
	case "pause":
		return nil
	case "keys.store":
		return g.store(ctx, r, st.Safe)
	case "keys.prove":
		return g.prove(ctx, r, st.Safe)
	case "outputs.write":
		return g.outputs(r)
	case "read.aloud":
		return g.readAloud(r)
	}
	return fault.Errorf(fault.Unexpected, "verb %s has no action", st.Do)
}

// Close ends the supervisor and with it every session and PIN.
func (g *Genesis) Close() {
	for _, s := range g.safes {
		if s.dealing != nil {
			s.dealing.Abandon()
		}
		if s.pins != nil {
			_ = s.pins.Close()
		}
	}
	if g.sup != nil {
		_ = g.sup.Close()
		g.sup = nil
	}
}

func (g *Genesis) identify(ctx context.Context, r *ceremony.Run) error {
	for i, p := range r.People {
		r.Console.Count(ceremony.Count{What: "people", Done: allNames(r.People[:i]), Need: len(r.People), Of: len(r.People)})
		words, err := p.Person.Words()
		if err != nil {
			return err
		}
		f, err := p.Person.Fingerprint()
		if err != nil {
			return err
		}
		if err := r.WithKey(ctx, p.Person.Name, func(*person.Key) error { return nil }); err != nil {
			return err
		}
		r.Console.Say("good", p.Person.Name+" ("+p.Role+"): "+words)
		if err := r.Record(&record.Identified{Fingerprint: hex.EncodeToString(f[:]), Name: p.Person.Name, Role: p.Role}); err != nil {
			return err
		}
	}
	return nil
}

// documents has two witnesses sign which identity documents they saw.
func (g *Genesis) documents(ctx context.Context, r *ceremony.Run) error {
	names := allNames(r.People)
	seen, err := r.Console.Documents(ctx, names)
	if err != nil {
		return err
	}
	for _, n := range names {
		if seen[n] == "" {
			return fault.Errorf(fault.Usage, "no identity document is named for %s", n)
		}
	}
	payload, err := jcs.Marshal(record.DocumentsSeen{Format: "keyrite/documents-seen/v1", Record: r.ID, Seen: seen, World: r.World})
	if err != nil {
		return err
	}
	env, err := signAll(ctx, r, record.DocumentsType, payload, r.Names(charter.RoleWitness)[:2])
	if err != nil {
		return err
	}
	return r.Record(&record.Documents{Envelope: *env})
}

// allNames are the names of list, in its order.
func allNames(list []ceremony.Participant) []string {
	var out []string
	for _, p := range list {
		out = append(out, p.Person.Name)
	}
	return out
}

// signAll collects the signatures of names under one payload.
func signAll(ctx context.Context, r *ceremony.Run, typ string, payload []byte, names []string) (*envelope.Envelope, error) {
	env, err := envelope.Sign(typ, payload)
	if err != nil {
		return nil, err
	}
	for i, n := range names {
		r.Console.Count(ceremony.Count{What: "signatures", Done: names[:i], Need: len(names), Of: len(names)})
		if err := r.WithKey(ctx, n, func(k *person.Key) error { return env.Add(k.Signer()) }); err != nil {
			return nil, err
		}
	}
	return env, nil
}

// found makes the genesis statement and has everybody sign it, before the first
// token is touched.
func (g *Genesis) found(ctx context.Context, r *ceremony.Run) error {
	gen := &charter.Genesis{Nonce: make([]byte, 32), People: charter.People{Roster: r.Members()}, ScriptHash: r.Script.Hash(), World: r.World}
	rand.Read(gen.Nonce)
	masters := sorted(r.Names(charter.RoleKeyMaster))
	approvers := charter.Set{Members: sorted(r.Names(charter.RoleApprover)), Need: r.Script.Roles.Approvers.Need}
	gen.Sets = charter.Sets{Approvers: approvers, Releases: approvers}
	for _, s := range r.Script.Safes {
		gen.Safes = append(gen.Safes, charter.Safe{Name: s.Name, Openers: charter.Set{Members: masters, Need: r.Script.Roles.KeyMasters.Need}})
	}
	payload, err := g.state.Propose(charter.TypeGenesis, gen, r.Clock.Now())
	if err != nil {
		return err
	}
	r.Console.Say("", "the roster, the thresholds and the hash of this script are signed by everybody here")
	names := allNames(r.People)
	env, err := signAll(ctx, r, charter.PayloadType, payload, names)
	if err != nil {
		return err
	}
	if err := g.append(r, charter.TypeGenesis, env, names); err != nil {
		return err
	}
	r.Console.Say("good", "vault "+g.state.Vault[:16]+"…")
	// Written now, so that a killed attempt can be cleaned up by its own shares.
	return r.Output(genesisOutput, g.lines[:len(g.lines)-1])
}

// append folds one signed statement and records it.
func (g *Genesis) append(r *ceremony.Run, typ string, env *envelope.Envelope, signers []string) error {
	line, err := env.Marshal()
	if err != nil {
		return err
	}
	seq := g.state.Size()
	if err := g.state.Apply(line); err != nil {
		return err
	}
	g.lines = append(append(g.lines, line...), '\n')
	sum := sha256.Sum256(line)
	return r.Record(&record.Statement{LineHash: hex.EncodeToString(sum[:]), Seq: seq, Signers: signers, Type: typ})
}

// statement is one thing that the approvers decide.
type statement struct {
	typ  string
	body any
}

// charter has the approvers sign everything that the ceremony made, one
// statement each, with one opening of their keys.
func (g *Genesis) charter(ctx context.Context, r *ceremony.Run) error {
	list, err := g.statements()
	if err != nil {
		return err
	}
	names := g.state.People.Sets.Approvers.Members[:g.state.People.Sets.Approvers.Need]
	var opened []*person.Key
	var with func(i int) error
	with = func(i int) error {
		if i < len(names) {
			r.Console.Count(ceremony.Count{What: "approvals", Done: names[:i], Need: len(names), Of: len(g.state.Genesis.Sets.Approvers.Members)})
			return r.WithKey(ctx, names[i], func(k *person.Key) error {
				opened = append(opened, k)
				return with(i + 1)
			})
		}
		for _, st := range list {
			payload, err := g.state.Propose(st.typ, st.body, r.Clock.Now())
			if err != nil {
				return err
			}
			env, err := envelope.Sign(charter.PayloadType, payload)
			if err != nil {
				return err
			}
			for _, k := range opened {
				if err := env.Add(k.Signer()); err != nil {
					return err
				}
			}
			if err := g.append(r, st.typ, env, names); err != nil {
				return err
			}
		}
		return nil
	}
	if err := with(0); err != nil {
		return err
	}
	r.Console.Say("good", "the charter has "+itoa(g.state.Size())+" statements")
	return nil
}

// statements lists what the charter says after the genesis, in the order in
// which each can be checked when it is folded.
func (g *Genesis) statements() ([]statement, error) {
	var out []statement
	for _, s := range g.script.Safes {
		out = append(out, statement{charter.TypeEpoch, g.safes[s.Name].epoch})
	}
	for _, id := range g.order {
		out = append(out, statement{charter.TypeKey, g.keys[id].rec})
	}
	for _, f := range g.script.Factories {
		out = append(out, statement{charter.TypeFactory, charter.Factory{
			CA: g.certs[f.CA], Evidence: f.Evidence, ID: f.ID, Product: f.Product, SerialFrom: f.SerialFrom, SerialTo: f.SerialTo,
		}})
	}
	for _, s := range g.script.Stations {
		spki, err := g.request(s.ReportKey)
		if err != nil {
			return nil, err
		}
		out = append(out, statement{charter.TypeStation, charter.Station{Factory: s.Factory, ID: s.ID, ReportKey: spki}})
	}
	for _, p := range g.script.Pipelines {
		spki, err := g.publicKey(p.Key)
		if err != nil {
			return nil, err
		}
		out = append(out, statement{charter.TypePipeline, charter.Pipeline{ID: p.ID, Key: spki, Products: p.Products}})
	}
	for _, x := range g.script.Relays {
		out = append(out, statement{charter.TypeRelay, charter.Relay{Certificate: g.certs[x.Certificate], ID: x.ID, Role: x.Role}})
	}
	return out, nil
}

// rootValidity is how long the first update root is good for; a new one is
// signed by the ceremony that renews it.
const rootValidity = 2 * 365 * 24 * time.Hour

// updateRoot signs the first root of the update repository: the root token's key
// as born, and every approver.
func (g *Genesis) updateRoot(ctx context.Context, r *ceremony.Run) error {
	spec, err := tuf.RootOf(&g.state, 1, r.Clock.Now().Add(rootValidity))
	if err != nil {
		return err
	}
	tbs, err := tuf.RootTBS(spec)
	if err != nil {
		return err
	}
	first, err := tuf.SignRoot(tbs, g.keys[tuf.RootKeyID].signer)
	if err != nil {
		return err
	}
	sigs := []tuf.RootSignature{first}
	approvers := g.state.People.Sets.Approvers.Members
	for i, name := range approvers {
		r.Console.Count(ceremony.Count{What: "signatures", Done: approvers[:i], Need: len(approvers), Of: len(approvers)})
		err := r.WithKey(ctx, name, func(k *person.Key) error {
			s, err := tuf.SignRoot(tbs, k.Signer())
			sigs = append(sigs, s)
			return err
		})
		if err != nil {
			return err
		}
	}
	if g.root, err = tuf.Assemble(spec, sigs); err != nil {
		return err
	}
	r.Console.Say("good", "update root 1, signed by the root token and "+itoa(len(sigs)-1)+" approvers")
	return tuf.CheckRoot(g.root, &g.state)
}

// anchors are the keys of the charter and the roots' certificates.
func (g *Genesis) anchors() (*anchor.Anchors, error) {
	a := &anchor.Anchors{
		Certificates: map[string][]byte{}, Format: anchor.Format, Keys: []anchor.KeyRecord{}, Successors: []anchor.KeyRecord{},
		Vault: g.state.Vault, World: g.state.World,
	}
	var err error
	if a.RosterHash, err = g.state.Genesis.RosterHash(); err != nil {
		return nil, err
	}
	for _, id := range g.order {
		a.Keys = append(a.Keys, g.keys[id].rec)
		if der, ok := g.certs[id]; ok {
			a.Certificates[id] = der
		}
	}
	return a, a.Check()
}

// outputs writes everything public into the record.
func (g *Genesis) outputs(r *ceremony.Run) error {
	a, err := g.anchors()
	if err != nil {
		return err
	}
	data, err := a.Marshal()
	if err != nil {
		return err
	}
	if err := r.Output(record.OutputsDir+"/anchors.json", data); err != nil {
		return err
	}
	if err := r.Output(record.OutputsDir+"/charter.jsonl", g.lines); err != nil {
		return err
	}
	if g.root != nil {
		if err := r.Output(record.OutputsDir+"/1.root.json", g.root); err != nil {
			return err
		}
	}
	for _, id := range g.order {
		if err := r.Output(record.OutputsDir+"/"+id+".pub.pem", pemBlock("PUBLIC KEY", g.keys[id].rec.Public)); err != nil {
			return err
		}
	}
	for _, c := range g.script.Certificates {
		if err := r.Output(record.OutputsDir+"/"+c.ID+".cert.pem", pemBlock("CERTIFICATE", g.certs[c.ID])); err != nil {
			return err
		}
	}
	return nil
}

func (g *Genesis) readAloud(r *ceremony.Run) error {
	a, err := g.anchors()
	if err != nil {
		return err
	}
	words, err := a.Words()
	if err != nil {
		return err
	}
	hash, err := a.Hash()
	if err != nil {
		return err
	}
	r.Console.Say("good", "anchors "+hash)
	r.Console.Say("good", "anchors in words: "+words)
	return r.Record(&record.Words{What: "anchors.json", Words: words})
}

func parseCert(der []byte) (*x509.Certificate, error) {
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "read back certificate: %w", err)
	}
	return c, nil
}
