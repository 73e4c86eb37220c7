package actions

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/artifact/succession"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/internal/intake"
)

// successionOutput is the statement among the outputs.
const successionOutput = record.OutputsDir + "/succession.json"

// loadSuccession reads the statement of the last succession, if the binding
// names one, and with it the anchors in force.
func (a *Actions) loadSuccession() error {
	a.vault.inForce = a.vault.anchors
	if a.bind.Successions == "" {
		return nil
	}
	data, err := intake.Read(a.bind.Path(a.bind.Successions), succession.MaxBytes)
	if err != nil {
		return err
	}
	if a.vault.succession, err = succession.Verify(data, a.vault.anchors); err != nil {
		return fault.Errorf(fault.ClassOf(err), "succession %q: %w", a.bind.Successions, err)
	}
	a.vault.inForce, err = succession.Apply(a.vault.anchors, a.vault.succession)
	return err
}

// key returns the record of a key: of the charter, or born here.
func (a *Actions) key(id string) (*anchor.KeyRecord, error) {
	if k, ok := a.keys[id]; ok {
		return &k.rec, nil
	}
	if k, ok := a.state.Keys[id]; ok {
		return &k, nil
	}
	return nil, fault.Errorf(fault.Policy, "there is no key %s", id)
}

// replacements are the entries of the script that concern keys of the anchors;
// what stands in the charter only is replaced there.
func (a *Actions) replacements() ([]succession.Entry, error) {
	var out []succession.Entry
	for _, x := range a.script.Successions {
		old, err := a.key(x.ID)
		if err != nil {
			return nil, err
		}
		now, _, err := a.vault.inForce.Key(old.Role(), old.Domain)
		if err != nil {
			continue
		}
		if now.ID != old.ID {
			return nil, fault.Errorf(fault.Policy, "%s is not in force: %s is", old.ID, now.ID)
		}
		to, err := a.key(x.By)
		if err != nil {
			return nil, err
		}
		out = append(out, succession.Entry{From: succession.Hash(old.Public), ID: old.Role(), Reason: x.Reason, To: *to})
	}
	return out, nil
}

// newcomers are the keys born here that take nobody's place: those of roles that
// the anchors do not have, and twins of keys that they have by then.
func (a *Actions) newcomers() (added, dormant []anchor.KeyRecord) {
	for _, id := range a.order {
		rec := a.keys[id].rec
		takes := slices.ContainsFunc(a.script.Successions, func(x script.Succession) bool { return x.By == id })
		_, _, err := a.vault.inForce.Key(rec.SuccessorOf, rec.Domain)
		follows := slices.ContainsFunc(added, func(k anchor.KeyRecord) bool { return k.ID == rec.SuccessorOf })
		switch {
		case rec.SuccessorOf == "":
			added = append(added, rec)
		case !takes && (err == nil || follows):
			dormant = append(dormant, rec)
		}
	}
	return added, dormant
}

// newest refuses a statement, or none, that is older than what the charter or a
// loaded record knows: what would follow it, the field would refuse.
func (a *Actions) newest() error {
	hint := "write successions: FILE, the succession.json of the newest ceremony that signed one"
	for _, k := range a.vault.anchors.Keys {
		now, err := a.vault.state.Key(k.ID, k.Domain)
		if err != nil {
			continue // nothing is in force
		}
		told, _, err := a.vault.inForce.Key(k.ID, k.Domain)
		if err != nil || told.ID != now.ID {
			return fault.Hint(fault.Errorf(fault.Policy, "the charter has %s in force as %s, and the succession statement of the binding does not say so", now.ID, k.ID), hint)
		}
	}
	var have int64
	if a.vault.succession != nil {
		have = a.vault.succession.Counter
	}
	if a.vault.counted > have {
		return fault.Hint(fault.Errorf(fault.Policy, "a loaded record holds succession statement %d, the binding names %d", a.vault.counted, have), hint)
	}
	return nil
}

// signSuccession is the verb succession.sign: the succession keys of the safes
// that are open say in the field which key gives way to which.
func (a *Actions) signSuccession(ctx context.Context, r *ceremony.Run, _ *script.Step) error {
	if err := a.newest(); err != nil {
		return err
	}
	entries, err := a.replacements()
	if err != nil {
		return err
	}
	for _, x := range a.script.Successions { // no key is put in force that is not there
		if _, err := a.signer(ctx, x.By); err != nil {
			return fault.Errorf(fault.ClassOf(err), "%s cannot take over: %w", x.By, err)
		}
	}
	added, dormant := a.newcomers()
	s := succession.New(a.vault.anchors, a.vault.succession, entries, dormant, record.Origin(r.ID), r.Clock.Now())
	s.Add(added...)
	for _, id := range a.order {
		if der, ok := a.certs[id]; ok {
			s.Certify(id, der)
		}
	}
	names, by, err := a.successionKeys(ctx)
	if err != nil {
		return err
	}
	data, err := s.Sign(a.vault.anchors, by...)
	if err != nil {
		return err
	}
	e := &record.Succession{Added: ids(added), Counter: s.Counter, Dormant: ids(dormant), Replaced: map[string]string{}, Signers: names}
	for _, id := range e.Added {
		r.Console.Say("good", id+" is known in the field from now on")
	}
	for _, x := range entries {
		r.Console.Say("good", x.ID+" is "+x.To.ID+" from now on ("+x.Reason+")")
		e.Replaced[x.ID] = x.To.ID
	}
	sum := sha256.Sum256(data)
	e.SHA256 = hex.EncodeToString(sum[:])
	a.statement = data
	return r.Record(e)
}

// successionKeys are the succession keys that may sign here: in a safe that is open,
// and not at their end.
func (a *Actions) successionKeys(ctx context.Context) (names []string, by []crypto.Signer, err error) {
	for _, k := range a.vault.anchors.Roles(succession.KeyID) {
		gone := slices.ContainsFunc(a.script.Successions, func(x script.Succession) bool { return x.ID == k.ID })
		if _, retired := a.state.Retired[k.ID]; retired || gone || !a.isOpen(k.Token) {
			continue
		}
		signer, err := a.signer(ctx, k.ID)
		if err != nil {
			return nil, nil, err
		}
		names, by = append(names, k.ID), append(by, signer)
	}
	if len(by) == 0 {
		err = fault.Hint(fault.New(fault.Quorum, "no succession key lies in a safe that is open"), "open a root safe too: its key says in the field which key gives way")
	}
	return names, by, err
}

// ids are the sorted ids of keys.
func ids(keys []anchor.KeyRecord) []string {
	var out []string
	for i := range keys {
		out = append(out, keys[i].ID)
	}
	slices.Sort(out)
	return out
}

func (a *Actions) isOpen(t anchor.Token) bool {
	for _, sf := range a.safes {
		if token(sf.token) == t && (sf.opened || sf.inForce.Epoch == 0) {
			return true
		}
	}
	return false
}

// endings are the statements about keys and safes that end here: in the order in
// which the charter can fold them.
func (a *Actions) endings(r *ceremony.Run) []statement {
	var out []statement
	origin := record.Origin(r.ID)
	gone := map[string]bool{}
	for id := range a.state.Retired {
		gone[id] = true
	}
	for _, x := range a.script.Successions {
		gone[x.ID] = true
		out = append(out, statement{charter.TypeKeyRetired, charter.KeyRetired{ID: x.ID, Reason: x.Reason, Record: origin}})
	}
	for _, x := range a.script.Successions {
		if by, err := a.key(x.By); err == nil {
			out = append(out, statement{charter.TypeSuccessor, charter.Successor{ID: by.SuccessorOf, Record: origin, Successor: x.By}})
		}
	}
	for _, id := range a.destroyed {
		if !gone[id] {
			gone[id] = true
			out = append(out, statement{charter.TypeKeyRetired, charter.KeyRetired{ID: id, Reason: charter.ReasonDestroyed, Record: origin}})
		}
	}
	for _, s := range a.vault.state.People.Safes {
		if reason := a.safeEnds(s.Name, gone); reason != "" {
			out = append(out, statement{charter.TypeSafeRetired, charter.SafeRetired{Reason: reason, Record: origin, Safe: s.Name}})
		}
	}
	return out
}

// safeEnds says why a safe ends: its token was destroyed here, or all its keys
// are gone and the token with them.
func (a *Actions) safeEnds(name string, gone map[string]bool) string {
	if slices.Contains(a.wiped, name) {
		return charter.ReasonDestroyed
	}
	keys, lost := 0, 0
	for id, k := range a.vault.state.Keys {
		if k.Token != a.vault.state.Epochs[name].Token {
			continue
		}
		if keys++; !gone[id] {
			return ""
		}
		if slices.ContainsFunc(a.script.Successions, func(x script.Succession) bool { return x.ID == id && x.Reason == charter.ReasonLost }) {
			lost++
		}
	}
	if keys == 0 || lost == 0 || a.safes[name] != nil {
		return ""
	}
	return charter.ReasonLost
}
