// Command mkrelease signs an image with throw-away keys in a rehearsal world of
// its own, so that scripts/bench can measure verification without a ceremony:
//
//	mkrelease IMAGE DIR
//
// It writes DIR/anchors.json, DIR/bundle.json and DIR/image.krf. Nothing outside
// that world believes them.
package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/envelope"
	"keyrite/artifact/firmware"
	"keyrite/artifact/tlog"
	"keyrite/internal/durable"
)

const world = "rehearsal:benchmark"

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: mkrelease IMAGE DIR")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "mkrelease:", err)
		os.Exit(1)
	}
}

func run(image, dir string) error {
	fw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	_, logKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("make key: %w", err)
	}
	a := &anchor.Anchors{
		Certificates: map[string][]byte{}, Format: anchor.Format, RosterHash: strings.Repeat("0", 64),
		Successors: []anchor.KeyRecord{}, Vault: strings.Repeat("1", 64), World: world,
	}
	for _, k := range []struct {
		id, alg, domain string
		key             crypto.Signer
	}{{firmware.KeyID, "p256", "dsse", fw}, {firmware.LogKeyID, "ed25519", "note", logKey}} {
		der, err := x509.MarshalPKIXPublicKey(k.key.Public())
		if err != nil {
			return fmt.Errorf("encode key: %w", err)
		}
		a.Keys = append(a.Keys, anchor.KeyRecord{
			Algorithm: k.alg, Domain: k.domain, ID: k.id, Public: der, Record: "bench", SpecHash: strings.Repeat("2", 64), Token: anchor.Token{Label: "none", Serial: "0"},
		})
	}
	anchors, err := a.Marshal()
	if err != nil {
		return err
	}
	trust, err := firmware.TrustOf(a)
	if err != nil {
		return err
	}
	f, err := os.Open(image)
	if err != nil {
		return fmt.Errorf("open image: %w", err)
	}
	defer f.Close()
	bundle, env, err := sign(f, trust, fw)
	if err != nil {
		return err
	}
	proof, err := prove(env, trust, logKey)
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{"anchors.json": anchors, "bundle.json": bundle} {
		if err := durable.WriteNew(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return writeKRF(filepath.Join(dir, "image.krf"), f, bundle, proof, trust)
}

func sign(image io.Reader, t *firmware.Trust, key crypto.Signer) ([]byte, *envelope.Envelope, error) {
	sum, size, err := firmware.Measure(image)
	if err != nil {
		return nil, nil, err
	}
	none := strings.Repeat("0", 64)
	s := &firmware.Statement{
		Type: firmware.StatementType, PredicateType: firmware.PredicateType,
		Subject: []firmware.Subject{{Digest: firmware.Digest{SHA256: sum}, Name: "image.bin"}},
		Predicate: firmware.Predicate{
			Approvals: []firmware.Approval{{Approver: "a", Hash: none}, {Approver: "b", Hash: none}}, Channel: "bench",
			Charter: firmware.Charter{Head: none, Size: 1}, Hardware: []string{"bench"},
			Key:      firmware.Key{ID: firmware.KeyID, Record: "bench", ScriptHash: none, SpecHash: none},
			Pipeline: "bench", Product: "bench", Request: none, SecurityVersion: 1, Size: size, Time: "2026-11-22T02:00:00Z",
			Vault: t.Vault, Version: "1", World: t.World,
		},
	}
	payload, err := s.Marshal()
	if err != nil {
		return nil, nil, err
	}
	env, err := envelope.Sign(firmware.PayloadType, payload, key)
	if err != nil {
		return nil, nil, err
	}
	bundle, err := firmware.NewBundle(env)
	return bundle, env, err
}

// prove makes a log with this one entry.
func prove(env *envelope.Envelope, t *firmware.Trust, key crypto.Signer) ([]byte, error) {
	leaf, err := firmware.Leaf(env)
	if err != nil {
		return nil, err
	}
	origin := firmware.LogOrigin(t.World, t.Vault)
	text := tlog.BareText(origin, 1, tlog.LeafHash(leaf))
	sig, err := key.Sign(rand.Reader, []byte(text), crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	blob := append(binary.BigEndian.AppendUint32(nil, tlog.BareKeyHash(origin, t.Log)), sig...)
	p := &firmware.Proof{Checkpoint: []byte(text + "\n— " + origin + " " + base64.StdEncoding.EncodeToString(blob) + "\n")}
	return p.Marshal(), nil
}

func writeKRF(path string, image io.ReadSeeker, bundle, proof []byte, t *firmware.Trust) error {
	if _, err := image.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("read image again: %w", err)
	}
	out, err := durable.Create(path, 0o644)
	if err != nil {
		return err
	}
	defer out.Abort()
	if err := firmware.WriteKRF(out, bundle, proof, image, t); err != nil {
		return err
	}
	return out.Commit()
}
