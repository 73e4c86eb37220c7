package firmware_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/jcs"
)

const vectorDir = "../../testdata/vectors/firmware"

var update = flag.Bool("update", false, "write the vectors anew, in a new world")

// vector is a file of the set: header lines "comment:", "expect:" ("ok" or a
// class) and "kind:" (bundle, proof or krf), an empty line, and the bytes with a
// newline after them. Bundles are verified with image.bin, proofs with
// valid-bundle.txt.
type vector struct {
	kind, expect string
	body         []byte
}

func readVector(t *testing.T, path string) vector {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, body, ok := bytes.Cut(b, []byte("\n\n"))
	v := vector{body: bytes.TrimSuffix(body, []byte("\n"))}
	for l := range strings.Lines(string(head)) {
		name, value, _ := strings.Cut(strings.TrimSpace(l), ": ")
		switch name {
		case "kind":
			v.kind = value
		case "expect":
			v.expect = value
		}
	}
	if !ok || v.expect == "" {
		t.Fatalf("%s has no header", path)
	}
	return v
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	data, err := os.ReadFile(filepath.Join(vectorDir, "anchors.json"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := anchor.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	trust, err := firmware.TrustOf(a)
	if err != nil {
		t.Fatal(err)
	}
	img, err := os.ReadFile(filepath.Join(vectorDir, "image.bin"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(vectorDir, "*.txt"))
	if err != nil || len(files) < 40 {
		t.Fatalf("%d vectors: %v", len(files), err)
	}
	good := readVector(t, filepath.Join(vectorDir, "bundle-valid.txt")).body
	for _, f := range files {
		v := readVector(t, f)
		var err error
		switch v.kind {
		case "bundle":
			_, err = firmware.Verify(bytes.NewReader(img), v.body, trust)
		case "proof":
			_, err = firmware.CheckProof(v.body, good, trust)
		case "krf":
			_, err = firmware.VerifyKRF(bytes.NewReader(v.body), trust)
		default:
			t.Errorf("%s: kind %q", f, v.kind)
		}
		got := "ok"
		if err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != v.expect {
			t.Errorf("%s: got %s (%v), want %s", filepath.Base(f), got, err, v.expect)
		}
	}
}

// writer makes the set in a new world, whose keys are then thrown away.
type writer struct {
	t     *testing.T
	w     *artifacttest.World
	image []byte
}

func (x *writer) put(kind, name, comment, expect string, body []byte) {
	x.t.Helper()
	text := fmt.Appendf(nil, "comment: %s\nexpect: %s\nkind: %s\n\n", comment, expect, kind)
	text = append(append(text, body...), '\n')
	if err := os.WriteFile(filepath.Join(vectorDir, kind+"-"+name+".txt"), text, 0o600); err != nil {
		x.t.Fatal(err)
	}
}

func (x *writer) statement(change func(*firmware.Statement)) []byte {
	x.t.Helper()
	s := x.w.Statement(x.image, "2026.11", 7)
	change(s)
	b, err := jcs.Marshal(s)
	if err != nil {
		x.t.Fatal(err)
	}
	return b
}

func writeVectors(t *testing.T) {
	t.Helper()
	x := &writer{t: t, w: artifacttest.New(t), image: bytes.Repeat([]byte("keyrite firmware vector\n"), 30)}
	a, err := x.w.Anchors.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"anchors.json": a, "image.bin": x.image} {
		if err := os.WriteFile(filepath.Join(vectorDir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	x.statements()
	x.bundles()
	x.proofsAndKRFs()
}

func (x *writer) statements() {
	p := func(f func(*firmware.Predicate)) func(*firmware.Statement) {
		return func(s *firmware.Statement) { f(&s.Predicate) }
	}
	for _, v := range []struct {
		name, comment, expect string
		change                func(*firmware.Statement)
	}{
		{"valid", "a release", "ok", func(*firmware.Statement) {}},
		{"other-image", "another digest", "verify", func(s *firmware.Statement) { s.Subject[0].Digest.SHA256 = strings.Repeat("0", 64) }},
		{"digest-upper-case", "digest in upper case", "verify", func(s *firmware.Statement) {
			s.Subject[0].Digest.SHA256 = strings.ToUpper(s.Subject[0].Digest.SHA256)
		}},
		{"size-more", "states one byte more", "verify", p(func(p *firmware.Predicate) { p.Size++ })},
		{"size-less", "states one byte less", "verify", p(func(p *firmware.Predicate) { p.Size-- })},
		{"size-zero", "states no bytes", "verify", p(func(p *firmware.Predicate) { p.Size = 0 })},
		{"size-negative", "states fewer than no bytes", "verify", p(func(p *firmware.Predicate) { p.Size = -1 })},
		{"size-beyond-ustar", "more than a .krf can hold", "verify", p(func(p *firmware.Predicate) { p.Size = 1 << 33 })},
		{"security-zero", "security version 0", "verify", p(func(p *firmware.Predicate) { p.SecurityVersion = 0 })},
		{"security-33-bits", "security version beyond 32 bits", "verify", p(func(p *firmware.Predicate) { p.SecurityVersion = 1 << 32 })},
		{"live", "a rehearsal's key signs for the live world", "policy", p(func(p *firmware.Predicate) { p.World = "live" })},
		{"other-world", "another rehearsal", "policy", p(func(p *firmware.Predicate) { p.World = "rehearsal:zzzzzzzz" })},
		{"no-world", "no world", "verify", p(func(p *firmware.Predicate) { p.World = "" })},
		{"other-vault", "another vault", "policy", p(func(p *firmware.Predicate) { p.Vault = strings.Repeat("0", 64) })},
		{"no-hardware", "for no hardware", "verify", p(func(p *firmware.Predicate) { p.Hardware = []string{} })},
		{"hardware-unsorted", "hardware out of order", "verify", p(func(p *firmware.Predicate) { p.Hardware = []string{"b", "a"} })},
		{"hardware-twice", "the same hardware twice", "verify", p(func(p *firmware.Predicate) { p.Hardware = []string{"a", "a"} })},
		{"one-approval", "one approval", "verify", p(func(p *firmware.Predicate) { p.Approvals = p.Approvals[:1] })},
		{"approver-twice", "one person approved twice", "verify", p(func(p *firmware.Predicate) { p.Approvals[1].Approver = p.Approvals[0].Approver })},
		{"product-control", "a control character in the product", "verify", p(func(p *firmware.Predicate) { p.Product = "gw\x1b[2J" })},
		{"version-bidi", "a right-to-left mark in the version", "verify", p(func(p *firmware.Predicate) { p.Version = "1\u202e2" })},
		{"time-offset", "a time with an offset", "verify", p(func(p *firmware.Predicate) { p.Time = "2026-11-22T03:00:00+01:00" })},
		{"file-dotdot", "a file name that leaves its folder", "verify", func(s *firmware.Statement) { s.Subject[0].Name = "../firmware.img" }},
		{"file-nul", "a file name with a NUL", "verify", func(s *firmware.Statement) { s.Subject[0].Name = "firmware.img\x00" }},
		{"two-subjects", "two subjects", "verify", func(s *firmware.Statement) { s.Subject = append(s.Subject, s.Subject[0]) }},
		{"no-subject", "no subject", "verify", func(s *firmware.Statement) { s.Subject = nil }},
		{"predicate-type", "another predicate type", "verify", func(s *firmware.Statement) { s.PredicateType = "https://slsa.dev/provenance/v1" }},
		{"statement-v0.1", "an older statement type", "verify", func(s *firmware.Statement) { s.Type = "https://in-toto.io/Statement/v0.1" }},
	} {
		x.put("bundle", v.name, v.comment, v.expect, x.w.Sign(x.statement(v.change), firmware.KeyID))
	}
}

func (x *writer) bundles() {
	payload := x.statement(func(*firmware.Statement) {})
	good := x.w.Sign(payload, firmware.KeyID)
	replace := func(from, to string) []byte { return bytes.Replace(good, []byte(from), []byte(to), 1) }
	x.put("bundle", "other-domain", "signed by the TUF targets key", "verify", x.w.Sign(payload, "tuf-targets"))
	x.put("bundle", "payload-not-canonical", "a blank in the payload", "verify", x.w.Sign(append(bytes.Clone(payload), ' '), firmware.KeyID))
	x.put("bundle", "payload-unknown-member", "an unknown member in the payload", "verify",
		x.w.Sign(bytes.Replace(payload, []byte(`"channel"`), []byte(`"cc":1,"channel"`), 1), firmware.KeyID))
	x.put("bundle", "payload-repeated-member", "a member twice in the payload", "verify",
		x.w.Sign(bytes.Replace(payload, []byte(`"channel":"release"`), []byte(`"channel":"beta","channel":"release"`), 1), firmware.KeyID))
	x.put("bundle", "media-type", "bundle version 0.2", "verify", replace("bundle.v0.3", "bundle.v0.2"))
	x.put("bundle", "tlog-null", "null in place of the empty list", "verify", replace(`"tlogEntries":[]`, `"tlogEntries":null`))
	x.put("bundle", "tlog-entry", "an entry of a log that nobody checks", "verify", replace(`"tlogEntries":[]`, `"tlogEntries":[{}]`))
	x.put("bundle", "pretty", "the same with blanks", "verify", replace(`{"dsse`, `{ "dsse`))
	x.put("bundle", "trailing", "something after it", "verify", append(bytes.Clone(good), "{}"...))
	x.put("bundle", "cut", "cut in half", "verify", good[:len(good)/2])
	x.put("bundle", "hint", "the hint names another key", "verify", replace(`"hint":"`, `"hint":"0`))
	env, err := firmware.ParseBundle(good)
	if err != nil {
		x.t.Fatal(err)
	}
	wrap := func(e envelope.Envelope) []byte {
		b, err := jcs.Marshal(map[string]any{
			"dsseEnvelope": e, "mediaType": firmware.BundleMediaType,
			"verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": env.Signatures[0].KeyID}, "tlogEntries": []any{}},
		})
		if err != nil {
			x.t.Fatal(err)
		}
		return b
	}
	twice, none, typ := *env, *env, *env
	twice.Signatures = append(twice.Signatures, twice.Signatures[0])
	none.Signatures = []envelope.Signature{}
	typ.PayloadType = "application/json"
	x.put("bundle", "two-signatures", "the signature twice", "verify", wrap(twice))
	x.put("bundle", "no-signature", "no signature", "verify", wrap(none))
	x.put("bundle", "payload-type", "another payload type", "verify", wrap(typ))
}

func (x *writer) proofsAndKRFs() {
	r := &artifacttest.Release{Bundle: readVector(x.t, filepath.Join(vectorDir, "bundle-valid.txt")).body}
	r.Proof = x.w.Prove(r.Bundle)
	other := x.w.Release(x.image, "2026.12", 8)
	sub := func(from, to string) []byte { return bytes.Replace(r.Proof, []byte(from), []byte(to), 1) }
	x.put("proof", "valid", "entry 1 of 3", "ok", r.Proof)
	x.put("proof", "other-release", "proof of another release", "verify", other.Proof)
	x.put("proof", "index", "another index", "verify", sub("index 1\n", "index 2\n"))
	x.put("proof", "index-zero-before", "index with a leading zero", "verify", sub("index 1\n", "index 01\n"))
	x.put("proof", "index-beyond", "index beyond the tree", "verify", sub("index 1\n", "index 9\n"))
	x.put("proof", "extra", "an extra line that nobody reads", "verify", sub("index 1\n", "extra AAAA\nindex 1\n"))
	x.put("proof", "no-hashes", "without hashes", "verify", append([]byte("c2sp.org/tlog-proof@v1\nindex 1\n\n"), r.Proof[bytes.Index(r.Proof, []byte("\n\n"))+2:]...))
	x.put("proof", "unknown-signer", "a second signature line", "verify", append(bytes.Clone(r.Proof), "— somebody AAAA\n"...))
	x.put("proof", "other-origin", "checkpoint of a log of another name", "verify", bytes.ReplaceAll(r.Proof, []byte("keyrite/release/"), []byte("keyrite/record/")))
	x.put("proof", "version", "another version of the format", "verify", sub("tlog-proof@v1", "tlog-proof@v2"))

	var krf bytes.Buffer
	if err := firmware.WriteKRF(&krf, r.Bundle, r.Proof, bytes.NewReader(x.image), x.w.Trust()); err != nil {
		x.t.Fatal(err)
	}
	good := krf.Bytes()
	flip := func(at int) []byte { b := bytes.Clone(good); b[at] ^= 1; return b }
	image := bytes.Index(good, x.image)
	x.put("krf", "valid", "a release", "ok", good)
	x.put("krf", "image", "one bit of the image", "verify", flip(image+300))
	x.put("krf", "mode", "another mode in the first header", "verify", flip(100))
	x.put("krf", "padding", "a byte in the padding", "verify", flip(image-512-1))
	x.put("krf", "cut", "without the end of the archive", "verify", good[:len(good)-512])
	x.put("krf", "more", "another archive behind it", "verify", append(bytes.Clone(good), good...))
	x.put("krf", "no-image", "cut off before the image", "verify", good[:image-512])
	x.put("krf", "image-first", "the image before the signature", "verify", append(append(bytes.Clone(good[image-512:len(good)-1024]), good[:image-512]...), good[len(good)-1024:]...))
	x.put("krf", "other-proof", "proof of another release", "verify", bytes.Replace(good, r.Proof, other.Proof, 1))
}
