package hsm_test

import (
	"errors"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// room is two tokens with PINs, a movable key in the first and a receiver key in
// the second.
type room struct {
	*hsmtest.Env
	a, b     hsm.TokenID
	tag      hsm.Tag
	movable  hsm.GenerateSpec
	receiver hsm.GenerateSpec
	source   *hsm.KeyState
	dock     *hsm.KeyState
}

func transferRoom(t *testing.T, alg hsm.GenerateSpec) *room {
	t.Helper()
	return furnishRoom(t, hsmtest.New(t), alg)
}

func furnishRoom(t *testing.T, e *hsmtest.Env, alg hsm.GenerateSpec) *room {
	t.Helper()
	ctx := t.Context()
	r := &room{Env: e}
	var err error
	if r.tag, err = hsm.NewTag(); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		id    *hsm.TokenID
		label string
	}{{&r.a, "safe-a"}, {&r.b, "safe-b"}} {
		if *x.id, err = r.Supervisor.InitToken(ctx, x.label); err != nil {
			t.Fatal(err)
		}
		r.SetPINs(t, *x.id, newSO, newUser)
	}
	r.movable = hsm.GenerateSpec{Template: hsm.Movable, Algorithm: alg.Algorithm, KeyID: hsm.NewKeyID(r.tag, 1), Label: "traveller", SessionObject: true}
	birth, err := r.Supervisor.Open(ctx, r.a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = birth.Generate(ctx, r.movable); err != nil {
		t.Fatal(err)
	}
	if r.source, err = birth.CopyToToken(ctx, r.movable); err != nil {
		t.Fatal(err)
	}
	if err := birth.Close(); err != nil {
		t.Fatal(err)
	}
	r.receiver = hsm.GenerateSpec{Template: hsm.TransportUnwrap, Algorithm: hsm.RSA3072PKCS1, KeyID: hsm.NewKeyID(r.tag, 2), Label: "dock"}
	sb := r.Open(t, r.b)
	if r.dock, err = sb.Generate(ctx, r.receiver); err != nil {
		t.Fatal(err)
	}
	return r
}

// arriving is what the key is in its new token.
func (r *room) arriving() hsm.GenerateSpec {
	sp := r.movable
	sp.Template, sp.KeyID = hsm.Sign, hsm.NewKeyID(r.tag, 3)
	return sp
}

// TestTransfer moves a key of each kind that can be wrapped.
func TestTransfer(t *testing.T) {
	for _, alg := range []hsm.GenerateSpec{{Algorithm: hsm.ECDSAP256}, {Algorithm: hsm.ECDSAP384}, {Algorithm: hsm.RSA3072PKCS1}} {
		t.Run(string(alg.Algorithm), func(t *testing.T) {
			ctx := t.Context()
			r := transferRoom(t, alg)
			r.Take(t, r.Supervisor, r.a, hsm.Current, newSO, newUser)
			p, err := r.Supervisor.Export(ctx, r.a, r.movable, r.dock.SPKI)
			if err != nil {
				t.Fatal(err)
			}
			// The SO PIN was for one use.
			if _, err := r.Supervisor.Export(ctx, r.a, r.movable, r.dock.SPKI); !errors.Is(err, hsm.ErrPIN) {
				t.Errorf("second export: %v", err)
			}
			sb := r.Open(t, r.b)
			got, err := sb.Receive(ctx, r.receiver, r.arriving(), p)
			if err != nil {
				t.Fatal(err)
			}
			for name, want := range map[string]string{"CKA_LOCAL": "false", "CKA_NEVER_EXTRACTABLE": "false", "CKA_ALWAYS_SENSITIVE": "false", "CKA_EXTRACTABLE": "false", "CKA_SENSITIVE": "true", "CKA_MODIFIABLE": "false"} {
				if v := attribute(got.Key.Attributes.Private, name); v != want {
					t.Errorf("%s is %s, want %s", name, v, want)
				}
			}
			sa := r.Open(t, r.a)
			if err := sa.DestroyKey(ctx, r.movable.KeyID); err != nil {
				t.Fatal(err)
			}
			if o := objects(t, r.Open(t, r.a)); len(o) != 0 {
				t.Errorf("%d objects are left at A", len(o))
			}
			fresh := r.Open(t, r.b)
			if o := objects(t, fresh); len(o) != 4 {
				t.Errorf("%d objects at B, want two pairs", len(o))
			}
			k, err := fresh.Signer(ctx, r.arriving().KeyID)
			if err != nil {
				t.Fatal(err)
			}
			if string(k.State().SPKI) != string(r.source.SPKI) {
				t.Error("another public key arrived")
			}
			verifies(t, k, alg.Algorithm.Hash())
		})
	}
}

func attribute(as []hsm.Attribute, name string) string {
	for _, a := range as {
		if a.Name == name {
			return a.Value
		}
	}
	return ""
}

// TestTransferRefused breaks each end, and looks for what stayed.
func TestTransferRefused(t *testing.T) {
	ctx := t.Context()
	r := transferRoom(t, hsm.GenerateSpec{Algorithm: hsm.ECDSAP256})
	stays := hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.ECDSAP256, KeyID: hsm.NewKeyID(r.tag, 9), Label: "stays", SessionObject: true}
	sa, err := r.Supervisor.Open(ctx, r.a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sa.Generate(ctx, stays); err != nil {
		t.Fatal(err)
	}
	if _, err := sa.CopyToToken(ctx, stays); err != nil {
		t.Fatal(err)
	}
	r.Take(t, r.Supervisor, r.a, hsm.Current, newSO, newUser)
	if _, err := r.Supervisor.Export(ctx, r.a, r.movable, r.dock.SPKI); !errors.Is(err, hsm.ErrRefused) {
		t.Errorf("export beside an open session: %v", err)
	}
	if err := sa.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		edit func(*hsm.GenerateSpec, *[]byte)
	}{
		{"a key that stays", func(sp *hsm.GenerateSpec, _ *[]byte) { *sp = stays }},
		{"a key that stays, called movable", func(sp *hsm.GenerateSpec, _ *[]byte) { sp.KeyID, sp.Label = stays.KeyID, stays.Label }},
		{"no such key", func(sp *hsm.GenerateSpec, _ *[]byte) { sp.KeyID[15] = 77 }},
		{"receiver is no RSA key", func(_ *hsm.GenerateSpec, spki *[]byte) { *spki = r.source.SPKI }},
		{"no receiver", func(_ *hsm.GenerateSpec, spki *[]byte) { *spki = nil }},
	} {
		sp, spki := r.movable, r.dock.SPKI
		tc.edit(&sp, &spki)
		r.Take(t, r.Supervisor, r.a, hsm.Current, newSO, newUser)
		if _, err := r.Supervisor.Export(ctx, r.a, sp, spki); err == nil {
			t.Errorf("%s: it left", tc.name)
		}
	}
	r.Take(t, r.Supervisor, r.a, hsm.Current, newSO, newUser)
	p, err := r.Supervisor.Export(ctx, r.a, r.movable, r.dock.SPKI)
	if err != nil {
		t.Fatal(err)
	}
	refusesParcels(t, r, p)
}

func refusesParcels(t *testing.T, r *room, good *hsm.Parcel) {
	t.Helper()
	sb := r.Open(t, r.b)
	before := len(objects(t, sb))
	for _, tc := range []struct {
		name string
		edit func(p *hsm.Parcel, receiver, arriving *hsm.GenerateSpec)
	}{
		{"empty wrapping key", func(p *hsm.Parcel, _, _ *hsm.GenerateSpec) { p.WrappedKEK = nil }},
		{"empty key", func(p *hsm.Parcel, _, _ *hsm.GenerateSpec) { p.WrappedKey = nil }},
		{"flipped wrapping key", func(p *hsm.Parcel, _, _ *hsm.GenerateSpec) { p.WrappedKEK = flip(p.WrappedKEK) }},
		{"flipped key", func(p *hsm.Parcel, _, _ *hsm.GenerateSpec) { p.WrappedKey = flip(p.WrappedKey) }},
		{"cut key", func(p *hsm.Parcel, _, _ *hsm.GenerateSpec) { p.WrappedKey = p.WrappedKey[:16] }},
		{"another public key", func(p *hsm.Parcel, _, _ *hsm.GenerateSpec) { p.Key.PublicKey = r.dock.SPKI }},
		{"a sibling's public key", func(p *hsm.Parcel, _, _ *hsm.GenerateSpec) {
			s := r.Open(t, r.a)
			st, err := s.Attributes(t.Context(), hsm.NewKeyID(r.tag, 9))
			if err != nil {
				t.Fatal(err)
			}
			p.Key.PublicKey = st.SPKI
		}},
		{"as movable again", func(_ *hsm.Parcel, _, a *hsm.GenerateSpec) { a.Template = hsm.Movable }},
		{"at once in the token", func(_ *hsm.Parcel, _, a *hsm.GenerateSpec) { a.SessionObject = false }},
		{"as another algorithm", func(_ *hsm.Parcel, _, a *hsm.GenerateSpec) { a.Algorithm = hsm.ECDSAP384 }},
		{"under a label in use", func(_ *hsm.Parcel, _, a *hsm.GenerateSpec) { a.Label = "dock" }},
		{"receiver of another name", func(_ *hsm.Parcel, x, _ *hsm.GenerateSpec) { x.Label = "other" }},
		{"receiver is a signing key", func(_ *hsm.Parcel, x, _ *hsm.GenerateSpec) { x.Template = hsm.Sign }},
	} {
		p, receiver, arriving := *good, r.receiver, r.arriving()
		tc.edit(&p, &receiver, &arriving)
		if _, err := sb.Receive(t.Context(), receiver, arriving, &p); err == nil {
			t.Errorf("%s: it arrived", tc.name)
		}
		if n := len(objects(t, sb)); n != before {
			t.Errorf("%s: %d objects are there, %d were before", tc.name, n, before)
		}
	}
	if _, err := sb.Receive(t.Context(), r.receiver, r.arriving(), good); err != nil {
		t.Errorf("the good parcel after all these: %v", err)
	}
}

func flip(b []byte) []byte {
	out := append([]byte{}, b...)
	out[len(out)/2] ^= 1
	return out
}
