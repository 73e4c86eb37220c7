package admit_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/world"
	"keyrite/hsm"
	"keyrite/hsm/admit"
	"keyrite/hsm/hsmtest"
)

const testWorld world.World = "rehearsal:abcdefgh"

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// TestSoftHSMAdmitted runs the suite with the real templates.
func TestSoftHSMAdmitted(t *testing.T) {
	e := hsmtest.New(t)
	s := e.Token(t, "work")
	r, err := admit.Run(t.Context(), s, testWorld, noon)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Cases) < 25 {
		t.Errorf("%d cases, want at least 25", len(r.Cases))
	}
	for _, c := range r.Cases {
		if strings.HasPrefix(c.Got, "not offered") {
			t.Errorf("%s was not tried: %s", c.ID, c.Got)
		}
	}
	if err := admit.Check(r, s.Access, testWorld, noon.Add(time.Hour)); err != nil {
		t.Error(err)
	}
	if !slices.Contains(r.Capabilities, "CKM_ECDSA") || len(r.Module.SHA256) != 64 || len(r.Module.Libraries) == 0 || len(r.Module.Configuration) != 1 {
		t.Errorf("incomplete report: %+v", r.Module)
	}
	if want := slices.Sorted(maps.Keys(admit.Algorithms())); !slices.Equal(r.Algorithms, want) {
		t.Errorf("admitted for %v, want %v", r.Algorithms, want)
	}
	if want := []string{"sign", "root-sign", "movable", "transport-unwrap", "seal", "mac"}; !slices.Equal(r.Templates, want) {
		t.Errorf("admitted templates %v, want %v", r.Templates, want)
	}
	objs, err := s.Objects(t.Context())
	if err != nil || len(objs) != 0 {
		t.Errorf("%d objects after the suite, %v", len(objs), err)
	}
	// The session is as good as new.
	tag, err := hsm.NewTag()
	if err != nil {
		t.Fatal(err)
	}
	sp := hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.ECDSAP256, KeyID: hsm.NewKeyID(tag, 1), Label: "k", SessionObject: true}
	if _, err := s.Generate(t.Context(), sp); err != nil {
		t.Error(err)
	}
	if _, err := admit.Run(t.Context(), s, testWorld, noon); err == nil {
		t.Error("a session with a key was attacked")
	}
}

// TestLooseTemplateRefused shows that each weakness makes its cases fail.
func TestLooseTemplateRefused(t *testing.T) {
	e := hsmtest.New(t)
	s := e.Token(t, "work")
	for _, tc := range []struct {
		name  string
		loose []hsm.Attribute
		fails []string
	}{
		{"extractable", []hsm.Attribute{{Name: "CKA_EXTRACTABLE", Value: "true"}}, []string{"readback-born", "readback-stored", "wrap-out", "wrap-trojan"}},
		{"neither sensitive nor kept", []hsm.Attribute{{Name: "CKA_SENSITIVE", Value: "false"}, {Name: "CKA_EXTRACTABLE", Value: "true"}}, []string{"readback-born", "read-value"}},
		{"may derive", []hsm.Attribute{{Name: "CKA_DERIVE", Value: "true"}, {Name: "CKA_ALLOWED_MECHANISMS", Value: "CKM_ECDH1_DERIVE"}}, []string{"readback-born", "usage-derive"}},
		{"no login per signature", []hsm.Attribute{{Name: "CKA_ALWAYS_AUTHENTICATE", Value: "false"}}, []string{"readback-root", "always-auth", "always-auth-once"}},
		{"wrapped under anything", []hsm.Attribute{{Name: "CKA_WRAP_WITH_TRUSTED", Value: "false"}}, []string{"readback-movable", "movable-untrusted"}},
		{"unwraps anything", []hsm.Attribute{{Name: "CKA_UNWRAP_TEMPLATE", Value: "CKA_UNWRAP=true"}}, []string{"readback-transport", "transport-loose"}},
		{"receiver decrypts", []hsm.Attribute{{Name: "CKA_DECRYPT", Value: "true"}}, []string{"readback-transport", "transport-other-use"}},
		{"receiver has no list of mechanisms", []hsm.Attribute{{Name: "CKA_ALLOWED_MECHANISMS", Value: "CKM_RSA_PKCS_OAEP,CKM_RSA_PKCS,CKM_ECDSA"}}, []string{"readback-transport", "transport-padding"}},
		{"stays modifiable", []hsm.Attribute{{Name: "CKA_MODIFIABLE", Value: "true"}}, []string{"readback-direct"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := s.Attack(t.Context(), []hsm.Algorithm{hsm.ECDSAP256}, tc.loose...)
			if err != nil {
				t.Fatal(err)
			}
			if !a.Loosened {
				t.Error("result does not say that it was loosened")
			}
			for _, id := range tc.fails {
				i := slices.IndexFunc(a.Cases, func(c hsm.Case) bool { return c.ID == id })
				if i < 0 || a.Cases[i].Pass {
					t.Errorf("case %s did not fail: %+v", id, a.Cases[i])
				}
			}
		})
	}
}
