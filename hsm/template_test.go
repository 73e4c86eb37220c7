package hsm_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// templateCase is one template with one algorithm.
type templateCase struct {
	template hsm.Template
	alg      hsm.Algorithm
}

func templateCases() []templateCase {
	var out []templateCase
	for _, alg := range []hsm.Algorithm{hsm.ECDSAP256, hsm.ECDSAP384, hsm.RSA3072PKCS1, hsm.RSA3072PSS, hsm.Ed25519} {
		out = append(out, templateCase{hsm.Sign, alg}, templateCase{hsm.RootSign, alg})
		if alg != hsm.Ed25519 {
			out = append(out, templateCase{hsm.Movable, alg})
		}
	}
	return append(out, templateCase{hsm.TransportUnwrap, hsm.RSA3072PKCS1}, templateCase{hsm.Seal, hsm.AES256}, templateCase{hsm.MAC, hsm.HMACSHA256})
}

// granted is what each template grants, written down once more: everything that is
// not here must be false. The names are those of CKA_ attributes.
var granted = map[hsm.Template]struct{ private, public, secret string }{
	hsm.Sign:            {"TOKEN PRIVATE SENSITIVE SIGN DESTROYABLE LOCAL ALWAYS_SENSITIVE NEVER_EXTRACTABLE", "TOKEN VERIFY DESTROYABLE LOCAL", ""},
	hsm.RootSign:        {"TOKEN PRIVATE SENSITIVE SIGN DESTROYABLE LOCAL ALWAYS_SENSITIVE NEVER_EXTRACTABLE ALWAYS_AUTHENTICATE", "TOKEN VERIFY DESTROYABLE LOCAL", ""},
	hsm.Movable:         {"TOKEN PRIVATE SENSITIVE SIGN DESTROYABLE LOCAL ALWAYS_SENSITIVE EXTRACTABLE WRAP_WITH_TRUSTED", "TOKEN VERIFY DESTROYABLE LOCAL", ""},
	hsm.TransportUnwrap: {"TOKEN PRIVATE SENSITIVE UNWRAP DESTROYABLE LOCAL ALWAYS_SENSITIVE NEVER_EXTRACTABLE", "TOKEN DESTROYABLE LOCAL", ""},
	hsm.Seal:            {"", "", "TOKEN PRIVATE SENSITIVE ENCRYPT DECRYPT DESTROYABLE LOCAL ALWAYS_SENSITIVE NEVER_EXTRACTABLE"},
	hsm.MAC:             {"", "", "TOKEN PRIVATE SENSITIVE SIGN VERIFY DESTROYABLE LOCAL ALWAYS_SENSITIVE NEVER_EXTRACTABLE"},
}

// only is the one mechanism of each key.
var only = map[hsm.Algorithm]string{
	hsm.ECDSAP256: "CKM_ECDSA", hsm.ECDSAP384: "CKM_ECDSA", hsm.RSA3072PKCS1: "CKM_RSA_PKCS", hsm.RSA3072PSS: "CKM_RSA_PKCS_PSS",
	hsm.Ed25519: "CKM_EDDSA", hsm.AES256: "CKM_AES_GCM", hsm.HMACSHA256: "CKM_SHA256_HMAC",
}

// half is the attributes of one object of a key, with its class.
type half struct {
	class, granted string
	got            []hsm.Attribute
}

func halves(tc templateCase, k *hsm.KeyState) []half {
	g := granted[tc.template]
	var out []half
	for _, h := range []half{{"CKO_PRIVATE_KEY", g.private, k.Attributes.Private}, {"CKO_PUBLIC_KEY", g.public, k.Attributes.Public}, {"CKO_SECRET_KEY", g.secret, k.Attributes.Secret}} {
		if len(h.got) > 0 {
			out = append(out, h)
		}
	}
	return out
}

// TestTemplates makes a key of every template with every algorithm, and looks at
// each of its attributes. Then the module lies about each of them, one after the
// other, and the key is refused every time.
func TestTemplates(t *testing.T) {
	e := hsmtest.NewStore(t)
	liar := e.Liar(t)
	e.Config.Module = liar.Module
	e.Supervisor = e.Start(t)
	s := e.Token(t, "templates")
	tag, err := hsm.NewTag()
	if err != nil {
		t.Fatal(err)
	}
	for i, tc := range templateCases() {
		t.Run(fmt.Sprintf("%s %s", tc.template, tc.alg), func(t *testing.T) {
			liar.Honest()
			sp := hsm.GenerateSpec{Template: tc.template, Algorithm: tc.alg, KeyID: hsm.NewKeyID(tag, uint64(i+1)), Label: fmt.Sprintf("key-%d", i)}
			k, err := s.Generate(t.Context(), sp)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range halves(tc, k) {
				grants(t, tc, sp, h)
				for _, a := range h.got {
					liar.Lie(h.class, a.Name)
					st, err := s.Attributes(t.Context(), sp.KeyID)
					if err == nil {
						err = st.Check(sp, hsm.Direct)
					}
					if class(err) != "verify" || liar.Lies() == 0 {
						t.Errorf("a lie about %s of %s: %v (class %s, %d lies)", a.Name, h.class, err, class(err), liar.Lies())
					}
				}
			}
			liar.Honest()
			if st, err := s.Attributes(t.Context(), sp.KeyID); err != nil || st.Check(sp, hsm.Direct) != nil {
				t.Errorf("after the lies: %v", err)
			}
		})
	}
	refusesLiars(t, e, liar, s, tag)
}

// grants compares one object of a key with the table above.
func grants(t *testing.T, tc templateCase, sp hsm.GenerateSpec, h half) {
	t.Helper()
	want := strings.Fields(h.granted)
	seen := 0
	for _, a := range h.got {
		name := strings.TrimPrefix(a.Name, "CKA_")
		switch a.Value {
		case "true", "false":
			if is := slices.Contains(want, name); is != (a.Value == "true") {
				t.Errorf("%s of %s is %s", a.Name, h.class, a.Value)
			}
			seen++
			continue
		case "(not reported)":
			t.Errorf("%s of %s is not reported", a.Name, h.class)
		}
		mechanism := only[tc.alg]
		if tc.template == hsm.TransportUnwrap {
			mechanism = "CKM_RSA_PKCS_OAEP"
		}
		for n, v := range map[string]string{"CLASS": h.class, "ID": sp.KeyID.String(), "LABEL": sp.Label, "ALLOWED_MECHANISMS": mechanism, "START_DATE": "", "END_DATE": "", "SUBJECT": "", "VALUE_LEN": "32", "PUBLIC_EXPONENT": "010001", "MODULUS_BITS": "3072"} {
			if n == name && a.Value != v {
				t.Errorf("%s of %s is %q, want %q", a.Name, h.class, a.Value, v)
			}
		}
	}
	if seen < len(want) || seen < 12 {
		t.Errorf("%s shows %d truth values", h.class, seen)
	}
}

// refusesLiars has keys made while the module lies, and signatures garbled.
func refusesLiars(t *testing.T, e *hsmtest.Env, liar *hsmtest.Liar, s *hsm.Session, tag hsm.Tag) {
	n := uint64(1000)
	for _, tc := range []struct {
		templateCase
		class, attribute string
	}{
		{templateCase{hsm.Sign, hsm.ECDSAP256}, "CKO_PRIVATE_KEY", "CKA_EXTRACTABLE"},
		{templateCase{hsm.RootSign, hsm.ECDSAP256}, "CKO_PRIVATE_KEY", "CKA_ALWAYS_AUTHENTICATE"},
		{templateCase{hsm.Seal, hsm.AES256}, "CKO_SECRET_KEY", "CKA_WRAP"},
		{templateCase{hsm.MAC, hsm.HMACSHA256}, "CKO_SECRET_KEY", "CKA_SENSITIVE"},
	} {
		n++
		sp := hsm.GenerateSpec{Template: tc.template, Algorithm: tc.alg, KeyID: hsm.NewKeyID(tag, n), Label: fmt.Sprintf("liar-%d", n)}
		liar.Lie(tc.class, tc.attribute)
		if _, err := s.Generate(t.Context(), sp); class(err) != "verify" || !strings.Contains(err.Error(), tc.attribute) {
			t.Errorf("%s with a lie about %s: %v", tc.template, tc.attribute, err)
		}
	}
	liar.Honest()
	good := hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.ECDSAP256, KeyID: hsm.NewKeyID(tag, 2000), Label: "garbled"}
	if _, err := s.Generate(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	p, err := hsm.NewPool(t.Context(), e.Supervisor, s.Token(), hsm.PoolConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for name, x := range map[string]*hsm.Access{"session": s.Access, "pool": p.Access} {
		k, err := x.Signer(t.Context(), good.KeyID)
		if err != nil {
			t.Fatal(err)
		}
		liar.Garble()
		if sig, err := k.SignContext(t.Context(), make([]byte, 32)); class(err) != "verify" || sig != nil || liar.Lies() == 0 {
			t.Errorf("%s: a garbled signature: %x, %v", name, sig, err)
		}
		liar.Honest()
	}
	// A lie about the public key is found by the first signature, or before.
	liar.Lie("CKO_PUBLIC_KEY", "CKA_EC_POINT")
	k, err := e.Open(t, s.Token()).Signer(t.Context(), good.KeyID)
	if err == nil {
		_, err = k.SignContext(t.Context(), make([]byte, 32))
	}
	if class(err) != "verify" {
		t.Errorf("a lie about the public key: %v", err)
	}
}

// TestWrappingKeyLies lies about each attribute of the two objects that the SO makes
// for one export: nothing leaves the token.
func TestWrappingKeyLies(t *testing.T) {
	e := hsmtest.NewStore(t)
	liar := e.Liar(t)
	e.Config.Module = liar.Module
	e.Supervisor = e.Start(t)
	r := furnishRoom(t, e, hsm.GenerateSpec{Algorithm: hsm.ECDSAP256})
	export := func() error {
		r.Take(t, r.Supervisor, r.a, hsm.Current, newSO, newUser)
		_, err := r.Supervisor.Export(t.Context(), r.a, r.movable, r.dock.SPKI)
		return err
	}
	r.Take(t, r.Supervisor, r.a, hsm.Current, newSO, newUser)
	p, err := r.Supervisor.Export(t.Context(), r.a, r.movable, r.dock.SPKI)
	if err != nil {
		t.Fatal(err)
	}
	for class, as := range map[string][]hsm.Attribute{"CKO_SECRET_KEY": p.Wrapping, "CKO_PUBLIC_KEY": p.Receiver} {
		trusted := attribute(as, "CKA_TRUSTED")
		if trusted != "true" || attribute(as, "CKA_WRAP") != "true" || attribute(as, "CKA_UNWRAP") == "true" || attribute(as, "CKA_DECRYPT") == "true" {
			t.Errorf("%s: %v", class, as)
		}
		if testing.Short() {
			as = []hsm.Attribute{{Name: "CKA_TRUSTED"}, {Name: "CKA_WRAP"}, {Name: "CKA_MODIFIABLE"}}
		}
		for _, a := range as {
			liar.Lie(class, a.Name)
			if err := export(); err == nil {
				t.Errorf("a lie about %s of %s: the key left", a.Name, class)
			}
			liar.Honest()
		}
	}
	if err := export(); err != nil {
		t.Errorf("after the lies: %v", err)
	}
}

// TestRootSignLogsIn counts logins: one for each signature of a root key, none for
// those of another.
func TestRootSignLogsIn(t *testing.T) {
	r := newPoolRoom(t)
	p := r.pool(t, hsm.PoolConfig{Sessions: 2})
	root := signSpec(t, "root")
	root.Template, root.SessionObject = hsm.RootSign, false
	if _, err := p.Generate(t.Context(), root); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		key  hsm.KeyID
		want int
	}{{root.KeyID, 5}, {r.key.KeyID, 0}} {
		k, err := p.Signer(t.Context(), tc.key)
		if err != nil {
			t.Fatal(err)
		}
		r.faults.Reset(0, 0, 0)
		done := make(chan error)
		for i := range 5 {
			go func() {
				_, err := k.SignContext(t.Context(), digestOf(9, i))
				done <- err
			}()
		}
		for range 5 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n := r.calls(t, "C_Login"); n != tc.want {
			t.Errorf("%d logins for 5 signatures, want %d", n, tc.want)
		}
	}
}

// TestSecretKeys seals and authenticates in the token, through a pool that loses
// its process in between, and refuses what was altered.
func TestSecretKeys(t *testing.T) {
	r := newPoolRoom(t)
	p := r.pool(t, hsm.PoolConfig{Sessions: 2})
	ctx := t.Context()
	seal, mac := signSpec(t, "seal"), signSpec(t, "mac")
	seal.Template, seal.Algorithm, seal.SessionObject = hsm.Seal, hsm.AES256, false
	mac.Template, mac.Algorithm, mac.SessionObject = hsm.MAC, hsm.HMACSHA256, false
	for _, sp := range []hsm.GenerateSpec{seal, mac} {
		if _, err := p.Generate(ctx, sp); err != nil {
			t.Fatal(err)
		}
	}
	secret, aad := make([]byte, 32), []byte("vault, epoch 1")
	rand.Read(secret)
	sealed, err := p.Encrypt(ctx, seal.KeyID, secret, aad)
	if err != nil {
		t.Fatal(err)
	}
	again, err := p.Encrypt(ctx, seal.KeyID, secret, aad)
	if err != nil || bytes.Equal(sealed, again) || len(sealed) != 12+32+16 || bytes.Contains(sealed, secret) {
		t.Errorf("sealed twice: %x and %x, %v", sealed, again, err)
	}
	tag, err := p.MAC(ctx, mac.KeyID, []byte("message"))
	if err != nil || len(tag) != sha256.Size {
		t.Fatal(tag, err)
	}
	// A fresh process has the same keys.
	fresh := r.env.Open(t, r.id)
	if got, err := fresh.Decrypt(ctx, seal.KeyID, sealed, aad); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("decrypted %x, %v", got, err)
	}
	if err := fresh.VerifyMAC(ctx, mac.KeyID, []byte("message"), tag); err != nil {
		t.Error(err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if got, err := p.Decrypt(ctx, seal.KeyID, bad, aad); class(err) != "verify" || got != nil {
			t.Errorf("byte %d altered: %x, %v", i, got, err)
		}
	}
	for name, f := range map[string]func() error{
		"other data":    func() error { _, err := p.Decrypt(ctx, seal.KeyID, sealed, []byte("vault, epoch 2")); return err },
		"no data":       func() error { _, err := p.Decrypt(ctx, seal.KeyID, sealed, nil); return err },
		"cut":           func() error { _, err := p.Decrypt(ctx, seal.KeyID, sealed[:len(sealed)-1], aad); return err },
		"other message": func() error { return p.VerifyMAC(ctx, mac.KeyID, []byte("messagf"), tag) },
		"other tag":     func() error { return p.VerifyMAC(ctx, mac.KeyID, []byte("message"), make([]byte, 32)) },
		"short tag":     func() error { return p.VerifyMAC(ctx, mac.KeyID, []byte("message"), tag[:31]) },
		"tag of software": func() error {
			return p.VerifyMAC(ctx, mac.KeyID, []byte("message"), hmac.New(sha256.New, nil).Sum(nil))
		},
	} {
		if err := f(); class(err) != "verify" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, f := range map[string]func() error{
		"nothing to seal":      func() error { _, err := p.Encrypt(ctx, seal.KeyID, nil, aad); return err },
		"too much":             func() error { _, err := p.Encrypt(ctx, seal.KeyID, make([]byte, hsm.MaxSealed+1), aad); return err },
		"too short":            func() error { _, err := p.Decrypt(ctx, seal.KeyID, sealed[:28], aad); return err },
		"MAC of nothing":       func() error { _, err := p.MAC(ctx, mac.KeyID, nil); return err },
		"MAC key seals":        func() error { _, err := p.Encrypt(ctx, mac.KeyID, secret, aad); return err },
		"seal key MACs":        func() error { _, err := p.MAC(ctx, seal.KeyID, secret); return err },
		"signing key seals":    func() error { _, err := p.Encrypt(ctx, r.key.KeyID, secret, aad); return err },
		"seal key as a signer": func() error { _, err := p.Signer(ctx, seal.KeyID); return err },
	} {
		if err := f(); class(err) != "usage" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f, err := p.Lookup(ctx, seal.KeyID); err != nil || f.Outcome != hsm.Whole || f.Key.Check(seal, hsm.Direct) != nil {
		t.Errorf("lookup: %+v, %v", f, err)
	}
	if err := p.DestroyKey(ctx, seal.KeyID); err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.Decrypt(ctx, seal.KeyID, sealed, aad); !errors.Is(err, hsm.ErrNotFound) {
		t.Errorf("after destruction: %v", err)
	}
}
