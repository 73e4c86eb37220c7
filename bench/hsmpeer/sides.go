package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/keyspec"
	"keyrite/hsm/p11"
	"keyrite/internal/secmem"
)

// pooled is the pool of a module process.
type pooled struct {
	pool *p11.Pool
	key  keyspec.KeyID
}

func openPool(module, label, serial, key string, pin []byte) (side, error) {
	id, err := keyspec.ParseKeyID(key)
	if err != nil {
		return nil, err
	}
	b, err := secmem.New()
	if err != nil {
		return nil, err
	}
	if err := b.Fill(func(page []byte) (int, error) { return copy(page, pin), nil }); err != nil {
		return nil, err
	}
	p, err := p11.OpenPool(module, label, serial, b, workers)
	return &pooled{p, id}, err
}

func (p *pooled) sign(_ int, digest []byte, shared, verify bool) (err error) {
	switch {
	case shared:
		return errors.New("a pool shares no session")
	case verify:
		_, err = p.pool.Sign(p.key, digest)
	default:
		_, err = p.pool.SignUnverified(p.key, digest)
	}
	return err
}

// raw is the bare binding: sessions that are logged in, and the handles of one key.
type raw struct {
	ctx  *pkcs11.Ctx
	held []pkcs11.SessionHandle
	key  pkcs11.ObjectHandle
	pub  *ecdsa.PublicKey
	mech []*pkcs11.Mechanism
	mu   sync.Mutex // guards held[0] where it is shared
}

func openRaw(module, label, serial, key string, pin []byte) (*raw, error) {
	r := &raw{ctx: pkcs11.New(module), mech: []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_ECDSA, nil)}}
	if r.ctx == nil {
		return nil, errors.New("the module cannot be loaded")
	}
	if err := r.ctx.Initialize(); err != nil {
		return nil, err
	}
	slots, err := r.ctx.GetSlotList(true)
	if err != nil {
		return nil, err
	}
	for _, s := range slots {
		ti, err := r.ctx.GetTokenInfo(s)
		if err != nil || strings.TrimRight(ti.Label, " \x00") != label || strings.TrimRight(ti.SerialNumber, " \x00") != serial {
			continue
		}
		for range workers {
			h, err := r.ctx.OpenSession(s, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
			if err != nil {
				return nil, err
			}
			r.held = append(r.held, h)
		}
	}
	if len(r.held) != workers {
		return nil, errors.New("not one token has this label and serial")
	}
	if err := r.ctx.Login(r.held[0], pkcs11.CKU_USER, string(pin)); err != nil {
		return nil, err
	}
	id, err := hex.DecodeString(key)
	if err != nil {
		return nil, err
	}
	return r, r.find(id)
}

func (r *raw) find(id []byte) error {
	halves := map[uint]pkcs11.ObjectHandle{pkcs11.CKO_PRIVATE_KEY: 0, pkcs11.CKO_PUBLIC_KEY: 0}
	for class := range halves {
		t := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_ID, id)}
		if err := r.ctx.FindObjectsInit(r.held[0], t); err != nil {
			return err
		}
		o, _, err := r.ctx.FindObjects(r.held[0], 2)
		if err = errors.Join(err, r.ctx.FindObjectsFinal(r.held[0])); err != nil {
			return err
		}
		if len(o) != 1 {
			return fmt.Errorf("%d objects have id %x", len(o), id)
		}
		halves[class] = o[0]
	}
	r.key = halves[pkcs11.CKO_PRIVATE_KEY]
	v, err := r.ctx.GetAttributeValue(r.held[0], halves[pkcs11.CKO_PUBLIC_KEY], []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
	if err != nil {
		return err
	}
	var point []byte
	if _, err := asn1.Unmarshal(v[0].Value, &point); err != nil {
		return err
	}
	r.pub, err = ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	return err
}

func (r *raw) sign(w int, digest []byte, shared, verify bool) error {
	if shared {
		r.mu.Lock()
		defer r.mu.Unlock()
		w = 0
	}
	_, err := r.signed(w, digest, verify)
	return err
}

// signed makes a signature in the session of worker w.
func (r *raw) signed(w int, digest []byte, verify bool) ([]byte, error) {
	if err := r.ctx.SignInit(r.held[w], r.mech, r.key); err != nil {
		return nil, err
	}
	sig, err := r.ctx.Sign(r.held[w], digest)
	if err != nil || !verify {
		return sig, err
	}
	half := len(sig) / 2
	if !ecdsa.Verify(r.pub, digest, new(big.Int).SetBytes(sig[:half]), new(big.Int).SetBytes(sig[half:])) {
		return nil, errors.New("a signature does not verify")
	}
	return sig, nil
}
