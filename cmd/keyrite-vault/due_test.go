package main

import (
	"strings"
	"testing"
	"time"

	"keyrite/artifact/openrequest"
	"keyrite/internal/clitest"
	"keyrite/vault/duty"
)

// TestStatusTellsWhatIsDue: status says, of a vault that does not run, is sealed or open,
// what has to be done next, from the files of the host on; a file that hangs holds up
// nothing.
func TestStatusTellsWhatIsDue(t *testing.T) {
	h := newHouse(t)
	c := newClients(h)
	h.bind("head: {file: head.json}\ntls: {certificate: tls.pem, key: tls.key}\nwatch: {bundles: [gone.json], tuf: [metadata]}\n")
	h.host()
	want := func(when string) {
		t.Helper()
		var ids []string
		ok := clitest.Await(10*time.Second, func() bool {
			ids = nil
			for _, x := range h.status().Due.Next {
				if x.Level == duty.Late && x.Kind != duty.Shares { // who did not open it was dealt his share on a day that is fixed
					ids = append(ids, x.Kind)
				}
			}
			return strings.Join(ids, " ") == "bundle tuf-root tuf-snapshot tuf-targets tuf-timestamp"
		})
		if !ok {
			t.Errorf("%s: %v", when, ids)
		}
	}
	want("not running")
	s := h.serveClients(c)
	want("sealed")
	h.open(openrequest.Create, "master1", "master2", "master3")
	want("open")
	out, _ := h.vault(0, "status")
	for _, text := range []string{"  due: ", "gone.json", "keyrite provision export"} {
		if !strings.Contains(out, text) {
			t.Errorf("no %q in %s", text, out)
		}
	}
	s.stop()
}

// TestStatusDoesNotWait: what is due of a vault whose disk hangs is not waited for.
func TestStatusDoesNotWait(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	if items, err := inTime(func() ([]duty.Item, error) { <-hang; return nil, nil }); err == nil || items != nil {
		t.Errorf("%v, %v", items, err)
	}
	items, err := inTime(func() ([]duty.Item, error) { return []duty.Item{{ID: "a"}}, nil })
	if err != nil || len(items) != 1 {
		t.Errorf("%v, %v", items, err)
	}
}
