package script

import (
	"maps"
	"slices"
)

// scope lists everything that a script can change: each thing has a slot, and a
// world is one state for each slot. It knows which slots a word of the verb
// table means for a step.
type scope struct {
	s      *Script
	slots  map[string]int
	names  []string   // of the slots, for people
	states [][]string // names of a slot's states
	used   map[string]bool
}

// world is the state of each slot, as an index into scope.states. It is a
// string, so that worlds can be compared and kept in a map.
type world string

// flags that a script raises at most once. A flag whose verb no step uses is
// "-": nothing waits for it.
func flagVerbs() map[string][]string {
	return map[string][]string{
		"environment": {"environment.check"}, "identified": {"people.identify"}, "documents": {"documents.see"}, "begun": {"genesis.sign", "vault.load"},
		"people": {"people.change"}, "succeeded": {"succession.sign"}, "chartered": {"charter.append"}, "rooted": {"update.root"},
		"watched": {"births.sign"}, "written": {"outputs.write"}, "read": {"read.aloud"},
	}
}

func newScope(s *Script) (*scope, world) {
	c := &scope{s: s, slots: map[string]int{}, used: map[string]bool{}}
	for _, st := range s.allSteps() {
		c.used[st.Do] = true
	}
	var start []byte
	add := func(name string, states []string, at string) {
		c.slots[name] = len(c.states)
		c.names = append(c.names, name)
		c.states = append(c.states, states)
		start = append(start, byte(slices.Index(states, at)))
	}
	for _, f := range slices.Sorted(maps.Keys(flagVerbs())) {
		at := "-"
		if slices.ContainsFunc(flagVerbs()[f], func(v string) bool { return c.used[v] }) {
			at = "no"
		}
		add("@"+f, []string{"-", "no", "yes"}, at)
	}
	for _, x := range s.Safes {
		at := "new"
		if s.IsExisting(&x) {
			at = "closed"
		}
		add("safe "+x.Name, []string{"new", "initialised", "admitted", "dealt", "received", "closed", "open", "destroyed"}, at)
		add("epoch "+x.Name, []string{"old", "dealt", "received", "changed"}, "old")
	}
	keyStates := []string{"unborn", "born", "stored", "proven", "kept", "lost", "moved", "found", "destroyed"}
	for _, k := range s.Keys {
		add("key "+k.ID, keyStates, "unborn")
	}
	for _, k := range s.Existing {
		at := "kept"
		if k.Safe == "" {
			at = "lost"
		}
		add("key "+k.ID, keyStates, at)
	}
	for _, x := range s.Certificates {
		add("certificate "+x.ID, []string{"no", "issued"}, "no")
	}
	for _, x := range s.CRLs {
		add("crl "+x.ID, []string{"no", "issued"}, "no")
	}
	for _, x := range s.Media {
		add("medium "+x.Name, []string{"out", "in", "away"}, "out")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Model)) {
		add("model "+name, s.Model[name], s.Model[name][0])
	}
	return c, world(start)
}

func (c *scope) state(w world, slot string) string {
	i, ok := c.slots[slot]
	if !ok {
		return ""
	}
	return c.states[i][w[i]]
}

// model is what w says of the things of the room.
func (c *scope) model(w world) map[string]string {
	if len(c.s.Model) == 0 {
		return nil
	}
	out := map[string]string{}
	for name := range c.s.Model {
		out[name] = c.state(w, "model "+name)
	}
	return out
}

// of gives the slots that a word of the verb table means for a step. "some"
// words want one of the slots in the state, the others all of them.
func (c *scope) of(word string, st *Step) []string {
	s := c.s
	switch word {
	case "safe":
		return []string{"safe " + st.Safe}
	case "to":
		return []string{"safe " + st.To}
	case "epoch":
		return []string{"epoch " + st.Safe}
	case "key":
		return []string{"key " + st.Key}
	case "key's safe":
		return c.safeOf(st.Key)
	case "medium":
		return []string{"medium " + st.Medium}
	case "cert":
		return []string{"certificate " + st.Cert}
	case "crl":
		return []string{"crl " + st.CRL}
	case "subject", "issuer", "issuer's certificate", "issuer's safe":
		return c.ofIssue(word, st)
	case "keys":
		return each(s.Keys, "key ", func(k *Key) (string, bool) { return k.ID, true })
	case "certificates":
		return each(s.Certificates, "certificate ", func(x *Certificate) (string, bool) { return x.ID, true })
	case "crls":
		return each(s.CRLs, "crl ", func(x *CRL) (string, bool) { return x.ID, true })
	case "media":
		return each(s.Media, "medium ", func(x *Medium) (string, bool) { return x.Name, true })
	case "epochs":
		return each(s.Safes, "epoch ", func(x *Safe) (string, bool) { return x.Name, true })
	case "fresh safes":
		return each(s.Safes, "safe ", func(x *Safe) (string, bool) { return x.Name, !s.IsExisting(x) })
	case "existing safes":
		return each(s.Safes, "safe ", func(x *Safe) (string, bool) { return x.Name, s.IsExisting(x) })
	case "some safe":
		return each(s.Safes, "safe ", func(x *Safe) (string, bool) { return x.Name, true })
	case "keys made in safe", "some key made in safe":
		return each(s.Keys, "key ", func(k *Key) (string, bool) { return k.ID, k.Safe == st.Safe })
	case "keys of safe":
		return append(c.of("keys made in safe", st), each(s.Existing, "key ", func(k *ExistingKey) (string, bool) { return k.ID, k.Safe == st.Safe })...)
	case "moved keys":
		return each(s.Existing, "key ", func(k *ExistingKey) (string, bool) { return k.ID, c.goesTo(k.ID) != "" })
	case "keys moved to safe":
		return each(s.Existing, "key ", func(k *ExistingKey) (string, bool) { return k.ID, c.goesTo(k.ID) == st.Safe })
	case "some key to prove":
		return append(c.of("keys made in safe", st), c.of("keys moved to safe", st)...)
	}
	return []string{word} // a flag
}

// ofIssue gives the slots of what a certificate or CRL hangs on.
func (c *scope) ofIssue(word string, st *Step) []string {
	var issuer, subject string
	if x, ok := c.s.CertByID(st.Cert); ok {
		issuer, subject = x.Issuer, x.Key
	} else if x, ok := c.s.CRLByID(st.CRL); ok {
		issuer = x.Issuer
	}
	switch word {
	case "subject":
		if subject == "" {
			return nil
		}
		return []string{"key " + subject}
	case "issuer":
		return []string{"key " + issuer}
	case "issuer's certificate":
		if _, ok := c.s.CertByID(issuer); !ok || issuer == st.Cert {
			return nil // its own, or one of the charter
		}
		return []string{"certificate " + issuer}
	}
	return c.safeOf(issuer)
}

func (c *scope) safeOf(key string) []string {
	if k, ok := c.s.KeyByID(key); ok {
		return []string{"safe " + k.Safe}
	}
	if k, ok := c.s.ExistingByID(key); ok && k.Safe != "" {
		return []string{"safe " + k.Safe}
	}
	return nil
}

// goesTo is the safe that some step moves the key to.
func (c *scope) goesTo(key string) string {
	for _, st := range c.s.allSteps() {
		if st.Do == "key.transfer" && st.Key == key {
			return st.To
		}
	}
	return ""
}

func each[T any](list []T, prefix string, is func(*T) (string, bool)) []string {
	var out []string
	for i := range list {
		if name, ok := is(&list[i]); ok {
			out = append(out, prefix+name)
		}
	}
	return out
}
