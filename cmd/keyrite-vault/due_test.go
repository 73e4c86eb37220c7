package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/openrequest"
	"keyrite/artifact/world"
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

// TestStatusTellsWhatIsNeverUsed: of a live vault whose head is in a TPM, and of no other,
// also while it is sealed.
func TestStatusTellsWhatIsNeverUsed(t *testing.T) {
	w := artifacttest.New(t)
	w.Approve(charter.TypeMount, charter.Mount{ID: "kv", Engine: "kv"})
	w.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: 1, Rules: []access.Rule{{Path: "kv/data/line1/*", Can: []access.Capability{access.Read}}}})
	w.Approve(charter.TypeIdentity, charter.Identity{ID: "mes", Policies: []string{"line1"}, TTL: 60, Unix: &charter.Unix{UID: 1001}})
	w.Approve(charter.TypeDelegation, charter.Delegation{ID: "night", Identity: "mes", Can: access.Update, Path: "kv/data/line1/x", Uses: 1, Expires: charter.FormatTime(time.Now().Add(time.Hour))})
	for name, c := range map[string]struct {
		bind *bind
		want bool
	}{
		"live, TPM":      {&bind{World: world.Live, Head: bindHead{TPM: "/dev/tpmrm0"}}, true},
		"live, cosigner": {&bind{World: world.Live, Head: bindHead{Cosigner: &bindCosigner{}}}, false},
		"rehearsal, TPM": {&bind{World: w.World, Head: bindHead{TPM: "/dev/tpmrm0"}}, false},
	} {
		v := &vault{bind: c.bind, watch: c.bind.watched(nil)}
		due := v.due(w.State)
		told := slices.ContainsFunc(due.Next, func(x duty.Item) bool { return x.ID == "unvouched/delegation/night" && x.Level == duty.Late })
		if told != c.want {
			t.Errorf("%s: %+v", name, due)
		}
	}
}
