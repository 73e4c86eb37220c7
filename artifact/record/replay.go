package record

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	"keyrite/artifact/tlog"
)

// entry checks one entry against those before it.
func (c *checker) entry(e *Entry, d Data) error {
	if i, ok := d.(*Incident); c.ended && c.State == "CLOSED" && ok && i.By == "engine" {
		// Killed between the end and the conductor's signature, then taken to
		// VOID. A signed checkpoint forbids this: it states the size.
		c.ended = false
	}
	if c.ended {
		return bad("%w: it follows the end", ErrEntry)
	}
	if _, isState := d.(*State); c.State == "CLOSED" && !isState {
		switch d.(type) {
		case *End, *Incident, *Miss: // a mistyped passphrase of an incident's caller
		default:
			return bad("%w: it follows the state CLOSED", ErrEntry)
		}
	}
	if (e.Seq == 0) != (e.Type == "open") {
		return bad("%w: the opening entry stands first, once", ErrEntry)
	}
	if err := c.place(e, d); err != nil {
		return err
	}
	c.keep(e, d)
	c.follow.take(e, d)
	c.follow.left(e, d)
	switch d := d.(type) {
	case *Open:
		return c.open(d)
	case *State:
		return c.state(d)
	case *Begin:
		if c.step != "" {
			return bad("%w: step %s begins inside step %s", ErrEntry, e.Step, c.step)
		}
		c.step, c.began, c.roll = e.Step, e.Seq, nil
	case *Done:
		if c.step == "" || c.step != e.Step {
			return bad("%w: step %s ends without having begun", ErrEntry, e.Step)
		}
		if d.Do == "break" && (c.roll == nil || len(c.roll) > 0) {
			return bad("%w: a break without a roll before and after", ErrEntry)
		}
		c.step = ""
	case *Contingency:
		return c.contingency(e, d)
	case *Present:
		return c.breaks(d)
	case *Medium:
		return c.medium(d)
	case *Identified:
		if _, twice := c.Roles[d.Name]; twice {
			return bad("%w: %s identified twice", ErrEntry, d.Name)
		}
		c.Roles[d.Name] = d.Role
	case *Output:
		if _, twice := c.outputs[d.Path]; twice {
			return bad("%w: output %.80q twice", ErrEntry, d.Path)
		}
		if strings.HasPrefix(d.Path, AfterDir+"/") && !c.Open.Base.keepsVoid() {
			return bad("%w: output %.80q of a void ceremony, of which the opening entry says nothing", ErrEntry, d.Path)
		}
		c.outputs[d.Path] = *d
	case *Statement:
		c.stmts = append(c.stmts, *d)
	case *Incident:
		c.Incidents = append(c.Incidents, *d)
	case *Cleanup:
		c.cleanups = append(c.cleanups, d)
	case *End:
		if d.State != c.State || c.step != "" && d.State == "CLOSED" {
			return bad("%w: ends %s in state %s", ErrEntry, d.State, c.State)
		}
		c.ended, c.Cause = true, d.Cause
	default:
		return c.secretEntry(e, d)
	}
	return nil
}

// keep puts aside what is compared at the end, and what a report shows.
func (c *checker) keep(e *Entry, d Data) {
	l := Line{*e, d}
	switch d.(type) {
	case *Documents, *Incident, *Identified:
		c.signed = append(c.signed, l)
	case *Receipt:
		c.received = append(c.received, l)
	case *Words:
		c.words = append(c.words, l)
	}
	if len(c.Timeline) < maxTimeline {
		c.Timeline = append(c.Timeline, l)
	} else {
		c.last[e.Seq%int64(len(c.last))] = l
	}
}

// secretEntry checks the entries about tokens, shares and keys.
func (c *checker) secretEntry(e *Entry, d Data) error {
	switch d := d.(type) {
	case *Admission:
		return c.admission(e, d)
	case *Dealt:
		return c.deal(d)
	case *Receipt:
		return c.receipt(d)
	case *Opening:
		return c.shareGiven(e, d)
	case *PINsChanged:
		return c.pinsChanged(d)
	case *Intent:
		return c.announced(d)
	case *Transferred:
		return c.transferred(d)
	case *Removed:
		return c.removed(d)
	case *Found:
		return c.foundKey(d)
	case *TokenReady:
		c.tokens[d.Safe] = d.Token
		return c.advance(d.Safe, safeAnnounced, safeReady, "token")
	case *KeyMade:
		return c.key(e, d)
	case *Certificate:
		if _, twice := c.certs[d.ID]; twice {
			return bad("%w: certificate %.40q twice", ErrEntry, d.ID)
		}
		c.certs[d.ID] = *d
		c.Certificates = append(c.Certificates, *d)
	case *Possession:
		return c.possession(d)
	case *Watched:
		return c.watched(d)
	case *CRL:
		return c.crl(d)
	case *Succession:
		return c.succession(d)
	case *Retired:
		return c.retired(d)
	}
	return nil
}

func (c *checker) open(o *Open) error {
	if o.Format != Format || !idRE.MatchString(o.Record) || o.Mode != "rehearsal" && o.Mode != "live" || (o.Mode == "live") != o.World.IsLive() {
		return bad("%w: opening entry is not valid", ErrEntry)
	}
	if o.World.IsLive() && (o.Rehearsal == nil || !idRE.MatchString(o.Rehearsal.Record) || len(o.Rehearsal.Root) != 64) {
		return bad("%w: live ceremony without a rehearsal", ErrEntry)
	}
	k, ok := kinds()[o.Kind]
	if !ok {
		return bad("%w: ceremony of unknown kind %.40q", ErrEntry, o.Kind)
	}
	if (o.Base != nil) != k.continues || o.Base != nil && (len(o.Base.Anchors) != 64 || len(o.Base.CharterHead) != 64 || o.Base.CharterSize < 1) {
		return bad("%w: a %s ceremony names the vault that it continues, and a genesis none", ErrEntry, o.Kind)
	}
	if o.Base != nil && o.Base.Adopts != nil && (!k.adopts || o.After == nil) {
		return bad("%w: a %s ceremony adopts nothing, or names no void one before it", ErrEntry, o.Kind)
	}
	if o.Base != nil && len(o.Base.Fell) > 0 && o.After == nil {
		return bad("%w: incidents of void ceremonies, and none is named before this one", ErrEntry)
	}
	c.Open, c.State = *o, "DRAFT"
	return o.World.Check()
}

// order of states; INVALID may follow any from ARMED on.
var next = map[string]string{
	"DRAFT": "LINTED", "LINTED": "SUMMONED", "REHEARSED": "SUMMONED", "SUMMONED": "ARMED", "ARMED": "RUNNING",
	"RUNNING": "SEALING", "SEALING": "CLOSED", "INVALID": "CLEANUP", "CLEANUP": "VOID",
}

func (c *checker) state(s *State) error {
	ok := next[c.State] == s.State || c.State == "LINTED" && s.State == "REHEARSED"
	if s.State == "INVALID" {
		ok = slices.Contains([]string{"ARMED", "RUNNING", "SEALING", "CLOSED", "INVALID", "CLEANUP"}, c.State) && !c.ended
		c.step = ""
	}
	if s.State == "SUMMONED" && c.Open.World.IsLive() && c.State != "REHEARSED" {
		ok = false
	}
	if !ok {
		return bad("%w: state %.20q after %s", ErrEntry, s.State, c.State)
	}
	c.State = s.State
	if s.Cause != "" {
		c.Cause = s.Cause
	}
	return nil
}

// mustHave are the attributes without which a key is no key of ours, whatever
// the script wanted.
var mustHave = map[string]string{
	"CKA_SENSITIVE": "true", "CKA_EXTRACTABLE": "false", "CKA_PRIVATE": "true", "CKA_LOCAL": "true", "CKA_ALWAYS_SENSITIVE": "true",
	"CKA_NEVER_EXTRACTABLE": "true", "CKA_SIGN": "true", "CKA_DECRYPT": "false", "CKA_UNWRAP": "false", "CKA_DERIVE": "false", "CKA_SIGN_RECOVER": "false",
}

// movable says whether the key shows itself as one that may leave its token once,
// under a trusted key and no other way. Only a script that says movable makes
// such a key (checkSpecified).
func (k *KeyMade) movable() bool { return k.private("CKA_WRAP_WITH_TRUSTED") == "true" }

// must are the attributes that the key must show.
func (k *KeyMade) must() map[string]string {
	if !k.movable() {
		return mustHave
	}
	out := maps.Clone(mustHave)
	out["CKA_EXTRACTABLE"], out["CKA_NEVER_EXTRACTABLE"] = "true", "false"
	return out
}

func (c *checker) key(e *Entry, k *KeyMade) error {
	if err := k.Key.Check(); err != nil {
		return err
	}
	if k.Key.Record != Origin(c.Open.Record) || c.intents[k.Object].key != k.Key.ID || c.intents[k.Object].token != k.Key.Token || k.Object == "" {
		return bad("%w: key %s was made without an intent", ErrEntry, k.Key.ID)
	}
	seen, must := map[string]bool{}, k.must()
	for _, a := range k.Attributes {
		if a.Got != a.Wanted {
			return bad("%w: key %s has %s %.80q, not %.80q", ErrEntry, k.Key.ID, a.Name, a.Got, a.Wanted)
		}
		if want, ok := must[a.Name]; ok && a.Half == "private" {
			if a.Got != want {
				return bad("%w: key %s has %s %s", ErrEntry, k.Key.ID, a.Name, a.Got)
			}
			seen[a.Name] = true
		}
	}
	if len(seen) != len(must) {
		return bad("%w: key %s was not read back whole", ErrEntry, k.Key.ID)
	}
	token, modifiable := "false", "true"
	if k.Stage == "stored" {
		token, modifiable = "true", "false"
	}
	if k.private("CKA_TOKEN") != token || k.private("CKA_MODIFIABLE") != modifiable {
		return bad("%w: key %s is not in the place of its stage", ErrEntry, k.Key.ID)
	}
	switch k.Stage {
	case "born":
		if _, twice := c.born[k.Key.ID]; twice || c.do != "key.generate" {
			return bad("%w: key %s made twice, or outside its step", ErrEntry, k.Key.ID)
		}
		if err := c.admits(c.intents[k.Object].safe, k.Key.Algorithm); err != nil {
			return err
		}
		c.born[k.Key.ID] = *k
		c.bornAt[k.Key.ID] = e.Time
	case "stored":
		b, ok := c.born[k.Key.ID]
		if _, twice := c.stored[k.Key.ID]; !ok || twice || c.do != "keys.store" || !bytes.Equal(b.Key.Public, k.Key.Public) || b.Object != k.Object {
			return bad("%w: stored key %s is not the one born", ErrEntry, k.Key.ID)
		}
		c.stored[k.Key.ID] = *k
		c.Keys = append(c.Keys, *k)
	default:
		return bad("%w: key stage %.20q", ErrEntry, k.Stage)
	}
	return nil
}

// private returns an attribute of the private half as read back.
func (k *KeyMade) private(name string) string {
	for _, a := range k.Attributes {
		if a.Half == "private" && a.Name == name {
			return a.Got
		}
	}
	return ""
}

func (c *checker) possession(p *Possession) error {
	k, ok := c.stored[p.Key]
	if t, moved := c.moved[p.Key]; moved && !ok {
		k.Key, ok = t.Key, true // by the public key that it always had
	}
	if f, found := c.found[p.Key]; found && !ok {
		k.Key, ok = f.Key, true
	}
	if !ok || c.proven[p.Key] {
		return bad("%w: proof of possession of a key that is not stored, or a second one", ErrEntry)
	}
	// It signs the transcript right before it, so no proof is older than its key.
	root, err := c.tr.RootAt(p.Size)
	if err != nil || p.Size != c.tr.Size()-1 || p.Root != tlog.Hex(root) {
		return bad("%w: proof of possession of key %s is over another transcript", ErrEntry, p.Key)
	}
	msg, err := PossessionMessage(c.Open.Record, p.Key, k.Key.SpecHash, p.Size, p.Root)
	if err != nil {
		return err
	}
	c.proven[p.Key] = true
	if err := k.Key.CheckBytes(msg, p.Signature); err != nil {
		return bad("%w: proof of possession of key %s: %w", ErrEntry, p.Key, err)
	}
	return nil
}
