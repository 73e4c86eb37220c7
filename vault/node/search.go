package node

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Bounds of one look into the trail. Whoever wants more asks again from where it ended.
const (
	maxScanned  = 20_000 // entries that are looked through
	maxFound    = 200    // that are answered
	defFound    = 50
	maxSearches = 2 // at a time; others wait
)

// searchTrail answers entries of the trail, newest first. It reads beside the writer of
// the store, and its own entry comes after it.
func (x *call) searchTrail([]string) error {
	c, err := x.choice()
	if err != nil {
		return err
	}
	before, limit, err := x.page()
	if err != nil {
		return err
	}
	x.plan.Shown = shownChoice(c)
	if before > 0 {
		x.plan.Shown["before"] = before
	}
	var found []audit.Numbered
	var next, end uint64
	x.plan.Work = func(ctx context.Context) error {
		select {
		case x.searching <- struct{}{}:
		case <-ctx.Done():
			return fault.Errorf(fault.Interrupted, "wait for another search: %w", ctx.Err())
		}
		defer func() { <-x.searching }()
		if end = uint64(x.store.Head().Size); before > 0 {
			end = min(end, before)
		}
		found, next, err = x.journal.Search(ctx, c, end, maxScanned, limit)
		return err
	}
	x.plan.Apply = func(*seal.Tx) (*engine.Answer, error) {
		entries := []map[string]any{}
		for _, f := range found {
			entries = append(entries, map[string]any{"number": f.Seq, "entry": f.Entry})
		}
		scanned := end - next
		return &engine.Answer{
			Data:   map[string]any{"entries": entries, "scanned": scanned, "complete": next == 0, "before": next},
			Result: map[string]any{"found": len(found), "scanned": scanned},
		}, nil
	}
	return nil
}

// page says where the look begins, and how many entries are wanted.
func (x *call) page() (before uint64, limit int, err error) {
	from, err := x.Params.Int("before")
	if err == nil && (from < 0 || x.Params.Has("before") && from == 0) {
		err = fault.New(fault.Usage, "before is the number of an entry, from 1")
	}
	if err != nil {
		return 0, 0, err
	}
	n, err := x.Params.Int("limit")
	if err == nil && (n < 0 || n > maxFound || x.Params.Has("limit") && n == 0) {
		err = fault.Errorf(fault.Usage, "limit is 1 to %d", maxFound)
	}
	if n == 0 {
		n = defFound
	}
	return uint64(from), int(n), err
}

// choice reads which entries are wanted.
func (x *call) choice() (c audit.Choice, err error) {
	if err := x.Params.Only("from", "to", "identity", "path", "operation", "kind", "class", "peer", "before", "limit"); err != nil {
		return c, err
	}
	text := map[string]string{}
	for _, name := range []string{"from", "to", "identity", "path", "operation", "kind", "class", "peer"} {
		if text[name], err = x.Params.String(name); err != nil {
			return c, err
		}
		if x.Params.Has(name) && text[name] == "" {
			return c, fault.Errorf(fault.Usage, "%s is empty", name)
		}
	}
	c.Identity, c.Path, c.Operation, c.Class = text["identity"], text["path"], text["operation"], text["class"]
	if c.From, err = instant("from", text["from"]); err != nil {
		return c, err
	}
	if c.To, err = instant("to", text["to"]); err != nil {
		return c, err
	}
	if c.Path != "" {
		if _, err := access.ParsePath(c.Path); err != nil {
			return c, err
		}
	}
	if k := trail.Kind(text["kind"]); k != "" {
		if !slices.Contains(trail.Kinds(), k) {
			return c, fault.Errorf(fault.Usage, "kind is one of %s", trail.Kinds())
		}
		c.Kinds = []trail.Kind{k}
	}
	c.Peer, err = network(text["peer"])
	return c, err
}

func instant(name, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return t, fault.Errorf(fault.Usage, "%s is a time as in 2026-11-22T16:00:00Z (RFC 3339)", name)
	}
	return t, nil
}

// network is an address, or those that begin alike: 192.0.2.0/24.
func network(s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil || p != p.Masked() {
		return p, fault.New(fault.Usage, "peer is an address, or a network as in 192.0.2.0/24")
	}
	return p, nil
}
