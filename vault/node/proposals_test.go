package node

import (
	"bytes"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/vault/audit"
	"keyrite/vault/charterstore"
	"keyrite/vault/engine"
	"keyrite/vault/proposal"
)

const (
	clerk     = 1101 // the user that may do everything with proposals
	reader    = 1102 // the user that may only look at them
	messenger = 1103 // the user that may all but what the charter's own path needs
)

// desk is a vault that keeps proposals, with a clock of its own.
type desk struct {
	*bench
	clock atomic.Int64 // seconds
}

// newDesk opens a vault with the clerk and the reader, and n more users like the clerk
// from 1200 on.
func newDesk(t *testing.T, n int) *desk {
	t.Helper()
	d := &desk{bench: newBench(t)}
	all := []access.Capability{access.Create, access.Delete, access.List, access.Read, access.Update}
	d.Approve(charter.TypePolicy, charter.Policy{ID: "clerk", Version: 1, Rules: []access.Rule{{Path: "keyrite/charter", Can: []access.Capability{access.Update}}, {Path: "keyrite/proposals", Can: all}, {Path: "keyrite/proposals/*", Can: all}}})
	d.Approve(charter.TypePolicy, charter.Policy{ID: "reader", Version: 1, Rules: []access.Rule{{Path: "keyrite/proposals", Can: []access.Capability{access.List}}, {Path: "keyrite/proposals/+", Can: []access.Capability{access.Read}}}})
	d.Approve(charter.TypePolicy, charter.Policy{ID: "messenger", Version: 1, Rules: []access.Rule{{Path: "keyrite/proposals", Can: []access.Capability{access.Create}}, {Path: "keyrite/proposals/*", Can: []access.Capability{access.Update}}}})
	who := func(id, policy string, uid int) {
		d.Approve(charter.TypeIdentity, charter.Identity{ID: id, Policies: []string{policy}, TTL: 60, Unix: &charter.Unix{UID: uid}})
	}
	who("clerk", "clerk", clerk)
	who("reader", "reader", reader)
	who("messenger", "messenger", messenger)
	for i := range n {
		who(fmt.Sprintf("clerk%d", i), "clerk", 1200+i)
	}
	d.clock.Store(artifacttest.Now().Add(time.Hour).Unix())
	d.writeCharter()
	d.start()
	return d
}

func (d *desk) now() time.Time { return time.Unix(d.clock.Load(), 0) }

func (d *desk) later(by time.Duration) { d.clock.Add(int64(by / time.Second)) }

func (d *desk) start() { d.openChanged(func(c *Config) { c.Now = d.now }) }

// refold is the charter that the vault's file has by now; the world goes on with it.
func (d *desk) refold() *charter.State {
	d.t.Helper()
	raw, err := os.ReadFile(d.charterFile())
	d.ok(err)
	fold := func() *charter.State {
		st, err := charter.Fold(raw, d.World.World, d.State.Vault)
		d.ok(err)
		return st
	}
	d.Charter, d.State = raw, fold()
	return fold()
}

// pipeline is a body that holds.
func (d *desk) pipeline(id string) string {
	raw, err := json.Marshal(charter.Pipeline{ID: id, Key: d.SPKI("pipeline1"), Products: []string{"gw100"}})
	d.ok(err)
	return string(raw)
}

func (d *desk) ask(uid int, m engine.Method, path, body string) (map[string]any, error) {
	r, err := d.call(uid, m, path, body)
	if err != nil || r.Answer.Data == nil {
		return nil, err
	}
	raw, err := json.Marshal(r.Answer.Data)
	d.ok(err)
	var out map[string]any
	d.ok(json.Unmarshal(raw, &out))
	return out, nil
}

// propose has the clerk propose a pipeline, and returns the proposal's id and file.
func (d *desk) propose(id string) (string, []byte) {
	d.t.Helper()
	out, err := d.ask(clerk, engine.Write, "keyrite/proposals", `{"type":"pipeline","body":`+d.pipeline(id)+`}`)
	d.ok(err)
	return out["id"].(string), []byte(out["proposal"].(string))
}

// approval is what 'keyrite charter approve' writes.
func (d *desk) approval(file []byte, name string) []byte {
	d.t.Helper()
	p, err := charterstore.Open(file, d.refold())
	d.ok(err)
	a, err := charterstore.Approve(p, d.People[name])
	d.ok(err)
	return a
}

func (d *desk) approve(id string, approval []byte) (map[string]any, error) {
	return d.ask(clerk, engine.Write, "keyrite/proposals/"+id+"/approvals", `{"approval":`+string(quoted(approval))+`}`)
}

func quoted(text []byte) []byte {
	raw, _ := json.Marshal(string(text)) // a string has always a form
	return raw
}

func (d *desk) state(id string) string {
	d.t.Helper()
	out, err := d.ask(reader, engine.Read, "keyrite/proposals/"+id, "")
	d.ok(err)
	return out["state"].(string)
}

// TestProposalIsApprovedAndAppended: the whole way, from a body to a statement in force.
// Every step has its entry, and the vault signs nothing.
func TestProposalIsApprovedAndAppended(t *testing.T) {
	d := newDesk(t, 0)
	from := d.size()
	id, file := d.propose("ci2")
	want, err := charterstore.New(d.refold(), charter.TypePipeline, charter.Pipeline{ID: "ci2", Key: d.SPKI("pipeline1"), Products: []string{"gw100"}}, d.now())
	d.ok(err)
	if !bytes.Equal(file, want) {
		t.Errorf("the file is another than the command writes:\n%s\n%s", file, want)
	}
	out, err := d.ask(reader, engine.Read, "keyrite/proposals/"+id, "")
	d.ok(err)
	if out["proposal"] != string(file) || out["brought_by"] != "clerk" || out["need"] != 2.0 || out["state"] != stateOpen || out["brought"] != charter.FormatTime(d.now()) || !strings.Contains(fmt.Sprint(out["says"]), "id = ci2") || !strings.Contains(fmt.Sprint(out["sentence"]), "ci2") {
		t.Errorf("read %v", out)
	}
	list, err := d.ask(reader, engine.List, "keyrite/proposals", "")
	d.ok(err)
	if fmt.Sprint(list["keys"]) != "["+id+"]" || list["key_info"].(map[string]any)[id].(map[string]any)["about"] != "ci2" {
		t.Errorf("list %v", list)
	}
	if _, err := d.ask(clerk, engine.Write, "keyrite/proposals/"+id+"/append", ""); fault.ClassOf(err) != fault.Quorum {
		t.Errorf("appended without approvals: %v", err)
	}
	for i, name := range []string{"approver1", "approver2"} {
		said, err := d.approve(id, d.approval(file, name))
		d.ok(err)
		if said["approver"] != name || said["have"] != float64(i+1) || d.state(id) != []string{stateOpen, stateReady}[i] {
			t.Errorf("%s: %v, %s", name, said, d.state(id))
		}
	}
	size := d.node.Charter().Size()
	said, err := d.ask(clerk, engine.Write, "keyrite/proposals/"+id+"/append", "")
	d.ok(err)
	if st := d.refold(); said["size"] != float64(size+1) || said["head"] != st.Head() || st.Pipelines["ci2"].ID != "ci2" || d.node.Charter().Head() != st.Head() {
		t.Errorf("appended: %v", said)
	}
	if _, err := d.ask(clerk, engine.Read, "keyrite/proposals/"+id, ""); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("it is still there: %v", err)
	}
	d.wantTrail(from, id)
}

// wantTrail wants an entry of each step of an appended proposal.
func (d *desk) wantTrail(from int64, id string) {
	d.t.Helper()
	var got []string
	for _, e := range d.entries(from) {
		got = append(got, strings.TrimSpace(fmt.Sprint(e.Kind, " ", e.Operation, " ", strings.ReplaceAll(e.Path, id, "ID"), " ", e.Class)))
		size, head, ok, err := e.TookOver()
		d.ok(err)
		if ok && (d.State.CheckHead(size, head) != nil || fmt.Sprint(e.Result["proposals"]) != "["+id+"]") {
			d.t.Errorf("taken over: %+v", e)
		}
	}
	for _, want := range []string{"request create keyrite/proposals", "request update keyrite/proposals/ID/approvals", "refused update keyrite/proposals/ID/append quorum", "request update keyrite/proposals/ID/append", "refused read keyrite/proposals/ID policy"} {
		if !slices.Contains(got, want) {
			d.t.Errorf("no entry %q among %q", want, got)
		}
	}
}

// TestWhoMayPropose: each act needs its rule; to append needs that of the charter's own
// path, too. Who brought a proposal may take it back.
func TestWhoMayPropose(t *testing.T) {
	d := newDesk(t, 0)
	id, file := d.propose("ci2")
	at := "keyrite/proposals/" + id
	for _, name := range []string{"approver1", "approver2"} {
		_, err := d.approve(id, d.approval(file, name))
		d.ok(err)
	}
	for name, c := range map[string]struct {
		uid  int
		m    engine.Method
		path string
		body string
	}{
		"list, no rule":                 {mes, engine.List, "keyrite/proposals", ""},
		"propose, no rule":              {mes, engine.Write, "keyrite/proposals", `{"type":"pipeline","body":` + d.pipeline("x") + `}`},
		"propose, may look":             {reader, engine.Write, "keyrite/proposals", `{"type":"pipeline","body":` + d.pipeline("x") + `}`},
		"read, no rule":                 {1103, engine.Read, at, ""},
		"approvals, may look":           {reader, engine.Read, at + "/approvals", ""},
		"approve, may look":             {reader, engine.Write, at + "/approvals", `{"approval":{}}`},
		"renew, may look":               {reader, engine.Write, at + "/renew", ""},
		"append, may look":              {reader, engine.Write, at + "/append", ""},
		"append, not to the charter":    {1103, engine.Write, at + "/append", ""},
		"delete what another brought":   {1103, engine.Delete, at, ""},
		"delete what is not there":      {1103, engine.Delete, "keyrite/proposals/" + strings.Repeat("0", 64), ""},
		"delete what is no name at all": {1103, engine.Delete, "keyrite/proposals/x", ""},
	} {
		if _, err := d.ask(c.uid, c.m, c.path, c.body); !errors.Is(err, access.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	out, err := d.ask(1103, engine.Write, "keyrite/proposals", `{"type":"pipeline","body":`+d.pipeline("mine")+`}`)
	d.ok(err)
	if _, err := d.ask(1103, engine.Delete, "keyrite/proposals/"+out["id"].(string), ""); err != nil {
		t.Errorf("take back what one brought: %v", err)
	}
	if _, err := d.ask(clerk, engine.Delete, at, ""); err != nil {
		t.Errorf("delete: %v", err)
	}
	if list, err := d.ask(clerk, engine.List, "keyrite/proposals", ""); err != nil || fmt.Sprint(list["keys"]) != "[]" {
		t.Errorf("left: %v, %v", list, err)
	}
}

// TestHostileProposals: what a ceremony decides, what would not hold, what is too much,
// and what is of elsewhere is refused with the reason, and nothing is kept.
func TestHostileProposals(t *testing.T) {
	d := newDesk(t, 0)
	good, err := charterstore.New(d.refold(), charter.TypePipeline, charter.Pipeline{ID: "ci3", Key: d.SPKI("pipeline1"), Products: []string{"gw100"}}, d.now())
	d.ok(err)
	foreign := artifacttest.New(t)
	other, err := charterstore.New(foreign.State, charter.TypePipeline, charter.Pipeline{ID: "ci3", Key: foreign.SPKI("pipeline1"), Products: []string{"gw100"}}, d.now())
	d.ok(err)
	long := `{"type":"policy","body":{"id":"long","version":1,"rules":[` + strings.Repeat(`{"can":["read"],"path":"kv/data`+strings.Repeat("/"+strings.Repeat("x", 120), 8)+`"},`, 200)
	long = strings.TrimSuffix(long, ",") + `]}}`
	for name, c := range map[string]struct {
		body  string
		class fault.Class
	}{
		"a key":               {`{"type":"key","body":{}}`, fault.Policy},
		"people":              {`{"type":"people","body":{}}`, fault.Policy},
		"an epoch":            {`{"type":"epoch","body":{}}`, fault.Policy},
		"a founding":          {`{"type":"genesis","body":{}}`, fault.Policy},
		"no such type":        {`{"type":"root","body":{}}`, fault.Policy},
		"a member too much":   {`{"type":"pipeline","body":{"id":"x","key":"","products":["gw100"],"root":true}}`, fault.Usage},
		"would not hold":      {`{"type":"mount","body":{"id":"kv","engine":"kv"}}`, fault.Verify},
		"no body":             {`{"type":"mount"}`, fault.Usage},
		"no type":             {`{"body":{}}`, fault.Usage},
		"nothing":             {`{}`, fault.Usage},
		"both":                {`{"type":"mount","body":{"id":"x","engine":"kv"},"proposal":` + string(quoted(good)) + `}`, fault.Usage},
		"a parameter more":    {`{"type":"mount","body":{"id":"x","engine":"kv"},"approve":true}`, fault.Usage},
		"of another world":    {`{"proposal":` + string(quoted(other)) + `}`, fault.Policy},
		"not canonical":       {`{"proposal":` + string(quoted(append([]byte(" "), good...))) + `}`, fault.Verify},
		"another format":      {`{"proposal":` + strings.Replace(string(good), "charter-proposal/v1", "charter-proposal/v2", 1) + `}`, fault.Verify},
		"a number":            {`{"proposal":7}`, fault.Verify},
		"too long":            {`{"proposal":"` + strings.Repeat("x", proposal.MaxBytes+1) + `"}`, fault.Usage},
		"too long, of a body": {long, fault.Usage},
	} {
		if _, err := d.ask(clerk, engine.Write, "keyrite/proposals", c.body); fault.ClassOf(err) != c.class {
			t.Errorf("%s: %v, want %s", name, err, c.class)
		}
	}
	for _, form := range []string{string(quoted(good)), string(good)} {
		_, err := d.ask(clerk, engine.Write, "keyrite/proposals", `{"proposal":`+form+`}`)
		if form[0] == '"' && err != nil || form[0] != '"' && !errors.Is(err, proposal.ErrThere) {
			t.Errorf("made elsewhere, as %.20s: %v", form, err)
		}
	}
	list, err := d.ask(clerk, engine.List, "keyrite/proposals", "")
	d.ok(err)
	if n := len(list["keys"].([]any)); n != 1 {
		t.Errorf("%d are kept", n)
	}
}

// signed is an approval by whoever has the keys, as a program of his own could make it.
func signed(t *testing.T, file []byte, keys ...crypto.Signer) []byte {
	t.Helper()
	var f struct {
		Payload []byte `json:"payload"`
	}
	if err := json.Unmarshal(file, &f); err != nil {
		t.Fatal(err)
	}
	env, err := envelope.Sign(charter.PayloadType, f.Payload, keys...)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := env.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestHostileApprovals: only the approval of this very proposal by one of those who
// decide on it now is kept, once.
func TestHostileApprovals(t *testing.T) {
	d := newDesk(t, 0)
	id, file := d.propose("ci2")
	_, another := d.propose("ci3")
	one, two := d.People["approver1"].Signer(), d.People["approver2"].Signer()
	good := d.approval(file, "approver1")
	stranger, err := person.New("approver1", d.World.World)
	d.ok(err)
	altered := bytes.Replace(good, []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1)
	doubled, err := envelope.Parse(good)
	d.ok(err)
	doubled.Signatures = append(doubled.Signatures, doubled.Signatures...)
	twice, err := doubled.Marshal()
	d.ok(err)
	otherType, err := envelope.Sign("application/vnd.keyrite.other.v1+json", func() []byte { e, _ := envelope.Parse(good); return e.Payload }(), one)
	d.ok(err)
	typed, err := otherType.Marshal()
	d.ok(err)
	for name, c := range map[string]struct {
		approval []byte
		class    fault.Class
	}{
		"by a key master":        {signed(t, file, d.People["master1"].Signer()), fault.Verify},
		"by a witness":           {signed(t, file, d.People["witness1"].Signer()), fault.Verify},
		"by another of the name": {signed(t, file, stranger.Signer()), fault.Verify},
		"of another proposal":    {d.approval(another, "approver1"), fault.Policy},
		"of another type":        {typed, fault.Verify},
		"altered":                {altered, fault.Verify},
		"cut off":                {good[:len(good)-10], fault.Verify},
		"by two at once":         {signed(t, file, one, two), fault.Usage},
		"twice by one":           {twice, fault.Verify},
		"with a stranger":        {signed(t, file, one, stranger.Signer()), fault.Verify},
		"empty":                  {nil, fault.Verify},
		"too long":               {bytes.Repeat([]byte("x"), proposal.MaxApproval+1), fault.Usage},
	} {
		if _, err := d.approve(id, c.approval); fault.ClassOf(err) != c.class {
			t.Errorf("%s: %v, want %s", name, err, c.class)
		}
	}
	_, err = d.approve(id, good)
	d.ok(err)
	for name, again := range map[string][]byte{"the same": good, "signed again": d.approval(file, "approver1")} {
		if _, err := d.approve(id, again); !errors.Is(err, proposal.ErrThere) {
			t.Errorf("%s: %v", name, err)
		}
	}
	out, err := d.ask(clerk, engine.Read, "keyrite/proposals/"+id+"/approvals", "")
	d.ok(err)
	if kept := out["approvals"].(map[string]any); len(kept) != 1 || kept["approver1"] != string(good) {
		t.Errorf("kept %v", kept)
	}
	if _, err := d.approve(strings.Repeat("0", 64), good); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("of nothing: %v", err)
	}
}

// TestApproverOfAFormerSet: whoever left the set of approvers approves nothing any more,
// and what was approved under the set of before is stale.
func TestApproverOfAFormerSet(t *testing.T) {
	d := newDesk(t, 0)
	before, file := d.propose("ci2")
	_, err := d.approve(before, d.approval(file, "approver2"))
	d.ok(err)
	// approver3 comes for approver2.
	d.refold()
	after := d.State.People
	k, err := person.New("approver3", d.World.World)
	d.ok(err)
	d.People["approver3"] = k
	after.Roster = slices.DeleteFunc(slices.Clone(after.Roster), func(m charter.Member) bool { return m.Person.Name == "approver2" })
	after.Roster = append(after.Roster, charter.Member{Person: *k.Public(), Role: charter.RoleApprover})
	set := charter.Set{Members: []string{"approver1", "approver3"}, Need: 2}
	after.Sets = charter.Sets{Approvers: set, Releases: set}
	had := len(d.Charter)
	d.SignedBy(charter.TypePeople, after, "approver1", "approver2", "approver3")
	_, err = d.node.Append(t.Context(), d.lines(had))
	d.ok(err)
	if got := d.state(before); got != stateStale {
		t.Errorf("what was proposed before is %s", got)
	}
	out, err := d.ask(clerk, engine.Write, "keyrite/proposals/"+before+"/renew", "")
	d.ok(err)
	id, file := out["id"].(string), []byte(out["proposal"].(string))
	if fmt.Sprint(out["approvers"]) != "[approver1 approver3]" || fmt.Sprint(out["approvals"]) != "[]" {
		t.Errorf("renewed: %v", out)
	}
	if _, err := d.approve(id, signed(t, file, d.People["approver2"].Signer())); fault.ClassOf(err) != fault.Verify {
		t.Errorf("by whoever left: %v", err)
	}
	for _, name := range []string{"approver1", "approver3"} {
		_, err := d.approve(id, d.approval(file, name))
		d.ok(err)
	}
	if _, err := d.ask(clerk, engine.Write, "keyrite/proposals/"+id+"/append", ""); err != nil {
		t.Errorf("append: %v", err)
	}
}

// TestStaleProposal: when the charter goes on, what waits says so, takes nothing any
// more, and is made anew on demand; what fits is not.
func TestStaleProposal(t *testing.T) {
	d := newDesk(t, 0)
	id, file := d.propose("ci2")
	good := d.approval(file, "approver1")
	if _, err := d.ask(clerk, engine.Write, "keyrite/proposals/"+id+"/renew", ""); fault.ClassOf(err) != fault.Usage {
		t.Errorf("renewed though it fits: %v", err)
	}
	had := len(d.Charter)
	d.Approve(charter.TypePipeline, charter.Pipeline{ID: "other", Key: d.SPKI("pipeline1"), Products: []string{"gw100"}})
	_, err := d.node.Append(t.Context(), d.lines(had))
	d.ok(err)
	if got := d.state(id); got != stateStale {
		t.Errorf("it is %s", got)
	}
	for name, do := range map[string]func() error{
		"approve": func() error { _, err := d.approve(id, good); return err },
		"append":  func() error { _, err := d.ask(clerk, engine.Write, "keyrite/proposals/"+id+"/append", ""); return err },
		"bring the file again": func() error {
			_, err := d.ask(clerk, engine.Write, "keyrite/proposals", `{"proposal":`+string(file)+`}`)
			return err
		},
	} {
		if err := do(); !errors.Is(err, charterstore.ErrStale) || fault.HintOf(err) == "" {
			t.Errorf("%s: %v (%s)", name, err, fault.HintOf(err))
		}
	}
	out, err := d.ask(messenger, engine.Write, "keyrite/proposals/"+id+"/renew", "")
	d.ok(err)
	if out["state"] != stateOpen || out["id"] == id || out["statement"] != float64(d.node.Charter().Size()) || out["brought_by"] != "clerk" {
		t.Errorf("renewed: %v", out)
	}
	if _, err := d.ask(messenger, engine.Delete, "keyrite/proposals/"+out["id"].(string), ""); !errors.Is(err, access.ErrDenied) {
		t.Errorf("who renewed another's takes it out: %v", err)
	}
	if _, err := d.ask(clerk, engine.Read, "keyrite/proposals/"+id, ""); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("the old one: %v", err)
	}
	// One whose statement cannot be made any more cannot be renewed, and stays.
	same, _ := d.propose("twice")
	had = len(d.Charter)
	d.Approve(charter.TypePipeline, charter.Pipeline{ID: "twice", Key: d.SPKI("pipeline1"), Products: []string{"gw100"}})
	_, err = d.node.Append(t.Context(), d.lines(had))
	d.ok(err)
	if _, err := d.ask(clerk, engine.Write, "keyrite/proposals/"+same+"/renew", ""); fault.ClassOf(err) != fault.Verify || d.state(same) != stateStale {
		t.Errorf("renewed though it would not hold: %v", err)
	}
}

// TestProposalsAreBounded: 8 of one identity, 64 of all, and after 30 days they are gone
// with an entry.
func TestProposalsAreBounded(t *testing.T) {
	d := newDesk(t, 8)
	n := 0
	bring := func(uid int) error {
		n++
		_, err := d.ask(uid, engine.Write, "keyrite/proposals", `{"type":"pipeline","body":`+d.pipeline(fmt.Sprintf("p%d", n))+`}`)
		return err
	}
	for i := range proposal.MaxPending / proposal.MaxPerIdentity {
		for range proposal.MaxPerIdentity {
			d.ok(bring(1200 + i))
		}
		if err := bring(1200 + i); !errors.Is(err, proposal.ErrFull) || !strings.Contains(err.Error(), "of yours") {
			t.Fatalf("one too many of an identity: %v", err)
		}
	}
	if err := bring(clerk); !errors.Is(err, proposal.ErrFull) || strings.Contains(err.Error(), "of yours") {
		t.Errorf("one too many of all: %v", err)
	}
	d.later(proposal.Life - time.Second)
	if err := bring(clerk); !errors.Is(err, proposal.ErrFull) {
		t.Errorf("a second before their end: %v", err)
	}
	d.later(time.Second)
	if list, err := d.ask(clerk, engine.List, "keyrite/proposals", ""); err != nil || fmt.Sprint(list["keys"]) != "[]" {
		t.Errorf("after their end: %v, %v", list, err)
	}
	d.ok(bring(clerk))
	from := d.size()
	d.node.open.expire(t.Context())
	d.node.open.expire(t.Context()) // nothing more to do
	e := d.entries(from)
	if len(e) != 1 || e[0].Kind != audit.Life || e[0].Operation != "proposals expired" || len(e[0].Result["proposals"].([]any)) != proposal.MaxPending {
		t.Errorf("entries %+v", e)
	}
	if list, err := d.ask(clerk, engine.List, "keyrite/proposals", ""); err != nil || len(list["keys"].([]any)) != 1 {
		t.Errorf("left: %v, %v", list, err)
	}
}

// TestProposalsOutliveTheVault: seal and start lose none; and what 'keyrite charter
// append' added to the file, from the same files, is taken out of those that wait.
func TestProposalsOutliveTheVault(t *testing.T) {
	d := newDesk(t, 0)
	id, file := d.propose("ci2")
	other, _ := d.propose("ci3")
	_, err := d.approve(id, d.approval(file, "approver1"))
	d.ok(err)
	d.shut()
	d.start()
	out, err := d.ask(clerk, engine.Read, "keyrite/proposals/"+id, "")
	d.ok(err)
	if out["proposal"] != string(file) || len(out["approvals"].([]any)) != 1 || out["state"] != stateOpen {
		t.Errorf("after a start: %v", out)
	}
	_, err = d.approve(id, d.approval(file, "approver2"))
	d.ok(err)
	files, err := d.ask(clerk, engine.Read, "keyrite/proposals/"+id+"/approvals", "")
	d.ok(err)
	approvals := map[string][]byte{}
	for who, a := range files["approvals"].(map[string]any) {
		approvals[who] = []byte(a.(string))
	}
	d.shut()
	_, err = charterstore.Append(d.charterFile(), d.World.World, d.State.Vault, file, approvals)
	d.ok(err)
	d.start()
	if _, err := d.ask(clerk, engine.Read, "keyrite/proposals/"+id, ""); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("appended elsewhere: %v", err)
	}
	if d.state(other) != stateStale {
		t.Errorf("the other one is %s", d.state(other))
	}
	told := false
	for _, e := range d.entries(0) {
		told = told || e.Operation == "charter" && fmt.Sprint(e.Result["proposals"]) == "["+id+"]"
	}
	if !told {
		t.Error("no entry tells of it")
	}
}
