package hsm_test

import (
	"context"
	"crypto"
	"errors"
	"slices"
	"testing"
	"time"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
	"keyrite/internal/clitest"
)

// A signature that hangs in the token ends with the context of whoever asked, also
// through a signer that is given none; and the signer takes nothing that the key
// does not take.
func TestSignatureEndsWithItsContext(t *testing.T) {
	e := hsmtest.NewStore(t)
	f := e.Faults(t)
	e.Config.Module = f.Module
	e.Supervisor = e.Start(t)
	s := e.Token(t, "work")
	sp := signSpec(t, "k")
	if _, err := s.Generate(t.Context(), sp); err != nil {
		t.Fatal(err)
	}
	k, err := s.Signer(t.Context(), sp.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	signer := k.Within(ctx)
	if _, err := signer.Sign(nil, make([]byte, 48), crypto.SHA384); class(err) != "usage" {
		t.Errorf("another hash: %v", err)
	}
	if _, err := signer.Sign(nil, make([]byte, 32), crypto.SHA256); err != nil {
		t.Fatal(err)
	}
	f.Reset(slices.Index(hsmtest.Functions(), "C_Sign"), 1, hsmtest.Hang)
	ended := make(chan error, 1)
	go func() {
		_, err := signer.Sign(nil, make([]byte, 32), crypto.SHA256)
		ended <- err
	}()
	if !clitest.Await(time.Minute, func() bool { _, hangs := f.Calls(); return hangs }) {
		t.Fatal("the token was not asked")
	}
	cancel()
	if err := <-ended; !errors.Is(err, hsm.ErrLost) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
