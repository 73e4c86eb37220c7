package hsm_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
)

// poolRoom is a token with one signing key, over a module that counts its calls
// and spoils one when it is told to.
type poolRoom struct {
	env    *hsmtest.Env
	faults *hsmtest.Faults
	sup    *hsm.Supervisor
	id     hsm.TokenID
	key    hsm.GenerateSpec
}

func newPoolRoom(t *testing.T) *poolRoom {
	t.Helper()
	return newPoolRoomOf(t, hsm.ECDSAP256)
}

// newPoolRoomOf has a key of the algorithm.
func newPoolRoomOf(t *testing.T, alg hsm.Algorithm) *poolRoom {
	t.Helper()
	e := hsmtest.NewStore(t)
	r := &poolRoom{env: e, faults: e.Faults(t)}
	e.Config.Module = r.faults.Module
	e.Supervisor = e.Start(t)
	r.sup = e.Supervisor
	var err error
	if r.id, err = r.sup.InitToken(t.Context(), "work"); err != nil {
		t.Fatal(err)
	}
	r.key = signSpec(t, "k")
	r.key.Algorithm, r.key.SessionObject = alg, false
	s := e.Open(t, r.id)
	if _, err := s.Generate(t.Context(), r.key); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *poolRoom) pool(t *testing.T, cfg hsm.PoolConfig) *hsm.Pool {
	t.Helper()
	p, err := hsm.NewPool(t.Context(), r.sup, r.id, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (r *poolRoom) signer(t *testing.T, p *hsm.Pool) *hsm.Key {
	t.Helper()
	k, err := p.Signer(t.Context(), r.key.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// function gives the number of a PKCS#11 function.
func function(t *testing.T, name string) int {
	t.Helper()
	i := slices.Index(hsmtest.Functions(), name)
	if i < 0 {
		t.Fatalf("no function %s", name)
	}
	return i
}

// calls says how often a function was called since the last Reset.
func (r *poolRoom) calls(t *testing.T, name string) int {
	t.Helper()
	n, _ := r.faults.Calls()
	return n[function(t, name)]
}

func digestOf(g, i int) []byte {
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(g)), uint64(i)))
	return sum[:]
}

// poolAlgorithms are those that a pool serves. What is shown of one holds for each.
var poolAlgorithms = []hsm.Algorithm{hsm.ECDSAP256, hsm.ECDSAP384, hsm.RSA3072PKCS1, hsm.RSA3072PSS, hsm.Ed25519}

// inputOf is what a key of the algorithm signs: a digest of the right length, for
// Ed25519 a message.
func inputOf(alg hsm.Algorithm, g, i int) []byte {
	switch in := digestOf(g, i); alg {
	case hsm.ECDSAP384:
		sum := sha512.Sum384(in)
		return sum[:]
	case hsm.Ed25519:
		return append(in, "a message"...)
	default:
		return in
	}
}

// holds checks a signature with the standard library alone.
func holds(alg hsm.Algorithm, pub crypto.PublicKey, in, sig []byte) bool {
	switch p := pub.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(p, in, sig)
	case ed25519.PublicKey:
		return ed25519.Verify(p, in, sig)
	case *rsa.PublicKey:
		if alg == hsm.RSA3072PSS || alg == hsm.RSA4096PSS {
			return rsa.VerifyPSS(p, crypto.SHA256, in, sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		return rsa.VerifyPKCS1v15(p, crypto.SHA256, in, sig) == nil
	}
	return false
}

// load lets 8 goroutines sign, each digest once, until stop is closed or each has
// made limit requests. It fails the test for a signature of anything else than
// what was asked for, and gives the numbers of requests and of their errors.
type load struct {
	asked, good, lost atomic.Int64
	seen              sync.Map // signature -> digest
	wg                sync.WaitGroup
}

func (l *load) run(t *testing.T, k *hsm.Key, limit int, stop <-chan struct{}) {
	t.Helper()
	alg, pub := k.State().Algorithm, k.Public()
	for g := range 8 {
		l.wg.Go(func() {
			for i := range limit {
				select {
				case <-stop:
					return
				default:
				}
				in := inputOf(alg, g, i)
				l.asked.Add(1)
				sig, err := k.SignContext(t.Context(), in)
				switch {
				case errors.Is(err, hsm.ErrLost):
					l.lost.Add(1)
					continue
				case err != nil:
					t.Error(err)
					return
				}
				l.good.Add(1)
				if !holds(alg, pub, in, sig) {
					t.Error("a signature is not of what was asked for")
				}
				if other, twice := l.seen.LoadOrStore(string(sig), string(in)); twice {
					t.Errorf("one signature for %x and %x", in, other)
				}
			}
		})
	}
}
