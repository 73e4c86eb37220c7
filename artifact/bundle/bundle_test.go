package bundle_test

import (
	"bytes"
	"errors"
	"flag"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
)

const vectorDir = "../../testdata/vectors/bundle"

var update = flag.Bool("update", false, "write the vectors anew")

func newWorld(t testing.TB) *artifacttest.World {
	w := artifacttest.New(t)
	w.FoundFactory()
	return w
}

// seal signs what Sign would refuse.
func seal(t testing.TB, w *artifacttest.World, b *bundle.Bundle, keys ...string) []byte {
	t.Helper()
	payload, err := jcs.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	return sealBytes(t, w, bundle.PayloadType, payload, keys...)
}

func sealBytes(t testing.TB, w *artifacttest.World, typ string, payload []byte, keys ...string) []byte {
	t.Helper()
	e := &envelope.Envelope{Payload: payload, PayloadType: typ, Signatures: []envelope.Signature{}}
	for _, k := range keys {
		if err := e.Add(w.Keys[k]); err != nil {
			t.Fatal(err)
		}
	}
	out, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestVerify(t *testing.T) {
	w := newWorld(t)
	b := w.Bundle()
	got, err := bundle.Verify(w.SignBundle(b), w.Anchors)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(got.CheckCharter(w.State), got.CheckStation("factory1", "station1"), got.CheckTime(artifacttest.Now()), got.CheckFollows(0, bundle.FirstPrev())); err != nil {
		t.Error(err)
	}
	if n, ok := got.Number(9); !ok || n != 10 {
		t.Errorf("tenth number is %d, %v", n, ok)
	}
	if _, ok := got.Number(10); ok || got.Contains(11) || !got.Contains(1) {
		t.Error("numbers outside the ranges")
	}
}

// R-MFG-2: what is not for this factory, this time or this place in the
// sequence is refused with class policy, that is exit 13.
func TestRefusedByPolicy(t *testing.T) {
	w := newWorld(t)
	b := w.Bundle()
	hash, err := b.Hash()
	if err != nil {
		t.Fatal(err)
	}
	end, err := charter.ParseTime(b.NotAfter)
	if err != nil {
		t.Fatal(err)
	}
	other := newWorld(t)
	_, foreign := bundle.Verify(w.SignBundle(b), other.Anchors)
	tests := map[string]error{
		"other factory":     b.CheckStation("factory2", "station1"),
		"other station":     b.CheckStation("factory1", "station2"),
		"expired":           b.CheckTime(end),
		"not yet":           b.CheckTime(artifacttest.Now().Add(-time.Second)),
		"replayed":          b.CheckFollows(1, hash),
		"one left out":      b.CheckFollows(-1, bundle.FirstPrev()),
		"other predecessor": b.CheckFollows(0, hash),
		"other world":       foreign,
	}
	for name, err := range tests {
		if fault.ClassOf(err) != fault.Policy {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryFlippedByteIsRefused(t *testing.T) {
	w := newWorld(t)
	data := w.SignBundle(w.Bundle())
	for i := 0; i < len(data); i += 3 {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if _, err := bundle.Verify(bad, w.Anchors); err == nil {
			t.Errorf("byte %d", i)
		}
		if _, err := bundle.Verify(data[:i], w.Anchors); err == nil {
			t.Errorf("cut at %d", i)
		}
	}
}

type vector struct {
	name, expect, comment string
	edit                  func(*bundle.Bundle)
}

func hostile() []vector {
	return []vector{
		{"valid", "ok", "quota 3 of 10 serials", func(*bundle.Bundle) {}},
		{"other-world", "policy", "the live world", func(b *bundle.Bundle) { b.World = "live" }},
		{"other-vault", "policy", "another vault", func(b *bundle.Bundle) { b.Vault = bundle.FirstPrev() }},
		{"other-factory", "policy", "a factory that the CA does not belong to", func(b *bundle.Bundle) { b.Factory = "factory2" }},
		{"other-product", "policy", "a product line that the CA is not for", func(b *bundle.Bundle) { b.Product = "gw200" }},
		{"range-outside", "policy", "serials above the grant", func(b *bundle.Bundle) { b.Ranges[0].To = 1001 }},
		{"format", "verify", "another format", func(b *bundle.Bundle) { b.Format = "keyrite/bundle/v2" }},
		{"quota-0", "verify", "no device", func(b *bundle.Bundle) { b.Quota = 0 }},
		{"quota-negative", "verify", "fewer than none", func(b *bundle.Bundle) { b.Quota = -1 }},
		{"quota-above-range", "verify", "more devices than serials", func(b *bundle.Bundle) { b.Quota = 11 }},
		{"quota-high", "verify", "more than a report holds", func(b *bundle.Bundle) { b.Quota, b.Ranges[0].To = bundle.MaxQuota+1, 6000 }},
		{"ranges-overlap", "verify", "a serial in two ranges", func(b *bundle.Bundle) { b.Ranges = []bundle.Range{{From: 1, To: 5}, {From: 5, To: 9}} }},
		{"ranges-reversed", "verify", "a range that ends before it starts", func(b *bundle.Bundle) { b.Ranges[0] = bundle.Range{From: 9, To: 1} }},
		{"range-0", "verify", "serial 0", func(b *bundle.Bundle) { b.Ranges[0].From = 0 }},
		{"ranges-null", "verify", "no range must not mean any", func(b *bundle.Bundle) { b.Ranges = nil }},
		{"stations-empty", "verify", "no station must not mean any", func(b *bundle.Bundle) { b.Stations = []string{} }},
		{"stations-two", "verify", "two stations would each count for itself", func(b *bundle.Bundle) { b.Stations = []string{"station1", "station2"} }},
		{"never-valid", "verify", "ends as it starts", func(b *bundle.Bundle) { b.NotAfter = b.NotBefore }},
		{"for-ever", "verify", "valid for 10 years", func(b *bundle.Bundle) { b.NotAfter = "2036-11-22T02:00:00Z" }},
		{"time-offset", "verify", "a time with an offset", func(b *bundle.Bundle) { b.NotBefore = "2026-11-22T02:00:00+00:00" }},
		{"seq-0", "verify", "sequence starts at 1", func(b *bundle.Bundle) { b.Seq = 0 }},
		{"seq-without-prev", "verify", "the second without its predecessor", func(b *bundle.Bundle) { b.Seq = 2 }},
		{"profile", "verify", "a certificate profile that nobody knows", func(b *bundle.Bundle) { b.Profile = bundle.FirstPrev() }},
		{"assurance", "verify", "an assurance that does not exist", func(b *bundle.Bundle) { b.Assurance = "certified" }},
		{"chain-short", "verify", "no root in the chain", func(b *bundle.Bundle) { b.CAChain = b.CAChain[:1] }},
		{"chain-swapped", "verify", "root and CA exchanged", func(b *bundle.Bundle) { b.CAChain[0], b.CAChain[1] = b.CAChain[1], b.CAChain[0] }},
		{"bundle-id", "verify", "an id with a path in it", func(b *bundle.Bundle) { b.BundleID = "../../../../../../../../etc/pass" }},
		{"hardware-nul", "verify", "a NUL in a name", func(b *bundle.Bundle) { b.Hardware = "gw100\x00" }},
	}
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	anchors, state := artifacttest.Load(t, vectorDir)
	for _, v := range artifacttest.Vectors(t, vectorDir) {
		got := "ok"
		b, err := bundle.Verify(v.Body, anchors)
		if err == nil {
			err = b.CheckCharter(state)
		}
		if err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != v.Expect {
			t.Errorf("%s: got %s (%v), want %s", v.Name, got, err, v.Expect)
		}
	}
}

func writeVectors(t *testing.T) {
	w := newWorld(t)
	b := w.Bundle()
	w.Save(vectorDir)
	put := func(name, expect, comment string, body []byte) {
		artifacttest.WriteVector(t, vectorDir, artifacttest.Vector{Name: name, Expect: expect, Body: body}, comment)
	}
	clone := func() *bundle.Bundle {
		c := *b
		c.Ranges = append([]bundle.Range{}, b.Ranges...)
		c.CAChain = append([][]byte{}, b.CAChain...)
		return &c
	}
	for _, v := range hostile() {
		c := clone()
		v.edit(c)
		put(v.name, v.expect, v.comment, seal(t, w, c, "provision-a", "provision-b"))
	}
	plain, err := jcs.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	put("one-signature", "quorum", "only one of the two keys", seal(t, w, b, "provision-a"))
	put("other-key", "verify", "the acceptance key in place of a provisioning key", seal(t, w, b, "provision-a", "acceptance"))
	put("third-signature", "verify", "a third signature by a key that may not", seal(t, w, b, "provision-a", "provision-b", "acceptance"))
	put("payload-type", "verify", "signed as an acceptance", sealBytes(t, w, "application/vnd.keyrite.acceptance.v1+json", plain, "provision-a", "provision-b"))
	put("unknown-member", "verify", "a member that version 1 does not have", sealBytes(t, w, bundle.PayloadType, bytes.Replace(plain, []byte(`"vault"`), []byte(`"unlimited":true,"vault"`), 1), "provision-a", "provision-b"))
	put("duplicate-member", "verify", "the quota twice", sealBytes(t, w, bundle.PayloadType, bytes.Replace(plain, []byte(`"quota":3`), []byte(`"quota":3,"quota":10`), 1), "provision-a", "provision-b"))
	// A CA that the charter does not know, though the birth root signed it.
	late := clone()
	root := w.Parsed(w.Anchors.Certificates["birth-root"])
	late.CAChain[0] = w.Certificate(birthcert.Template{
		Profile: birthcert.FactoryCA, SPKI: w.SPKI("pipeline1"), Issuer: birthcert.IssuerOf(root),
		Grant: birthcert.Grant{Factory: "factory1", Product: "gw100", SerialFrom: 1, SerialTo: 1000},
	}, "birth-root")
	put("chain-other-ca", "policy", "a CA of the same names that the charter does not have", seal(t, w, late, "provision-a", "provision-b"))
	newer := clone()
	newer.Charter.Size++
	put("charter-newer", "policy", "made under a later charter than the reader has", seal(t, w, newer, "provision-a", "provision-b"))
	fork := clone()
	fork.Charter.Head = bundle.FirstPrev()
	put("charter-fork", "verify", "made under another charter", seal(t, w, fork, "provision-a", "provision-b"))
}

func FuzzVerify(f *testing.F) {
	anchors, state := artifacttest.Load(f, vectorDir)
	for _, v := range artifacttest.Vectors(f, vectorDir) {
		f.Add(v.Body)
		if e, err := envelope.Parse(v.Body); err == nil {
			f.Add(e.Payload)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if b, err := bundle.Verify(data, anchors); err == nil {
			_ = b.CheckCharter(state)
		}
		var b bundle.Bundle
		if jcs.Unmarshal(data, &b) != nil || b.Check() != nil {
			return
		}
		again, err := b.Marshal()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q read as %q, %v", data, again, err)
		}
		_ = b.CheckCharter(state)
		_, _ = b.Grant()
	})
}
