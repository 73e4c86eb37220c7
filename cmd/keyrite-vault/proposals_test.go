package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/openrequest"
)

// approve is an approver at home: keyrite charter approve, with the proposal as it came
// from the vault.
func (h *house) approve(proposal, name string) []byte {
	h.t.Helper()
	sealed, err := h.People[name].Seal([]byte(phrase(name)))
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(name+".key", sealed)
	h.write(name+".pass", []byte(phrase(name)+"\n"))
	r, err := os.Open(h.path(name + ".pass"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer r.Close()
	cmd := h.command("keyrite", "charter", "approve", proposal, "--key", name+".key", "--anchor", "anchors.json", "--charter", "charter.jsonl", "--out", name+".approval", "--passphrase-fd", "3")
	cmd.ExtraFiles = []*os.File{r}
	if text, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%s approves: %v: %s", name, err, text)
	}
	return h.read(name + ".approval")
}

// TestProposalsOfAVault: what is proposed to a vault is approved by the programs of the
// approvers at home, outlives kill -9 of the vault, is in force when it is appended, and
// who looks into the trail, there or with keyrite-verify, sees all of it.
func TestProposalsOfAVault(t *testing.T) {
	h := newHouse(t)
	c := newClients(h)
	h.bind("head: {file: head.json}\ntls: {certificate: tls.pem, key: tls.key}\n")
	h.Approve(charter.TypePolicy, charter.Policy{ID: "clerk", Version: 1, Rules: []access.Rule{
		{Path: "keyrite/charter", Can: []access.Capability{access.Update}},
		{Path: "keyrite/proposals", Can: []access.Capability{access.Create, access.List}},
		{Path: "keyrite/proposals/*", Can: []access.Capability{access.Read, access.Update}},
		{Path: "keyrite/trail", Can: []access.Capability{access.Read}},
	}})
	h.Approve(charter.TypeIdentity, charter.Identity{ID: "mes", Policies: []string{"clerk"}, TTL: 600, Certificate: &charter.Certificate{CA: c.ca.Raw, URI: "spiffe://example.com/mes"}})
	h.host()
	h.nameLog()
	h.write("charter.jsonl", h.Charter)
	s := h.serveClients(c)
	h.open(openrequest.Create, "master1", "master2", "master3")

	code, body := c.ask(h, "PUT", "keyrite/proposals", `{"type":"mount","body":{"id":"kv","engine":"kv"}}`)
	if code != 200 {
		t.Fatalf("propose: %d %v", code, body)
	}
	at := "keyrite/proposals/" + body["data"].(map[string]any)["id"].(string)
	h.write("kv.proposal", []byte(body["data"].(map[string]any)["proposal"].(string)))
	bring := func(name string) {
		t.Helper()
		text, err := json.Marshal(string(h.approve("kv.proposal", name)))
		if err != nil {
			t.Fatal(err)
		}
		if code, body := c.ask(h, "PUT", at+"/approvals", `{"approval":`+string(text)+`}`); code != 200 || body["data"].(map[string]any)["approver"] != name {
			t.Fatalf("approval of %s: %d %v", name, code, body)
		}
	}
	bring("approver1")
	if code, body := c.ask(h, "PUT", at+"/append", ""); code != 403 || !strings.Contains(fmt.Sprint(body), "1 of 2 approvals") {
		t.Errorf("append too early: %d %v", code, body)
	}

	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = s.cmd.Wait()
	h.alone(0)
	s = h.serveClients(c)
	h.open(openrequest.Unseal, "master1", "master2", "master3")
	if code, body := c.ask(h, "GET", at, ""); code != 200 || body["data"].(map[string]any)["proposal"] != string(h.read("kv.proposal")) || len(body["data"].(map[string]any)["approvals"].([]any)) != 1 {
		t.Fatalf("after the kill: %d %v", code, body)
	}
	bring("approver2")
	if code, body := c.ask(h, "PUT", at+"/append", ""); code != 200 || body["data"].(map[string]any)["size"] != float64(h.State.Size()+1) {
		t.Fatalf("append: %d %v", code, body)
	}
	if code, _ := c.ask(h, "GET", at, ""); code != 404 {
		t.Errorf("it still waits: %d", code)
	}
	if n := strings.Count(string(h.read("charter.jsonl")), "\n"); n != h.State.Size()+1 {
		t.Errorf("the file has %d statements", n)
	}
	code, body = c.ask(h, "GET", "keyrite/trail?path="+at+"&identity=mes&class=none&operation=update", "")
	if code != 200 || len(body["data"].(map[string]any)["entries"].([]any)) != 3 {
		t.Errorf("the trail: %d %v", code, body)
	}
	h.vault(0, "audit", "--out", h.path("trail.jsonl"))
	if code, out, errs := h.run("keyrite-verify", "audit", "trail.jsonl", "--anchor", "anchors.json", "--charter", "charter.jsonl"); code != 0 {
		t.Errorf("keyrite-verify: exit %d: %s%s", code, out, errs)
	}
	s.stop()
	h.alone(0)
	h.noCanary()
}
