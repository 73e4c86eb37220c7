package supervise

import (
	"crypto/rand"
	"encoding/base32"
	"sync"

	"keyrite/hsm/internal/frame"
	"keyrite/internal/secmem"
)

// held are the PINs of one token.
type held struct {
	current, next       frame.PINs
	cutCurrent, cutNext bool // may be cut to the token's limits
}

func (h *held) wipe() {
	h.current.Wipe()
	h.next.Wipe()
}

// hold keeps PINs by token. Nothing in this package hands one out but to a
// module process that it has started itself.
type hold struct {
	mu     sync.Mutex // guards tokens; a held value is used under work of its token only
	tokens map[frame.Token]*held
	work   map[frame.Token]*sync.Mutex
}

func newHold() *hold {
	return &hold{tokens: map[frame.Token]*held{}, work: map[frame.Token]*sync.Mutex{}}
}

// lock serialises everything that uses the PINs of one token.
func (h *hold) lock(t frame.Token) func() {
	h.mu.Lock()
	m := h.work[t]
	if m == nil {
		m = &sync.Mutex{}
		h.work[t] = m
	}
	h.mu.Unlock()
	m.Lock()
	return m.Unlock
}

func (h *hold) get(t frame.Token) *held {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tokens[t] == nil {
		h.tokens[t] = &held{current: frame.PINs{}, next: frame.PINs{}}
	}
	return h.tokens[t]
}

// put sets the PINs of one epoch and wipes those that were there.
func (h *hold) put(t frame.Token, e frame.Epoch, p frame.PINs, cut bool) {
	x := h.get(t)
	h.mu.Lock()
	defer h.mu.Unlock()
	if e == frame.Next {
		x.next.Wipe()
		x.next, x.cutNext = p, cut
		return
	}
	x.current.Wipe()
	x.current, x.cutCurrent = p, cut
}

// promote makes the next user PIN the current one. SO PINs do not stay.
func (h *hold) promote(t frame.Token) {
	x := h.get(t)
	h.mu.Lock()
	defer h.mu.Unlock()
	x.current.Wipe()
	x.current = frame.PINs{frame.UserPIN: x.next[frame.UserPIN]}
	x.cutCurrent = x.cutNext
	delete(x.next, frame.UserPIN)
	x.next.Wipe()
}

// dropSO wipes the SO PIN in force, which is held for one use only.
func (h *hold) dropSO(t frame.Token) {
	x := h.get(t)
	h.mu.Lock()
	defer h.mu.Unlock()
	frame.PINs{frame.SOPIN: x.current[frame.SOPIN]}.Wipe()
	delete(x.current, frame.SOPIN)
}

// settled forgets the next PINs and the SO PIN; the user PIN in force stays.
func (h *hold) settled(t frame.Token) {
	x := h.get(t)
	h.mu.Lock()
	defer h.mu.Unlock()
	user := x.current[frame.UserPIN]
	delete(x.current, frame.UserPIN)
	x.wipe()
	x.current, x.next = frame.PINs{frame.UserPIN: user}, frame.PINs{}
}

func (h *hold) wipe(t frame.Token) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if x := h.tokens[t]; x != nil {
		x.wipe()
		delete(h.tokens, t)
	}
}

func (h *hold) wipeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for t, x := range h.tokens {
		x.wipe()
		delete(h.tokens, t)
	}
}

// pinBytes of randomness make 32 characters of base32.
const pinBytes = 20

// randomPIN draws a one-time PIN without leaving a copy anywhere else.
func randomPIN() (*secmem.Buffer, error) {
	raw, err := secmem.New()
	if err != nil {
		return nil, err
	}
	defer raw.Wipe()
	err = raw.Fill(func(p []byte) (int, error) {
		_, err := rand.Read(p[:pinBytes])
		return pinBytes, err
	})
	if err != nil {
		return nil, err
	}
	pin, err := secmem.New()
	if err != nil {
		return nil, err
	}
	enc := base32.StdEncoding.WithPadding(base32.NoPadding)
	err = pin.Fill(func(p []byte) (int, error) {
		enc.Encode(p, raw.Bytes())
		return enc.EncodedLen(pinBytes), nil
	})
	if err != nil {
		pin.Wipe()
		return nil, err
	}
	return pin, nil
}

// randomPINs draws both one-time PINs of a fresh token.
func randomPINs() (frame.PINs, error) {
	out := frame.PINs{}
	for _, r := range []frame.Role{frame.SOPIN, frame.UserPIN} {
		b, err := randomPIN()
		if err != nil {
			out.Wipe()
			return nil, err
		}
		out[r] = b
	}
	return out, nil
}
