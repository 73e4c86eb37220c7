package main

import (
	"fmt"
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
)

// TestFailedSync: when the disk refuses a sync nothing is served any more, health and
// status say why, the vault can be sealed, and the next process has what was
// acknowledged.
func TestFailedSync(t *testing.T) {
	h := newHouse(t)
	c := newClients(h)
	h.bind("head: {file: head.json}\ntls: {certificate: tls.pem, key: tls.key}\n")
	h.Approve(charter.TypeMount, charter.Mount{ID: "kv", Engine: "kv"})
	h.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: 1, Rules: []access.Rule{{Path: "kv/data/line1/*", Can: []access.Capability{access.Create, access.Read, access.Update}}}})
	h.Approve(charter.TypeIdentity, charter.Identity{ID: "mes", Policies: []string{"line1"}, TTL: 600, Certificate: &charter.Certificate{CA: c.ca.Raw, URI: "spiffe://example.com/mes"}})
	h.host()
	s := h.serveClients(c)
	h.open(openrequest.Create, "master1", "master2", "master3")
	if code, body := c.ask(h, "PUT", "kv/data/line1/plc", `{"data":{"a":"kept"}}`); code != 200 {
		t.Fatalf("write: %d %v", code, body)
	}
	code, body := h.failSync(s, func() (int, map[string]any) { return c.ask(h, "PUT", "kv/data/line1/lost", `{"data":{"a":"lost"}}`) })
	if code != 503 || !strings.Contains(fmt.Sprint(body), "storage") {
		t.Errorf("the write that failed: %d %v", code, body)
	}
	for _, ask := range [][2]string{{"GET", "kv/data/line1/plc"}, {"PUT", "kv/data/line1/later"}, {"GET", "kv/data/line2/x"}} {
		if code, body := c.ask(h, ask[0], ask[1], ""); code != 503 || !strings.Contains(fmt.Sprint(body), "stopped") {
			t.Errorf("%v: %d %v", ask, code, body)
		}
	}
	if code, body := c.ask(h, "GET", "sys/health", ""); code != 503 || body["sealed"] != false {
		t.Errorf("health: %d %v", code, body)
	}
	if out, _ := h.vault(0, "status", "--json"); !strings.Contains(out, "input/output error") {
		t.Errorf("status: %s", out)
	}
	h.vault(0, "seal")
	s.ready()
	s.listeners(c)
	h.open(openrequest.Unseal, "master3", "master4", "master5")
	if code, body := c.ask(h, "GET", "kv/data/line1/plc", ""); code != 200 || !strings.Contains(fmt.Sprint(body), "kept") {
		t.Errorf("what was acknowledged: %d %v", code, body)
	}
	s.stop()
}

// failSync has each sync of the vault's process fail until a request does, and returns
// what that one was answered.
func (h *house) failSync(s *serving, ask func() (int, map[string]any)) (code int, body map[string]any) {
	h.t.Helper()
	trace := exec.Command("strace", "-f", "-q", "-o", h.path("trace"), "-p", strconv.Itoa(s.cmd.Process.Pid), "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO")
	if err := trace.Start(); err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = trace.Process.Signal(syscall.SIGINT); _ = trace.Wait() }()
	if !clitest.Await(30*time.Second, func() bool { code, body = ask(); return code != 200 }) {
		h.t.Fatal("no sync fails")
	}
	return code, body
}
