package actions

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/paper"
	"keyrite/ceremony/script"
	"keyrite/hsm/hsmtest"
)

// zeros stand for a hash that nobody compares.
var zeros = strings.Repeat("0", 64)

// troubled is a vault of one safe whose thresholds leave one key master and one
// approver to spare.
type troubled struct {
	*tiny
	newest string            // record of the last ceremony that closed
	here   map[string]string // who takes part, with the role
	n      int               // ceremonies so far

	lastFell []record.Fallen // as the newest one proves
}

func newTroubled(t *testing.T) *troubled {
	t.Helper()
	h := newHouse(t)
	answers, err := os.ReadFile(h.path("answers.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"master6", "approver3", "approver4", "witness3"} {
		h.person(t, n)
		answers = fmt.Appendf(answers, "  %s: %s.pass\n", n, n)
	}
	h.write(t, "answers.yaml", answers)
	x := &troubled{tiny: &tiny{stand: &stand{house: h}}, here: map[string]string{
		"conductor": charter.RoleConductor, "witness1": charter.RoleWitness, "witness2": charter.RoleWitness,
		"master1": charter.RoleKeyMaster, "master2": charter.RoleKeyMaster, "master3": charter.RoleKeyMaster,
		"approver1": charter.RoleApprover, "approver2": charter.RoleApprover, "approver3": charter.RoleApprover,
	}}
	if x.newest, err = x.hold(t, withOneToSpare(tinyScript), ""); err != nil {
		t.Fatal(err)
	}
	x.cosign(t, x.newest, "witness2")
	x.dir = x.newest
	return x
}

// withOneToSpare is a script of the tiny vault with three key masters and approvers.
func withOneToSpare(text string) string {
	return strings.NewReplacer("@TOKEN@", "tiny", "@LIMIT@", "10m",
		"\nrun:\n  - {id: \"2.1\", do: genesis", "\n  - {id: \"1.3\", do: documents.see, title: a, limit: 10m}\nrun:\n  - {id: \"2.1\", do: genesis",
		"key_masters: {need: 2, of: 2}", "key_masters: {need: 2, of: 3}", "approvers: {need: 2, of: 2}", "approvers: {need: 2, of: 3}").Replace(text)
}

// withPeople is the reshare in which people come and go, and everybody is asked once.
func withPeople() string {
	return strings.NewReplacer(
		`do: safe.open, safe: work, title: a, limit: 5m}`, `do: safe.open, safe: work, title: a, limit: 5m, confirm: [approver, witness]}
  - {id: "2.9", do: people.change, title: a, limit: 5m}`,
		`do: shares.deal, safe: work, title: a, limit: 5m}`, `do: shares.deal, safe: work, title: a, limit: 5m, confirm: [key-master]}`).Replace(withOneToSpare(tinyReshare))
}

// hold holds a ceremony with those who are here.
func (x *troubled) hold(t *testing.T, text, incident string, leaves ...string) (string, error) {
	t.Helper()
	x.n++
	return x.house.perform(t, "troubled"+itoa(x.n), text, incident, func(b *Bind) {
		b.Tokens = map[string]string{"work": "fresh"}
		x.continued(b, leaves...)
	})
}

// continued is the binding of a ceremony after the newest one, for who is here.
func (x *troubled) continued(b *Bind, leaves ...string) {
	b.Shares, b.People, b.Leaves = "shares-tiny", nil, leaves
	if x.newest != "" {
		continues(x.newest)(b)
	}
	for _, n := range slices.Sorted(maps.Keys(x.here)) {
		b.People = append(b.People, BindPerson{Person: n + ".person", Key: n + ".key", Role: x.here[n]})
	}
}

// falls holds a reshare that somebody makes void, after the void ones before it.
func (x *troubled) falls(t *testing.T, who, step string) record.Fallen {
	t.Helper()
	before, err := filepath.Glob(x.path("shares-tiny/work/*"))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := x.hold(t, withPeople(), fmt.Sprintf("incident: {step: %q, by: %s, reason: it does not please me}\n", step, who))
	st, stErr := ceremony.ReadState(dir)
	if fault.ClassOf(err) != fault.Void || stErr != nil || !st.Ended || !slices.Equal(st.Called, []string{who}) {
		t.Fatalf("%s in step %s: %v, %+v, %v", who, step, err, st, stErr)
	}
	after, err := filepath.Glob(x.path("shares-tiny/work/*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, burned := range after {
		if !slices.Contains(before, burned) {
			if err := os.Remove(burned); err != nil {
				t.Fatal(err)
			}
		}
	}
	x.house.after = dir
	return record.Fallen{By: who, Record: st.Record, Root: st.Root}
}

// replaced holds the reshare of the others, and verifies it as a stranger does.
func (x *troubled) replaced(t *testing.T, who, by string) *record.Verified {
	t.Helper()
	x.here[by] = x.here[who]
	delete(x.here, who)
	dir, err := x.hold(t, withPeople(), "", who)
	if err != nil {
		t.Fatal(err)
	}
	x.house.after = ""
	x.cosign(t, dir, "witness2")
	founded, err := verifyOwn(x.dir)
	if err != nil {
		t.Fatal(err)
	}
	v, err := record.Verify(os.DirFS(dir), founded.Anchors)
	if err != nil {
		t.Fatal(err)
	}
	x.newest, x.lastFell = dir, v.Fell
	return v
}

// report is what the report of a record says.
func report(t *testing.T, dir string) string {
	t.Helper()
	if err := paper.WriteReport(dir); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, record.ReportFile))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// One person calls an incident in two reshares. The others, as many as the thresholds
// say, replace that person in a third one, to which he is not summoned and of which he
// signs nothing; its record proves by whose incidents the two before it fell, and his
// share opens nothing any more (R-CER-9, R-CER-14).
func TestOthersReplaceWhoCallsIncidents(t *testing.T) {
	t.Parallel()
	x := newTroubled(t)
	old := x.foreign(t, x.dir, 1)
	epoch := 1
	for _, tt := range []struct{ who, by, first, second string }{
		{"master3", "master6", "2.2", "2.3"},
		{"approver3", "approver4", "2.1", "2.1"},
		{"witness1", "witness3", "2.1", "2.1"},
	} {
		first := x.falls(t, tt.who, tt.first)
		second := x.falls(t, tt.who, tt.second)
		if text := report(t, x.house.after); !strings.Contains(text, tt.who+" called an incident here and in an attempt before") {
			t.Errorf("the report of the second void ceremony does not say that %s called both", tt.who)
		}
		v := x.replaced(t, tt.who, tt.by)
		if want := []record.Fallen{second, first}; !slices.Equal(v.Fell, want) {
			t.Errorf("%s: got %+v, want %+v", tt.who, v.Fell, want)
		}
		if text := report(t, x.newest); !strings.Contains(text, "2 attempts before this one ("+second.Record+", "+first.Record+") became void by an incident that "+tt.who+" called and signed. From this ceremony on "+tt.who+" is not among") {
			t.Errorf("the report does not say by whom the two fell:\n%s", text)
		}
		_, there := v.Charter.People.Person(tt.who)
		_, came := v.Charter.People.Person(tt.by)
		if epoch++; there || !came || v.Roles[tt.who] != "" || v.Charter.Epochs["work"].Epoch != epoch {
			t.Errorf("%s is there: %v, %s came: %v, took part as %q, epoch %d", tt.who, there, tt.by, came, v.Roles[tt.who], v.Charter.Epochs["work"].Epoch)
		}
	}
	for e := 1; e <= epoch; e++ {
		if so, user := x.logins(t, x.newest, old, e); so || user {
			t.Errorf("shares of before open the token with PINs of epoch %d: SO %v, user %v", e, so, user)
		}
	}
	text := x.verified(t)
	for _, f := range x.lastFell {
		if want := "after    the void keyrite/record/" + f.Record + ", which fell by an incident of " + f.By; !strings.Contains(text, want) {
			t.Errorf("keyrite-verify does not say %q:\n%s", want, text)
		}
	}
	x.forgedFell(t)
}

// verified is what the verifier that witnesses have says of the newest record.
func (x *troubled) verified(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(hsmtest.Program(t, "keyrite-verify"), "record", x.newest, "--anchor", filepath.Join(x.dir, "outputs/anchors.json")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// forgedFell has everybody sign records that tell otherwise who called the incidents.
func (x *troubled) forgedFell(t *testing.T) {
	t.Helper()
	list := entries(t, x.newest)
	base, ok := list[0].Data["base"].(map[string]any)
	if !ok {
		t.Fatalf("base %T", list[0].Data["base"])
	}
	fell, ok := base["fell"].([]any)
	if !ok || len(fell) != 2 {
		t.Fatalf("fell %v", base["fell"])
	}
	first, ok := fell[0].(map[string]any)
	if !ok {
		t.Fatalf("%T", fell[0])
	}
	founded, err := verifyOwn(x.dir)
	if err != nil {
		t.Fatal(err)
	}
	signers := []string{"witness2", "witness3", "master1", "master2", "master6"}
	for name, edit := range map[string]func(){
		"by another":  func() { first["by"] = "witness2" },
		"one dropped": func() { base["fell"] = fell[:1] },
		"one more":    func() { base["fell"] = append(fell, first) },
		"none":        func() { delete(base, "fell") },
		"of nothing":  func() { list[0].Data["after"] = nil },
	} {
		after, by := list[0].Data["after"], first["by"]
		edit()
		x.forgeAs(t, x.newest, list, signers...)
		if _, err := record.Verify(os.DirFS(x.newest), founded.Anchors); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: got %v (%s)", name, err, fault.ClassOf(err))
		}
		list[0].Data["after"], first["by"], base["fell"] = after, by, fell
	}
	// The record that nobody edited is taken from the same hands.
	x.forgeAs(t, x.newest, list, signers...)
	if _, err := record.Verify(os.DirFS(x.newest), founded.Anchors); err != nil {
		t.Errorf("as it was: %v", err)
	}
}

// Nobody is thrown out by fewer than the thresholds: of the approvers, or of the key
// masters who open the safe.
func TestFewerReplaceNobody(t *testing.T) {
	t.Parallel()
	x := newTroubled(t)
	for _, missing := range [][]string{{"approver2", "approver3"}, {"master2", "master3"}} {
		here := map[string]string{}
		for n, role := range x.here {
			if here[n] = role; slices.Contains(missing, n) {
				delete(here, n)
			}
		}
		x.here, here = here, x.here
		b := x.bind(t, "bind.yaml")
		x.continued(b, missing[1])
		sc, err := script.Parse("people.yaml", []byte(strings.NewReplacer("@KEYRITE@", zeros, "@HSMD@", zeros, "@MODULE@", zeros).Replace(withPeople())))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Participants(sc); fault.ClassOf(err) != fault.Quorum {
			t.Errorf("without %v: %v", missing, err)
		}
		x.here = here
	}
}

// Whatever kind of ceremony a person makes void, at its very end, the record proves who
// it was, so that the next one can keep it.
func TestIncidentsOfEveryKindAreTold(t *testing.T) {
	t.Parallel()
	f := found(t)
	requests := func(b *Bind) {
		maps.Copy(b.Requests, map[string]string{"factory2-ca": "a.csr", "factory3-ca": "a.csr", "report3": "b.csr", "relay-access3": "c.csr"})
		b.Keys["pipeline3"] = "pipeline1.pem"
	}
	for _, kind := range []string{"new-key", "succession", "retire", "enrol", "sign-offline", "hsm-lost"} {
		t.Run(kind, func(t *testing.T) {
			f := f.fork(t)
			if kind == "hsm-lost" {
				if err := os.RemoveAll(f.tokenFolder(t, "founded-work")); err != nil {
					t.Fatal(err)
				}
			}
			s, _ := f.script(t, kind, "founded", nil)
			i := slices.IndexFunc(s.Seal, func(st script.Step) bool { return slices.Contains(st.Confirm, charter.RoleWitness) })
			if i < 0 {
				t.Fatal("no step at its end asks a witness")
			}
			root := rootOf(f, "1.root.json")
			dir, err := f.try(t, plan{kind: kind, incident: fmt.Sprintf("incident: {step: %q, by: witness1, reason: a stranger came in}\n", s.Seal[i].ID), bind: func(b *Bind) {
				root(b)
				requests(b)
			}})
			st, stErr := ceremony.ReadState(dir)
			if fault.ClassOf(err) != fault.Void || stErr != nil || !st.Ended {
				t.Fatalf("%v, %+v, %v", err, st, stErr)
			}
			lines, err := os.ReadFile(filepath.Join(f.newest, "outputs/charter.jsonl"))
			if err != nil {
				t.Fatal(err)
			}
			v, err := record.VerifyVoid(os.DirFS(dir), f.anchors, lines)
			if err != nil {
				t.Fatal(err)
			}
			if want := []record.Fallen{{By: "witness1", Record: st.Record, Root: st.Root}}; !slices.Equal(v.Fell, want) {
				t.Errorf("got %+v, want %+v", v.Fell, want)
			}
		})
	}
}
