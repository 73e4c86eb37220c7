package p11

import (
	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
	"keyrite/internal/secmem"
)

// once does the job of a process that ends after it.
func (m *module) once(job frame.Job, st *store, pins frame.PINs) (res *frame.Result, err error) {
	err = st.alone(func() error {
		res, err = m.onceAlone(job, st, pins)
		return err
	})
	return res, err
}

func (m *module) onceAlone(job frame.Job, st *store, pins frame.PINs) (*frame.Result, error) {
	res, err := &frame.Result{Module: m.info}, error(nil)
	switch job.Purpose {
	case frame.ForTokens:
		_, res.Tokens, err = m.tokens()
	case frame.ForInit:
		res.Tokens, err = m.initToken(job, st, pins)
	case frame.ForChange:
		err = m.changePINs(job, st, pins)
	case frame.ForErase:
		err = m.erase(job, st, pins)
	case frame.ForSettle:
		err = m.settlePINs(job, st, pins)
	case frame.ForPINs:
		res.PINs, err = m.countedPINs(job, st)
	case frame.ForExport:
		res.Parcel, err = m.export(job, st, pins)
	default:
		err = faultf("start", frame.KindUsage, "purpose %q is not known", job.Purpose)
	}
	return res, err
}

// initToken initialises the one free token and sets both one-time PINs.
func (m *module) initToken(job frame.Job, st *store, pins frame.PINs) ([]frame.TokenInfo, error) {
	const op = "initialise token"
	slot, err := m.free(job.Token)
	if err != nil {
		return nil, err
	}
	ti, err := m.ctx.GetTokenInfo(slot)
	if err != nil {
		return nil, asFault(op, "C_GetTokenInfo", err)
	}
	so, err := pinLimits{ti.MinPinLen, ti.MaxPinLen}.pinString(pins[frame.SOPIN], job.CutCurrent)
	if err != nil {
		return nil, err
	}
	if err := m.ctx.InitToken(slot, so, job.Token.Label); err != nil {
		return nil, asFault(op, "C_InitToken", err)
	}
	info, err := m.begin(job, st, pins)
	if err != nil {
		return nil, err
	}
	return []frame.TokenInfo{*info}, nil
}

// erase initialises a token anew under the PINs that it has.
func (m *module) erase(job frame.Job, st *store, pins frame.PINs) error {
	const op = "erase token"
	slot, err := m.find(job.Token)
	if err != nil {
		return err
	}
	ti, err := m.ctx.GetTokenInfo(slot)
	if err != nil {
		return asFault(op, "C_GetTokenInfo", err)
	}
	so, err := pinLimits{ti.MinPinLen, ti.MaxPinLen}.pinString(pins[frame.SOPIN], job.CutCurrent)
	if err != nil {
		return err
	}
	// An initialised token asks for its SO PIN.
	err = st.guard(job.Token.Serial, func() error {
		return m.counter(job.Token.Serial).try(pkcs11.CKU_SO, ti.Flags&pkcs11.CKF_SO_PIN_COUNT_LOW != 0, false, func() error {
			return wrap(op, "C_InitToken", m.ctx.InitToken(slot, so, job.Token.Label))
		})
	})
	if err != nil {
		return err
	}
	_, err = m.begin(job, st, pins)
	return err
}

// begin sets the user PIN of a token that was just initialised, and wants it
// empty.
func (m *module) begin(job frame.Job, st *store, pins frame.PINs) (*frame.TokenInfo, error) {
	const op = "initialise token"
	// SoftHSM keeps the slot until the module is loaded anew; others may not,
	// so the token is looked up again by its label.
	info, slot, err := m.byLabel(job.Token.Label)
	if err != nil {
		return nil, err
	}
	s, err := m.openSession(slot, st)
	if err != nil {
		return nil, err
	}
	if err := s.login(pkcs11.CKU_SO, pins[frame.SOPIN], job.CutCurrent); err != nil {
		return nil, err
	}
	if err := s.setUserPIN(pins[frame.UserPIN], job.CutCurrent); err != nil {
		return nil, err
	}
	if err := s.logout(); err != nil {
		return nil, err
	}
	if err := s.login(pkcs11.CKU_USER, pins[frame.UserPIN], job.CutCurrent); err != nil {
		return nil, err
	}
	objs, err := s.all()
	if err != nil {
		return nil, err
	}
	if len(objs) > 0 {
		return nil, faultf(op, frame.KindRefused, "token %q holds %d objects right after it was initialised", info.Label, len(objs))
	}
	if err := s.logout(); err != nil {
		return nil, err
	}
	if err := st.sync(info.Serial); err != nil {
		return nil, err
	}
	info.UserPINSet = true
	return &info, nil
}

// free finds the one token that is not initialised. A token that has the
// label already is never taken again.
func (m *module) free(t frame.Token) (uint, error) {
	const op = "initialise token"
	slots, infos, err := m.tokens()
	if err != nil {
		return 0, err
	}
	at := -1
	for i, ti := range infos {
		if ti.Initialised {
			if ti.Label == t.Label {
				return 0, faultf(op, frame.KindExists, "a token with label %q exists (serial %s)", ti.Label, ti.Serial)
			}
			continue
		}
		if t.Serial != "" && ti.Serial != t.Serial {
			continue
		}
		if at >= 0 {
			return 0, faultf(op, frame.KindAmbiguous, "several tokens are free; name one by its serial number")
		}
		at = i
	}
	if at < 0 {
		return 0, faultf(op, frame.KindNotFound, "no free token")
	}
	return slots[at], m.empty(slots[at])
}

// empty refuses a free token whose store shows objects. Most modules do not
// even open a session on one, which is as good.
func (m *module) empty(slot uint) error {
	h, err := m.ctx.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if unable(err) {
		return asFault("initialise token", "C_OpenSession", err)
	}
	if err != nil {
		return nil
	}
	s := &session{ctx: m.ctx, h: h}
	objs, err := s.all()
	if e := m.ctx.CloseSession(h); err == nil {
		err = wrap("initialise token", "C_CloseSession", e)
	}
	if err == nil && len(objs) > 0 {
		err = faultf("initialise token", frame.KindRefused, "the free token holds %d objects", len(objs))
	}
	return err
}

func (m *module) byLabel(label string) (frame.TokenInfo, uint, error) {
	slots, infos, err := m.tokens()
	if err != nil {
		return frame.TokenInfo{}, 0, err
	}
	at := -1
	for i, ti := range infos {
		if ti.Initialised && ti.Label == label {
			if at >= 0 {
				return frame.TokenInfo{}, 0, faultf("find token", frame.KindAmbiguous, "two tokens have label %q", label)
			}
			at = i
		}
	}
	if at < 0 {
		return frame.TokenInfo{}, 0, faultf("find token", frame.KindNotFound, "no token has label %q", label)
	}
	return infos[at], slots[at], nil
}

func (s *session) setUserPIN(pin *secmem.Buffer, cut bool) error {
	p, err := s.limits.pinString(pin, cut)
	if err != nil {
		return err
	}
	return s.store.guard(s.token.Serial, func() error {
		if err := s.ctx.InitPIN(s.h, p); err != nil {
			return asFault("set user PIN", "C_InitPIN", err)
		}
		return s.pins.forget(pkcs11.CKU_USER) // of the PIN that was
	})
}

// changePINs sets a new SO PIN and, in the same SO session, a new user PIN,
// then proves that the old ones are refused and the new user PIN works. Each
// refused try is followed by a good login, which resets a token's counter.
func (m *module) changePINs(job frame.Job, st *store, pins frame.PINs) error {
	slot, err := m.find(job.Token)
	if err != nil {
		return err
	}
	s, err := m.openSession(slot, st)
	if err != nil {
		return err
	}
	if err := s.login(pkcs11.CKU_SO, pins[frame.SOPIN], job.CutCurrent); err != nil {
		return err
	}
	oldSO, err := s.limits.pinString(pins[frame.SOPIN], job.CutCurrent)
	if err != nil {
		return err
	}
	newSO, err := s.limits.pinString(pins[frame.NextSOPIN], job.CutNext)
	if err != nil {
		return err
	}
	if _, err := s.limits.pinString(pins[frame.NextUserPIN], job.CutNext); err != nil {
		return err // before anything is changed
	}
	err = s.store.guard(s.token.Serial, func() error {
		return wrap("change SO PIN", "C_SetPIN", s.ctx.SetPIN(s.h, oldSO, newSO))
	})
	if err != nil {
		return err
	}
	if err := s.setUserPIN(pins[frame.NextUserPIN], job.CutNext); err != nil {
		return err
	}
	if err := s.logout(); err != nil {
		return err
	}
	for _, c := range []struct {
		who      uint
		old, new frame.Role
	}{{pkcs11.CKU_SO, frame.SOPIN, frame.NextSOPIN}, {pkcs11.CKU_USER, frame.UserPIN, frame.NextUserPIN}} {
		if err := s.refused(c.who, pins[c.old], job.CutCurrent); err != nil {
			return err
		}
		if err := s.login(c.who, pins[c.new], job.CutNext); err != nil {
			return err
		}
		if err := s.logout(); err != nil {
			return err
		}
	}
	return st.sync(s.token.Serial)
}
