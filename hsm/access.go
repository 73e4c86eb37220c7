package hsm

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
)

// Access is what an open token can be asked for, through a Session or a Pool.
type Access struct {
	id    TokenID
	hello frame.Hello
	ask   func(ctx context.Context, q frame.Request, label string) (*frame.Response, error)
	// lasting: no key may be born as a session object, since sessions come and go.
	lasting bool
}

// Token names the token.
func (x *Access) Token() TokenID { return x.id }

// TokenInfo is what the token said at login; in a pool, at the first one.
func (x *Access) TokenInfo() TokenInfo { return x.hello.Token }

// Module is the identity of the module as it was loaded. A pool goes on with no
// other one.
func (x *Access) Module() ModuleInfo { return x.hello.Module }

// KeyState is a key as read back from the token. A secret key has no public one.
type KeyState struct {
	KeyID      KeyID
	Algorithm  keyspec.Algorithm
	PublicKey  crypto.PublicKey // *ecdsa.PublicKey, *rsa.PublicKey or ed25519.PublicKey
	SPKI       []byte           // SubjectPublicKeyInfo, DER
	Attributes AttributePair
}

func (x *Access) keyState(id KeyID, body json.RawMessage) (*KeyState, error) {
	var st frame.KeyState
	if err := frame.Decode(body, &st); err != nil {
		return nil, err
	}
	return x.keyStateOf(id, &st)
}

func (x *Access) keyStateOf(id KeyID, st *frame.KeyState) (*KeyState, error) {
	if len(st.Attributes.Secret) > 0 {
		return &KeyState{KeyID: id, Algorithm: st.Algorithm, Attributes: st.Attributes}, nil
	}
	pub, err := x509.ParsePKIXPublicKey(st.PublicKey)
	if err != nil {
		return nil, &Error{Op: "read key", Token: x.id.Label, Label: id.String(), Class: "verify", Text: err.Error(), cause: err}
	}
	return &KeyState{KeyID: id, Algorithm: st.Algorithm, PublicKey: pub, SPKI: st.PublicKey, Attributes: st.Attributes}, nil
}

// Check compares the key with what the spec asks for at the stage.
func (k *KeyState) Check(spec GenerateSpec, st Stage) error {
	if k.Algorithm != spec.Algorithm {
		return &Error{Op: "check key", Label: spec.Label, Class: "verify", Text: "it is an " + string(k.Algorithm) + " key"}
	}
	return spec.Verify(st, k.Attributes)
}

// Random returns n bytes from the token's generator, 1 to 4,096.
func (x *Access) Random(ctx context.Context, n int) ([]byte, error) {
	body, err := json.Marshal(n)
	if err != nil {
		return nil, err
	}
	a, err := x.ask(ctx, frame.Request{Op: frame.OpRandom, Body: body}, "")
	if err != nil {
		return nil, err
	}
	if len(a.Data) != n {
		return nil, &Error{Op: "random", Token: x.id.Label, Class: "token", Text: "wrong number of bytes"}
	}
	return a.Data, nil
}

// Generate makes a key, reads every attribute back and compares it with
// the template. A key that differs is an error of class "verify"; it stays,
// under the tag of its id, for DestroyTagged.
func (x *Access) Generate(ctx context.Context, spec GenerateSpec) (*KeyState, error) {
	if err := spec.Check(); err != nil {
		return nil, usage("generate key", "%v", err)
	}
	if x.lasting && spec.SessionObject {
		return nil, usage("generate key", "a key of a session is not born in a pool, whose sessions come and go")
	}
	body, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	return x.checked(ctx, frame.Request{Op: frame.OpGenerate, Body: body}, spec, spec.Stage())
}

// checked runs a request that answers with a key and compares the key.
func (x *Access) checked(ctx context.Context, q frame.Request, spec GenerateSpec, st Stage) (*KeyState, error) {
	a, err := x.ask(ctx, q, spec.Label)
	if err != nil {
		return nil, err
	}
	k, err := x.keyState(spec.KeyID, a.Body)
	if err != nil {
		return nil, err
	}
	return k, k.Check(spec, st)
}

// Attributes reads a key back from the token.
func (x *Access) Attributes(ctx context.Context, id KeyID) (*KeyState, error) {
	a, err := x.ask(ctx, frame.Request{Op: frame.OpRead, Key: &id}, id.String())
	if err != nil {
		return nil, err
	}
	return x.keyState(id, a.Body)
}

// Outcome is what Lookup found of a key.
type Outcome string

// The outcomes.
const (
	// Absent: nothing in the token has the id, and nothing is there that has none.
	Absent Outcome = "absent"
	// Whole: the key is there, both halves of a pair, can be read, and did what it
	// is for, once, on noise.
	Whole Outcome = "whole"
	// Partial: something is there that is no key, such as one half of a pair, or
	// an object without any id, which a copy that was cut short may leave behind.
	// DestroyTagged clears it away.
	Partial Outcome = "partial"
)

// Found is what the token has under an id.
type Found struct {
	Outcome Outcome
	Objects []Object  // with the id, or without any
	Key     *KeyState // where it is whole
}

// Lookup tells what became of a generation, copy or destruction whose outcome is
// unknown (ErrLost): it looks at every object of the token, not at any handle that
// is kept.
func (x *Access) Lookup(ctx context.Context, id KeyID) (*Found, error) {
	a, err := x.ask(ctx, frame.Request{Op: frame.OpLook, Key: &id}, id.String())
	if err != nil {
		return nil, err
	}
	var b frame.LookBody
	if err := frame.Decode(a.Body, &b); err != nil {
		return nil, err
	}
	f := &Found{Outcome: Partial, Objects: b.Objects}
	switch {
	case len(b.Objects) == 0:
		f.Outcome = Absent
	case b.Key != nil:
		if f.Key, err = x.keyStateOf(id, b.Key); err != nil {
			return nil, err
		}
		f.Outcome = Whole
	}
	return f, nil
}

// Objects lists everything that the session can see.
func (x *Access) Objects(ctx context.Context) ([]Object, error) {
	a, err := x.ask(ctx, frame.Request{Op: frame.OpObjects}, "")
	if err != nil {
		return nil, err
	}
	var out []Object
	return out, frame.Decode(a.Body, &out)
}

// DestroyTagged destroys every object of the attempt, half copies included,
// removes the 0-byte files that a killed copy leaves in a file token, and
// looks again. Anything that stays is in Tainted and makes an error of class
// "token". With nameless, objects without any CKA_ID go too: right for tokens
// that hold nothing but keys of keyrite.
func (x *Access) DestroyTagged(ctx context.Context, tag Tag, nameless bool) (*Destroyed, error) {
	body, err := json.Marshal(frame.DestroyBody{Tag: tag, Nameless: nameless})
	if err != nil {
		return nil, err
	}
	a, err := x.ask(ctx, frame.Request{Op: frame.OpDestroy, Body: body}, "")
	if err != nil {
		return nil, err
	}
	var d Destroyed
	if err := frame.Decode(a.Body, &d); err != nil {
		return nil, err
	}
	if len(d.Tainted) > 0 {
		return &d, &Error{Op: "destroy", Token: x.id.Label, Class: "token", Text: "objects of the attempt are still there"}
	}
	return &d, nil
}

// SyncToken makes the files of a file token durable; elsewhere it does
// nothing.
func (x *Access) SyncToken(ctx context.Context) error {
	_, err := x.ask(ctx, frame.Request{Op: frame.OpSync}, "")
	return err
}
