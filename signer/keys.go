package signer

import (
	"crypto/ed25519"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
)

func ed25519Key(rec *anchor.KeyRecord) (ed25519.PublicKey, error) {
	pub, err := rec.Key()
	if err != nil {
		return nil, err
	}
	k, ok := pub.(ed25519.PublicKey)
	if !ok {
		return nil, fault.Errorf(fault.Verify, "key %s is not Ed25519", rec.ID)
	}
	return k, nil
}
