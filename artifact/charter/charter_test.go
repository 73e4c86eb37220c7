package charter_test

import (
	"bytes"
	"crypto"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
)

// Also one in which a key master, a witness and an approver have cards.
func TestFoldAcceptsTheWorld(t *testing.T) {
	w := artifacttest.New(t, "master5", "witness2", "approver2")
	s, err := charter.Fold(w.Charter, w.World, w.Anchors.Vault)
	if err != nil {
		t.Fatal(err)
	}
	if s.Head() != w.State.Head() || s.Size() != w.State.Size() || len(s.Pipelines) != 1 {
		t.Errorf("folded %d statements, head %s", s.Size(), s.Head())
	}
	if _, err := s.Key("firmware", "dsse"); err != nil {
		t.Error(err)
	}
	if _, err := s.Key("firmware", "x509"); fault.ClassOf(err) != fault.Policy {
		t.Errorf("firmware key in another domain: %v", err)
	}
}

// every is a stride, which is 1 in scripts/test --long.
func every(stride int) int {
	if os.Getenv("KEYRITE_TEST_LONG") != "" {
		return 1
	}
	return stride
}

// flipEvery refuses a log with one bit flipped, for every stride-th byte.
func flipEvery(t *testing.T, w *artifacttest.World, stride int) {
	t.Helper()
	for i := 0; i < len(w.Charter); i += stride {
		bad := bytes.Clone(w.Charter)
		bad[i] ^= 1 << (i % 8)
		if _, err := charter.Fold(bad, w.World, w.Anchors.Vault); err == nil {
			t.Errorf("byte %d", i)
		}
	}
}

// cutEvery refuses a log cut at every length within a line, for every stride-th also
// where the line was closed again. A cut between lines leaves an older, valid log,
// which whoever has seen a later head tells by it.
func cutEvery(t *testing.T, w *artifacttest.World, stride int) {
	t.Helper()
	for i := range w.Charter {
		cut := w.Charter[:i:i]
		s, err := charter.Fold(cut, w.World, w.Anchors.Vault)
		switch {
		case i > 0 && cut[i-1] == '\n':
			if err != nil || s.Size() != bytes.Count(cut, []byte("\n")) {
				t.Errorf("cut between lines at %d: %v", i, err)
			} else if fault.ClassOf(s.CheckHead(w.State.Size(), w.State.Head())) != fault.Policy {
				t.Errorf("%d statements are taken for the newest", s.Size())
			}
		case fault.ClassOf(err) != fault.Verify:
			t.Errorf("cut at %d: %v", i, err)
		case i%stride == 0 && w.Charter[i] != '\n':
			if _, err := charter.Fold(append(cut, '\n'), w.World, w.Anchors.Vault); err == nil {
				t.Errorf("cut at %d and closed again", i)
			}
		}
	}
}

// Flipped bits of a real log are refused (R-CER-3).
func TestLongFoldRefusesEveryFlippedByte(t *testing.T) { flipEvery(t, artifacttest.New(t), every(61)) }

// A real log that was cut is refused, or tells an older head (R-CER-3).
func TestLongFoldRefusesEveryCut(t *testing.T) { cutEvery(t, artifacttest.New(t), every(127)) }

// Every statement dropped, repeated or exchanged with another of a real log is refused
// (R-CER-3).
func TestFoldRefusesAlteration(t *testing.T) {
	w := artifacttest.New(t)
	lines := bytes.SplitAfter(w.Charter, []byte("\n"))
	lines = lines[:len(lines)-1]
	refused := func(what string, lines ...[]byte) {
		t.Helper()
		if _, err := charter.Fold(bytes.Join(lines, nil), w.World, w.Anchors.Vault); err == nil {
			t.Errorf("accepted: %s", what)
		}
	}
	for i := range lines {
		if i < len(lines)-1 {
			refused(fmt.Sprintf("without entry %d", i), slices.Concat(lines[:i], lines[i+1:])...)
		}
		refused(fmt.Sprintf("entry %d twice", i), slices.Concat(lines[:i+1], lines[i:])...)
		for j := range i {
			swapped := slices.Clone(lines)
			swapped[i], swapped[j] = lines[j], lines[i]
			refused(fmt.Sprintf("entries %d and %d exchanged", j, i), swapped...)
		}
	}
}

func TestFoldRefusesOtherWorldAndVault(t *testing.T) {
	w, other := artifacttest.New(t), artifacttest.New(t)
	if _, err := charter.Fold(w.Charter, "live", w.Anchors.Vault); fault.ClassOf(err) != fault.Policy {
		t.Errorf("live anchors: %v", err)
	}
	if _, err := charter.Fold(w.Charter, w.World, other.Anchors.Vault); fault.ClassOf(err) != fault.Policy {
		t.Errorf("other vault: %v", err)
	}
}

// Exactly the subsets that reach the threshold decide (R-CER-7, R-CER-9).
func TestOnlyTheApproversDecide(t *testing.T) {
	w := artifacttest.New(t)
	body := charter.Pipeline{ID: "p2", Key: w.SPKI("pipeline1"), Products: []string{"x"}}
	payload, err := w.State.Propose(charter.TypePipeline, body, artifacttest.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, by := range []string{"", "approver1", "approver2", "approver1 master1", "approver1 approver2 master1", "master1 master2 master3", "conductor witness1"} {
		var ks []crypto.Signer
		for n := range strings.FieldsSeq(by) {
			ks = append(ks, w.People[n].Signer())
		}
		env, err := envelope.Sign(charter.PayloadType, payload, ks...)
		if err != nil {
			t.Fatal(err)
		}
		line, _ := env.Marshal()
		s, err := charter.Fold(w.Charter, w.World, w.Anchors.Vault)
		if err != nil {
			t.Fatal(err)
		}
		if s.Apply(line) == nil {
			t.Errorf("decided by %q", by)
		}
	}
}

func TestStatementsThatFailClosed(t *testing.T) {
	w := artifacttest.New(t)
	tests := []struct {
		name, typ string
		body      any
	}{
		{"no products", charter.TypePipeline, charter.Pipeline{ID: "p", Key: w.SPKI("report"), Products: []string{}}},
		{"product that is no id", charter.TypePipeline, charter.Pipeline{ID: "p", Key: w.SPKI("report"), Products: []string{"gw100", "GW100"}}},
		{"no key", charter.TypePipeline, charter.Pipeline{ID: "p", Products: []string{"x"}}},
		{"taken id", charter.TypePipeline, charter.Pipeline{ID: "pipeline1", Key: w.SPKI("report"), Products: []string{"x"}}},
		{"bad id", charter.TypePipeline, charter.Pipeline{ID: "../p", Key: w.SPKI("report"), Products: []string{"x"}}},
		{"serial from 0", charter.TypeFactory, charter.Factory{CA: w.SelfSigned("birth-root"), Evidence: "e", ID: "f", Product: "x", SerialTo: 5}},
		{"no evidence", charter.TypeFactory, charter.Factory{CA: w.SelfSigned("birth-root"), ID: "f", Product: "x", SerialFrom: 1, SerialTo: 5}},
		{"station of nowhere", charter.TypeStation, charter.Station{Factory: "f", ID: "s", ReportKey: w.SPKI("report")}},
		{"key again", charter.TypeKey, w.Anchors.Keys[0]},
		{"relay role", charter.TypeRelay, charter.Relay{Certificate: w.SelfSigned("relay-ca"), ID: "r", Role: "portal"}},
		{"unknown type", "policy", struct{}{}},
		{"unknown member", charter.TypePipeline, map[string]any{"id": "p", "key": w.SPKI("report"), "products": []string{"x"}, "admin": true}},
		{"second genesis", charter.TypeGenesis, w.State.Genesis},
		{"epoch of unknown safe", charter.TypeEpoch, charter.Epoch{Safe: "x", Epoch: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, err := charter.Fold(w.Charter, w.World, w.Anchors.Vault)
			if err != nil {
				t.Fatal(err)
			}
			payload, err := s.Propose(tt.typ, tt.body, artifacttest.Now())
			if err != nil {
				t.Fatal(err)
			}
			env, _ := envelope.Sign(charter.PayloadType, payload, w.People["approver1"].Signer(), w.People["approver2"].Signer())
			line, _ := env.Marshal()
			if err := s.Apply(line); err == nil {
				t.Error("accepted")
			} else {
				t.Log(err)
			}
		})
	}
}

func TestGenesisFailsClosed(t *testing.T) {
	w := artifacttest.New(t)
	edits := map[string]func(*charter.Genesis){
		"threshold 1":           func(g *charter.Genesis) { g.Sets.Approvers.Need = 1 },
		"threshold 0":           func(g *charter.Genesis) { g.Sets.Releases.Need = 0 },
		"threshold above n":     func(g *charter.Genesis) { g.Safes[0].Openers.Need = 6 },
		"opener is approver":    func(g *charter.Genesis) { g.Safes[0].Openers.Members = []string{"approver1", "master1", "master2"} },
		"member twice":          func(g *charter.Genesis) { g.Safes[0].Openers.Members = []string{"master1", "master1", "master2"} },
		"no witness":            func(g *charter.Genesis) { g.Roster = append(g.Roster[:6:6], g.Roster[8:]...) },
		"person of other world": func(g *charter.Genesis) { g.Roster[0].Person.World = "live" },
		"short nonce":           func(g *charter.Genesis) { g.Nonce = g.Nonce[:31] },
		"no safe":               func(g *charter.Genesis) { g.Safes = nil },
		"person in two roles": func(g *charter.Genesis) {
			m := g.Roster[1]
			m.Role = charter.RoleWitness
			g.Roster = append(g.Roster, m)
		},
		"one key, two people": func(g *charter.Genesis) { g.Roster[1].Person.Ed25519 = g.Roster[2].Person.Ed25519 },
		"one card, two people": func(g *charter.Genesis) {
			c, _ := artifacttest.New(t, "master5").State.Genesis.Person("master5")
			for i := range 2 {
				g.Roster[i].Person.Ed25519, g.Roster[i].Person.P256 = nil, c.Person.P256
			}
		},
	}
	for name, edit := range edits {
		t.Run(name, func(t *testing.T) {
			g := w.State.Genesis
			g.Roster = append([]charter.Member{}, g.Roster...)
			g.Safes = append([]charter.Safe{}, g.Safes...)
			edit(&g)
			if g.Check() == nil {
				t.Error("accepted")
			}
		})
	}
}

func FuzzApply(f *testing.F) {
	w := artifacttest.New(f)
	for l := range bytes.Lines(w.Charter) {
		f.Add(bytes.TrimSpace(l))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		s := &charter.State{}
		_ = s.Apply(line)
	})
}
