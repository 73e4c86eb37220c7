package identity_test

import (
	"testing"

	"keyrite/artifact/charter"
	"keyrite/vault/identity"
)

// BenchmarkCaller is what each request pays to be known: by a token, by a certificate
// that was judged before, and with the charter gone on since the login.
func BenchmarkCaller(b *testing.B) {
	v, m := newBench(b), newMaker(b)
	v.decide(charter.TypeIdentity, certIdentity("mes", mes, m.ca("ca", "plant CA", "")))
	peer := withCert(m.leaf("ca", "x", clientExt+uri(mes)))
	auth := v.mustLogin(identity.MeansCertificate, nil, peer)
	run := func(name string, token string) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := v.reg.Caller(secret(token), peer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	tok := string(auth.Token.Bytes())
	run("token", tok)
	run("certificate", "")
	v.decide(charter.TypeIdentity, unixIdentity("other", 1000))
	run("token-later-charter", tok)
}
