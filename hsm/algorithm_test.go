package hsm_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"os"
	"os/exec"
	"strings"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// TestAlgorithms takes a key of each further algorithm through birth and copy,
// and has the signatures verified by crypto/*, apart from the checks inside.
func TestAlgorithms(t *testing.T) {
	e := hsmtest.New(t)
	ctx := t.Context()
	id, err := e.Supervisor.InitToken(ctx, "algorithms")
	if err != nil {
		t.Fatal(err)
	}
	e.SetPINs(t, id, newSO, newUser)
	tag, err := hsm.NewTag()
	if err != nil {
		t.Fatal(err)
	}
	birth := e.Open(t, id)
	pss := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
	cases := []struct {
		spec        hsm.GenerateSpec
		good, wrong crypto.SignerOpts
	}{
		{hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.ECDSAP384}, crypto.SHA384, crypto.SHA256},
		{hsm.GenerateSpec{Template: hsm.RootSign, Algorithm: hsm.RSA3072PKCS1}, crypto.SHA256, pss},
		{hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.RSA3072PSS}, pss, crypto.SHA256},
		{hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.RSA4096PKCS1}, crypto.SHA256, crypto.SHA384},
		{hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.RSA4096PSS}, pss, crypto.SHA256},
	}
	for i := range cases {
		sp := &cases[i].spec
		sp.KeyID, sp.Label, sp.SessionObject = hsm.NewKeyID(tag, uint64(i+1)), string(sp.Algorithm), true
		if _, err := birth.Generate(ctx, *sp); err != nil {
			t.Fatal(err)
		}
		if _, err := birth.CopyToToken(ctx, *sp); err != nil {
			t.Fatal(err)
		}
	}
	fresh := e.Open(t, id)
	for _, tc := range cases {
		st, err := fresh.Attributes(ctx, tc.spec.KeyID)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Check(tc.spec, hsm.Stored); err != nil {
			t.Error(err)
		}
		k, err := fresh.Signer(ctx, tc.spec.KeyID)
		if err != nil {
			t.Fatal(err)
		}
		verifies(t, k, tc.good)
		digest := make([]byte, tc.wrong.HashFunc().Size())
		if _, err := k.Sign(rand.Reader, digest, tc.wrong); err == nil {
			t.Errorf("%s signed with %v", tc.spec.Algorithm, tc.wrong)
		}
		if _, err := k.SignContext(ctx, []byte("short")); err == nil {
			t.Errorf("%s signed 5 bytes", tc.spec.Algorithm)
		}
	}
	onlySigns(t, e)
}

func verifies(t *testing.T, k *hsm.Key, opts crypto.SignerOpts) {
	t.Helper()
	alg, in := k.State().Algorithm, inputOf(k.State().Algorithm, 0, 0)
	sig, err := k.Sign(rand.Reader, in, opts)
	if err != nil {
		t.Fatal(err)
	}
	if !holds(alg, k.Public(), in, sig) {
		t.Errorf("the signature of %s does not verify", alg)
	}
}

// onlySigns asks a foreign program what the keys may do: Boulder's ceremony
// makes RSA roots that may decrypt and unwrap.
func onlySigns(t *testing.T, e *hsmtest.Env) {
	t.Helper()
	cmd := exec.Command("pkcs11-tool", "--module", e.Config.Module, "--token-label", "algorithms", "--login", "--pin", newUser, "-O")
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+e.Conf)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("pkcs11-tool: %v\n%s", err, out)
	}
	private := 0
	half := ""
	for line := range strings.Lines(string(out)) {
		switch {
		case strings.HasPrefix(line, "Private Key Object"):
			private, half = private+1, "sign"
		case strings.HasPrefix(line, "Public Key Object"):
			half = "verify"
		}
		if use, ok := strings.CutPrefix(strings.TrimSpace(line), "Usage:"); ok && strings.TrimSpace(use) != half {
			t.Errorf("a key may %s, not only %s", strings.TrimSpace(use), half)
		}
	}
	if private != 5 {
		t.Errorf("pkcs11-tool lists %d private keys, want 5:\n%s", private, out)
	}
}
