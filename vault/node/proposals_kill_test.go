package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/vault/audit"
	"keyrite/vault/charterstore"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
)

// step is a proposal with its approvals, of which each is an act, as are to bring it
// and to append it.
type step struct {
	Proposal  []byte
	Approvals [][]byte
}

const actsOfStep = 4

// TestKillWhileProposalsAreKept: kill -9 at any point of a proposal's way leaves it as
// far as was acknowledged, or one act further, with the entry of each act; and its
// statement in the charter or among those that wait, never both and never neither.
func TestKillWhileProposalsAreKept(t *testing.T) { killProposals(t, 0, 20) }

// TestLongKillsWhileProposalsAreKept is the same at the moments that follow, many more of
// them in the long run.
func TestLongKillsWhileProposalsAreKept(t *testing.T) {
	kills := 5
	if os.Getenv("KEYRITE_TEST_LONG") != "" {
		kills = 500
	}
	killProposals(t, 20, kills)
	t.Logf("long: kills while proposals are kept: %d of %d", kills, kills)
}

func killProposals(t *testing.T, first, kills int) {
	t.Helper()
	d := newDesk(t, 0)
	d.shut()
	steps := d.steps(12)
	raw, err := json.Marshal(steps)
	d.ok(err)
	seen := map[int]bool{} // how many acts there were
	for i := first; i < first+kills; i++ {
		dir := t.TempDir()
		for _, f := range []string{"charter.jsonl", "store.db", "head", "wrapped"} {
			copyFile(t, filepath.Join(d.dir, f), filepath.Join(dir, f))
		}
		d.ok(os.WriteFile(filepath.Join(dir, "steps"), raw, 0o600))
		s := state{dir, d.State.Vault, d.World.World}
		acked, err := killed(t, s, "propose-until-killed", time.Duration(i%40)*11*time.Millisecond+time.Duration(i)*211*time.Microsecond)
		d.ok(err)
		checkAfterKill(t, s, steps, d.charterFile(), acked)
		seen[acked] = true
	}
	t.Logf("%d kills, after %d different numbers of acts", kills, len(seen))
}

// steps makes proposals of which each continues the charter that the one before gives,
// and leaves the world's charter as it is.
func (d *desk) steps(n int) []step {
	d.t.Helper()
	log := bytes.Clone(d.Charter)
	fold := func() *charter.State {
		st, err := charter.Fold(log, d.World.World, d.State.Vault)
		d.ok(err)
		return st
	}
	var out []step
	for i := range n {
		file, err := charterstore.New(fold(), charter.TypePipeline, charter.Pipeline{ID: fmt.Sprintf("p%d", i), Key: d.SPKI("pipeline1"), Products: []string{"gw100"}}, d.now())
		d.ok(err)
		p, err := charterstore.Open(file, fold())
		d.ok(err)
		s, by := step{Proposal: file}, map[string][]byte{}
		for _, name := range []string{"approver1", "approver2"} {
			by[name], err = charterstore.Approve(p, d.People[name])
			d.ok(err)
			s.Approvals = append(s.Approvals, by[name])
		}
		line, err := charterstore.Merge(p, by)
		d.ok(err)
		log = append(append(log, line...), '\n')
		out = append(out, s)
	}
	return out
}

// proposeUntilKilled is that process: it brings, approves and appends proposals, and
// waits for its end.
func proposeUntilKilled(dir, which string) error {
	s, err := stateOfChild(dir, which)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(filepath.Join(dir, "steps"))
	if err != nil {
		return err
	}
	var steps []step
	if err := json.Unmarshal(raw, &steps); err != nil {
		return err
	}
	n, _, err := s.open(context.Background())
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "open")
	acts := 0
	act := func(path string, p engine.Params) error {
		_, err := n.Do(context.Background(), Call{Method: engine.Write, RawPath: path, Params: p, Peer: identity.Peer{UID: clerk}})
		if err == nil {
			acts++
			fmt.Fprintln(os.Stdout, "ack", acts)
		}
		return err
	}
	for _, s := range steps {
		p, err := charterstore.Read(s.Proposal, n.cfg.World)
		if err != nil {
			return err
		}
		at := "keyrite/proposals/" + p.Digest
		if err := act("keyrite/proposals", engine.Params{"proposal": s.Proposal}); err != nil {
			return err
		}
		for _, a := range s.Approvals {
			if err := act(at+"/approvals", engine.Params{"approval": a}); err != nil {
				return err
			}
		}
		if err := act(at+"/append", nil); err != nil {
			return err
		}
	}
	select {}
}

func checkAfterKill(t *testing.T, s state, steps []step, had string, acked int) {
	t.Helper()
	raw, err := os.ReadFile(had)
	if err != nil {
		t.Fatal(err)
	}
	base := bytes.Count(raw, []byte("\n"))
	n, shut, err := s.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, node: n}
	d := &desk{bench: b}
	defer func() { b.ok(shut()) }()
	appended := n.Charter().Size() - base
	acts := appended * actsOfStep
	list, err := d.ask(clerk, engine.List, "keyrite/proposals", "")
	b.ok(err)
	for _, id := range list["keys"].([]any) {
		p, err := d.ask(clerk, engine.Read, "keyrite/proposals/"+id.(string), "")
		b.ok(err)
		acts += 1 + len(p["approvals"].([]any))
		if p["proposal"] != string(steps[appended].Proposal) || p["state"] == stateStale {
			t.Errorf("after %d appended it has %v", appended, p)
		}
	}
	if acts < acked || acts > acked+1 || len(list["keys"].([]any)) > 1 {
		t.Fatalf("%d acts were acknowledged, and %d are there: %d appended, %v", acked, acts, appended, list["keys"])
	}
	entries := 0
	for _, e := range b.entries(0) {
		if e.Kind == audit.Request && strings.HasPrefix(e.Path, "keyrite/proposals") && e.Operation != "list" && e.Operation != "read" || e.Kind == audit.Life && e.Result["proposals"] != nil {
			entries++
		}
	}
	if entries != acts {
		t.Errorf("%d acts are there, and %d have their entry", acts, entries)
	}
}
