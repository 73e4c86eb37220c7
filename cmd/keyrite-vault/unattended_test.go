package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/openrequest"
	"keyrite/internal/clitest"
	"keyrite/internal/tpm/tpmtest"
	"keyrite/vault/unattended"
	"keyrite/vault/unseal"
)

// opensByItself waits for a vault that needs nobody, or for the word why it does.
func (h *house) opensByItself() *statusResult {
	h.t.Helper()
	var s *statusResult
	if !clitest.Await(60*time.Second, func() bool { s = h.status(); return !s.Sealed }) {
		h.t.Fatalf("it stays sealed: %+v", s.Unattended)
	}
	if s.Operation != unseal.OpUnattended {
		h.t.Errorf("open by %s", s.Operation)
	}
	return s
}

// staysSealed waits until the vault has said why it does not open by itself.
func (h *house) staysSealed(s *serving, why string) {
	h.t.Helper()
	var st *statusResult
	if !clitest.Await(60*time.Second, func() bool { st = h.status(); return st.Unattended != nil && strings.Contains(st.Unattended.Why, why) }) || !st.Sealed {
		h.t.Errorf("sealed %v: %+v, want %q", st.Sealed, st.Unattended, why)
	}
	s.stop()
}

// A vault that is killed, and whose machine loses its power, opens by itself under a
// statement; not after it was sealed, running or not, nor after another boot, nor once
// the statement has ended.
func TestUnattendedVault(t *testing.T) {
	h := newHouse(t)
	m := tpmtest.Start(t)
	bind := func() { h.bind(fmt.Sprintf("head: {file: head.json}\ntpm: %q\n", m.Addr)) }
	bind()
	h.host()
	h.vault(0, "tpm", "create")
	s := h.serve()
	h.open(openrequest.Create, "master1", "master2", "master3")
	if st := h.status(); st.Unattended != nil {
		t.Errorf("off by default: %+v", st.Unattended)
	}
	h.write("body.json", fmt.Appendf(nil, `{"expires":%q,"host":"vault9","id":"nights","pcrs":[0,7]}`, charter.FormatTime(time.Now().Add(24*time.Hour))))
	if code, _, errs := h.run("keyrite", "charter", "propose", "unattended", "--body", "body.json", "--charter", "charter.jsonl", "--anchor", "anchors.json", "--out", "nights.proposal"); code != 0 {
		t.Fatalf("exit %d: %s", code, errs)
	}
	var u charter.Unattended
	if err := json.Unmarshal(h.read("body.json"), &u); err != nil {
		t.Fatal(err)
	}
	h.ApproveAt(charter.TypeUnattended, u, time.Now())
	h.write("charter.jsonl", h.Charter)
	s.kill()
	s = h.serve()
	h.open(openrequest.Unseal, "master1", "master2", "master3")
	if out, _ := h.vault(0, "status"); !strings.Contains(out, "unattended restart: ON by statement nights") {
		t.Errorf("status says %s", out)
	}
	s.kill()
	m.Restart()
	bind()
	s = h.serve()
	h.opensByItself()
	s.stop() // SIGTERM, as an update of the machine has it
	s = h.serve()
	h.opensByItself()
	kept := h.read("state/" + unattended.FileName)
	h.vault(0, "seal")
	s.ready()
	if st := h.status(); !st.Sealed || st.Unattended.Kept {
		t.Errorf("after the seal: %+v", st.Unattended)
	}
	s.kill()
	h.write("state/"+unattended.FileName, kept)
	s = h.serve()
	h.staysSealed(s, "the TPM refused")

	s = h.serve()
	h.open(openrequest.Unseal, "master1", "master2", "master3")
	s.kill()
	kept = h.read("state/" + unattended.FileName)
	h.vault(0, "seal") // of a vault that does not run
	if _, err := os.Lstat(h.path("state/" + unattended.FileName)); err == nil {
		t.Error("a stopped vault that was sealed would open by itself")
	}
	h.write("state/"+unattended.FileName, kept)
	s = h.serve()
	h.staysSealed(s, "the TPM refused")

	s = h.serve()
	h.open(openrequest.Unseal, "master1", "master2", "master3")
	s.kill()
	m.Extend(7)
	s = h.serve()
	h.staysSealed(s, "measured something else")
	m.Restart()
	bind()
	s = h.serve()
	h.opensByItself()
	h.ApproveAt(charter.TypeAccessEnded, charter.AccessEnded{ID: "nights", Type: charter.TypeUnattended}, time.Now())
	h.write("charter.jsonl", h.Charter)
	if !clitest.Await(20*time.Second, func() bool { st := h.status(); return st.Unattended == nil || !st.Unattended.Kept }) {
		t.Error("the statement ended, and what was kept is there")
	}
	s.kill()
	s = h.serve()
	if st := h.status(); !st.Sealed {
		t.Errorf("%+v", st)
	}
	s.stop()
	h.noCanary()
}
