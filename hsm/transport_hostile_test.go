package hsm_test

import (
	"bytes"
	"crypto/aes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
	"keyrite/hsm/internal/frame"
)

// export exports the movable key for a receiver.
func (r *room) export(t *testing.T, receiver []byte) *hsm.Parcel {
	t.Helper()
	r.Take(t, r.Supervisor, r.a, hsm.Current, newSO, newUser)
	p, err := r.Supervisor.Export(t.Context(), r.a, r.movable, receiver)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// wrapPadded is RFC 5649, Section 4.1, for more than 8 bytes.
func wrapPadded(t *testing.T, kek, plain []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(kek)
	if err != nil {
		t.Fatal(err)
	}
	a := binary.BigEndian.AppendUint32([]byte{0xa6, 0x59, 0x59, 0xa6}, uint32(len(plain)))
	n := (len(plain) + 7) / 8
	r := append(slices.Clone(plain), make([]byte, 8*n-len(plain))...)
	for j := range 6 {
		for i := range n {
			b := append(slices.Clone(a), r[8*i:8*i+8]...)
			block.Encrypt(b, b)
			binary.BigEndian.PutUint64(a, binary.BigEndian.Uint64(b)^uint64(n*j+i+1))
			copy(r[8*i:], b[8:])
		}
	}
	return append(a, r...)
}

// TestParcelsOfAnAttacker brings parcels to a receiver that somebody else packed,
// swapped or kept: none brings a key in under the name of ours.
func TestParcelsOfAnAttacker(t *testing.T) {
	ctx := t.Context()
	r := transferRoom(t, hsm.GenerateSpec{Algorithm: hsm.ECDSAP256})
	first, second := r.export(t, r.dock.SPKI), r.export(t, r.dock.SPKI)
	if bytes.Equal(first.WrappedKEK, second.WrappedKEK) || bytes.Equal(first.WrappedKey, second.WrappedKey) {
		t.Error("two exports have a blob in common: a wrapping key lives for one")
	}
	if attribute(first.Wrapping, "CKA_ID") == attribute(second.Wrapping, "CKA_ID") {
		t.Error("one wrapping key served twice")
	}

	// The receiver of another factory, whose private half somebody has.
	trojan, err := rsa.GenerateKey(rand.Reader, 3072)
	if err != nil {
		t.Fatal(err)
	}
	trojanSPKI, err := x509.MarshalPKIXPublicKey(&trojan.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere := r.export(t, trojanSPKI)

	// A key of the attacker, wrapped for the receiver whose public half all know.
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ownSPKI, err := x509.MarshalPKIXPublicKey(&own.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		t.Fatal(err)
	}
	dock, err := x509.ParsePKIXPublicKey(r.dock.SPKI)
	if err != nil {
		t.Fatal(err)
	}
	kek := bytes.Repeat([]byte{7}, 32)
	blob, err := rsa.EncryptOAEP(sha1.New(), rand.Reader, dock.(*rsa.PublicKey), kek, nil)
	if err != nil {
		t.Fatal(err)
	}
	forged := *first
	forged.WrappedKEK, forged.WrappedKey = blob, wrapPadded(t, kek, pkcs8)

	mixed, late := *first, *second
	mixed.WrappedKey, late.WrappedKEK = second.WrappedKey, first.WrappedKEK
	withKey := *first
	withKey.WrappedKEK = blob
	sb := r.Open(t, r.b)
	before := len(objects(t, sb))
	for name, p := range map[string]*hsm.Parcel{
		"the wrapping key of one export, the key of another": &mixed, "the other way round": &late,
		"wrapped for another receiver": elsewhere, "a key of his own in the place of ours": &forged, "ours under a wrapping key of his": &withKey,
	} {
		if _, err := sb.Receive(ctx, r.receiver, r.arriving(), p); err == nil {
			t.Errorf("%s: it arrived", name)
		}
		if n := len(objects(t, sb)); n != before {
			t.Errorf("%s: %d objects are there, %d were before", name, n, before)
		}
	}
	// His own key under its own public key does arrive, and is what it is: who asked
	// for it compares it with the charter's. This is also what shows that the forgery
	// above was refused for what it is, and not for its wrapping.
	forged.Key.PublicKey = ownSPKI
	got, err := sb.Receive(ctx, r.receiver, r.arriving(), &forged)
	if err != nil {
		t.Fatalf("the attacker's tools do not work: %v", err)
	}
	if bytes.Equal(got.Key.SPKI, r.source.SPKI) || !bytes.Equal(got.Key.SPKI, ownSPKI) || attribute(got.Key.Attributes.Private, "CKA_LOCAL") != "false" {
		t.Error("it arrived as something else")
	}
	if err := sb.DestroyKey(ctx, r.arriving().KeyID); err != nil {
		t.Fatal(err)
	}
	// Once, and not a second time beside itself.
	if _, err := sb.Receive(ctx, r.receiver, r.arriving(), second); err != nil {
		t.Fatal(err)
	}
	if _, err := sb.Receive(ctx, r.receiver, r.arriving(), second); err == nil {
		t.Error("a parcel arrived twice")
	}
}

// TestLongEachWriteOfATransfer kills the process that wraps, and the one that
// unwraps, before each call that changes a file. The source still signs, and the
// clean-up of the attempt leaves nothing where it was to arrive.
func TestLongEachWriteOfATransfer(t *testing.T) { long(t); eachWriteOfATransfer(t, all) }

// TestEachWriteOfATransfer does so with a sample.
func TestEachWriteOfATransfer(t *testing.T) { eachWriteOfATransfer(t, 4) }

func eachWriteOfATransfer(t *testing.T, sample int) {
	r := transferRoom(t, hsm.GenerateSpec{Algorithm: hsm.ECDSAP256})
	tag, err := hsm.NewTag() // of the attempt; the arriving key keeps the id of its birth
	if err != nil {
		t.Fatal(err)
	}
	pins := map[frame.Role]string{frame.SOPIN: newSO, frame.UserPIN: newUser}
	wrap := func(log string, inject ...string) (*frame.Result, bool, error) {
		p := r.Trace(t, frame.Job{Purpose: frame.ForExport, Token: r.a, Export: &frame.ExportBody{Key: r.movable, Receiver: r.dock.SPKI}}, pins, log, inject...)
		res, err := p.Result()
		return res, p.End(), err
	}
	log := r.TraceLog()
	good, killed, err := wrap(log)
	if killed || err != nil {
		t.Fatalf("without a fault: killed %v, %v", killed, err)
	}
	points := hsmtest.Points(t, log, r.TokenDir)
	for _, p := range some(t, points, sample) {
		if _, killed, _ := wrap(r.TraceLog(), p.Kill()); !killed {
			t.Errorf("wrapping, %s: not killed", p)
		}
		// A login that was killed counts as a wrong PIN; a right one ends the count.
		if _, _, err := wrap(r.TraceLog()); err != nil {
			t.Errorf("wrapping again after %s: %v", p, err)
		}
		s := r.Open(t, r.a)
		mustSign(t, s, r.movable)
		if n := len(objects(t, s)); n != 2 {
			t.Errorf("wrapping, %s: %d objects where it leaves", p, n)
		}
		_ = s.Close()
	}
	swept(t, "kills at each write of a key that leaves its token", sample, points)

	body, err := json.Marshal(frame.ReceiveBody{Receiver: r.receiver, Key: r.arriving(), PublicKey: good.Parcel.Key.PublicKey, WrappedKEK: good.Parcel.WrappedKEK, WrappedKey: good.Parcel.WrappedKey})
	if err != nil {
		t.Fatal(err)
	}
	unwrap := func(log string, ask bool, inject ...string) bool {
		p := r.Trace(t, frame.Job{Purpose: frame.ForOpen, Token: r.b}, map[frame.Role]string{frame.UserPIN: newUser}, log, inject...)
		if err := p.Hello(); err != nil {
			t.Fatal(err)
		}
		if ask {
			_, _ = p.Ask(frame.Request{ID: 1, Op: frame.OpReceive, Body: body}) // what is left is looked at
		}
		return p.End()
	}
	clean := func(at string) string {
		s := r.Open(t, r.b)
		found := len(objects(t, s)) - 2
		if _, err := s.DestroyTagged(t.Context(), tag, true); err != nil {
			t.Errorf("%s: %v", at, err)
		}
		if slices.ContainsFunc(objects(t, s), func(o hsm.Object) bool { return o.ID == r.arriving().KeyID.String() }) {
			if err := s.DestroyKey(t.Context(), r.arriving().KeyID); err != nil {
				t.Errorf("%s: %v", at, err)
			}
		}
		_ = s.Close()
		h, err := r.Supervisor.Health(t.Context(), r.b, expect(r.receiver, r.dock))
		if err != nil || h.Objects != 2 {
			t.Errorf("%s: after the clean-up: %+v, %v", at, h, err)
		}
		return fmt.Sprintf("%d objects found", found)
	}
	log = r.TraceLog()
	unwrap(log, false)
	login := len(hsmtest.Points(t, log, r.TokenDir))
	log = r.TraceLog()
	unwrap(log, true)
	if got := clean("without a fault"); got != "2 objects found" {
		t.Fatalf("without a fault: %s", got)
	}
	points = hsmtest.Points(t, log, r.TokenDir)[login:]
	tally := map[string]int{}
	for _, p := range some(t, points, sample) {
		if !unwrap(r.TraceLog(), true, p.Kill()) {
			t.Errorf("unwrapping, %s: not killed", p)
		}
		tally[clean("unwrapping, "+p.String())]++
	}
	swept(t, "kills at each write of a key that arrives", sample, points)
	for _, k := range slices.Sorted(maps.Keys(tally)) {
		t.Logf("%4d  %s", tally[k], k)
	}
}
