package actions

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/artifact/succession"
	"keyrite/signer/tuf"
)

// succeeds turns the shipped script, which is for the firmware key, into one for a key
// of the root token, as its first lines say: the twin in root2 takes over, a new twin
// is born in root, the compromised key is destroyed.
func succeeds(t testing.TB, id, domain, extra string) func(string) string {
	return func(text string) string {
		text = cutLines(oneLineSafes(text), "name: work", "name: work2", "safe: work", "safe: work2", "do: keys.")
		text = strings.NewReplacer("dormant twin of firmware", "dormant twin of "+id, "firmware", id, "always_authenticate: false", "always_authenticate: true").Replace(text)
		text = strings.Replace(text, "    domain: dsse\n", "    domain: "+domain+"\n", 1)
		for _, r := range [][2]string{
			{"keys:\n  - id: " + id + "-3\n", "keys:\n  - id: " + id + "-3\n    safe: root\n"},
			{"existing:\n", "existing:\n  - {id: " + id + ", safe: root, domain: " + domain + "}\n  - {id: " + id + "-2, safe: root2, domain: " + domain + "}\n"},
			{"  - {id: \"5.3\"", "  - {id: \"5.1\", do: keys.store, safe: root, title: Store, limit: 10m}\n  - {id: \"5.2\", do: keys.prove, safe: root, title: Prove, limit: 10m}\n  - {id: \"5.3\""},
		} {
			if !strings.Contains(text, r[0]) {
				t.Fatalf("the script has no %q:\n%s", r[0], text)
			}
			text = strings.Replace(text, r[0], r[1], 1)
		}
		return strings.Replace(text, "  - {id: \"4.2\"", extra+"  - {id: \"4.2\"", 1)
	}
}

// TestSuccessionOfTheRoots holds a succession for each key of the root token that has
// a twin: the field is told of the twin and of the next one, whoever trusts the update
// root before takes the new one, and the old key does nothing any more.
func TestSuccessionOfTheRoots(t *testing.T) {
	t.Parallel()
	f := found(t)
	t.Run("tuf-root", func(t *testing.T) { testTUFRootSucceeds(t, f.fork(t)) })
	t.Run("birth-root", func(t *testing.T) { testBirthRootSucceeds(t, f.fork(t)) })
	t.Run("succession", func(t *testing.T) { testSuccessionSucceeds(t, f.fork(t)) })
}

// told verifies the newest statement and returns the record of the key in force.
func (f *founded) told(t *testing.T, v *record.Verified, id, domain string, signers ...string) *succession.Statement {
	t.Helper()
	s, err := succession.Verify(f.output(t, "succession.json"), f.anchors)
	if err != nil || !slices.Equal(s.Signers(), signers) {
		t.Fatalf("statement: %+v, %v", s, err)
	}
	eff, err := succession.Apply(f.anchors, s)
	if err != nil {
		t.Fatal(err)
	}
	now, _, err := eff.Key(id, domain)
	if err != nil || now.ID != id+"-2" || v.Charter.Retired[id].Reason != charter.ReasonCompromised {
		t.Errorf("in force: %v, %v", now, err)
	}
	if k, err := v.Charter.Key(id, domain); err != nil || k.ID != id+"-2" {
		t.Errorf("in the charter: %v, %v", k, err)
	}
	return s
}

func testTUFRootSucceeds(t *testing.T, f *founded) {
	before := f.output(t, "1.root.json")
	// Without the new update root the record would leave the fleet with the old key.
	root := "  - {id: \"4.9\", do: update.root, title: Update root, limit: 30m}\n"
	v := f.later(t, plan{kind: "succession", bind: rootOf(f, "1.root.json"), edit: succeeds(t, "tuf-root", "tuf-root", root)})
	f.told(t, v, "tuf-root", "tuf-root", "succession", "succession-2")
	next := f.output(t, "2.root.json")
	if err := tuf.CheckRoot(next, v.Charter); err != nil {
		t.Error(err)
	}
	if err := tuf.CheckNext(before, next); err != nil {
		t.Error(err)
	}
	if err := tuf.CheckRoot(before, v.Charter); fault.ClassOf(err) != fault.Verify {
		t.Errorf("the root before, under the charter of now: %v", err)
	}
	if d := v.Charter.Dormant("tuf-root"); len(d) != 1 || d[0].ID != "tuf-root-3" {
		t.Errorf("dormant: %v", d)
	}
}

func testBirthRootSucceeds(t *testing.T, f *founded) {
	cert := "certificates:\n  - {id: birth-root-3, profile: birth-root, key: birth-root-3, issuer: birth-root-3}\n\nexisting:\n"
	issue := "  - {id: \"3.9\", do: cert.issue, cert: birth-root-3, title: Its certificate, limit: 10m}\n  - {id: \"3.2\""
	v := f.later(t, plan{kind: "succession", edit: func(text string) string {
		text = succeeds(t, "birth-root", "x509", "")(text)
		text = strings.Replace(text, "existing:\n", cert, 1)
		return strings.Replace(text, "  - {id: \"3.2\"", issue, 1)
	}})
	s := f.told(t, v, "birth-root", "x509", "succession", "succession-2")
	eff, err := succession.Apply(f.anchors, s)
	if err != nil {
		t.Fatal(err)
	}
	now, err := eff.Certificate("birth-root")
	if err != nil || !bytes.Equal(now.Raw, f.anchors.Certificates["birth-root-2"]) {
		t.Errorf("birth root in force: %v", err)
	}
	if eff.Dormant("birth-root") == nil || eff.Certificates["birth-root-3"] == nil {
		t.Error("the next twin is not known, or has no certificate")
	}
	// A factory is certified by the twin from now on; the old key issues nothing.
	f.request(t, "f2.csr")
	on := f.statement()
	bind := func(b *Bind) { on(b); b.Requests["factory2-ca"] = "f2.csr" }
	by := func(issuer, safe, token string) func(string) string {
		return func(text string) string {
			i, j := strings.Index(text, "# The serial numbers"), strings.Index(text, "# What people predictably do.")
			text = cutLines(text[:i]+text[j:], "crl.issue", "update.root", "id: tuf-root")
			return strings.NewReplacer("issuer: birth-root,", "issuer: "+issuer+",", "{id: birth-root, safe: root,", "{id: "+issuer+", safe: "+safe+",",
				"{name: root, token: founded-root, state: existing}", "{name: "+safe+", token: "+token+", state: existing, dormant: "+map[bool]string{true: "true", false: "false"}[safe == "root2"]+"}",
				"do: safe.open, safe: root,", "do: safe.open, safe: "+safe+",").Replace(text)
		}
	}
	if _, err := f.try(t, plan{kind: "sign-offline", record: "old", bind: bind, edit: by("birth-root", "root", "founded-root")}); err == nil || !strings.Contains(err.Error(), "birth-root") {
		t.Errorf("the old root certifies a factory: %v", err)
	}
	v = f.later(t, plan{kind: "sign-offline", bind: bind, edit: by("birth-root-2", "root2", "founded-root-2")})
	b, _ := pem.Decode(f.output(t, "factory2-ca.cert.pem"))
	ca, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := birthcert.Read(ca, birthcert.FactoryCA, now); err != nil {
		t.Errorf("the factory's CA under the twin: %v", err)
	}
	old, err := f.anchors.Certificate("birth-root")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := birthcert.Read(ca, birthcert.FactoryCA, old); err == nil {
		t.Error("the factory's CA holds under the old root too")
	}
	if v.Charter.Factories["factory2"].ID == "" {
		t.Error("the factory is not in the charter")
	}
}

// The succession key itself is compromised: its twin signs, alone, and what needs both
// is over.
func testSuccessionSucceeds(t *testing.T, f *founded) {
	v := f.later(t, plan{kind: "succession", edit: func(text string) string {
		text = succeeds(t, "succession", "dsse", "")(text)
		// The id of the shipped script is in it twice now: once as the key, once as the signer.
		text = strings.Replace(text, "  - {id: succession, safe: root, domain: dsse}\n  - {id: succession-2, safe: root2, domain: dsse}\n", "", 1)
		from, to := strings.Index(text, "# The new twin lies"), strings.Index(text, "existing:\n")
		text = text[:from] + text[to:]
		return cutLines(text, "do: key.generate", "do: keys.", "do: births.sign")
	}})
	f.told(t, v, "succession", "dsse", "succession-2")
}
