package pki

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/vault/duty"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

const (
	// shortLived certificates are renewed by their processes all the time; nobody has to
	// be told of their ends.
	shortLived = 7 * 24 * time.Hour
	// maxDates bounds what is told of one mount.
	maxDates = 100
)

// Dates implements engine.Dated: when the newest list ends, and of the certificates for
// the same names the newest, if it was to live for a while and was not revoked, until it
// ended so long ago that it need not be known any more.
func (e *Engine) Dates(v *seal.View, now time.Time) ([]duty.Thing, error) {
	var out []duty.Thing
	k, err := e.kept(v)
	if err != nil {
		return nil, err
	}
	if from, err := charter.ParseTime(k.From); err == nil && len(k.List) > 0 {
		out = append(out, duty.Thing{Kind: duty.CRL, Name: e.host.Mount, About: "list of what was revoked, of the mount " + e.host.Mount, From: from, Ends: from.Add(crlValidity)})
	}
	newest, err := e.newest(v, now)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(newest, func(a, b duty.Thing) int { return a.Ends.Compare(b.Ends) })
	return append(out, newest[:min(len(newest), maxDates)]...), nil
}

// newest are the certificates that no later one of the same role and names replaces.
func (e *Engine) newest(v *seal.View, now time.Time) ([]duty.Thing, error) {
	found := map[string]duty.Thing{}
	for _, serial := range v.Keys(e.bucket(), "") {
		c, err := e.record(v, serial)
		if errors.Is(err, engine.ErrNotThere) {
			continue
		}
		if err != nil {
			return nil, err
		}
		from, err := charter.ParseTime(c.Time)
		if err != nil {
			return nil, err
		}
		ends, err := charter.ParseTime(c.Expires)
		if err != nil {
			return nil, err
		}
		revoked, err := e.revocation(v, serial)
		if err != nil {
			return nil, err
		}
		if ends.Sub(from) < shortLived || now.Sub(ends) > keepExpired || len(c.Certificate) == 0 || revoked != nil {
			continue
		}
		names := strings.Join(c.Names, ", ")
		id := fmt.Sprintf("%s/%s/%s", e.host.Mount, c.Role, names)
		if had, ok := found[id]; !ok || had.Ends.Before(ends) {
			found[id] = duty.Thing{Kind: duty.Issued, Name: id, About: fmt.Sprintf("certificate of role %s of the mount %s for %s, asked for by %s", c.Role, e.host.Mount, names, c.Identity), From: from, Ends: ends}
		}
	}
	out := make([]duty.Thing, 0, len(found))
	for _, t := range found {
		out = append(out, t)
	}
	return out, nil
}
