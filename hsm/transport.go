package hsm

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"

	"keyrite/hsm/internal/frame"
)

// Parcel is a key on its way from one token to another: two blobs that only the
// receiver's private half opens, and what the sending token said of all that
// took part.
type Parcel = frame.Parcel

// Export wraps a movable key for the receiver whose public half (DER
// SubjectPublicKeyInfo, RSA-3072) is given. It runs in a module process of its
// own, which needs both PINs of the token: the SO makes the wrapping key
// trusted, the user wraps. The SO PIN is wiped afterwards. The key stays where
// it is; DestroyKey takes it away. No session of the token may be open.
func (s *Supervisor) Export(ctx context.Context, t TokenID, key GenerateSpec, receiver []byte) (*Parcel, error) {
	if err := key.Check(); err != nil {
		return nil, usage("export key", "%v", err)
	}
	a, _, err := s.call(ctx, frame.Command{Verb: frame.VerbExport, Token: t, Export: &frame.ExportBody{Key: key, Receiver: receiver}}, nil)
	if err != nil {
		return nil, err
	}
	return a.Parcel, nil
}

// Arrival is a key that came out of a parcel.
type Arrival struct {
	Key       KeyState
	Unwrapped []Attribute // the wrapping key as it was here, for one request
}

// Receive unwraps a parcel with the receiver key into this token, as the
// signing key that arriving asks for. The key is proven by a signature that
// verifies with the public key in the parcel before it is copied into the token;
// if anything fails, nothing of it stays. It shows itself as moved.
func (s *Session) Receive(ctx context.Context, receiver, arriving GenerateSpec, p *Parcel) (*Arrival, error) {
	const op = "receive key"
	if err := arriving.Check(); err != nil {
		return nil, usage(op, "%v", err)
	}
	body, err := json.Marshal(frame.ReceiveBody{Receiver: receiver, Key: arriving, PublicKey: p.Key.PublicKey, WrappedKEK: p.WrappedKEK, WrappedKey: p.WrappedKey})
	if err != nil {
		return nil, err
	}
	a, err := s.ask(ctx, frame.Request{Op: frame.OpReceive, Body: body}, arriving.Label)
	if err != nil {
		return nil, err
	}
	var got frame.Arrival
	if err := frame.Decode(a.Body, &got); err != nil {
		return nil, err
	}
	pub, err := x509.ParsePKIXPublicKey(got.Key.PublicKey)
	if err != nil || !bytes.Equal(got.Key.PublicKey, p.Key.PublicKey) {
		return nil, &Error{Op: op, Token: s.id.Label, Label: arriving.Label, Class: "verify", Text: "another key arrived than was sent", cause: err}
	}
	st := KeyState{KeyID: arriving.KeyID, Algorithm: got.Key.Algorithm, PublicKey: pub, SPKI: got.Key.PublicKey, Attributes: got.Key.Attributes}
	return &Arrival{Key: st, Unwrapped: got.Unwrapped}, st.Check(arriving, Moved)
}

// DestroyKey destroys everything with the id of a key, half copies included, makes
// that durable, and proves by an empty search that nothing with the id is left.
func (x *Access) DestroyKey(ctx context.Context, id KeyID) error {
	_, err := x.ask(ctx, frame.Request{Op: frame.OpRemove, Key: &id}, id.String())
	return err
}
