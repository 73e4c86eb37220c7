package transit_test

import (
	"encoding/base64"
	"encoding/pem"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/transit"
)

// room is an engine with one key of each type, called like its type.
type room struct {
	*enginetest.Bench
	e *transit.Engine
	t *testing.T
}

func newRoom(t *testing.T, types ...string) *room {
	t.Helper()
	b := enginetest.New(t, "transit", "transit")
	r := &room{b, transit.New(b.Host), t}
	for _, typ := range types {
		r.state(name(typ), charter.SoftwareKey{MinDecryption: 1, MinEncryption: 1, Type: typ, Versions: 1})
	}
	r.found()
	return r
}

func name(typ string) string { return "k-" + typ }

func (r *room) state(name string, k charter.SoftwareKey) {
	r.t.Helper()
	r.World.Approve(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: name, Software: &k})
}

func (r *room) found() {
	r.t.Helper()
	if err := r.Found(r.e); err != nil {
		r.t.Fatal(err)
	}
}

type body map[string]any

func (r *room) try(path string, b body) (map[string]any, error) {
	r.t.Helper()
	return r.Write(r.e, path, b)
}

func (r *room) do(path string, b body) map[string]any {
	r.t.Helper()
	out, err := r.try(path, b)
	if err != nil {
		r.t.Fatalf("%s: %v", path, err)
	}
	return out
}

func (r *room) look(name string) map[string]any {
	r.t.Helper()
	a, err := r.Do(r.e, engine.Read, "keys/"+name, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return enginetest.Data(r.t, a)
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

func unb64(t *testing.T, s string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// made takes the bytes out of "vault:v1:…".
func made(t *testing.T, v any) []byte {
	t.Helper()
	s, _ := v.(string)
	_, rest, ok := strings.Cut(strings.TrimPrefix(s, "vault:v"), ":")
	if !ok {
		t.Fatalf("%q is nothing that the engine made", s)
	}
	return unb64(t, rest)
}

// public is version 1's public half as PEM.
func (r *room) public(name string) []byte {
	r.t.Helper()
	v := r.look(name)["keys"].(map[string]any)["1"].(map[string]any)
	s := v["public_key"].(string)
	if v["name"] != "ed25519" {
		return []byte(s)
	}
	// RFC 8410, section 4: the bytes before the key are always these.
	der := append([]byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}, unb64(r.t, s)...)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}
