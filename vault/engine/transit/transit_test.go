package transit_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/transit"
	"keyrite/vault/seal"
)

// TestSignaturesHoldInOpenSSL: whatever a key signs, a program that nobody here
// wrote verifies, and refuses for another message (R-CER-22).
func TestSignaturesHoldInOpenSSL(t *testing.T) {
	r := newRoom(t, "ecdsa-p256", "ecdsa-p384", "ed25519", "rsa-3072")
	msg := []byte("line 1, recipe 7")
	for _, c := range []struct {
		name, path string
		params     body
		openssl    []string
	}{
		{"p256", "k-ecdsa-p256", body{}, []string{"dgst", "-sha256"}},
		{"p256 with SHA-512", "k-ecdsa-p256/sha2-512", body{}, []string{"dgst", "-sha512"}},
		{"p256 with SHA3", "k-ecdsa-p256/sha3-256", body{}, []string{"dgst", "-sha3-256"}},
		{"p384", "k-ecdsa-p384/sha2-384", body{}, []string{"dgst", "-sha384"}},
		{"rsa pss", "k-rsa-3072", body{}, []string{"dgst", "-sha256", "-sigopt", "rsa_padding_mode:pss", "-sigopt", "rsa_pss_saltlen:digest"}},
		{"rsa pss with SHA-384", "k-rsa-3072/sha2-384", body{"salt_length": "hash"}, []string{"dgst", "-sha384", "-sigopt", "rsa_padding_mode:pss"}},
		{"rsa pkcs1", "k-rsa-3072", body{"signature_algorithm": "pkcs1v15"}, []string{"dgst", "-sha256"}},
		{"rsa pkcs1 with SHA-512", "k-rsa-3072", body{"signature_algorithm": "pkcs1v15", "hash_algorithm": "sha2-512"}, []string{"dgst", "-sha512"}},
		{"ed25519", "k-ed25519", body{}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.params["input"] = b64(msg)
			sig := r.do("sign/"+c.path, c.params)
			key, _, _ := strings.Cut(c.path, "/")
			files := map[string][]byte{"pub": r.public(key), "sig": made(t, sig["signature"]), "msg": msg, "other": []byte("line 1, recipe 8")}
			args := func(msg string) []string {
				if c.openssl == nil {
					return []string{"pkeyutl", "-verify", "-pubin", "-inkey", "pub", "-rawin", "-in", msg, "-sigfile", "sig"}
				}
				return append(c.openssl, "-verify", "pub", "-signature", "sig", msg)
			}
			if _, out, err := enginetest.OpenSSL(t, files, args("msg")...); err != nil {
				t.Errorf("openssl refuses it: %s", out)
			}
			if _, out, err := enginetest.OpenSSL(t, files, args("other")...); err == nil {
				t.Errorf("openssl takes it for another message: %s", out)
			}
			c.params["signature"] = sig["signature"]
			if got := r.do("verify/"+c.path, c.params); got["valid"] != true {
				t.Errorf("verify says %v", got)
			}
			c.params["input"] = b64([]byte("line 1, recipe 8"))
			if got := r.do("verify/"+c.path, c.params); got["valid"] != false {
				t.Errorf("verify of another message says %v", got)
			}
		})
	}
}

// TestTypesAndShape: what cosign reads of a key is there, in its types.
func TestTypesAndShape(t *testing.T) {
	r := newRoom(t, charter.TransitTypes()...)
	for _, typ := range charter.TransitTypes() {
		a, err := r.Do(r.e, engine.Read, "keys/"+name(typ), nil)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(a.Data)
		if err != nil {
			t.Fatal(err)
		}
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		var got map[string]any
		if err := d.Decode(&got); err != nil {
			t.Fatal(err)
		}
		if n, ok := got["latest_version"].(json.Number); !ok || n.String() != "1" || got["type"] != typ || got["exportable"] != false {
			t.Errorf("%s: %s", typ, raw)
		}
		v := got["keys"].(map[string]any)["1"]
		switch typ {
		case "aes256-gcm96", "hmac":
			if _, ok := v.(json.Number); !ok {
				t.Errorf("%s: %v", typ, v)
			}
		case "ed25519":
			if k := unb64(t, v.(map[string]any)["public_key"].(string)); len(k) != 32 || v.(map[string]any)["name"] != "ed25519" {
				t.Errorf("%v", v)
			}
		default:
			if b, rest := pem.Decode([]byte(v.(map[string]any)["public_key"].(string))); b == nil || b.Type != "PUBLIC KEY" || len(rest) > 0 {
				t.Errorf("%s: %v", typ, v)
			}
		}
	}
	a, err := r.Do(r.e, engine.List, "keys", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := enginetest.Data(t, a)["keys"].([]any); len(got) != len(charter.TransitTypes()) {
		t.Errorf("listed %v", got)
	}
}

// TestWhatCosignSends: its requests, word for word.
func TestWhatCosignSends(t *testing.T) {
	r := newRoom(t, "ecdsa-p256")
	a, err := r.Do(r.e, engine.Write, "keys/k-ecdsa-p256", body{"type": "ecdsa-p256"})
	if err != nil || a.Data != nil {
		t.Errorf("create of a key that is there: %v %v", a, err)
	}
	sum := sha256.Sum256([]byte("an image"))
	sig := r.do("sign/k-ecdsa-p256/sha2-256", body{"input": b64(sum[:]), "prehashed": true, "key_version": "0", "signature_algorithm": "pkcs1v15"})
	got := r.do("verify/k-ecdsa-p256/sha2-256", body{"input": b64(sum[:]), "prehashed": true, "signature": "vault:v1:" + b64(made(t, sig["signature"])), "signature_algorithm": "pkcs1v15"})
	if got["valid"] != true {
		t.Error(got)
	}
	files := map[string][]byte{"pub": r.public("k-ecdsa-p256"), "sig": made(t, sig["signature"]), "msg": []byte("an image")}
	if _, out, err := enginetest.OpenSSL(t, files, "dgst", "-sha256", "-verify", "pub", "-signature", "sig", "msg"); err != nil {
		t.Error(out)
	}
}

// TestOnlyTheCharterChangesKeys (R-CER-16).
func TestOnlyTheCharterChangesKeys(t *testing.T) {
	r := newRoom(t, "ecdsa-p256", "aes256-gcm96")
	for what, c := range map[string]struct {
		m    engine.Method
		path string
		body body
	}{
		"a new key":             {engine.Write, "keys/new", body{"type": "ecdsa-p256"}},
		"a key of another type": {engine.Write, "keys/k-ecdsa-p256", body{"type": "ed25519"}},
		"the default type":      {engine.Write, "keys/k-ecdsa-p256", nil},
		"an exportable key":     {engine.Write, "keys/k-ecdsa-p256", body{"type": "ecdsa-p256", "exportable": "true"}},
		"a derived key":         {engine.Write, "keys/k-aes256-gcm96", body{"type": "aes256-gcm96", "derived": true}},
		"deletion":              {engine.Delete, "keys/k-ecdsa-p256", nil},
		"rotation":              {engine.Write, "keys/k-ecdsa-p256/rotate", nil},
		"configuration":         {engine.Write, "keys/k-ecdsa-p256/config", body{"deletion_allowed": true}},
		"trimming":              {engine.Write, "keys/k-ecdsa-p256/trim", body{"min_available_version": 1}},
		"import":                {engine.Write, "keys/x/import", body{"ciphertext": "AA=="}},
	} {
		if _, err := r.Do(r.e, c.m, c.path, c.body); !errors.Is(err, engine.ErrByCharter) || !strings.Contains(fault.HintOf(err), "keyrite charter propose") {
			t.Errorf("%s: %v (%s)", what, err, fault.HintOf(err))
		}
	}
	for _, path := range []string{"export/encryption-key/k-aes256-gcm96", "export/signing-key/k-ecdsa-p256/1", "backup/k-ecdsa-p256", "restore/x"} {
		for _, m := range []engine.Method{engine.Read, engine.Write} {
			if _, err := r.Do(r.e, m, path, nil); !errors.Is(err, transit.ErrNoExport) {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
}

// TestHMAC against openssl's, and for keys of other types.
func TestHMAC(t *testing.T) {
	r := newRoom(t, "hmac", "ecdsa-p256")
	for _, k := range []string{"k-hmac", "k-ecdsa-p256"} {
		m := r.do("hmac/"+k+"/sha2-512", body{"input": b64([]byte("x"))})["hmac"]
		if got := r.do("verify/"+k+"/sha2-512", body{"input": b64([]byte("x")), "hmac": m}); got["valid"] != true {
			t.Errorf("%s: %v", k, got)
		}
		for what, b := range map[string]body{
			"another input": {"input": b64([]byte("y")), "hmac": m},
			"cut off":       {"input": b64([]byte("x")), "hmac": "vault:v1:" + b64(made(t, m)[:10])},
			"none":          {"input": b64([]byte("x")), "hmac": "vault:v1:"},
		} {
			if got := r.do("verify/"+k+"/sha2-512", b); got["valid"] != false {
				t.Errorf("%s, %s: %v", k, what, got)
			}
		}
	}
	if bytes.Equal(made(t, r.do("hmac/k-hmac", body{"input": ""})["hmac"]), made(t, r.do("hmac/k-ecdsa-p256", body{"input": ""})["hmac"])) {
		t.Error("two keys give the same")
	}
	_, err := r.try("sign/k-hmac", body{"input": "AAAA"})
	enginetest.Refused(r.t, "hmac signs", fault.Usage, err)
	_, err = r.try("encrypt/k-hmac", body{"plaintext": "AAAA"})
	enginetest.Refused(r.t, "hmac encrypts", fault.Usage, err)
}

// TestSigningThatIsRefused: digests that cannot be, schemes that do not fit.
func TestSigningThatIsRefused(t *testing.T) {
	r := newRoom(t, "ecdsa-p256", "ed25519", "rsa-3072", "aes256-gcm96")
	sum := sha256.Sum256(nil)
	for what, c := range map[string]struct {
		path string
		body body
	}{
		"a digest too short":        {"k-ecdsa-p256", body{"input": b64(sum[:31]), "prehashed": true}},
		"a digest of another hash":  {"k-ecdsa-p256/sha2-512", body{"input": b64(sum[:]), "prehashed": true}},
		"an empty digest":           {"k-ecdsa-p256", body{"input": "", "prehashed": true}},
		"no input":                  {"k-ecdsa-p256", body{}},
		"SHA-1":                     {"k-ecdsa-p256/sha1", body{"input": "AAAA"}},
		"no hash":                   {"k-rsa-3072/none", body{"input": "AAAA", "signature_algorithm": "pkcs1v15"}},
		"a digest for ed25519":      {"k-ed25519/sha2-256", body{"input": b64(sum[:]), "prehashed": true}},
		"a cipher that signs":       {"k-aes256-gcm96", body{"input": "AAAA"}},
		"another padding":           {"k-rsa-3072", body{"input": "AAAA", "signature_algorithm": "raw"}},
		"a short salt":              {"k-rsa-3072", body{"input": "AAAA", "salt_length": "0"}},
		"another marshaling":        {"k-ecdsa-p256", body{"input": "AAAA", "marshaling_algorithm": "der"}},
		"truth of another kind":     {"k-ecdsa-p256", body{"input": "AAAA", "prehashed": "maybe"}},
		"a context":                 {"k-ecdsa-p256", body{"input": "AAAA", "context": "AAAA"}},
		"an unknown parameter":      {"k-ecdsa-p256", body{"input": "AAAA", "digest": "AAAA"}},
		"no list as batch":          {"k-ecdsa-p256", body{"batch_input": "AAAA"}},
		"an empty batch":            {"k-ecdsa-p256", body{"batch_input": []body{}}},
		"a batch and an input":      {"k-ecdsa-p256", body{"input": "AAAA", "batch_input": []body{{"input": "AAAA"}}}},
		"a batch item with unknown": {"k-ecdsa-p256", body{"batch_input": []body{{"input": "AAAA", "prehashed": true}}}},
		"a batch of null":           {"k-ecdsa-p256", body{"batch_input": []any{1}}},
	} {
		_, err := r.try("sign/"+c.path, c.body)
		enginetest.Refused(r.t, what, fault.Usage, err)
	}
	huge := make([]body, 100_000)
	for i := range huge {
		huge[i] = body{"input": "AAAA"}
	}
	_, err := r.try("sign/k-ecdsa-p256", body{"batch_input": huge})
	enginetest.Refused(r.t, "a batch of 100,000", fault.Usage, err)
	for _, path := range []string{"sign", "sign/k-ecdsa-p256/sha2-256/x", "encrypt/k-aes256-gcm96/sha2-256", "nothing", "keys/a/b", "hash/a/b", "random/a/b/c", "datakey/k-aes256-gcm96", "keys"} {
		_, err := r.try(path, body{})
		enginetest.Refused(r.t, path, fault.Usage, err)
	}
	for _, path := range []string{"sign/nobody", "verify/nobody", "encrypt/nobody", "hmac/nobody", "datakey/wrapped/nobody"} {
		b := body{"input": "AAAA", "plaintext": "AAAA", "signature": "vault:v1:AAAA"}
		for n := range b {
			if strings.HasPrefix(path, "encrypt") != (n == "plaintext") || strings.HasPrefix(path, "datakey") || n == "signature" && !strings.HasPrefix(path, "verify") {
				delete(b, n)
			}
		}
		if _, err := r.try(path, b); !errors.Is(err, engine.ErrNotThere) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestBatch: each item has its own answer, in order.
func TestBatch(t *testing.T) {
	r := newRoom(t, "ecdsa-p256", "aes256-gcm96")
	out := r.do("sign/k-ecdsa-p256", body{"batch_input": []body{{"input": b64([]byte("a")), "reference": "one"}, {"input": "%"}, {"input": b64([]byte("c"))}}})
	res := out["batch_results"].([]any)
	if len(res) != 3 || res[1].(map[string]any)["error"] == nil || res[0].(map[string]any)["reference"] != "one" {
		t.Fatal(out)
	}
	var check []body
	for i, in := range []string{"a", "b", "c"} {
		s, _ := res[i].(map[string]any)["signature"].(string)
		if i != 1 {
			check = append(check, body{"input": b64([]byte(in)), "signature": s})
		}
	}
	for i, v := range r.do("verify/k-ecdsa-p256", body{"batch_input": check})["batch_results"].([]any) {
		if v.(map[string]any)["valid"] != true {
			t.Errorf("item %d: %v", i, v)
		}
	}
	enc := r.do("encrypt/k-aes256-gcm96", body{"batch_input": []body{{"plaintext": "AAAA"}, {"plaintext": "AAAA", "key_version": "1"}}})["batch_results"].([]any)
	if enc[0].(map[string]any)["ciphertext"] == enc[1].(map[string]any)["ciphertext"] {
		t.Error("the same plaintext gives the same ciphertext")
	}
}

// TestJWS: the other form of a signature, both ways.
func TestJWS(t *testing.T) {
	r := newRoom(t, "ecdsa-p256", "ecdsa-p384", "ed25519")
	for k, size := range map[string]int{"k-ecdsa-p256": 64, "k-ecdsa-p384": 96, "k-ed25519": 64} {
		for range 8 { // numbers with leading zeros come in one of 128
			sig := r.do("sign/"+k, body{"input": "AAAA", "marshaling_algorithm": "jws"})["signature"].(string)
			raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(sig, "vault:v1:"))
			if err != nil || len(raw) != size {
				t.Fatalf("%s: %d bytes, %v", k, len(raw), err)
			}
			if got := r.do("verify/"+k, body{"input": "AAAA", "signature": sig, "marshaling_algorithm": "jws"}); got["valid"] != true {
				t.Errorf("%s: %v", k, got)
			}
		}
	}
	_, err := r.try("verify/k-ecdsa-p256", body{"input": "AAAA", "signature": "vault:v1:AAAA", "marshaling_algorithm": "jws"})
	enginetest.Refused(r.t, "three bytes", fault.Usage, err)
}

// TestRandomAndHash: lengths, encodings and bounds; the hash against openssl's.
func TestRandomAndHash(t *testing.T) {
	r := newRoom(t)
	seen := map[any]bool{}
	for path, n := range map[string]int{"random": 32, "random/7": 7, "random/platform/64": 64, "random/platform": 32} {
		got := r.do(path, nil)["random_bytes"]
		if b := unb64(t, got.(string)); len(b) != n || seen[got] {
			t.Errorf("%s gives %v", path, got)
		}
		seen[got] = true
	}
	if got := r.do("random", body{"bytes": "3", "format": "hex"})["random_bytes"].(string); len(got) != 6 {
		t.Error(got)
	}
	for _, b := range []body{{"bytes": 200_000}, {"bytes": -1}, {"format": "raw"}} {
		_, err := r.try("random", b)
		enginetest.Refused(r.t, "random", fault.Usage, err)
	}
	_, err := r.try("random/seal", nil)
	enginetest.Refused(r.t, "a token that is not there", fault.Sealed, err)
	_, want, err := enginetest.OpenSSL(t, map[string][]byte{"msg": []byte("x")}, "dgst", "-sha384", "-r", "msg")
	if err != nil {
		t.Fatal(want)
	}
	if got := r.do("hash/sha2-384", body{"input": b64([]byte("x"))})["sum"].(string); !strings.HasPrefix(want, got+" ") {
		t.Errorf("%s, openssl says %s", got, want)
	}
}

// TestNoSecretInTheTrail: neither what was encrypted nor a key stands in any entry.
func TestNoSecretInTheTrail(t *testing.T) {
	r := newRoom(t, "aes256-gcm96", "ecdsa-p256")
	secret := b64([]byte("THE-CANARY-0123456789"))
	ct := r.do("encrypt/k-aes256-gcm96", body{"plaintext": secret})["ciphertext"].(string)
	r.do("decrypt/k-aes256-gcm96", body{"ciphertext": ct})
	r.do("hmac/k-ecdsa-p256", body{"input": secret})
	r.do("sign/k-ecdsa-p256", body{"input": secret})
	dk := r.do("datakey/plaintext/k-aes256-gcm96", nil)["plaintext"].(string)
	rnd := r.do("random", nil)["random_bytes"].(string)
	for n := range r.Store.Head().Size {
		raw, err := r.Store.Entry(uint64(n))
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{secret, ct, dk, rnd, "THE-CANARY"} {
			if bytes.Contains(raw, []byte(s)) {
				t.Errorf("entry %d holds what is secret: %s", n, raw)
			}
		}
	}
}

// TestKeyThatEndedMeanwhile: what was made with a key that the charter retired, or with a
// version that it ended, before the answer leaves does not leave.
func TestKeyThatEndedMeanwhile(t *testing.T) {
	r, _ := tokenRoom(t)
	made := func(path, in string) *engine.Plan {
		p, err := r.e.Plan(r.Request(engine.Write, path, body{in: "AAAA"}))
		if err == nil {
			err = p.Work(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	apply := func(p *engine.Plan) error {
		_, err := r.Store.Update(t.Context(), seal.Durable, func(tx *seal.Tx) (any, error) {
			a, err := p.Apply(tx)
			if err == nil && a == nil {
				t.Error("no answer")
			}
			return "x", err
		})
		return err
	}
	if err := apply(made("sign/free-p256", "input")); err != nil {
		t.Fatal(err)
	}
	late := made("sign/free-p256", "input")
	r.World.Approve(charter.TypeKeyRetired, charter.KeyRetired{ID: "free-p256", Reason: charter.ReasonCompromised, Record: "keyrite/record/test"})
	if err := apply(late); fault.ClassOf(err) != fault.Policy {
		t.Errorf("a signature of a key that was retired: %v", err)
	}
	r.state("soft", charter.SoftwareKey{Type: "aes256-gcm96", Versions: 1, MinDecryption: 1, MinEncryption: 1})
	r.found()
	late = made("encrypt/soft", "plaintext")
	r.state("soft", charter.SoftwareKey{Type: "aes256-gcm96", Versions: 2, MinDecryption: 2, MinEncryption: 2})
	r.found()
	if err := apply(late); !errors.Is(err, engine.ErrStale) {
		t.Errorf("a ciphertext of a version that ended: %v", err)
	}
}
