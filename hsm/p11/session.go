package p11

import (
	"sync"
	"unsafe"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
	"keyrite/internal/secmem"
)

// session is one PKCS#11 session of a module process, which has one, or as many as its
// pool was opened with. It is used by one goroutine at a time: two in one session crash
// SoftHSM.
type session struct {
	ctx    *pkcs11.Ctx
	h      pkcs11.SessionHandle
	slot   uint
	token  frame.TokenInfo
	limits pinLimits
	store  *store
	pins   counter
	pin    *secmem.Buffer // user PIN, for keys that want a login per signature
	cut    bool
	keys   map[keyspec.KeyID]*key // handles of this session, valid as long as it lives
	lost   bool                   // a request was answered with the loss of token or session
	// spoiled: an operation was begun and not ended. Whatever comes next is answered
	// with OPERATION_ACTIVE, so the process ends after this answer.
	spoiled bool
	perUse  *sync.Mutex     // of all sessions of this login: one login for a single signature at a time
	cards   map[string]*key // those of a person's card, by CKA_ID; nil until asked for
}

type pinLimits struct{ min, max uint }

// pinString shows a PIN to the binding without a copy on the Go heap, where
// it could not be wiped.
func (l pinLimits) pinString(b *secmem.Buffer, cut bool) (string, error) {
	pin := b.Bytes()
	if len(pin) == 0 {
		return "", faultf("login", frame.KindPIN, "no PIN is held for this token")
	}
	if cut && uint(len(pin)) > l.max {
		pin = pin[:l.max]
	}
	if uint(len(pin)) < l.min || uint(len(pin)) > l.max || len(pin) == 0 {
		return "", faultf("login", frame.KindPIN, "the token takes PINs of %d to %d bytes", l.min, l.max)
	}
	return unsafe.String(&pin[0], len(pin)), nil
}

// openSession opens a read-write session on the slot, without a login.
func (m *module) openSession(slot uint, st *store) (*session, error) {
	ti, err := m.ctx.GetTokenInfo(slot)
	if err != nil {
		return nil, asFault("open session", "C_GetTokenInfo", err)
	}
	h, err := m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return nil, asFault("open session", "C_OpenSession", err)
	}
	return &session{
		ctx: m.ctx, h: h, slot: slot, token: tokenInfo(ti), store: st, pins: m.counter(text(ti.SerialNumber)),
		limits: pinLimits{ti.MinPinLen, ti.MaxPinLen}, keys: map[keyspec.KeyID]*key{},
		perUse: &sync.Mutex{},
	}, nil
}

// login logs in once. A wrong PIN is never tried again, and a token that says
// that one more wrong PIN locks it is not tried at all.
func (s *session) login(who uint, pin *secmem.Buffer, cut bool) error {
	return s.give(who, false, pin, cut)
}

// probe is login with the first of two PINs of which the token has one. The second
// must be given next, whatever this one says: where tries were counted already, a
// wait after the first would come again each time, and the second never have its turn.
func (s *session) probe(who uint, pin *secmem.Buffer, cut bool) error {
	return s.give(who, true, pin, cut)
}

func (s *session) give(who uint, probe bool, pin *secmem.Buffer, cut bool) error {
	ti, err := s.ctx.GetTokenInfo(s.slot)
	if err != nil {
		return asFault("login", "C_GetTokenInfo", err)
	}
	locked, final, low := uint(pkcs11.CKF_USER_PIN_LOCKED), uint(pkcs11.CKF_USER_PIN_FINAL_TRY), uint(pkcs11.CKF_USER_PIN_COUNT_LOW)
	if who == pkcs11.CKU_SO {
		locked, final, low = pkcs11.CKF_SO_PIN_LOCKED, pkcs11.CKF_SO_PIN_FINAL_TRY, pkcs11.CKF_SO_PIN_COUNT_LOW
	}
	if ti.Flags&locked != 0 {
		return faultf("login", frame.KindLocked, "the PIN is locked")
	}
	if ti.Flags&final != 0 {
		return faultf("login", frame.KindLocked, "one more wrong PIN would lock the token; reset its counter first")
	}
	return s.enter(who, ti.Flags&low != 0, probe, pin, cut, "C_Login")
}

// refused tries a PIN that must not work any more, once.
func (s *session) refused(who uint, pin *secmem.Buffer, cut bool) error {
	err := s.login(who, pin, cut)
	if err == nil {
		_ = s.ctx.Logout(s.h)
		return faultf("change PINs", frame.KindVerify, "a PIN that was replaced still opens the token")
	}
	if asFault("login", "", err).Code != pkcs11.CKR_PIN_INCORRECT {
		return err
	}
	return s.meant(who)
}

func (s *session) logout() error {
	return wrap("logout", "C_Logout", s.ctx.Logout(s.h))
}

// all lists every object that this session can see. The template is empty on
// purpose: a copy that was cut short may answer TOKEN=false and have no label,
// and would escape any filter.
func (s *session) all() ([]pkcs11.ObjectHandle, error) {
	if err := s.ctx.FindObjectsInit(s.h, nil); err != nil {
		return nil, asFault("list objects", "C_FindObjectsInit", err)
	}
	var out []pkcs11.ObjectHandle
	for {
		o, _, err := s.ctx.FindObjects(s.h, 256)
		if err != nil {
			_ = s.ctx.FindObjectsFinal(s.h)
			return nil, asFault("list objects", "C_FindObjects", err)
		}
		if len(o) == 0 {
			break
		}
		out = append(out, o...)
	}
	return out, wrap("list objects", "C_FindObjectsFinal", s.ctx.FindObjectsFinal(s.h))
}
