package artifacttest

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"

	"keyrite/artifact/envelope"
	"keyrite/artifact/firmware"
	"keyrite/artifact/tlog"
)

// Release is a signed release in all its files.
type Release struct {
	Statement *firmware.Statement
	Image     []byte
	Bundle    []byte
	Proof     []byte
	KRF       []byte
}

// Statement returns what a release of image says; change it before Sign.
func (w *World) Statement(image []byte, version string, security int64) *firmware.Statement {
	sum := sha256.Sum256(image)
	some := hex.EncodeToString(make([]byte, 32))
	return &firmware.Statement{
		Type: firmware.StatementType, PredicateType: firmware.PredicateType,
		Subject: []firmware.Subject{{Digest: firmware.Digest{SHA256: hex.EncodeToString(sum[:])}, Name: "firmware.img"}},
		Predicate: firmware.Predicate{
			Approvals: []firmware.Approval{{Approver: "approver1", Hash: some}, {Approver: "approver2", Hash: some}},
			Channel:   "release", Charter: firmware.Charter{Head: w.State.Head(), Size: w.State.Size()},
			Hardware: []string{"gw100"},
			Key:      firmware.Key{ID: firmware.KeyID, Record: w.State.Keys[firmware.KeyID].Record, ScriptHash: w.State.Genesis.ScriptHash, SpecHash: w.State.Keys[firmware.KeyID].SpecHash},
			Pipeline: "pipeline1", Product: "gw100", Request: some, SecurityVersion: security, Size: int64(len(image)),
			Time: "2026-11-22T02:00:00Z", Vault: w.State.Vault, Version: version, World: w.World,
		},
	}
}

// Release signs a release of image "firmware.img" for product gw100 and logs it
// in a log of its own.
func (w *World) Release(image []byte, version string, security int64) *Release {
	w.t.Helper()
	return w.ReleaseBy(firmware.KeyID, image, version, security)
}

// ReleaseBy is Release by the key id, which w.Anchors have in force.
func (w *World) ReleaseBy(id string, image []byte, version string, security int64) *Release {
	w.t.Helper()
	s := w.Statement(image, version, security)
	s.Predicate.Key.ID = id
	bundle := w.Sign(w.must(s.Marshal()), id)
	proof := w.Prove(bundle)
	var krf bytes.Buffer
	if err := firmware.WriteKRF(&krf, bundle, proof, bytes.NewReader(image), w.Trust()); err != nil {
		w.t.Fatal(err)
	}
	return &Release{Statement: s, Image: image, Bundle: bundle, Proof: proof, KRF: krf.Bytes()}
}

// Trust is what a verifier of releases holds.
func (w *World) Trust() *firmware.Trust {
	w.t.Helper()
	t, err := firmware.TrustOf(w.Anchors)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

// Sign returns a bundle of payload by key id, whatever the payload says.
func (w *World) Sign(payload []byte, id string) []byte {
	w.t.Helper()
	env, err := envelope.Sign(firmware.PayloadType, payload, w.Keys[id])
	if err != nil {
		w.t.Fatal(err)
	}
	return w.must(firmware.NewBundle(env))
}

// Prove puts a bundle in a log between two other entries and returns its proof.
func (w *World) Prove(bundle []byte) []byte {
	w.t.Helper()
	env, err := firmware.ParseBundle(bundle)
	if err != nil {
		w.t.Fatal(err)
	}
	var tree tlog.Tree
	for _, leaf := range [][]byte{[]byte("before"), w.must(firmware.Leaf(env)), []byte("after")} {
		if err := tree.Append(leaf); err != nil {
			w.t.Fatal(err)
		}
	}
	hashes, err := tree.Prove(1, tree.Size())
	if err != nil {
		w.t.Fatal(err)
	}
	p := &firmware.Proof{Index: 1, Hashes: hashes, Checkpoint: w.checkpoint(&tree)}
	return p.Marshal()
}

func (w *World) checkpoint(tree *tlog.Tree) []byte {
	origin := firmware.LogOrigin(w.World, w.State.Vault)
	key := w.Keys[firmware.LogKeyID]
	pub, _ := key.Public().(ed25519.PublicKey)
	text := tlog.BareText(origin, tree.Size(), tree.Root())
	sig := w.must(key.Sign(rand.Reader, []byte(text), crypto.Hash(0)))
	blob := append(binary.BigEndian.AppendUint32(nil, tlog.BareKeyHash(origin, pub)), sig...)
	return []byte(text + "\n— " + origin + " " + base64.StdEncoding.EncodeToString(blob) + "\n")
}
