package main

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/ceremony/paper"
	"keyrite/vault/duty"
)

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

// ends lists whatever charter and anchors give an end, what ends first before the
// others. What may be signed once is left out if it ended before the period.
func (g *gathering) ends() {
	things := append(g.certificates(), duty.OfCharter(g.state)...)
	for _, id := range slices.Sorted(maps.Keys(g.state.Reminders)) {
		if ca := g.state.Reminders[id].CA; ca != nil {
			things = append(things, duty.OfCertificate(duty.Certificate, id, "CA of who gets reminder "+id, ca))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(g.state.Releases.ByID)) {
		r := g.state.Releases.ByID[id]
		if at, err := charter.ParseTime(r.Expires); err != nil || !at.Before(g.from) { // it was parsed when it was folded in
			things = append(things, duty.Thing{Name: id, About: fmt.Sprintf("approval that key %s signs version %s of %s", r.Key, r.Version, r.Product), Ends: at})
		}
	}
	slices.SortStableFunc(things, func(a, b duty.Thing) int { return cmp.Or(a.Ends.Compare(b.Ends), cmp.Compare(a.About, b.About)) })
	for _, t := range things {
		row := paper.EvidenceEnd{What: t.About, Ends: day(t.Ends), Over: !g.o.now.Before(t.Ends)}
		if t.Fault != "" {
			row.Ends = "not known: " + t.Fault
		}
		g.page.Ends = append(g.page.Ends, row)
	}
}

// certificates are those that the genesis made for keys of the vault.
func (g *gathering) certificates() []duty.Thing {
	var out []duty.Thing
	for _, id := range slices.Sorted(maps.Keys(g.anchors.Certificates)) {
		out = append(out, duty.OfCertificate(duty.Certificate, id, "certificate of key "+id, g.anchors.Certificates[id]))
	}
	return out
}

// certificateOf is the certificate of a key that ends last; nil without one, and then
// the key has no end of its own.
func (g *gathering) certificateOf(k *anchor.KeyRecord) *x509.Certificate {
	all := slices.Collect(maps.Values(g.anchors.Certificates))
	for _, r := range g.state.PKIRoles {
		all = append(all, r.Issuer)
	}
	for _, f := range g.state.Factories {
		all = append(all, f.CA)
	}
	var last *x509.Certificate
	for _, der := range all {
		c, err := x509.ParseCertificate(der)
		if err == nil && bytes.Equal(c.RawSubjectPublicKeyInfo, k.Public) && (last == nil || c.NotAfter.After(last.NotAfter)) {
			last = c
		}
	}
	return last
}

// keys lists every key that was ever admitted, with who opens its token.
func (g *gathering) keys() {
	for _, id := range slices.Sorted(maps.Keys(g.state.Keys)) {
		k := g.state.Keys[id]
		row := paper.EvidenceKey{ID: id, Algorithm: k.Algorithm, Signs: k.Domain, Record: k.Record, State: "in force"}
		if r, gone := g.state.Retired[id]; gone {
			row.State = r.Reason
		} else if now, err := inForce(g.state, k.Role()); err != nil || now.ID != id {
			row.State = "dormant"
		}
		if c := g.certificateOf(&k); c != nil {
			row.Ends, row.Over = day(c.NotAfter), !g.o.now.Before(c.NotAfter)
		}
		if name, ok := g.state.SafeOf(&k); ok {
			row.Safe = name
			if s, ok := g.state.People.Safe(name); ok {
				row.Custodians = fmt.Sprintf("%d of %s", s.Openers.Need, strings.Join(s.Openers.Members, ", "))
			}
		}
		g.page.Keys = append(g.page.Keys, row)
	}
}
