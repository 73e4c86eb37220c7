package transit_test

import (
	"encoding/json"
	"strings"
	"testing"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/transit"
	"keyrite/vault/seal"
)

// FuzzPlan: no request crashes the engine, is decided upon as nothing, or is worked on
// to an error that is the vault's and not the caller's.
func FuzzPlan(f *testing.F) {
	b := enginetest.New(f, "transit", "transit")
	for _, typ := range []string{"aes256-gcm96", "ecdsa-p256", "ed25519", "hmac"} {
		b.World.Approve(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: name(typ), Software: &charter.SoftwareKey{MinDecryption: 1, MinEncryption: 1, Type: typ, Versions: 1}})
	}
	e := transit.New(b.Host)
	if err := b.Found(e); err != nil {
		f.Fatal(err)
	}
	for _, s := range [][2]string{
		{"transit/keys/k-ecdsa-p256", `{"type":"ecdsa-p256"}`},
		{"transit/sign/k-ecdsa-p256/sha2-256", `{"input":"AAAA","key_version":"0","marshaling_algorithm":"jws"}`},
		{"transit/verify/k-ecdsa-p256", `{"input":"AAAA","signature":"vault:v1:AAAA"}`},
		{"transit/verify/k-ecdsa-p256", `{"input":"AAAA","signature":"vault:v1:AAAA","marshaling_algorithm":"jws"}`},
		{"transit/encrypt/k-aes256-gcm96", `{"batch_input":[{"plaintext":"AAAA","associated_data":"AA=="}]}`},
		{"transit/decrypt/k-aes256-gcm96", `{"ciphertext":"vault:v1:AAAA"}`},
		{"transit/verify/k-hmac", `{"input":"AAAA","hmac":"vault:v1:AAAA"}`},
		{"transit/datakey/plaintext/k-aes256-gcm96", `{"bits":128}`},
		{"transit/random/platform/8", `{"format":"hex"}`},
		{"transit/hash/sha2-512", `{"input":"AAAA"}`},
	} {
		for m := engine.Read; m <= engine.Delete; m++ {
			f.Add(int(m), s[0], s[1])
		}
	}
	f.Fuzz(func(t *testing.T, m int, path, body string) {
		p, err := access.ParsePath(path)
		var params engine.Params
		if err != nil || body != "" && json.Unmarshal([]byte(body), &params) != nil {
			return
		}
		plan, err := e.Plan(&engine.Request{Caller: b.Caller, Method: engine.Method(m), Path: p, Rest: strings.Split(path, "/")[1:], Params: params, Now: b.Now})
		if err == nil && (plan.Needs == "" || plan.Needs == access.Deny || plan.Apply == nil) {
			t.Fatalf("%d %s %s: needs %q", m, path, body, plan.Needs)
		}
		if err == nil && plan.Work != nil {
			if err = plan.Work(t.Context()); err == nil {
				_, err = b.Store.Update(t.Context(), seal.Durable, func(tx *seal.Tx) (any, error) {
					_, err := plan.Apply(tx)
					return plan.Shown, err
				})
			}
		}
		if err != nil && fault.ClassOf(err) == fault.Unexpected {
			t.Errorf("%d %s %s: %v", m, path, body, err)
		}
	})
}
