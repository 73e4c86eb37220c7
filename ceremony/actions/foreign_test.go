package actions

import (
	"bytes"
	"encoding/hex"
	"os"
	"os/exec"
	"strings"
	"testing"

	"keyrite/artifact/share"
)

// foreignShamir combines shares in Python, from the textbook: GF(2^8) with the
// AES polynomial, Lagrange at 0. It shares no line with the library that split.
const foreignShamir = `
import sys
def mul(a, b):
    r = 0
    while b:
        if b & 1: r ^= a
        a = (a << 1) ^ (0x11b if a & 0x80 else 0)
        b >>= 1
    return r
def inv(a):
    return next(b for b in range(1, 256) if mul(a, b) == 1)
shares = [bytes.fromhex(l) for l in sys.stdin.read().split()]
xs = [s[-1] for s in shares]
out = []
for i in range(len(shares[0]) - 1):
    v = 0
    for j, s in enumerate(shares):
        l = 1
        for k, x in enumerate(xs):
            if k != j: l = mul(l, mul(x, inv(x ^ xs[j])))
        v ^= mul(s[i], l)
    out.append(v)
print(bytes(out).hex())
`

// foreign combines the two masters' shares of an epoch outside of keyrite.
func (x *tiny) foreign(t *testing.T, dir string, epoch int) []byte {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Fatal("python3 is missing: scripts/setup installs it")
	}
	s := x.state(t, dir, epoch)
	var in []string
	for _, n := range []string{"master1", "master2"} {
		file, err := os.ReadFile(x.share(n, epoch))
		if err != nil {
			t.Fatal(err)
		}
		place, public, err := share.PlaceOf(s, "work", n)
		if err != nil {
			t.Fatal(err)
		}
		raw, _, err := share.Open(file, x.people[n].Identity(), place, public)
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, hex.EncodeToString(raw))
	}
	cmd := exec.Command(python, "-c", foreignShamir)
	cmd.Stdin = strings.NewReader(strings.Join(in, "\n"))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	secret, err := hex.DecodeString(string(bytes.TrimSpace(out)))
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// logins says whether the PINs of a secret open the token in OpenSC's tool.
func (x *tiny) logins(t *testing.T, dir string, secret []byte, epoch int) (so, user bool) {
	t.Helper()
	tool, err := exec.LookPath("pkcs11-tool")
	if err != nil {
		t.Fatal("pkcs11-tool is missing: scripts/setup installs it")
	}
	s := x.state(t, dir, epoch)
	place := share.Place{Epoch: epoch, Safe: "work", Vault: s.Vault, World: s.World}
	try := func(who string, args ...string) bool {
		t.Helper()
		pin, err := share.PIN(secret, place, who, "tiny")
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(tool, append([]string{"--module", x.env.Config.Module, "--token-label", "tiny", "--login"}, append(args, string(pin))...)...)
		if who == share.SO { // an SO logs in for writing only: the PIN is set to what it is
			cmd.Args = append(cmd.Args, "--change-pin", "--new-pin", string(pin))
		}
		cmd.Env = []string{"SOFTHSM2_CONF=" + x.env.Conf}
		out, err := cmd.CombinedOutput()
		if err != nil && !bytes.Contains(out, []byte("CKR_PIN_INCORRECT")) {
			t.Fatalf("%v\n%s", err, out)
		}
		return err == nil
	}
	return try(share.SO, "--login-type", "so", "--so-pin"), try(share.User, "--list-objects", "--pin")
}

// Old shares, combined by another program, give a secret whose PINs open the token
// before a reshare and never after it, whatever epoch they are derived for.
func TestOldSharesOpenNothingAfterAReshare(t *testing.T) {
	t.Parallel()
	x := newTiny(t)
	secret := x.foreign(t, x.dir, 1)
	if so, user := x.logins(t, x.dir, secret, 1); !so || !user {
		t.Fatalf("the foreign program's secret opens nothing even before: SO %v, user %v", so, user)
	}
	dir, err := x.reshare(t, "reshare")
	if err != nil {
		t.Fatal(err)
	}
	for epoch := 1; epoch <= 2; epoch++ {
		if so, user := x.logins(t, dir, secret, epoch); so || user {
			t.Errorf("old shares, PINs for epoch %d: SO %v, user %v", epoch, so, user)
		}
	}
	next := x.foreign(t, dir, 2)
	if bytes.Equal(next, secret) {
		t.Error("the secret is the old one")
	}
	if so, user := x.logins(t, dir, next, 2); !so || !user {
		t.Errorf("new shares: SO %v, user %v", so, user)
	}
}
