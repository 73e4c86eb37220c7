package share_test

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/share"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectorDir = "../../testdata/vectors/share-proof"

func writeVectors(t *testing.T) {
	t.Helper()
	d := dealtWorld(t)
	d.Save(vectorDir)
	now := artifacttest.Now()
	put := func(name, expect, comment string, body []byte) {
		artifacttest.WriteVector(t, vectorDir, artifacttest.Vector{Name: name, Expect: expect, Body: body}, comment)
	}
	edit := func(name, expect, comment string, f func(p *share.Proof)) {
		put(name, expect, comment, d.proof(t, "master1", f))
	}
	edit("valid-file", "ok", "a holder with a key file", func(*share.Proof) {})
	put("valid-card", "ok", "a holder with a card", d.proof(t, "master5", nil))
	put("share-of-another", "verify", "signed by another's share key", d.proofBy(t, "master1", "master2", "master1", d.challenge(t, now), nil))
	put("person-of-another", "verify", "signed by another's person key", d.proofBy(t, "master1", "master1", "master2", d.challenge(t, now), nil))
	edit("index", "verify", "another index", func(p *share.Proof) { p.Place.Index = 2 })
	edit("witness", "policy", "by somebody without a share", func(p *share.Proof) { p.Place.Holder = "witness1" })
	edit("epoch", "policy", "of another epoch", func(p *share.Proof) { p.Challenge.Epoch = 2 })
	edit("month", "verify", "a challenge that is good for a month", func(p *share.Proof) { p.Challenge.Expires = "2026-12-22T02:00:00Z" })
	edit("nonce", "verify", "a short nonce", func(p *share.Proof) { p.Challenge.Nonce = make([]byte, 31) })
	edit("escape", "verify", "a terminal escape in the purpose", func(p *share.Proof) { p.Challenge.Purpose = "\x1b[2J" })
	put("expired", "policy", "a challenge of last month", d.proofBy(t, "master1", "master1", "master1", d.challenge(t, now.Add(-30*24*time.Hour)), nil))
	put("future", "policy", "a challenge of tomorrow, answered in advance", d.proofBy(t, "master1", "master1", "master1", d.challenge(t, now.Add(24*time.Hour)), nil))
	put("other-vault", "policy", "another vault and world", dealtWorld(t).proof(t, "master1", nil))
}

func TestProofVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	lines, err := os.ReadFile(filepath.Join(vectorDir, "charter.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(vectorDir, "anchors.json"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := anchor.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	s, err := charter.Fold(lines, a.World, a.Vault)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range artifacttest.Vectors(t, vectorDir) {
		_, err := share.VerifyProof(v.Body, s, artifacttest.Now())
		got := "ok"
		if err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != v.Expect {
			t.Errorf("%s: %s (%v), want %s", v.Name, got, err, v.Expect)
		}
	}
}
