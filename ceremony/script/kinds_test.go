package script

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// head is what every script of these tests begins with.
const head = `format: keyrite/script/v1
kind: %s
title: Test
purpose: Test the language.
pins: {keyrite: %[2]s, hsmd: %[2]s, module: %[2]s}
environment: {network: down, swap: "off"}
roles: {conductor: 1, conductor_operates: false, operator: 1, key_masters: {need: 3, of: 5}, witnesses: 2, approvers: {need: 2, of: 3}, auditors: 1}
summon:
  - {id: "1.1", do: environment.check, title: Computer, limit: 10m}
  - {id: "1.2", do: vault.load, title: Vault, limit: 10m}
  - {id: "1.3", do: people.identify, title: People, limit: 1h}
`

const tail = `  - {id: "9.8", do: outputs.write, title: Outputs, limit: 10m}
  - {id: "9.9", do: read.aloud, title: Words, limit: 10m}
`

const usage = "{sign: true, decrypt: false, unwrap: false, derive: false, sign_recover: false, extractable: false, sensitive: true, always_authenticate: false, destroyable: true}"

// steps writes numbered steps: "verb member value member value".
func steps(section, lines string) string {
	out := ""
	for i, l := range strings.Split(lines, ";") {
		f := strings.Fields(l)
		out += fmt.Sprintf("  - {id: \"%s.%d\", do: %s, title: T, limit: 10m", section, i+1, f[0])
		for j := 1; j < len(f); j += 2 {
			out += ", " + f[j] + ": " + f[j+1]
		}
		out += "}\n"
	}
	return out
}

// small are scripts of every kind but genesis, as short as the language allows.
func small() map[string]string {
	key := func(id, safe, more string) string {
		return "{id: " + id + ", safe: " + safe + ", purpose: p, algorithm: p256, domain: dsse" + more + ", usage: " + usage + "}"
	}
	work := "safes: [{name: work, token: w}]\n"
	both := "safes: [{name: work, token: w}, {name: work2, token: w2, dormant: true, group: standby, need: 2, of: 3}]\n"
	return map[string]string{
		"new-key": work + "keys:\n  - " + key("extra", "work", "") + "\nrun:\n" +
			steps("2", "safe.open safe work;key.generate key extra;charter.append") + "seal:\n" + steps("8", "keys.store safe work;keys.prove safe work") + tail,
		"reshare": work + "run:\n" + steps("2", "safe.open safe work;people.change;shares.deal safe work;shares.receipts safe work;token.repin safe work;charter.append") + "seal:\n" + tail,
		"transfer": both + "existing: [{id: kv, safe: work}]\nrun:\n" + steps("2", "safe.open safe work;safe.open safe work2;key.transfer key kv safe work to work2;charter.append") +
			"seal:\n" + steps("8", "keys.prove safe work2") + tail,
		"hsm-lost": "safes: [{name: work2, token: w2}]\nexisting: [{id: firmware}, {id: firmware-2, safe: work2}]\nsuccessions: [{id: firmware, by: firmware-2, reason: lost}]\nrun:\n" +
			steps("2", "safe.open safe work2;succession.sign;charter.append;update.root") + "seal:\n" + tail,
		"succession": both + "existing: [{id: firmware, safe: work}, {id: firmware-2, safe: work2}]\nsuccessions: [{id: firmware, by: firmware-2, reason: compromised}]\nrun:\n" +
			steps("2", "safe.open safe work;safe.open safe work2;succession.sign;key.destroy key firmware;charter.append") + "seal:\n" + tail,
		"sign-offline": "safes: [{name: root, token: r}]\nexisting: [{id: birth-root, safe: root, domain: x509}]\n" +
			"crls: [{id: births, issuer: birth-root, number: 1, days: 365, revoked: [{serial: 0a1b, date: 2026-11-22, reason: keyCompromise}]}]\nrun:\n" +
			steps("2", "safe.open safe root;crl.issue crl births") + "seal:\n" + tail,
		"enrol":  "pipelines: [{id: p2, products: [gw200], key: p2}]\nrun:\n" + steps("2", "break;charter.append") + "seal:\n" + tail,
		"retire": work + "existing: [{id: old, safe: work}]\nrun:\n" + steps("2", "safe.open safe work;key.destroy key old;token.destroy safe work;charter.append") + "seal:\n" + tail,
	}
}

func smallScript(kind string) string {
	return fmt.Sprintf(head, kind, strings.Repeat("ab", 32)) + small()[kind]
}

func lint(text string) error {
	s, err := Parse("t.yaml", []byte(text))
	if err != nil {
		return err
	}
	return s.Lint()
}

func TestEveryKindLints(t *testing.T) {
	for _, k := range Kinds() {
		text := genesis(t)
		if k.Name != "genesis" {
			text = smallScript(k.Name)
		}
		if err := lint(text); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
	}
}

// A script as 'new' wrote it before there were contingencies, successors and other
// kinds still lints: version 1 is read for ever.
func TestFirstGenesisLints(t *testing.T) {
	data, err := os.ReadFile("testdata/first-genesis.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := lint(string(data)); err != nil {
		t.Error(err)
	}
}
