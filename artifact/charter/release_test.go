package charter_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

func approval(id string, sv int64) charter.ReleaseApproved {
	return charter.ReleaseApproved{
		Digest: fmt.Sprintf("%064x", sv*1000+int64(len(id))), Expires: charter.FormatTime(artifacttest.Now().Add(time.Hour)), Format: "dsse", Hash: "sha2-256",
		ID: id, Key: "firmware", Product: "gw100", SecurityVersion: sv, Version: "1.0.0",
	}
}

// TestEverySubsetApprovesReleases: of all subsets of up to seven people, of whom some
// are release approvers, some approvers of the charter, some both, exactly those
// pass that are release approvers alone and reach the threshold (R-CER-7).
func TestEverySubsetApprovesReleases(t *testing.T) {
	for n := 4; n <= 7; n++ {
		v := newVault(t)
		p := v.people()
		names := []string{"approver1", "approver2"}
		for i := 3; i <= n; i++ {
			names = append(names, fmt.Sprintf("approver%d", i))
			v.join(p, names[i-1], charter.RoleApprover)
		}
		releases := names[n-3:] // the last three, who do not all decide on the charter
		need := 2 + n%2
		p.Sets.Approvers = charter.Set{Members: names[:n-1], Need: 2}
		p.Sets.Releases = charter.Set{Members: releases, Need: need}
		v.must(charter.TypePeople, p, names...)
		good := 0
		for bits := 1; bits < 1<<n; bits++ {
			var by []string
			outsider := false
			for i, name := range names {
				if bits>>i&1 == 1 {
					by = append(by, name)
					outsider = outsider || !slices.Contains(releases, name)
				}
			}
			want := !outsider && len(by) >= need
			if err := v.try(charter.TypeReleaseApproved, approval("r1", 1), by...); (err == nil) != want {
				t.Errorf("n=%d, need %d: approved by %v: %v, want accepted %v", n, need, by, err, want)
			}
			if want {
				good++
			}
		}
		if good == 0 {
			t.Error("nobody can approve")
		}
		// And the release approvers decide on nothing else.
		if err := v.try(charter.TypeMount, charter.Mount{Engine: "kv", ID: "kv"}, releases...); err == nil {
			t.Error("who approves releases mounts an engine")
		}
	}
}

func TestReleaseApprovalThatFailsClosed(t *testing.T) {
	v := newVault(t)
	free := v.Later("free", anchor.DomainGeneral, "")
	v.Later("dormant", "dsse", "acceptance")
	v.decide(charter.TypeReleaseApproved, approval("first", 3))
	v.decide(charter.TypeFloor, charter.Floor{Product: "other", Record: "x", SecurityVersion: 7})
	with := func(f func(*charter.ReleaseApproved)) charter.ReleaseApproved {
		a := approval("second", 3)
		f(&a)
		return a
	}
	at := artifacttest.Now()
	bad := map[string]charter.ReleaseApproved{
		"nothing":             {},
		"no id":               with(func(a *charter.ReleaseApproved) { a.ID = "" }),
		"an id again":         with(func(a *charter.ReleaseApproved) { a.ID = "first" }),
		"no key":              with(func(a *charter.ReleaseApproved) { a.Key = "" }),
		"an unknown key":      with(func(a *charter.ReleaseApproved) { a.Key = "nobody" }),
		"a dormant key":       with(func(a *charter.ReleaseApproved) { a.Key = "dormant" }),
		"a free key":          with(func(a *charter.ReleaseApproved) { a.Key, a.Format = free.ID, free.Domain }),
		"another format":      with(func(a *charter.ReleaseApproved) { a.Format = "raw-image" }),
		"no format":           with(func(a *charter.ReleaseApproved) { a.Format = "" }),
		"another hash":        with(func(a *charter.ReleaseApproved) { a.Hash, a.Digest = "sha2-384", strings.Repeat("0", 96) }),
		"no digest":           with(func(a *charter.ReleaseApproved) { a.Digest = "" }),
		"a short digest":      with(func(a *charter.ReleaseApproved) { a.Digest = a.Digest[2:] }),
		"a digest in capital": with(func(a *charter.ReleaseApproved) { a.Digest = strings.Repeat("A", 64) }),
		"no product":          with(func(a *charter.ReleaseApproved) { a.Product = "" }),
		"no version":          with(func(a *charter.ReleaseApproved) { a.Version = "" }),
		"a long version":      with(func(a *charter.ReleaseApproved) { a.Version = strings.Repeat("1", 65) }),
		"an odd version":      with(func(a *charter.ReleaseApproved) { a.Version = "1.0\u202e" }),
		"a version of lines":  with(func(a *charter.ReleaseApproved) { a.Version = "1.0\n2" }),
		"security version 0":  with(func(a *charter.ReleaseApproved) { a.SecurityVersion = 0 }),
		"one too great":       with(func(a *charter.ReleaseApproved) { a.SecurityVersion = charter.MaxSecurityVersion + 1 }),
		"rolled back":         with(func(a *charter.ReleaseApproved) { a.SecurityVersion = 2 }),
		"below the floor":     with(func(a *charter.ReleaseApproved) { a.Product, a.SecurityVersion = "other", 6 }),
		"no end":              with(func(a *charter.ReleaseApproved) { a.Expires = "" }),
		"ended":               with(func(a *charter.ReleaseApproved) { a.Expires = charter.FormatTime(at) }),
		"too long":            with(func(a *charter.ReleaseApproved) { a.Expires = charter.FormatTime(at.Add(8 * 24 * time.Hour)) }),
	}
	saveVectors(v, "release", charter.TypeReleaseApproved, bad, map[string]charter.ReleaseApproved{
		"approved": with(func(*charter.ReleaseApproved) {}), "the same bytes anew": with(func(a *charter.ReleaseApproved) { a.Digest = approval("first", 3).Digest }), "of another product": with(func(a *charter.ReleaseApproved) { a.Product, a.SecurityVersion = "other", 7 }),
	})
	for what, a := range bad {
		if err := v.propose(charter.TypeReleaseApproved, a); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", what, err)
		}
	}
	v.decide(charter.TypeReleaseApproved, with(func(*charter.ReleaseApproved) {}))
	if r, ok := v.refold().Release("firmware", approval("second", 3).Digest); !ok || r.ID != "second" {
		t.Errorf("%+v %v", r, ok)
	}
	for _, key := range []string{"", "acceptance"} {
		if _, ok := v.refold().Release(key, approval("second", 3).Digest); ok {
			t.Errorf("key %q may sign it", key)
		}
	}
	v.decide(charter.TypeKeyRetired, charter.KeyRetired{ID: "firmware", Reason: charter.ReasonLost, Record: "x"})
	if err := v.propose(charter.TypeReleaseApproved, approval("third", 4)); fault.ClassOf(err) != fault.Verify {
		t.Errorf("a retired key: %v", err)
	}
}
