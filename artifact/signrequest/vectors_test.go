package signrequest_test

import (
	"bytes"
	"flag"
	"os"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/share"
	"keyrite/artifact/signrequest"
	"keyrite/artifact/world"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectorDir = "../../testdata/vectors/sign-request"

func writeVectors(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(vectorDir, 0o755); err != nil {
		t.Fatal(err)
	}
	w := artifacttest.New(t)
	all := messages(t, w)
	put := func(name, expect, comment, purpose string, f func(r *signrequest.Request)) {
		r, err := signrequest.New(w.People["witness1"].Public(), "vectors", all[purpose], now, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		f(r)
		b, err := r.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		artifacttest.WriteVector(t, vectorDir, artifacttest.Vector{Name: name, Expect: expect, Body: b}, comment)
	}
	for purpose := range all {
		put("valid-"+purpose, "ok", "purpose "+purpose, purpose, func(*signrequest.Request) {})
	}
	put("opening", "policy", "the opening of a share", signrequest.Incident, func(r *signrequest.Request) { r.Message = envelope.PAE(share.OpeningType, []byte("{}")) })
	put("digest", "policy", "32 bytes that nobody can read", signrequest.Incident, func(r *signrequest.Request) { r.Message = bytes.Repeat([]byte{7}, 32) })
	put("pae-tail", "policy", "a byte after the payload", signrequest.Incident, func(r *signrequest.Request) { r.Message = append(r.Message, ' ') })
	put("note-tail", "policy", "a further line in the checkpoint", signrequest.Checkpoint, func(r *signrequest.Request) { r.Message = append(r.Message, "more\n"...) })
	put("month", "verify", "good for a month", signrequest.Incident, func(r *signrequest.Request) { r.Expires = "2026-12-22T02:00:00Z" })
	put("escape", "verify", "a terminal escape in who asks", signrequest.Incident, func(r *signrequest.Request) { r.Asks = "\x1b[2Jconductor" })
	put("live", "policy", "a live request with a rehearsal's message", signrequest.Incident, func(r *signrequest.Request) { r.World = world.Live })
	put("nonce", "verify", "no nonce", signrequest.Incident, func(r *signrequest.Request) { r.Nonce = nil })
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	for _, v := range artifacttest.Vectors(t, vectorDir) {
		_, err := signrequest.Parse(v.Body)
		got := "ok"
		if err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != v.Expect {
			t.Errorf("%s: %s (%v), want %s", v.Name, got, err, v.Expect)
		}
	}
}
