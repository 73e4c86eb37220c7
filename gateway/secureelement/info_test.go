package secureelement_test

import (
	"testing"

	"keyrite/gateway/secureelement/setest"
)

// The chip id stays with the chip over a restart and differs between chips.
func TestInfo(t *testing.T) {
	one, two := setest.Start(t), setest.Start(t)
	a, err := one.Open().Info()
	if err != nil {
		t.Fatal(err)
	}
	one.Restart()
	b, err := one.Open().Info()
	if err != nil {
		t.Fatal(err)
	}
	c, err := two.Open().Info()
	if err != nil {
		t.Fatal(err)
	}
	if *a != *b || a.ChipID == c.ChipID || len(a.ChipID) != 32 || a.Kind != "tpm2" || a.Maker == "" {
		t.Errorf("info %+v, after restart %+v, of another chip %+v", a, b, c)
	}
}
