package trace

import (
	"fmt"
	"slices"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/artifact/succession"
	"keyrite/artifact/world"
)

// ErrTwice says that a record is given more than once.
var ErrTwice = fault.New(fault.Usage, "a record is given twice")

// Vault is what is known of one vault: the anchors in force and records of its
// ceremonies, in the order of the charter.
type Vault struct {
	anchors   *anchor.Anchors       // in force
	statement *succession.Statement // by which they are, nil if they are as they were read aloud
	records   []*record.Verified    // closed, oldest first
}

// New puts records in order and checks that they tell one history: each charter
// continues the one before, each succession statement follows the one before.
// inForce are the anchors under st, which may be nil; the records were verified
// against the anchors as they were read aloud.
func New(inForce *anchor.Anchors, st *succession.Statement, records []*record.Verified) (*Vault, error) {
	x := &Vault{anchors: inForce, statement: st, records: slices.Clone(records)}
	seen := map[string]bool{}
	for _, v := range x.records {
		if v.State != "CLOSED" || v.Charter == nil || v.Anchors == nil {
			return nil, fault.Errorf(fault.Verify, "%w: record %s did not close", ErrGap, v.Open.Record)
		}
		if err := world.Match(inForce.World, v.Open.World); err != nil {
			return nil, err
		}
		if v.Anchors.Vault != inForce.Vault {
			return nil, fault.Errorf(fault.Policy, "record %s is of another vault: %.16s…, not %.16s…", v.Open.Record, v.Anchors.Vault, inForce.Vault)
		}
		if seen[v.Open.Record] {
			return nil, fault.Errorf(fault.Usage, "%w: %s", ErrTwice, record.Origin(v.Open.Record))
		}
		seen[v.Open.Record] = true
	}
	slices.SortStableFunc(x.records, func(a, b *record.Verified) int {
		if d := a.Charter.Size() - b.Charter.Size(); d != 0 {
			return d
		}
		return began(a) - began(b)
	})
	return x, x.oneHistory()
}

// began is how many statements the charter had when a ceremony began.
func began(v *record.Verified) int {
	if v.Open.Base == nil {
		return 0
	}
	return v.Open.Base.CharterSize
}

func (x *Vault) oneHistory() error {
	var last *succession.Statement
	for i, v := range x.records {
		if i > 0 {
			before := x.records[i-1]
			if v.Open.Base == nil || began(v) < before.Charter.Size() || v.Charter.CheckHead(before.Charter.Size(), before.Charter.Head()) != nil {
				return fault.Errorf(fault.Verify, "%w: records %s and %s tell two histories of one vault", ErrGap, before.Open.Record, v.Open.Record)
			}
		}
		if v.Succession == nil {
			continue
		}
		if err := v.Succession.Follow(last); err != nil {
			return fault.Errorf(fault.Verify, "%w: the succession statement of record %s: %w", ErrGap, v.Open.Record, err)
		}
		last = v.Succession
	}
	if last == nil || x.statement == nil || x.statement.Counter == last.Counter && x.statement.Record == last.Record {
		return nil
	}
	older, newer := last, x.statement
	if older.Counter > newer.Counter {
		older, newer = newer, older
	}
	if err := newer.Follow(older); err != nil {
		return fault.Errorf(fault.Verify, "%w: the succession statement that is given and that of the records: %w", ErrGap, err)
	}
	return nil
}

// Key walks back from a key to the ceremony where it was born, and from there to the
// genesis.
func (x *Vault) Key(id string) ([]Link, error) {
	rec, ok := x.anchors.Known(id)
	if !ok {
		return nil, fault.Errorf(fault.Verify, "%w: the anchors know no key %.40q", ErrGap, id)
	}
	out := append([]Link{
		link("key", fmt.Sprintf("%s (%s), signs %s only, made in token %s serial %s", rec.ID, rec.Algorithm, rec.Domain, rec.Token.Label, rec.Token.Serial), x.why(rec)),
	}, x.since(rec)...)
	i := slices.IndexFunc(x.records, func(v *record.Verified) bool { return record.Origin(v.Open.Record) == rec.Record })
	if i < 0 {
		return append(out, Link{"record", rec.Record, "not given: pass its folder with --record to walk on", false}), nil
	}
	birth, err := born(rec, x.records[i])
	if err != nil {
		return nil, err
	}
	return append(append(out, birth...), x.back(i)...), nil
}

// why says how the anchors come to know a key.
func (x *Vault) why(rec *anchor.KeyRecord) string {
	s := x.statement
	if s == nil {
		return "in the anchors"
	}
	by := fmt.Sprintf("succession statement %d of %s, signed by %s", s.Counter, s.Record, strings.Join(s.Signers(), " and "))
	is := func(k anchor.KeyRecord) bool { return k.ID == rec.ID }
	switch {
	case slices.ContainsFunc(x.anchors.Former, func(f anchor.Former) bool { return is(f.Key) }):
		return "gave way by " + by
	case slices.ContainsFunc(s.Entries, func(e succession.Entry) bool { return is(e.To) }):
		return "put in force by " + by
	case slices.ContainsFunc(s.Added, is):
		return "made known by " + by
	}
	return "in the anchors, and not replaced by " + by
}

// since is what happened to a key after its birth, as far as the records go.
func (x *Vault) since(rec *anchor.KeyRecord) []Link {
	var out []Link
	ended := ""
	for _, v := range x.records {
		for _, m := range v.Moved {
			if m.Key.ID == rec.ID && string(m.Key.Public) == string(rec.Public) {
				out = append(out, link("moved", fmt.Sprintf("to token %s serial %s", m.To.Token.Label, m.To.Token.Serial), "wrapped on its way; receipts of both ends in "+record.Origin(v.Open.Record)))
			}
		}
		r, gone := v.Charter.Retired[rec.ID]
		if gone && r.Reason != ended && r.Record == record.Origin(v.Open.Record) {
			ended = r.Reason
			out = append(out, link("end", rec.ID+" is "+r.Reason+" since", "stated by the approvers in "+r.Record))
		}
	}
	return out
}

// between is what the charter says between the end of the record before, when it had n
// statements, and the beginning of v. What only a ceremony makes is a gap there.
func between(v *record.Verified, n int) Link {
	types := slices.Compact(slices.Sorted(slices.Values(v.Statements[n:began(v)])))
	is := fmt.Sprintf("statements %d to %d of the charter: %s", n, began(v)-1, strings.Join(types, ", "))
	if slices.ContainsFunc(types, func(t string) bool { return !slices.Contains(charter.Proposable(), t) }) {
		return Link{"before", is, "a ceremony made them, and its record is not given: pass its folder with --record", false}
	}
	return link("before", is, "signed by the approvers in force; no ceremony is needed for them")
}

// back goes from record i through those before it to the genesis.
func (x *Vault) back(i int) []Link {
	var out []Link
	for v := x.records[i]; v.Open.Base != nil; {
		if i--; i < 0 {
			return append(out, Link{"before", fmt.Sprintf("a charter of %d statements", began(v)), "the ceremonies before are not given: pass their folders with --record to walk on to the genesis", false})
		}
		before := x.records[i]
		if n := before.Charter.Size(); n < began(v) {
			out = append(out, between(v, n))
		}
		kind := "before"
		shown := fmt.Sprintf("verified whole; its charter of %d statements is what the later one continues", before.Charter.Size())
		if before.Open.Base == nil {
			kind = "genesis"
		}
		out = append(out, link(kind, fmt.Sprintf("%s “%s”, %s, root %s", record.Origin(before.Open.Record), before.Open.Title, made(before), before.Root), shown))
		if before.Open.Base == nil {
			out = append(out, link("founders", people(before), "signed the founding statement, whose hash is the vault "+before.Anchors.Vault))
		}
		v = before
	}
	return out
}
