package charter_test

import (
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

func unattended(edit func(*charter.Unattended)) charter.Unattended {
	u := charter.Unattended{Expires: charter.FormatTime(artifacttest.Now().Add(60 * 24 * time.Hour)), Host: "vault1", ID: "nights", PCRs: []int{0, 2, 7}}
	if edit != nil {
		edit(&u)
	}
	return u
}

func badUnattended() map[string]charter.Unattended {
	out := map[string]charter.Unattended{}
	digest := sha256.Sum256([]byte("PCRs"))
	for name, edit := range map[string]func(*charter.Unattended){
		"no id":        func(u *charter.Unattended) { u.ID = "" },
		"id as path":   func(u *charter.Unattended) { u.ID = "../a" },
		"no host":      func(u *charter.Unattended) { u.Host = "" },
		"unknown host": func(u *charter.Unattended) { u.Host = "vault2" },
		"every host":   func(u *charter.Unattended) { u.Host = "*" },
		"no end":       func(u *charter.Unattended) { u.Expires = "" },
		"ends before":  func(u *charter.Unattended) { u.Expires = charter.FormatTime(artifacttest.Now().Add(-time.Hour)) },
		"ends too late": func(u *charter.Unattended) {
			u.Expires = charter.FormatTime(artifacttest.Now().Add(93 * 24 * time.Hour))
		},
		"no PCRs":            func(u *charter.Unattended) { u.PCRs = nil },
		"empty PCRs":         func(u *charter.Unattended) { u.PCRs = []int{} },
		"a PCR twice":        func(u *charter.Unattended) { u.PCRs = []int{7, 7} },
		"PCRs unsorted":      func(u *charter.Unattended) { u.PCRs = []int{7, 0} },
		"a PCR below":        func(u *charter.Unattended) { u.PCRs = []int{-1, 7} },
		"a PCR that resets":  func(u *charter.Unattended) { u.PCRs = []int{16} },
		"a PCR beyond":       func(u *charter.Unattended) { u.PCRs = []int{24} },
		"empty digest":       func(u *charter.Unattended) { u.Digest = []byte{} },
		"short digest":       func(u *charter.Unattended) { u.Digest = digest[:20] },
		"digest of zeros":    func(u *charter.Unattended) { u.Digest = make([]byte, 32) },
		"digest with a tail": func(u *charter.Unattended) { u.Digest = append(digest[:], 0) },
	} {
		out[name] = unattended(edit)
	}
	delete(out, "empty digest") // its canonical form has none
	return out
}

// A host opens by itself under a whole statement alone: a host, an end within 92 days,
// PCRs that software cannot set back.
func TestUnattendedFailsClosed(t *testing.T) {
	v := withAccess(t)
	v.AddHost("vault1")
	digest := sha256.Sum256([]byte("PCRs"))
	good := map[string]charter.Unattended{
		"as found": unattended(nil), "with a digest": unattended(func(u *charter.Unattended) { u.Digest = digest[:] }),
		"one PCR": unattended(func(u *charter.Unattended) { u.PCRs = []int{0} }),
	}
	saveVectors(v, "unattended", charter.TypeUnattended, badUnattended(), good)
	if _, err := v.State.UnattendedAt("vault1", artifacttest.Now()); fault.ClassOf(err) != fault.Policy {
		t.Errorf("without a statement: %v", err)
	}
	for name, bad := range badUnattended() {
		if err := v.propose(charter.TypeUnattended, bad); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, u := range good {
		if err := v.propose(charter.TypeUnattended, u); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// It ends by its time, by a statement, with its host, and by a later one; no id comes
// back.
func TestUnattendedEnds(t *testing.T) {
	v := withAccess(t)
	v.AddHost("vault1")
	now := artifacttest.Now()
	at := func(when time.Time) string {
		u, err := v.State.UnattendedAt("vault1", when)
		if err != nil {
			if fault.ClassOf(err) != fault.Policy {
				t.Errorf("%v", err)
			}
			return ""
		}
		return u.ID
	}
	u := unattended(nil)
	v.decide(charter.TypeUnattended, u)
	if got := at(now.Add(time.Hour)); got != "nights" {
		t.Errorf("in force: %q", got)
	}
	if got := at(u.Ends()) + at(u.Ends().Add(time.Hour)); got != "" {
		t.Errorf("at its end: %q", got)
	}
	if _, err := v.State.UnattendedAt("vault2", now); fault.ClassOf(err) != fault.Policy {
		t.Errorf("another host: %v", err)
	}
	v.decide(charter.TypeUnattended, unattended(func(u *charter.Unattended) { u.ID, u.PCRs = "later", []int{1} }))
	if got := at(now.Add(time.Hour)); got != "later" {
		t.Errorf("replaced: %q", got)
	}
	for _, id := range []string{"nights", "later"} {
		if err := v.propose(charter.TypeUnattended, unattended(func(u *charter.Unattended) { u.ID = id })); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s again: %v", id, err)
		}
	}
	if err := v.propose(charter.TypeAccessEnded, charter.AccessEnded{ID: "nights", Type: charter.TypeUnattended}); fault.ClassOf(err) != fault.Verify {
		t.Errorf("ending one that was replaced: %v", err)
	}
	v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "later", Type: charter.TypeUnattended})
	if got := at(now.Add(time.Hour)); got != "" {
		t.Errorf("ended: %q", got)
	}
	v.decide(charter.TypeUnattended, unattended(func(u *charter.Unattended) { u.ID = "third" }))
	v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "vault1", Type: charter.TypeHost})
	if got := at(now.Add(time.Hour)); got != "" {
		t.Errorf("the host ended: %q", got)
	}
}

// Two bodies have two hashes.
func TestUnattendedHash(t *testing.T) {
	seen := map[string]bool{}
	digest := sha256.Sum256([]byte("PCRs"))
	for _, edit := range []func(*charter.Unattended){
		nil,
		func(u *charter.Unattended) { u.ID = "other" },
		func(u *charter.Unattended) { u.Host = "vault2" },
		func(u *charter.Unattended) { u.PCRs = []int{0, 2} },
		func(u *charter.Unattended) { u.Digest = digest[:] },
		func(u *charter.Unattended) { u.Expires = "2027-01-01T00:00:00Z" },
	} {
		u := unattended(edit)
		h, err := u.Hash()
		if err != nil || len(h) != 64 || strings.Trim(h, "0123456789abcdef") != "" || seen[h] {
			t.Errorf("%q %v", h, err)
		}
		seen[h] = true
	}
}
