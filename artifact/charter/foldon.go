package charter

import (
	"bytes"
	"maps"
	"slices"

	"keyrite/artifact/tlog"
	"keyrite/artifact/world"
)

// FoldOn is Fold for a reader who has folded the beginning of the log before: what comes
// after that is checked and folded, and the beginning is compared with it by its head, so
// that a long charter costs little. If the log begins otherwise, or is shorter, all of it
// is folded. The state before is not changed; it may be read meanwhile.
func FoldOn(before *State, data []byte, w world.World, vault string) (*State, error) {
	more, ok := before.begins(data)
	if !ok || before.World != w || before.Vault != vault || data[len(data)-1] != '\n' {
		return Fold(data, w, vault)
	}
	return before.clone().continued(more, w, vault)
}

// begins says whether this log is the beginning of data, and what comes after it.
func (s *State) begins(data []byte) (more []byte, ok bool) {
	if s.Size() == 0 {
		return nil, false
	}
	var tree tlog.Tree
	more = data
	for tree.Size() < s.tree.Size() {
		line, rest, whole := bytes.Cut(more, []byte("\n"))
		if !whole || tree.Append(line) != nil {
			return nil, false
		}
		more = rest
	}
	return more, tree.Root() == s.tree.Root()
}

// clone is a state from which one goes on and leaves s as it is. What stands in the maps
// is never changed in place, only replaced; what grows is cut to its length.
func (s *State) clone() *State {
	c := *s
	own(&c.Epochs)
	own(&c.Keys)
	own(&c.Retired)
	own(&c.Receivers)
	own(&c.Pipelines)
	own(&c.Factories)
	own(&c.Stations)
	own(&c.Relays)
	own(&c.Floors)
	own(&c.KV)
	own(&c.VendorRoots)
	own(&c.TokenRoles)
	own(&c.Passwords)
	own(&c.Transit)
	own(&c.PKIRoles)
	own(&c.Reminders)
	own(&c.Audit.Sinks)
	own(&c.successor, &c.former)
	own(&c.pkiIssuers)
	own(&c.adopted)
	own(&c.dealtAt)
	c.gone = slices.Clip(c.gone)
	ownSlices(&c.lines)
	ownSlices(&c.dealt)
	ownSlices(&c.left)
	c.Access.own()
	c.Releases.own()
	c.Grants.own()
	c.tree = s.tree.Clone()
	return &c
}

func (a *Access) own() {
	own(&a.Mounts, &a.Unmounted)
	own(&a.Policies)
	own(&a.rules)
	own(&a.Identities)
	own(&a.Hosts)
	own(&a.ended, &a.hostKeys, &a.revoked)
}

func (r *Releases) own() {
	own(&r.ByID)
	own(&r.Floors)
	own(&r.byDigest)
}

func (g *Grants) own() {
	own(&g.Delegations)
	own(&g.BreakGlass)
	own(&g.Pulled)
	own(&g.Unattended)
	own(&g.times)
	own(&g.unattendedIDs)
}

// own gives a state maps of its own.
func own[V any](ms ...*map[string]V) {
	for _, m := range ms {
		*m = maps.Clone(*m)
	}
}

// ownSlices is own for a map of slices that grow: what is appended to one goes elsewhere.
func ownSlices[V any](m *map[string][]V) {
	own(m)
	for id, x := range *m {
		(*m)[id] = slices.Clip(x)
	}
}
