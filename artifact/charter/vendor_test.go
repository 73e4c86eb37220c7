package charter_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/attestation"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

const vendorVectors = "../../testdata/vectors/charter-vendor-root"

// vendorCases are statements that follow a charter with the root "first" of maker
// one, each with what it is worth.
func vendorCases(one, two *artifacttest.Maker) map[string]struct {
	expect string
	body   charter.VendorRoot
} {
	type c = struct {
		expect string
		body   charter.VendorRoot
	}
	root := func(expect string, edit func(*charter.VendorRoot)) c {
		r := two.Root("second", attestation.RootHSM)
		if edit != nil {
			edit(&r)
		}
		return c{expect, r}
	}
	return map[string]c{
		"hsm":                      root("ok", nil),
		"ek":                       root("ok", func(r *charter.VendorRoot) { r.Kind = attestation.RootEK }),
		"models":                   root("ok", func(r *charter.VendorRoot) { r.Models = []string{"A", "B"} }),
		"no-id":                    root("verify", func(r *charter.VendorRoot) { r.ID = "" }),
		"id-as-path":               root("verify", func(r *charter.VendorRoot) { r.ID = "../second" }),
		"id-taken":                 root("verify", func(r *charter.VendorRoot) { r.ID = "first" }),
		"no-kind":                  root("verify", func(r *charter.VendorRoot) { r.Kind = "" }),
		"unknown-kind":             root("verify", func(r *charter.VendorRoot) { r.Kind = "any" }),
		"no-certificate":           root("verify", func(r *charter.VendorRoot) { r.Certificate = nil }),
		"certificate-trailing":     root("verify", func(r *charter.VendorRoot) { r.Certificate = append(bytes.Clone(r.Certificate), 0) }),
		"certificate-cut":          root("verify", func(r *charter.VendorRoot) { r.Certificate = r.Certificate[:len(r.Certificate)-1] }),
		"certificate-of-no-ca":     root("verify", func(r *charter.VendorRoot) { r.Certificate = two.AK(two.Key().Public(), nil)[0] }),
		"certificate-taken":        root("verify", func(r *charter.VendorRoot) { r.Certificate = one.RootDER }),
		"certificate-other-kind":   root("verify", func(r *charter.VendorRoot) { r.Certificate, r.Kind = one.RootDER, attestation.RootEK }),
		"models-unsorted":          root("verify", func(r *charter.VendorRoot) { r.Models = []string{"B", "A"} }),
		"model-twice":              root("verify", func(r *charter.VendorRoot) { r.Models = []string{"A", "A"} }),
		"model-empty":              root("verify", func(r *charter.VendorRoot) { r.Models = []string{""} }),
		"model-steers-a-terminal":  root("verify", func(r *charter.VendorRoot) { r.Models = []string{"A\x1b[2J"} }),
		"an-intermediate-as-root":  root("ok", func(r *charter.VendorRoot) { r.Certificate = two.SubDER }),
		"the-device-itself-as-one": root("ok", func(r *charter.VendorRoot) { r.Certificate = two.DeviceDER }),
	}
}

func withVendorRoot(t *testing.T) (v *vault, one, two *artifacttest.Maker) {
	t.Helper()
	v, one, two = newVault(t), artifacttest.NewMaker(t), artifacttest.NewMaker(t)
	v.decide(charter.TypeVendorRoot, one.Root("first", attestation.RootHSM))
	return v, one, two
}

// A vendor root is whole and new, or the charter does not hold; exactly the
// approvers' threshold says so.
func TestVendorRootStatements(t *testing.T) {
	v, one, two := withVendorRoot(t)
	for name, c := range vendorCases(one, two) {
		got := "ok"
		if err := v.propose(charter.TypeVendorRoot, c.body); err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != c.expect {
			t.Errorf("%s: %s, want %s", name, got, c.expect)
		}
		for _, few := range [][]string{nil, {"approver1"}, {"approver2"}, {"approver1", "master1"}, {"master1", "master2", "master3"}, {"approver1", "approver2", "witness1"}} {
			if v.try(charter.TypeVendorRoot, c.body, few...) == nil {
				t.Errorf("%s: decided by %v", name, few)
			}
		}
	}
}

// Without a statement no root counts; a root counts from its statement to its end, its
// id never comes back, and what one charter says is the same however often it is read.
func TestVendorRootsFollow(t *testing.T) {
	v, one, two := withVendorRoot(t)
	if n := len(newVault(t).State.AttestationRoots()); n != 0 {
		t.Errorf("%d roots without a statement", n)
	}
	v.decide(charter.TypeVendorRoot, two.Root("another", attestation.RootEK, "swtpm"))
	got := v.refold().AttestationRoots()
	if len(got) != 2 || got[0].ID != "another" || got[0].Kind != attestation.RootEK || !slices.Equal(got[0].Models, []string{"swtpm"}) || !bytes.Equal(got[1].Certificate, one.RootDER) {
		t.Errorf("in force: %+v", got)
	}
	end := charter.AccessEnded{ID: "first", Type: charter.TypeVendorRoot}
	v.decide(charter.TypeAccessEnded, end)
	if got := v.refold().AttestationRoots(); len(got) != 1 || got[0].ID != "another" {
		t.Errorf("after the end of one: %+v", got)
	}
	if v.propose(charter.TypeAccessEnded, end) == nil {
		t.Error("a root ends twice")
	}
	if v.propose(charter.TypeVendorRoot, one.Root("first", attestation.RootHSM)) == nil {
		t.Error("an id that was ended comes back")
	}
	// The approvers may take the maker's certificate again, by another name.
	v.decide(charter.TypeVendorRoot, one.Root("first-again", attestation.RootHSM))
}

// Each vector is a statement that follows charter.jsonl beside it.
func TestVendorRootVectors(t *testing.T) {
	if *update {
		v, one, two := withVendorRoot(t)
		v.Save(vendorVectors)
		for name, c := range vendorCases(one, two) {
			artifacttest.WriteVector(t, vendorVectors, artifacttest.Vector{Name: name, Expect: c.expect, Body: v.line(charter.TypeVendorRoot, c.body, "approver1", "approver2")}, strings.ReplaceAll(name, "-", " "))
		}
	}
	a, _ := artifacttest.Load(t, vendorVectors)
	lines, err := os.ReadFile(filepath.Join(vendorVectors, "charter.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, x := range artifacttest.Vectors(t, vendorVectors) {
		got := "ok"
		if _, err := charter.Fold(slices.Concat(lines, x.Body, []byte("\n")), a.World, a.Vault); err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != x.Expect {
			t.Errorf("%s: %s, want %s", x.Name, got, x.Expect)
		}
		n++
	}
	if n < 20 {
		t.Errorf("%d vectors", n)
	}
}
