package transit_test

import (
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/transit"
	"keyrite/vault/vaulttest"
)

// BenchmarkSign is a signature with its durable entry in the trail, without network and
// decision, 32 at a time.
func BenchmarkSign(b *testing.B) {
	v := vaulttest.NewWith(b, []vaulttest.Key{{ID: "token", Algorithm: anchor.P256, Domain: anchor.DomainGeneral}})
	v.Approve(charter.TypeMount, charter.Mount{Engine: "transit", ID: "transit"})
	v.Approve(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: "token", TokenKey: "token"})
	v.Approve(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: "software", Software: &charter.SoftwareKey{MinDecryption: 1, MinEncryption: 1, Type: "ecdsa-p256", Versions: 1}})
	bench := enginetest.Over(b, v.World, v.Store(), "transit")
	bench.Host.Token = v.Open()
	e := transit.New(bench.Host)
	if err := bench.Found(e); err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"token", "software"} {
		b.Run(name, func(b *testing.B) {
			b.SetParallelism(16) // times GOMAXPROCS
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := bench.Do(e, engine.Write, "sign/"+name, map[string]string{"input": "AAAA"}); err != nil {
						b.Error(err)
						return
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "signatures/s")
		})
	}
}
