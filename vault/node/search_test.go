package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
	"keyrite/vault/seal"
)

const auditor = 1301 // the user that may look into the trail

func newTrailBench(t *testing.T) *desk {
	t.Helper()
	d := &desk{bench: newBench(t)}
	d.Approve(charter.TypePolicy, charter.Policy{ID: "auditor", Version: 1, Rules: []access.Rule{{Path: "keyrite/trail", Can: []access.Capability{access.Read}}}})
	d.Approve(charter.TypeIdentity, charter.Identity{ID: "auditor", Policies: []string{"auditor"}, TTL: 60, Unix: &charter.Unix{UID: auditor}})
	d.writeCharter()
	d.open()
	return d
}

// numbers are the entries of an answer.
func numbers(out map[string]any) []int {
	var n []int
	for _, e := range out["entries"].([]any) {
		n = append(n, int(e.(map[string]any)["number"].(float64)))
	}
	return n
}

// TestSearchOfTheTrail: each filter finds what it says and nothing else, the newest
// first, in pages; the look has its entry, and no secret comes out.
func TestSearchOfTheTrail(t *testing.T) {
	d := newTrailBench(t)
	first := d.size()
	for i := range 5 {
		_, err := d.call(mes, engine.Write, fmt.Sprintf("kv/data/line1/p%d", i), `{"text":"canary"}`)
		d.ok(err)
	}
	_, _ = d.call(mes, engine.Read, "kv/data/line2/x", "")                                                                                                           // denied
	_, _ = d.node.Do(t.Context(), Call{Method: engine.Read, RawPath: "kv/data/line1/p1", Peer: identity.Peer{UID: mes, Remote: netip.MustParseAddr("2001:db8::7")}}) // from elsewhere
	last := d.size()
	all := func(from, to int64) []int {
		var n []int
		for i := to - 1; i >= from; i-- {
			n = append(n, int(i))
		}
		return n
	}
	look := func(query string) map[string]any {
		t.Helper()
		out, err := d.ask(auditor, engine.Read, "keyrite/trail", query)
		d.ok(err)
		if strings.Contains(fmt.Sprint(out), "canary") {
			t.Errorf("%s: the secret comes out", query)
		}
		return out
	}
	before := fmt.Sprintf(`"before":%d`, last)
	for query, want := range map[string][]int{
		`{` + before + `,"identity":"mes"}`:                                       all(first, last),
		`{` + before + `,"identity":"me"}`:                                        nil,
		`{` + before + `,"path":"kv/data/line1"}`:                                 append([]int{int(last - 1)}, all(first, first+5)...),
		`{` + before + `,"path":"kv/data/line1/p1"}`:                              {int(last - 1), int(first + 1)},
		`{` + before + `,"path":"kv/data/lin"}`:                                   nil,
		`{` + before + `,"identity":"mes","class":"policy"}`:                      {int(last - 2)},
		`{` + before + `,"kind":"refused"}`:                                       {int(last - 2)},
		`{` + before + `,"operation":"update","class":"none"}`:                    all(first, first+5),
		`{` + before + `,"peer":"2001:db8::/32"}`:                                 {int(last - 1)},
		`{` + before + `,"peer":"192.0.2.7","path":"kv"}`:                         all(first, last-1),
		`{` + before + `,"peer":"192.0.2.8"}`:                                     nil,
		`{` + before + `,"identity":"mes","limit":"2"}`:                           all(last-2, last),
		`{` + before + `,"from":"2999-01-01T00:00:00Z"}`:                          nil,
		`{` + before + `,"to":"2001-01-01T00:00:00Z"}`:                            nil,
		`{` + before + `,"identity":"mes","to":"2999-01-01T00:00:00+02:00"}`:      all(first, last),
		`{"before":` + fmt.Sprint(first+3) + `,"path":"kv/data/line1","limit":2}`: all(first+1, first+3),
	} {
		if got := numbers(look(query)); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
	d.wantOwnEntry(look(`{"identity":"mes","limit":1}`))
}

// wantOwnEntry wants the newest entry to be that of the look that gave out.
func (d *desk) wantOwnEntry(out map[string]any) {
	d.t.Helper()
	own := d.entries(d.size() - 1)[0]
	if own.Path != "keyrite/trail" || own.Kind != audit.Request || own.Identity != "auditor" || own.Params["identity"] != "mes" || own.Result["found"] != 1.0 || own.Result["scanned"] != out["scanned"] {
		d.t.Errorf("its own entry: %+v", own)
	}
}

// TestPagesOfTheTrail: a look ends after so many entries, says so, and goes on where it
// ended, until it is complete.
func TestPagesOfTheTrail(t *testing.T) {
	d := newTrailBench(t)
	v := d.node.open
	var wg sync.WaitGroup
	for range 256 { // who share a commit
		wg.Go(func() {
			for range maxScanned/256 + 1 {
				if _, err := v.journal.Do(t.Context(), seal.Durable, v.life("test"), nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	size := d.size()
	out, err := d.ask(auditor, engine.Read, "keyrite/trail", `{"identity":"nobody"}`)
	d.ok(err)
	if out["complete"] != false || out["scanned"] != float64(maxScanned) || out["before"] != float64(size-maxScanned) || len(out["entries"].([]any)) != 0 {
		t.Fatalf("first page %v", out)
	}
	out, err = d.ask(auditor, engine.Read, "keyrite/trail", fmt.Sprintf(`{"identity":"nobody","before":%v}`, out["before"]))
	d.ok(err)
	if out["complete"] != true || out["scanned"] != float64(size-maxScanned) || out["before"] != 0.0 {
		t.Errorf("second page %v", out)
	}
}

// TestWhoMaySearch: a rule on the path, and a question that can be meant in one way.
func TestWhoMaySearch(t *testing.T) {
	d := newTrailBench(t)
	if _, err := d.ask(mes, engine.Read, "keyrite/trail", ""); !errors.Is(err, access.ErrDenied) {
		t.Errorf("without the right: %v", err)
	}
	for _, query := range []string{
		`{"limit":0}`, `{"limit":201}`, `{"limit":-1}`, `{"before":0}`, `{"before":-1}`, `{"before":"x"}`, `{"from":"yesterday"}`, `{"from":"2026-11-22"}`, `{"to":""}`,
		`{"identity":""}`, `{"identity":7}`, `{"path":"kv//data"}`, `{"path":"kv/data/"}`, `{"path":"kv%2Fdata"}`, `{"kind":"life "}`, `{"kind":"x"}`, `{"peer":"line1"}`, `{"peer":"192.0.2.7/24"}`, `{"peer":"fe80::1%eth0"}`, `{"user":"mes"}`,
	} {
		if _, err := d.ask(auditor, engine.Read, "keyrite/trail", query); fault.ClassOf(err) != fault.Usage {
			t.Errorf("%s: %v", query, err)
		}
	}
	x, stop := context.WithCancel(t.Context())
	stop()
	if _, _, err := d.node.open.journal.Search(x, audit.Choice{}, 0, 10, 10); fault.ClassOf(err) != fault.Interrupted || !errors.Is(err, context.Canceled) {
		t.Errorf("of whoever went away: %v", err)
	}
}

// TestLooksAreWritten: what needs no caller has its entry, up to a bound and counted
// beyond it; while the vault is sealed it is counted and told when it is opened.
func TestLooksAreWritten(t *testing.T) {
	d := newTrailBench(t)
	n := d.node
	peer := identity.Peer{Remote: netip.MustParseAddr("192.0.2.9")}
	n.Looked(t.Context(), Look{Operation: "read", Path: "sys/leader", Peer: peer})
	n.Looked(t.Context(), Look{Operation: "update", Path: "sys/init", Peer: peer, Refused: engine.ErrByCharter})
	e := d.entries(d.size() - 2)
	if e[0].Kind != audit.Request || e[0].Path != "sys/leader" || e[0].Remote != "192.0.2.9" || e[1].Kind != audit.Refused || e[1].Class != "policy" {
		t.Errorf("entries %+v", e)
	}
	from := d.size()
	const flood = 300
	for range flood {
		n.Looked(t.Context(), Look{Operation: "read", Path: "sys/seal-status", Peer: peer})
	}
	written := d.size() - from
	left := n.Status().Unlisted
	if uint64(written)+left != flood || written > refusalBurst {
		t.Errorf("%d written, %d left out", written, left)
	}
	// A flood of looks takes nothing from refusals.
	if _, err := d.call(1, engine.Read, "kv/data/line1/x", ""); fault.ClassOf(err) != fault.Peer || d.size() != from+written+1 {
		t.Errorf("a refusal among looks: %v", err)
	}
	n.open.summary()
	if e := d.entries(d.size() - 1)[0]; e.Kind != audit.Life || e.Operation != "looks" || e.Result["left_out"] != float64(left) {
		t.Errorf("summary %+v", e)
	}
}

// TestAskedWhileSealed: counted by path, told once, when the same process opens again.
func TestAskedWhileSealed(t *testing.T) {
	b := newBench(t)
	n, err := New(b.state().config())
	b.ok(err)
	for _, p := range []string{"sys/seal-status", "sys/seal-status", "sys/init"} {
		n.Looked(t.Context(), Look{Operation: "read", Path: p})
	}
	if _, err := n.Do(t.Context(), Call{Method: engine.Read, RawPath: "kv/data/made/up", Peer: identity.Peer{UID: mes}}); !errors.Is(err, ErrSealed) {
		t.Fatal(err)
	}
	c := b.store()
	st, err := seal.Open(t.Context(), c, b.dataKey())
	b.ok(err)
	shut, err := n.Open(t.Context(), Opened{Store: st, Head: c.Head})
	b.ok(err)
	defer func() { b.ok(errors.Join(shut.Close(), st.Close())) }()
	b.node = n
	e := b.entries(b.size() - 1)[0]
	if e.Kind != audit.Life || e.Operation != "asked while sealed" || fmt.Sprint(e.Result["counts"]) != "map[read sys/init:1 read sys/seal-status:2 refused:1]" {
		t.Errorf("entry %+v", e)
	}
	for _, k := range []string{"from", "to"} {
		if at, err := time.Parse(time.RFC3339, fmt.Sprint(e.Result[k])); err != nil || trail.FormatTime(at) != e.Result[k] {
			t.Errorf("%s is %v", k, e.Result[k])
		}
	}
	size := b.size()
	n.tellSealed(t.Context())
	if b.size() != size {
		t.Error("it is told twice")
	}
}
