package transit_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/seal"
)

// TestEncryption: what was encrypted opens, with what was bound to it, and in no
// other way (R-CER-21).
func TestEncryption(t *testing.T) {
	r := newRoom(t, "aes256-gcm96")
	r.state("other", charter.SoftwareKey{MinDecryption: 1, MinEncryption: 1, Type: "aes256-gcm96", Versions: 1})
	r.found()
	k := "k-aes256-gcm96"
	ct := r.do("encrypt/"+k, body{"plaintext": b64([]byte("recipe")), "associated_data": b64([]byte("plc1"))})["ciphertext"].(string)
	if got := r.do("decrypt/"+k, body{"ciphertext": ct, "associated_data": b64([]byte("plc1"))}); string(unb64(t, got["plaintext"].(string))) != "recipe" {
		t.Error(got)
	}
	raw := made(t, ct)
	flipped := bytes.Clone(raw)
	flipped[len(flipped)/2] ^= 1
	for what, c := range map[string]struct {
		path, ciphertext, ad string
		class                fault.Class
	}{
		"another key":         {"other", ct, "plc1", fault.Verify},
		"nothing bound":       {k, ct, "", fault.Verify},
		"something else":      {k, ct, "plc2", fault.Verify},
		"flipped":             {k, "vault:v1:" + b64(flipped), "plc1", fault.Verify},
		"truncated":           {k, "vault:v1:" + b64(raw[:len(raw)-1]), "plc1", fault.Verify},
		"a nonce alone":       {k, "vault:v1:" + b64(raw[:12]), "plc1", fault.Verify},
		"nothing":             {k, "vault:v1:", "plc1", fault.Verify},
		"no version":          {k, "vault:" + b64(raw), "plc1", fault.Usage},
		"no prefix":           {k, b64(raw), "plc1", fault.Usage},
		"version 0":           {k, "vault:v0:" + b64(raw), "plc1", fault.Usage},
		"version 01":          {k, "vault:v01:" + b64(raw), "plc1", fault.Usage},
		"version -1":          {k, "vault:v-1:" + b64(raw), "plc1", fault.Usage},
		"a version to come":   {k, "vault:v2:" + b64(raw), "plc1", fault.Policy},
		"a version too great": {k, "vault:v99999999999999999999:" + b64(raw), "plc1", fault.Usage},
		"not base64":          {k, "vault:v1:%%%", "plc1", fault.Verify},
	} {
		_, err := r.try("decrypt/"+c.path, body{"ciphertext": c.ciphertext, "associated_data": b64([]byte(c.ad))})
		enginetest.Refused(r.t, what, c.class, err)
	}
	for what, b := range map[string]body{
		"a derived key":     {"plaintext": "AAAA", "context": "AAAA"},
		"a nonce":           {"plaintext": "AAAA", "nonce": "AAAAAAAAAAAAAAAA"},
		"no plaintext":      {},
		"bad base64":        {"plaintext": "AAA"},
		"unknown":           {"plaintext": "AAAA", "convergent_encryption": true},
		"a version to come": {"plaintext": "AAAA", "key_version": "7", "reference": 1},
	} {
		_, err := r.try("encrypt/"+k, b)
		enginetest.Refused(r.t, what, fault.Usage, err)
	}
	for _, v := range []any{2, "2", -1} {
		_, err := r.try("encrypt/"+k, body{"plaintext": "AAAA", "key_version": v})
		enginetest.Refused(r.t, "key_version", fault.Policy, err)
	}
}

// TestRotation: a new version takes over, the old one opens until it is shut out,
// rewrap brings what is old to the new one, and nothing comes back.
func TestRotation(t *testing.T) {
	r := newRoom(t, "aes256-gcm96", "ecdsa-p256")
	k := "k-aes256-gcm96"
	old := r.do("encrypt/"+k, body{"plaintext": b64([]byte("x"))})["ciphertext"].(string)
	sig := r.do("sign/k-ecdsa-p256", body{"input": b64([]byte("x"))})["signature"]
	for _, n := range []string{"aes256-gcm96", "ecdsa-p256"} {
		r.state(name(n), charter.SoftwareKey{MinDecryption: 1, MinEncryption: 1, Type: n, Versions: 2})
	}
	r.found()
	r.found() // again: nothing is made anew
	if got := r.do("decrypt/"+k, body{"ciphertext": old}); got["plaintext"] != b64([]byte("x")) {
		t.Error("the old version does not open")
	}
	next := r.do("rewrap/"+k, body{"ciphertext": old})
	if !strings.HasPrefix(next["ciphertext"].(string), "vault:v2:") || next["plaintext"] != nil {
		t.Errorf("rewrapped: %v", next)
	}
	if got := r.do("verify/k-ecdsa-p256", body{"input": b64([]byte("x")), "signature": sig}); got["valid"] != true {
		t.Error("the old signature does not hold")
	}
	swapped := "vault:v2:" + strings.TrimPrefix(sig.(string), "vault:v1:")
	if got := r.do("verify/k-ecdsa-p256", body{"input": b64([]byte("x")), "signature": swapped}); got["valid"] != false {
		t.Error("a signature of version 1 holds as one of version 2")
	}
	if got := r.do("sign/k-ecdsa-p256", body{"input": b64([]byte("x")), "key_version": "1"})["signature"].(string); !strings.HasPrefix(got, "vault:v1:") {
		t.Error("the old version was asked for")
	}
	for _, n := range []string{"aes256-gcm96", "ecdsa-p256"} {
		r.state(name(n), charter.SoftwareKey{MinDecryption: 2, MinEncryption: 2, Type: n, Versions: 2})
	}
	_, err := r.try("decrypt/"+k, body{"ciphertext": old})
	enginetest.Refused(r.t, "a version that is shut out", fault.Policy, err)
	_, err = r.try("verify/k-ecdsa-p256", body{"input": b64([]byte("x")), "signature": sig})
	enginetest.Refused(r.t, "a version that is shut out", fault.Policy, err)
	_, err = r.try("sign/k-ecdsa-p256", body{"input": b64([]byte("x")), "key_version": 1})
	enginetest.Refused(r.t, "a version that is shut out", fault.Policy, err)
	if got := r.look(k); got["latest_version"] != 2.0 || got["min_decryption_version"] != 2.0 || len(got["keys"].(map[string]any)) != 1 {
		t.Error(got)
	}
}

// TestEndedKeyIsDestroyed: with it goes what it encrypted.
func TestEndedKeyIsDestroyed(t *testing.T) {
	r := newRoom(t, "aes256-gcm96", "hmac")
	k := "k-aes256-gcm96"
	ct := r.do("encrypt/"+k, body{"plaintext": "AAAA"})["ciphertext"]
	r.World.Approve(charter.TypeAccessEnded, charter.AccessEnded{Type: charter.TypeTransitKey, ID: "transit/" + k})
	_, err := r.try("decrypt/"+k, body{"ciphertext": ct})
	if !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("before it is destroyed: %v", err)
	}
	r.found()
	err = r.Store.View(func(v *seal.View) error {
		for _, bucket := range []string{"transit/transit", "transit-uses/transit"} {
			if got := v.Keys(bucket, k); len(got) > 0 {
				t.Errorf("in %s are still %q", bucket, got)
			}
		}
		if len(v.Keys("transit/transit", "k-hmac/")) != 1 {
			t.Error("another key is gone")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDataKey: the wrapped key opens to the one that was shown.
func TestDataKey(t *testing.T) {
	r := newRoom(t, "aes256-gcm96")
	got := r.do("datakey/plaintext/k-aes256-gcm96", body{"bits": 512})
	if len(unb64(t, got["plaintext"].(string))) != 64 || r.do("decrypt/k-aes256-gcm96", body{"ciphertext": got["ciphertext"]})["plaintext"] != got["plaintext"] {
		t.Error(got)
	}
	if w := r.do("datakey/wrapped/k-aes256-gcm96", nil); w["plaintext"] != nil || w["ciphertext"] == nil {
		t.Error("a wrapped data key shows itself")
	}
	_, err := r.try("datakey/plaintext/k-aes256-gcm96", body{"bits": 8})
	enginetest.Refused(r.t, "8 bits", fault.Usage, err)
}

// TestUsesAreBounded: a version that encrypted 2^32 times encrypts no more.
func TestUsesAreBounded(t *testing.T) {
	r := newRoom(t, "aes256-gcm96")
	k := "k-aes256-gcm96"
	r.do("encrypt/"+k, body{"batch_input": []body{{"plaintext": "AAAA"}, {"plaintext": "AAAA"}}})
	set := func(n string) {
		_, err := r.Store.Update(t.Context(), seal.Durable, func(tx *seal.Tx) (any, error) {
			had, err := tx.Get("transit-uses/transit", k+"/1")
			if err != nil || string(had) != "2" && n == "4294967295" {
				t.Errorf("counted %q: %v", had, err)
			}
			return "set", tx.Put("transit-uses/transit", k+"/1", []byte(n))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	set("4294967295")
	ct := r.do("encrypt/"+k, body{"plaintext": "AAAA"})["ciphertext"]
	_, err := r.try("encrypt/"+k, body{"plaintext": "AAAA"})
	enginetest.Refused(r.t, "once more", fault.Quota, err)
	r.do("decrypt/"+k, body{"ciphertext": ct})
}
