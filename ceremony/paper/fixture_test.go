package paper

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/record"
	"keyrite/ceremony/script"
)

var placeholder = regexp.MustCompile(`@[A-Z0-9_]+@`)

// shipped parses every script that is shipped, its places filled in.
func shipped(t *testing.T) map[string]*script.Script {
	t.Helper()
	files, err := filepath.Glob("../../scripts/ceremonies/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	out := map[string]*script.Script{}
	for _, f := range files {
		if strings.HasSuffix(f, ".answers.yaml") {
			continue
		}
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text := placeholder.ReplaceAllStringFunc(string(data), func(p string) string {
			switch p {
			case "@KEYRITE@", "@HSMD@", "@MODULE@":
				sum := sha256.Sum256([]byte(p))
				return hex.EncodeToString(sum[:])
			case "@CLOCK@":
				return "utc"
			case "@NETWORK@":
				return "down"
			case "@SWAP@", "@DUMPS@":
				return "off"
			}
			return strings.ToLower(strings.Trim(p, "@"))
		})
		s, err := script.Parse(f, []byte(text))
		if err != nil {
			t.Errorf("%s: %v", f, err)
			continue
		}
		out[strings.TrimSuffix(filepath.Base(f), ".yaml")] = s
	}
	return out
}

// people fills the seats of a script.
func people(s *script.Script) []Person {
	var out []Person
	for _, d := range demands(s) {
		for i := range d.n {
			name := fmt.Sprintf("%s%d", strings.TrimPrefix(d.role, "key-"), i+1)
			if d.role == charter.RoleConductor {
				name = d.role
			}
			if d.group != "" {
				name = d.group + "-" + name
			}
			sum := sha256.Sum256([]byte(name))
			out = append(out, Person{Name: name, Role: d.role, Group: d.group, Fingerprint: hex.EncodeToString(sum[:])})
		}
	}
	return out
}

// sample is a record as the verifier gives it: closed, or void after an
// incident, with text from outside in every place that takes any.
func sample(state, text string, entries int) *record.Verified {
	v := &record.Verified{State: state, Root: strings.Repeat("ab", 32), Roles: map[string]string{"conductor": charter.RoleConductor, "master1": charter.RoleKeyMaster, "master2": charter.RoleKeyMaster, "witness1": charter.RoleWitness, "approver1": charter.RoleApprover}}
	v.Open = record.Open{
		Kind: "genesis", Mode: "rehearsal", Record: "0123456789abcdef", ScriptHash: strings.Repeat("cd", 32), BindHash: strings.Repeat("ef", 32), Title: text, World: "rehearsal:abcdefgh",
		Environment: map[string]string{"network": text}, Programs: []record.Program{{Name: text, SHA256: strings.Repeat("01", 32)}},
	}
	add := func(typ string, d record.Data) {
		raw, err := json.Marshal(d)
		if err != nil {
			panic(err)
		}
		n := int64(len(v.Timeline))
		v.Timeline = append(v.Timeline, record.Line{Entry: record.Entry{Data: raw, Mono: 1000 * n, Seq: n, Step: "1.1", Time: "2026-11-22T06:15:11Z", Type: typ}, Data: d})
	}
	add("open", &v.Open)
	key := record.KeyMade{Stage: "stored", Object: "00", Attributes: []record.Attribute{{Got: "true", Half: "private", Name: "CKA_SIGN", Wanted: "true"}, {Got: text, Half: "private", Name: "CKA_LABEL", Wanted: "x"}}}
	key.Key.ID, key.Key.Algorithm, key.Key.Domain, key.Key.Token.Label, key.Key.Token.Serial = "birth-root", "p256", "x509", text, text
	v.Keys = []record.KeyMade{key}
	v.Certificates = []record.Certificate{{ID: text, Issuer: text, Subject: text, SHA256: strings.Repeat("02", 32), Linted: "before and after"}}
	add("identified", &record.Identified{Name: "witness1", Role: charter.RoleWitness, Fingerprint: strings.Repeat("03", 32)})
	add("miss", &record.Miss{Who: text, What: "passphrase", Try: 1, Of: 3})
	add("contingency", &record.Contingency{ID: text, On: "late", Reason: text, Step: "1.1"})
	add("token", &record.TokenReady{Safe: "root", Token: key.Key.Token})
	add("dealt", &record.Dealt{Epoch: charter.Epoch{Epoch: 1, Need: 2, Safe: "root", Shares: make([]charter.Share, 3), Token: key.Key.Token}})
	add("key", &key)
	for i := range entries {
		add("statement", &record.Statement{LineHash: strings.Repeat("04", 32), Seq: i, Signers: []string{text}, Type: text})
	}
	if state == "CLOSED" {
		v.Charter = &charter.State{People: charter.People{Safes: []charter.Safe{{Name: "root", Openers: charter.Set{Members: []string{"master1", "master2"}, Need: 2}}}, Sets: charter.Sets{Approvers: charter.Set{Members: []string{"approver1", text}, Need: 2}, Releases: charter.Set{Members: []string{"approver1"}, Need: 2}}}}
		add("words", &record.Words{What: "anchors.json", Words: strings.Repeat("Zulu liberty ", 16)})
		v.Missing = []string{"witness1"}
	} else {
		v.Cause = text
		v.Incidents = []record.Incident{{By: text, Reason: text}}
		add("incident", &v.Incidents[0])
		add("cleanup", &record.Cleanup{Burned: []string{"root/1"}, Destroyed: []string{"00"}, Left: -1, Safe: "root", Tainted: "never use this token again"})
	}
	add("end", &record.End{State: state, Cause: v.Cause})
	v.Entries = int64(len(v.Timeline))
	return v
}
