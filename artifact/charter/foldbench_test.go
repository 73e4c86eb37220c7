package charter_test

import (
	"testing"

	"keyrite/artifact/charter"
)

// BenchmarkFold10000 reads a charter of 10,000 statements, as a vault does when it
// starts (issue: with 1,000,000 entries of its trail in under 3 s).
func BenchmarkFold10000(b *testing.B) {
	v := withAccess(b)
	for i := v.State.Access.Policies["reader"].Version + 1; v.State.Size() < 10_000; i++ {
		v.Approve(charter.TypePolicy, kvPolicy("reader", i))
	}
	for b.Loop() {
		if _, err := charter.Fold(v.Charter, v.World.World, v.Anchors.Vault); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(v.Charter))/1e6, "MB")
}
