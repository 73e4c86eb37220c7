package p11

import (
	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
)

// settlePINs brings both PINs of a token to the epoch in force after a change to
// the next one broke off somewhere: the SO PIN is of either epoch, and so is the
// user PIN. The next SO PIN may be missing, and is needed only if the token has it
// already. Each PIN is tried once.
func (m *module) settlePINs(job frame.Job, st *store, pins frame.PINs) error {
	slot, err := m.find(job.Token)
	if err != nil {
		return err
	}
	s, err := m.openSession(slot, st)
	if err != nil {
		return err
	}
	if err := s.loginSO(job, pins); err != nil {
		return err
	}
	if err := s.setUserPIN(pins[frame.UserPIN], job.CutCurrent); err != nil {
		return err
	}
	if err := s.logout(); err != nil {
		return err
	}
	for _, c := range []struct {
		who        uint
		want, gone frame.Role
	}{{pkcs11.CKU_SO, frame.SOPIN, frame.NextSOPIN}, {pkcs11.CKU_USER, frame.UserPIN, frame.NextUserPIN}} {
		if pins[c.gone] != nil {
			if err := s.refused(c.who, pins[c.gone], job.CutNext); err != nil {
				return err
			}
		}
		if err := s.login(c.who, pins[c.want], job.CutCurrent); err != nil {
			return err
		}
		if err := s.logout(); err != nil {
			return err
		}
	}
	return st.sync(s.token.Serial)
}

// loginSO logs the SO in with the PIN in force; if the token has the next one, it
// is put back first. Where it has neither, one wrong PIN is counted: that of the first,
// a probe, is taken back already.
func (s *session) loginSO(job frame.Job, pins frame.PINs) error {
	first := s.login
	if pins[frame.NextSOPIN] != nil {
		first = s.probe
	}
	err := first(pkcs11.CKU_SO, pins[frame.SOPIN], job.CutCurrent)
	if err == nil || pins[frame.NextSOPIN] == nil || asFault("login", "", err).Code != pkcs11.CKR_PIN_INCORRECT {
		return err
	}
	if err := s.login(pkcs11.CKU_SO, pins[frame.NextSOPIN], job.CutNext); err != nil {
		return err
	}
	from, err := s.limits.pinString(pins[frame.NextSOPIN], job.CutNext)
	if err != nil {
		return err
	}
	to, err := s.limits.pinString(pins[frame.SOPIN], job.CutCurrent)
	if err != nil {
		return err
	}
	return s.store.guard(s.token.Serial, func() error {
		return wrap("settle PINs", "C_SetPIN", s.ctx.SetPIN(s.h, from, to))
	})
}
