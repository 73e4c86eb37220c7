package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/openrequest"
	"keyrite/internal/clitest"
	"keyrite/internal/tpm/tpmtest"
	"keyrite/vault/vaulttest"
)

// furnished is a vault with a secret and a cipher text by a software key in its store,
// which it has sealed.
func furnished(t *testing.T) (h *house, c *clients, cipher string) {
	t.Helper()
	h = newHouse(t)
	c = newClients(h)
	h.bind("head: {file: head.json}\ntls: {certificate: tls.pem, key: tls.key}\n")
	h.Approve(charter.TypeMount, charter.Mount{ID: "kv", Engine: "kv"})
	h.Approve(charter.TypeMount, charter.Mount{ID: "transit", Engine: "transit"})
	h.Approve(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: "line1", Software: &charter.SoftwareKey{MinDecryption: 1, MinEncryption: 1, Type: "aes256-gcm96", Versions: 1}})
	can := []access.Capability{access.Create, access.Read, access.Update}
	h.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: 1, Rules: []access.Rule{
		{Path: "kv/data/line1/*", Can: can}, {Path: "transit/encrypt/line1", Can: can}, {Path: "transit/decrypt/line1", Can: can},
	}})
	h.Approve(charter.TypeIdentity, charter.Identity{ID: "mes", Policies: []string{"line1"}, TTL: 600, Certificate: &charter.Certificate{CA: c.ca.Raw, URI: "spiffe://example.com/mes"}})
	h.host()
	s := h.serveClients(c)
	h.open(openrequest.Create, "master1", "master2", "master3")
	if code, body := c.ask(h, "PUT", "kv/data/line1/plc", `{"data":{"a":"kept"}}`); code != 200 {
		t.Fatalf("write: %d %v", code, body)
	}
	code, body := c.ask(h, "PUT", "transit/encrypt/line1", `{"plaintext":"`+base64.StdEncoding.EncodeToString([]byte("recipe"))+`"}`)
	data, _ := body["data"].(map[string]any)
	cipher, _ = data["ciphertext"].(string)
	if code != 200 || cipher == "" {
		t.Fatalf("encrypt: %d %v", code, body)
	}
	s.stop()
	return h, c, cipher
}

// lose loses the work token. NAME.share are those of the standby from now on, and
// NAME.old those of before.
func (h *house) lose() {
	h.t.Helper()
	for name, file := range h.Shares {
		h.write(name+".old", file)
	}
	h.Lose()
	for name, file := range h.Shares {
		h.write(name+".share", file)
	}
	h.write("report.json", h.Report)
	h.write("charter.jsonl", h.Charter)
}

// rebind has the binding name the standby's safe.
func (h *house) rebind() {
	h.t.Helper()
	h.write("vault.yaml", bytes.Replace(h.read("vault.yaml"), []byte("safe: "+vaulttest.Safe+"\n"), []byte("safe: "+vaulttest.Standby+"\n"), 1))
}

// give has key masters answer an operation with their files of that ending, and returns
// the command that hands the answers in.
func (h *house) give(operation, ending string) []string {
	h.t.Helper()
	request := operation + ".request"
	_ = os.Remove(h.path(request))
	h.vault(0, "unseal", "--new-attempt", "--operation", operation, "--out", request)
	args := []string{"unseal"}
	for _, n := range []string{"master2", "master3", "master5"} {
		answer := operation + "." + n
		_ = os.Remove(h.path(answer))
		if code, text := h.answerWith(request, n, n+ending, answer); code != 0 {
			h.t.Fatalf("%s: exit %d: %s", n, code, text)
		}
		args = append(args, "--answer", answer)
	}
	return args
}

// holds wants what was in the store before the loss.
func (h *house) holds(c *clients, cipher string) {
	h.t.Helper()
	if code, body := c.ask(h, "GET", "kv/data/line1/plc", ""); code != 200 || !strings.Contains(fmt.Sprint(body), "a:kept") {
		h.t.Errorf("read: %d %v", code, body)
	}
	code, body := c.ask(h, "PUT", "transit/decrypt/line1", `{"ciphertext":"`+cipher+`"}`)
	if code != 200 || !strings.Contains(fmt.Sprint(body), base64.StdEncoding.EncodeToString([]byte("recipe"))) {
		h.t.Errorf("decrypt: %d %v", code, body)
	}
}

// With the work token destroyed a quorum of its safe and one of the standby's have the
// vault's store again, secrets and software keys, with the shipped programs (R-CER-24).
// Neither quorum does alone.
func TestVaultAfterTheLossOfItsToken(t *testing.T) {
	h, c, cipher := furnished(t)
	h.lose()
	if code, _, errs := h.run("keyrite-vault", "serve", "--bind", "vault.yaml", "--state-dir", "state"); code != 13 || !strings.Contains(errs, vaulttest.Standby) {
		t.Errorf("under the lost safe: exit %d: %s", code, errs)
	}
	h.rebind()
	s := h.serveClients(c)
	if _, errs := h.vault(13, "unseal", "--new-attempt", "--out", "x.request"); !strings.Contains(errs, "was retired") || !strings.Contains(errs, "The token was lost") {
		t.Errorf("unseal first: %s", errs)
	}
	h.vault(15, "unseal", "--new-attempt", "--operation", "reseal", "--out", "x.request")
	h.vault(16, "unseal", "--new-attempt", "--operation", "create", "--out", "x.request")

	carry := h.give(openrequest.Carry, ".old")
	if _, out, _ := h.run("keyrite-verify", "open-request", "carry.request", "--anchor", "anchors.json", "--charter", "charter.jsonl"); !strings.Contains(out, "safe work was retired, and safe work2 took over") {
		t.Errorf("what is shown: %s", out)
	}
	if code, text := h.answerWith("carry.request", "master1", "master1.share", "x.answer"); code != 14 {
		t.Errorf("carry with a share of the standby: exit %d: %s", code, text)
	}
	if out, _ := h.vault(0, carry...); !strings.Contains(out, "the key of the store is open") {
		t.Errorf("%s", out)
	}
	if code, _ := c.ask(h, "GET", "kv/data/line1/plc", ""); code != 503 || !h.status().Sealed {
		t.Errorf("the old shares alone: %d", code)
	}
	reseal := h.give(openrequest.Reseal, ".share")
	if _, out, _ := h.run("keyrite-verify", "open-request", "reseal.request", "--anchor", "anchors.json", "--charter", "charter.jsonl"); !strings.Contains(out, "was under safe work,") {
		t.Errorf("what is shown: %s", out)
	}
	if code, text := h.answerWith("reseal.request", "master1", "master1.old", "x.answer"); code != 14 {
		t.Errorf("reseal with a share of the lost safe: exit %d: %s", code, text)
	}
	if out, _ := h.vault(0, reseal...); !strings.Contains(out, "OPEN") {
		t.Fatalf("%s", out)
	}
	h.holds(c, cipher)
	h.vault(0, "seal")
	s.ready()
	s.listeners(c)
	h.vault(13, "unseal", "--new-attempt", "--operation", "carry", "--out", "x.request")
	h.open(openrequest.Unseal, "master1", "master4", "master5")
	h.holds(c, cipher)
	s.stop()
	h.noCanary()
}

// killedAt has the vault killed when it makes that call on that file, named as it names it,
// while the last answers are handed in.
func (h *house) killedAt(s *serving, call, file string, answers []string) {
	h.t.Helper()
	trace := exec.Command("strace", "-f", "-q", "-o", h.path("trace"), "-p", strconv.Itoa(s.cmd.Process.Pid), "-P", file, "-e", "trace="+call, "-e", "inject="+call+":signal=SIGKILL")
	if err := trace.Start(); err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = trace.Process.Signal(syscall.SIGINT); _ = trace.Wait() }()
	attached := func() bool {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(s.cmd.Process.Pid) + "/status")
		return err == nil && !strings.Contains(string(b), "TracerPid:\t0\n")
	}
	if !clitest.Await(10*time.Second, attached) {
		h.t.Fatal("nothing traces the vault")
	}
	h.vault(19, answers...)
	_, _ = io.Copy(io.Discard, s.out)
	if err := s.cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		h.t.Fatalf("the vault was not killed at %s of %s: %v", call, file, err)
	}
	h.alone(0)
}

// A vault that is killed while the standby takes its store over has it under the one safe
// or the other, and what is to be done can be done again.
func TestKilledWhileTheStoreIsTakenOver(t *testing.T) {
	h, c, cipher := furnished(t)
	h.lose()
	h.rebind()

	s := h.serveClients(c)
	h.vault(0, h.give(openrequest.Carry, ".old")...)
	h.killedAt(s, "renameat", "state/store/store.db.new", h.give(openrequest.Reseal, ".share"))
	s = h.serveClients(c)
	if _, errs := h.vault(14, h.give(openrequest.Unseal, ".share")...); !strings.Contains(errs, "repeat the operations carry and reseal") {
		t.Errorf("the store is under the lost safe: %s", errs)
	}
	h.vault(0, h.give(openrequest.Carry, ".old")...)
	h.killedAt(s, "unlinkat", "state/store-key.work.1.json", h.give(openrequest.Reseal, ".share"))

	s = h.serveClients(c)
	h.vault(0, h.give(openrequest.Carry, ".old")...)
	if _, errs := h.vault(14, h.give(openrequest.Reseal, ".share")...); !strings.Contains(errs, "the operation is unseal") {
		t.Errorf("the store is under the standby: %s", errs)
	}
	h.vault(0, h.give(openrequest.Unseal, ".share")...)
	h.holds(c, cipher)
	s.stop()
}

// When the host's TPM, which had the head of the store, is gone with the token, the
// standby takes the store over as it lies, by rehead in place of reseal.
func TestVaultAfterTheLossOfTokenAndTPM(t *testing.T) {
	h := newHouse(t)
	m := tpmtest.Start(t)
	h.headAt(m)
	h.host()
	h.vault(0, "tpm", "create")
	s := h.serve()
	h.open(openrequest.Create, "master1", "master2", "master3")
	s.stop()
	m.Stop()
	h.lose()
	h.headAt(tpmtest.Start(t))
	h.rebind()
	h.vault(0, "tpm", "create")

	s = h.serve()
	h.vault(13, "unseal", "--new-attempt", "--operation", "rehead", "--out", "x.request")
	h.vault(0, h.give(openrequest.Carry, ".old")...)
	if _, errs := h.vault(14, h.give(openrequest.Reseal, ".share")...); !strings.Contains(errs, "rehead") {
		t.Errorf("the head is lost: %s", errs)
	}
	h.vault(0, h.give(openrequest.Rehead, ".share")...)
	if _, out, _ := h.run("keyrite-verify", "open-request", "rehead.request", "--anchor", "anchors.json", "--charter", "charter.jsonl"); !strings.Contains(out, "was under safe work,") || !strings.Contains(out, "newest copy") {
		t.Errorf("what is shown: %s", out)
	}
	if st := h.status(); st.Sealed || st.Operation != openrequest.Rehead {
		t.Errorf("%+v", st)
	}
	h.vault(0, "seal")
	s.ready()
	h.open(openrequest.Unseal, "master1", "master4", "master5")
	s.stop()
}
