package record

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/tlog"
	"keyrite/artifact/words"
	"keyrite/artifact/world"
)

// scriptFile is what a verifier needs of a script: which steps there are, who
// confirms them, and which keys are made. Its other members bind the engine.
type scriptFile struct {
	Safes []struct {
		Name  string `yaml:"name"`
		Token string `yaml:"token"`

		Adopts bool `yaml:"adopts"`
	} `yaml:"safes"`
	Successions []struct {
		ID     string `yaml:"id"`
		By     string `yaml:"by"`
		Reason string `yaml:"reason"`
	} `yaml:"successions"`
	Certificates []struct {
		ID     string `yaml:"id"`
		Issuer string `yaml:"issuer"`
	} `yaml:"certificates"`
	CRLs []struct {
		ID      string `yaml:"id"`
		Issuer  string `yaml:"issuer"`
		Number  int64  `yaml:"number"`
		Revoked []struct {
			Serial string `yaml:"serial"`
		} `yaml:"revoked"`
	} `yaml:"crls"`
	Factories []struct {
		ID         string `yaml:"id"`
		Product    string `yaml:"product"`
		SerialFrom int64  `yaml:"serial_from"`
		SerialTo   int64  `yaml:"serial_to"`
		Evidence   string `yaml:"evidence"`
		CA         string `yaml:"ca"`
	} `yaml:"factories"`
	Stations []struct {
		ID      string `yaml:"id"`
		Factory string `yaml:"factory"`
	} `yaml:"stations"`
	Pipelines []struct {
		ID       string   `yaml:"id"`
		Products []string `yaml:"products"`
	} `yaml:"pipelines"`
	Relays []struct {
		ID          string `yaml:"id"`
		Role        string `yaml:"role"`
		Certificate string `yaml:"certificate"`
	} `yaml:"relays"`
	Keys          []scriptKey         `yaml:"keys"`
	Contingencies []scriptContingency `yaml:"contingencies"`
	Summon        []scriptStep        `yaml:"summon"`
	Run           []scriptStep        `yaml:"run"`
	Seal          []scriptStep        `yaml:"seal"`
}

// scriptContingency is what the script plans for one cause.
type scriptContingency struct {
	ID    string       `yaml:"id"`
	On    string       `yaml:"on"`
	Steps []scriptStep `yaml:"steps"`
	Then  string       `yaml:"then"` // again or next
}

// scriptKey is the specification of a key, whole, since its hash is in the key's
// record.
type scriptKey struct {
	Algorithm   string `yaml:"algorithm" json:"algorithm"`
	Attestation string `yaml:"attestation" json:"attestation,omitempty"`
	Domain      string `yaml:"domain" json:"domain"`
	ID          string `yaml:"id" json:"id"`
	Movable     bool   `yaml:"movable" json:"movable,omitempty"`
	Purpose     string `yaml:"purpose" json:"purpose"`
	Safe        string `yaml:"safe" json:"safe"`
	SuccessorOf string `yaml:"successor_of" json:"successor_of,omitempty"`
	Usage       struct {
		AlwaysAuthenticate bool `yaml:"always_authenticate" json:"always_authenticate"`
		Decrypt            bool `yaml:"decrypt" json:"decrypt"`
		Derive             bool `yaml:"derive" json:"derive"`
		Destroyable        bool `yaml:"destroyable" json:"destroyable"`
		Encrypt            bool `yaml:"encrypt" json:"encrypt,omitempty"`
		Extractable        bool `yaml:"extractable" json:"extractable"`
		Sensitive          bool `yaml:"sensitive" json:"sensitive"`
		Sign               bool `yaml:"sign" json:"sign"`
		SignRecover        bool `yaml:"sign_recover" json:"sign_recover"`
		Unwrap             bool `yaml:"unwrap" json:"unwrap"`
		Wrap               bool `yaml:"wrap" json:"wrap,omitempty"`
		WrapWithTrusted    bool `yaml:"wrap_with_trusted" json:"wrap_with_trusted,omitempty"`
	} `yaml:"usage" json:"usage"`
}

// specHash is the hex SHA-256 of the specification as encoding/json writes it,
// members sorted.
func (k *scriptKey) specHash() (string, error) {
	b, err := json.Marshal(k)
	if err != nil {
		return "", fault.Errorf(fault.Unexpected, "hash key specification: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

type scriptStep struct {
	ID      string   `yaml:"id"`
	Do      string   `yaml:"do"`
	Title   string   `yaml:"title"`
	Confirm []string `yaml:"confirm"`
	Planned []string `yaml:"planned"` // contingencies
	Tries   int      `yaml:"tries"`   // 0 means defaultTries
	Key     string   `yaml:"key"`
	Safe    string   `yaml:"safe"`
	Cert    string   `yaml:"cert"`
	CRL     string   `yaml:"crl"`
	Medium  string   `yaml:"medium"`
	To      string   `yaml:"to"`
	state   string   // in which it runs
}

// defaultTries is how often a step is begun again where the script says nothing.
const defaultTries = 3

// steps are all steps in order, each with the state in which it runs.
func (s *scriptFile) steps() []scriptStep {
	var out []scriptStep
	for _, phase := range []struct {
		state string
		list  []scriptStep
	}{{"SUMMONED", s.Summon}, {"RUNNING", s.Run}, {"SEALING", s.Seal}} {
		for _, st := range phase.list {
			st.state = phase.state
			out = append(out, st)
		}
	}
	return out
}

// follower compares the transcript with the script while it is read. What is wrong
// is kept until the script itself is known to be the one that ran.
type follower struct {
	path      *path
	state     string
	confirmed map[string]bool // in the step under way
	ends      []stepEnd
	has       map[string]bool // steps that left what they must
	hollow    error           // the first step that left nothing
	wrong     error           // the first fault, at entry wrongAt
	wrongAt   int64
}

// stepEnd is a step that ended, with those who confirmed it. Who had to is known
// only when everybody is identified.
type stepEnd struct {
	seq  int64
	step *scriptStep
	by   map[string]bool
}

// load reads the script that the folder holds; without one nothing is followed.
func (c *checker) load(script []byte) {
	if yaml.Unmarshal(script, &c.script) == nil {
		c.follow.path = &path{script: &c.script, steps: c.script.steps()}
	}
}

// take follows one entry.
func (f *follower) take(e *Entry, d Data) {
	if f.path == nil || f.wrong != nil {
		return
	}
	fail := func(format string, args ...any) {
		f.wrong, f.wrongAt = bad("%w: entry %d: %s", ErrEntry, e.Seq, fmt.Sprintf(format, args...)), e.Seq
	}
	switch d := d.(type) {
	case *State:
		f.state = d.State
	case *Begin:
		st := f.path.begin()
		if st == nil || e.Step != st.ID || d.Do != st.Do || d.Title != st.Title || f.state != st.state {
			fail("step %.20q is not the next step of the script", e.Step)
			return
		}
		f.confirmed = map[string]bool{}
	case *Confirm:
		if d.Answer != "yes" {
			fail("%s answered %.20q and the ceremony went on", d.Who, d.Answer)
		} else if f.confirmed != nil {
			f.confirmed[d.Who] = true
		}
	case *Retired:
		if at := f.path.at; at == nil || d.Key != at.Key || d.Key == "" && d.Safe != at.Safe {
			fail("the step destroys something else than %.40q of safe %.40q", d.Key, d.Safe)
		}
	case *Contingency:
		if why := f.path.meet(d); why != "" {
			fail("contingency %.40q: %s", d.ID, why)
		}
	case *Done:
		if f.path.at == nil || d.Do != f.path.at.Do {
			fail("%.40q ends a step that did something else", d.Do)
			return
		}
		f.ends = append(f.ends, stepEnd{e.Seq, f.path.at, f.confirmed})
		f.confirmed = nil // what is confirmed from here on is no longer this step
	}
}

// checkSteps wants the steps of the script, in its order and in the state each
// belongs to, with the contingencies that they met, each begun by the conductor
// and confirmed by everybody whom the script names: all of them in a closed
// record, the first few in a void one.
func (c *checker) checkSteps(script []byte) error {
	if err := yaml.Unmarshal(script, &scriptFile{}); err != nil {
		return bad("%w: its script cannot be read: %w", ErrRecord, err)
	}
	f := &c.follow
	if f.path == nil {
		return bad("%w: its script cannot be read", ErrRecord)
	}
	for _, x := range f.ends {
		if f.wrong != nil && f.wrongAt < x.seq {
			break
		}
		for _, name := range c.confirmers(x.step) {
			if !x.by[name] {
				return bad("%w: entry %d: step %s went on without %s", ErrEntry, x.seq, x.step.ID, name)
			}
		}
	}
	if f.wrong != nil {
		return f.wrong
	}
	if c.State == "CLOSED" && !f.path.ended() {
		return bad("%w: %d of the script's %d steps were done", ErrRecord, f.path.next, len(f.path.steps))
	}
	return nil
}

// path follows a script through its contingencies.
type path struct {
	script *scriptFile
	steps  []scriptStep
	next   int          // index of the next step
	detour []scriptStep // of a contingency, still to come before it
	within bool         // the step under way is of a contingency
	last   int          // index of the last step of the script proper
	again  int          // how often that one was begun again
	at     *scriptStep  // the step under way
}

// begin takes the step that must come now, nil if none does.
func (p *path) begin() *scriptStep {
	switch {
	case len(p.detour) > 0:
		p.at, p.detour, p.within = &p.detour[0], p.detour[1:], true
	case p.next < len(p.steps):
		if p.next != p.last {
			p.again = 0
		}
		p.last, p.at, p.within = p.next, &p.steps[p.next], false
		p.next++
	default:
		p.at = nil
	}
	return p.at
}

// meet takes a contingency. The text says why it is not one of the step's.
func (p *path) meet(d *Contingency) string {
	i := slices.IndexFunc(p.script.Contingencies, func(x scriptContingency) bool { return x.ID == d.ID })
	if p.at == nil || p.within || i < 0 || !slices.Contains(p.at.Planned, d.ID) {
		return "the script does not plan it in this step"
	}
	x := p.script.Contingencies[i]
	if x.On != d.On {
		return "it is not for " + d.On
	}
	p.detour = nil
	for _, st := range x.Steps {
		st.state = p.at.state
		p.detour = append(p.detour, st)
	}
	if x.Then != "again" {
		return ""
	}
	tries := p.at.Tries
	if tries == 0 {
		tries = defaultTries
	}
	if p.again++; p.again > tries {
		return fmt.Sprintf("the step was begun again more than %d times", tries)
	}
	p.next--
	return ""
}

func (p *path) ended() bool { return p.next == len(p.steps) && len(p.detour) == 0 }

// confirmers are those without whom a step must not end, in order.
func (c *checker) confirmers(st *scriptStep) []string {
	var out []string
	for name, role := range c.Roles {
		if role == charter.RoleConductor || slices.Contains(st.Confirm, role) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// checkSigned checks what people signed beside the charter: which documents were
// seen, and incidents.
func (c *checker) checkSigned() error {
	for _, l := range c.signed {
		var err error
		switch d := l.Data.(type) {
		case *Documents:
			err = c.checkDocuments(d)
		case *Incident:
			err = c.checkIncident(l.Seq, d)
		case *Identified:
			err = c.checkIdentified(d)
		}
		if err != nil {
			return fault.Errorf(fault.Verify, "%w: entry %d: %w", ErrEntry, l.Seq, err)
		}
	}
	return nil
}

func (c *checker) checkDocuments(d *Documents) error {
	var keys []envelope.Key
	for name, p := range c.People {
		if c.Roles[name] == charter.RoleWitness {
			keys = append(keys, envelope.Key{Name: name, Public: p.PublicKey()})
		}
	}
	payload, _, err := envelope.Verify(&d.Envelope, DocumentsType, keys, 2)
	if err != nil {
		return err
	}
	var seen DocumentsSeen
	if err := jcs.Unmarshal(payload, &seen); err != nil {
		return err
	}
	if seen.Format != "keyrite/documents-seen/v1" || seen.Record != c.Open.Record || seen.World != c.Open.World {
		return bad("the documents were seen in another ceremony")
	}
	for name := range c.People {
		if seen.Seen[name] == "" {
			return bad("nobody saw a document of %s", name)
		}
	}
	return nil
}

func (c *checker) checkIncident(seq int64, d *Incident) error {
	if d.Envelope == nil {
		return nil // the engine's own, or one that nobody could sign
	}
	p := c.People[d.By]
	if p == nil {
		return bad("incident signed by %.40q, who is not here", d.By)
	}
	payload, _, err := envelope.Verify(d.Envelope, IncidentType, []envelope.Key{{Name: d.By, Public: p.PublicKey()}}, 1)
	if err != nil {
		return err
	}
	var call IncidentCall
	if err := jcs.Unmarshal(payload, &call); err != nil {
		return err
	}
	root, err := c.tr.RootAt(seq)
	if err != nil {
		return err
	}
	if call.Format != "keyrite/incident/v1" || call.Record != c.Open.Record || call.Reason != d.Reason || call.Root != tlog.Hex(root) {
		return bad("the signed incident is another one")
	}
	return world.Match(c.Open.World, call.World)
}

func (c *checker) checkIdentified(d *Identified) error {
	p := c.People[d.Name]
	if p == nil {
		return bad("no person file of %.40q", d.Name)
	}
	f, err := p.Fingerprint()
	if err != nil {
		return err
	}
	if hex.EncodeToString(f[:]) != d.Fingerprint {
		return bad("the person file of %s is another one", d.Name)
	}
	return nil
}

// checkTold compares what was read aloud and written out with what was made: the
// words with the anchors, each public key and certificate with its entry.
func (c *checker) checkTold() error {
	if err := c.checkWords(); err != nil {
		return err
	}
	var err error
	for path := range c.outputs {
		if c.ofVoid(path) {
			continue // of another ceremony, which is void
		}
		name, isKey := strings.CutSuffix(strings.TrimPrefix(path, OutputsDir+"/"), ".pub.pem")
		if isKey {
			err = c.samePEM(path, "PUBLIC KEY", func(der []byte) bool {
				return bytes.Equal(der, c.stored[name].Key.Public)
			})
		} else if id, isCert := strings.CutSuffix(name, ".cert.pem"); isCert {
			err = c.samePEM(path, "CERTIFICATE", func(der []byte) bool {
				sum := sha256.Sum256(der)
				return hex.EncodeToString(sum[:]) == c.certs[id].SHA256
			})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkWords compares what was read aloud: the anchors of a genesis, the charter's
// new head of any other ceremony.
func (c *checker) checkWords() error {
	what := "anchors.json"
	want, err := c.Anchors.Words()
	if c.base != nil {
		what = "charter.jsonl"
		want, err = HeadWords(c.Charter)
	}
	if err != nil {
		return err
	}
	read := false
	for _, l := range c.words {
		if w, ok := l.Data.(*Words); ok && w.What == what {
			if w.Words != want {
				return bad("%w: entry %d: the words read aloud are not those of %s", ErrEntry, l.Seq, what)
			}
			read = true
		}
	}
	if !read {
		return bad("%w: the words of %s were never read aloud", ErrRecord, what)
	}
	return nil
}

// HeadWords is the head of a charter as words for reading aloud.
func HeadWords(s *charter.State) (string, error) {
	sum, err := hex.DecodeString(s.Head())
	return words.Of(sum), err
}

func (c *checker) samePEM(path, typ string, same func(der []byte) bool) error {
	data, err := readFile(c.fsys, path, 64<<10)
	if err != nil {
		return err
	}
	b, rest := pem.Decode(data)
	if b == nil || b.Type != typ || len(rest) > 0 || !same(b.Bytes) {
		return bad("%w: %s is not the one made here", ErrRecord, path)
	}
	return nil
}

// checkSpecified compares every key with the script: safe and its token,
// algorithm and signing domain.
func (c *checker) checkSpecified() error {
	if len(c.script.Keys) != len(c.stored) {
		return bad("%w: the script has %d keys, %d were made", ErrRecord, len(c.script.Keys), len(c.stored))
	}
	labels := map[string]string{}
	for _, s := range c.script.Safes {
		labels[s.Name] = s.Token
		if t, ok := c.tokens[s.Name]; ok && t.Label != s.Token {
			return bad("%w: safe %s is not in the token that the script names", ErrRecord, s.Name)
		}
	}
	for _, k := range c.script.Keys {
		made := c.stored[k.ID]
		got := made.Key
		spec, err := k.specHash()
		if err != nil {
			return err
		}
		if got.SpecHash != spec || got.Algorithm != k.Algorithm || got.Domain != k.Domain || got.SuccessorOf != k.SuccessorOf || got.Token != c.tokens[k.Safe] || got.Token.Label != labels[k.Safe] || made.movable() != k.Movable {
			return bad("%w: key %s is not the one that the script specifies", ErrRecord, k.ID)
		}
	}
	return nil
}
