package transit_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/transit"
	"keyrite/vault/vaulttest"
)

// TestKilledWhileSigning: killed at any point of a release's signature, the next
// process knows what became of it and never has the token sign a second time. Only what
// was given back with its entry, before which the token was not asked, is free again.
func TestKilledWhileSigning(t *testing.T) {
	if point, dir := enginetest.Child(); point != "" {
		signUntilKilled(t, point, dir)
	}
	for point, want := range map[string]string{
		enginetest.Planned: "approved", enginetest.Reserved: "lost", enginetest.Worked: "lost", enginetest.Applied: "signed",
		enginetest.Unconfirmed: "lost", enginetest.Undone: "approved",
	} {
		t.Run(point, func(t *testing.T) { afterKill(t, enginetest.Kill(t, point), want) })
	}
}

// signUntilKilled founds a vault with a release key, leaves behind what the parent
// needs to go on, and kills itself.
func signUntilKilled(t *testing.T, point, dir string) {
	v := vaulttest.NewWith(t, []vaulttest.Key{{ID: "image", Algorithm: "p256", Domain: "raw-image"}})
	enginetest.LeaveToken(t, dir, v.HSM.Dir)
	v.Approve(charter.TypeMount, charter.Mount{Engine: "transit", ID: "transit"})
	v.Approve(charter.TypeTransitKey, charter.TransitKey{Mount: "transit", Name: "image", TokenKey: "image"})
	away := &enginetest.Away{}
	b := enginetest.Over(t, v.World, enginetest.StoreIn(t, dir, away), "transit")
	b.Host.Token = v.Open()
	r := &room{b, transit.New(b.Host), t}
	r.approve("r1", "image", 1, []byte("an image"))
	enginetest.LeaveCharter(t, dir, v.World)
	b.Reached = enginetest.KillAt(point)
	away.Gone.Store(point == enginetest.Unconfirmed || point == enginetest.Undone)
	_, err := b.Do(r.e, engine.Write, "sign/image", body{"input": b64([]byte("an image"))})
	t.Fatalf("the child is still there: %v", err)
}

// afterKill opens what the child left and asks again, without any token: whatever is
// answered was signed before.
func afterKill(t *testing.T, dir, want string) {
	t.Helper()
	b, _ := enginetest.Left(t, dir, "transit", "transit")
	r := &room{b, transit.New(b.Host), t}
	if got := r.states("image"); got["r1"] != want {
		t.Errorf("the release is %q, want %q", got["r1"], want)
	}
	open, err := r.Journal.Open()
	if err != nil || (len(open) == 1) != slices.Contains([]string{"lost"}, want) {
		t.Errorf("%d open intents: %v", len(open), err)
	}
	out, err := r.try("sign/image", body{"input": b64([]byte("an image"))})
	switch want {
	case "lost":
		if !errors.Is(err, transit.ErrLost) {
			t.Errorf("asked again: %v", err)
		}
	case "signed":
		if sig, _ := out["signature"].(string); err != nil || !strings.HasPrefix(sig, "vault:v1:") {
			t.Errorf("asked again: %v %v", out, err)
		}
	default:
		enginetest.Refused(r.t, "without a token", "sealed", err)
	}
}
