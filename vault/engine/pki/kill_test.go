package pki_test

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/pki"
	"keyrite/vault/vaulttest"
)

// TestKilledWhileIssuing: killed at any point, a certificate is either recorded and
// good, or its number stands in the list, or nothing was signed at all: not asked for
// yet, or given back before the token was.
func TestKilledWhileIssuing(t *testing.T) {
	if point, dir := enginetest.Child(); point != "" {
		issueUntilKilled(t, point, dir)
	}
	for point, want := range map[string]string{
		enginetest.Planned: "unknown", enginetest.Reserved: "revoked", enginetest.Worked: "revoked", enginetest.Applied: "good",
		enginetest.Unconfirmed: "revoked", enginetest.Undone: "unknown",
	} {
		t.Run(point, func(t *testing.T) {
			if got := afterKill(t, enginetest.Kill(t, point)); got != want {
				t.Errorf("the certificate is %s, want %s", got, want)
			}
		})
	}
}

// issueUntilKilled founds a vault with a CA, leaves behind what the parent needs to go
// on, and kills itself.
func issueUntilKilled(t *testing.T, point, dir string) {
	v := vaulttest.NewWith(t, []vaulttest.Key{{ID: "plant-ca", Algorithm: anchor.P256, Domain: "x509"}})
	enginetest.LeaveToken(t, dir, v.HSM.Dir)
	away := &enginetest.Away{}
	r := roomOver(t, v, enginetest.StoreIn(t, dir, away))
	r.state(func(*charter.PKIRole) {})
	enginetest.LeaveCharter(t, dir, v.World)
	kill := enginetest.KillAt(point)
	away.Gone.Store(point == enginetest.Unconfirmed || point == enginetest.Undone)
	r.Reached = func(p string, plan *engine.Plan) {
		if p == enginetest.Planned {
			enginetest.Leave(t, dir, "serial", []byte(plan.Shown["serial"].(string)))
		}
		kill(p, plan)
	}
	_, err := r.Do(r.e, engine.Write, "issue/plant", body{"common_name": "mes.example.com"})
	t.Fatalf("the child is still there: %v", err)
}

// afterKill opens what the child left and says what the store knows of the certificate,
// without a token.
func afterKill(t *testing.T, dir string) string {
	t.Helper()
	b, st := enginetest.Left(t, dir, "pki", "pki")
	b.Now = time.Now().Add(time.Hour)
	serial := string(enginetest.ReadLeft(t, dir, "serial"))
	e := pki.New(b.Host)
	lost := pki.Revoked(e, b.Store, b.Now)
	a, err := b.Do(e, engine.Read, "cert/"+serial, nil)
	switch {
	case err == nil:
		if bytes.Contains(lost, []byte(serial)) {
			t.Error("it is given out and revoked")
		}
		got := parse(t, enginetest.Data(t, a)["certificate"])
		if err := got.CheckSignatureFrom(issuerOf(t, st)); err != nil || hex.EncodeToString(got.SerialNumber.Bytes()) != serial {
			t.Errorf("the recorded certificate: %v", err)
		}
		return "good"
	case !errors.Is(err, engine.ErrNotThere):
		t.Fatal(err)
	case bytes.Contains(lost, []byte(serial)):
		return "revoked"
	}
	return "unknown"
}

func issuerOf(t *testing.T, st *charter.State) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(st.PKIRoles["pki/plant"].Issuer)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
