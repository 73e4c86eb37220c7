package console

import (
	"bytes"
	"strings"
	"time"
	"unicode/utf8"

	"keyrite/ceremony"
	"keyrite/internal/cli"
	"keyrite/internal/redact"
)

// strayPause is how long nobody may type before what is typed counts again,
// after keys that nobody was asked for: the rest of a passphrase must not become
// an answer that everybody can read.
const strayPause = time.Second

// incidentWord, typed as an answer, opens an incident, as incidentKey does.
const (
	incidentWord = "incident"
	incidentKey  = "!"
)

// read takes keys until the terminal is gone.
func (s *Screen) read() {
	var d decoder
	buf := make([]byte, 64)
	for {
		n, err := s.tty.Read(buf)
		for _, b := range buf[:n] {
			if k, ok := d.next(b, time.Now()); ok {
				s.key(k)
			}
		}
		clear(buf)
		d.wipe()
		if err != nil {
			close(s.gone)
			return
		}
	}
}

// key does what one key means now.
func (s *Screen) key(k key) {
	interrupt, call := false, (*ceremony.Call)(nil)
	s.change(func() {
		m := &s.m
		switch {
		case m.turn(k):
		case k.kind == keyInterrupt:
			interrupt = true
			if m.q != nil && m.q.kind == askSecret {
				m.q.typeSecret(key{kind: keyClear})
			}
			m.call = nil
		case k.kind == keyRedraw:
			s.resized()
		case k.kind == keyUp:
			m.scroll++
		case k.kind == keyDown:
			m.scroll = max(m.scroll-1, 0)
		case k.kind == keyIncident && m.over() == "":
			m.call = &dialogue{}
			if m.q != nil && m.q.kind == askSecret {
				m.q.typeSecret(key{kind: keyClear})
			}
		case m.call != nil:
			call = s.typeCall(k)
		case m.q != nil && m.q.kind == askSecret:
			if m.q.typeSecret(k) {
				m.q = nil
			}
		case s.isStray(k):
		case m.q != nil:
			s.typeAnswer(k)
		case k.kind == keyEnter && s.leave != nil:
			close(s.leave)
			s.leave = nil
		case k.kind == keyText && string(k.text) == incidentKey && m.over() == "":
			m.call = &dialogue{}
		case k.kind == keyText:
			s.stray = s.now()
		}
	})
	if interrupt {
		s.interrupt()
	}
	if call != nil {
		s.call(*call)
	}
}

// isStray throws away what was begun before the question.
func (s *Screen) isStray(k key) bool {
	if s.stray.IsZero() || s.now().Sub(s.stray) > strayPause {
		return false
	}
	switch k.kind {
	case keyEnter:
		s.stray = time.Time{}
	default:
		s.stray = s.now()
	}
	return true
}

// typeSecret takes one key of a passphrase and says whether it is complete.
func (q *question) typeSecret(k key) bool {
	done := false
	// The page never fails but when the passphrase is longer than any may be.
	_ = q.secret.Fill(func(page []byte) (int, error) {
		n := len(bytes.TrimRight(page[:cli.MaxSecretBytes+utf8.UTFMax], "\x00"))
		switch k.kind {
		case keyText:
			if n+len(k.text) <= cli.MaxSecretBytes {
				n += copy(page[n:], k.text)
			}
		case keyBackspace:
			_, size := utf8.DecodeLastRune(page[:n])
			n -= size
		case keyClear:
			n = 0
		case keyEnter:
			q.pass = redact.New(bytes.Clone(page[:n]))
			n, done = 0, true
		}
		return n, nil
	})
	if done {
		close(q.done)
	}
	return done
}

// typed takes one key of what may be shown and says whether it is complete.
func typed(text *[]rune, k key) bool {
	switch k.kind {
	case keyText:
		if len(*text) < maxTyped {
			r, _ := utf8.DecodeRune(k.text)
			*text = append(*text, r)
		}
	case keyBackspace:
		*text = (*text)[:max(len(*text)-1, 0)]
	case keyClear:
		*text = nil
	case keyEnter:
		return true
	}
	return false
}

// typeAnswer needs mu and an open question.
func (s *Screen) typeAnswer(k key) {
	q := s.m.q
	if q.kind == askAnswer && len(q.typed) == 0 && k.kind == keyText && string(k.text) == incidentKey {
		s.m.call = &dialogue{}
		return
	}
	if !typed(&q.typed, k) {
		return
	}
	answer := strings.TrimSpace(string(q.typed))
	switch {
	case q.kind == askAnswer && answer == incidentWord:
		q.typed, s.m.call = nil, &dialogue{}
		return
	case q.kind == askAnswer && answer == "":
		answer = q.want[0]
	case answer == "":
		return
	}
	q.answer, s.m.q = answer, nil
	close(q.done)
}

// typeCall takes one key of an incident. It returns the call if that is complete
// and no answer that somebody is asked for can carry it.
func (s *Screen) typeCall(k key) *ceremony.Call {
	c := s.m.call
	field := []*[]rune{&c.by, &c.reason}[c.at]
	if !typed(field, k) {
		return nil
	}
	if strings.TrimSpace(string(*field)) == "" {
		if c.at == 0 {
			s.m.call = nil // a wrong key
		}
		return nil
	}
	if c.at == 0 {
		c.at = 1
		return nil
	}
	call := ceremony.Call{By: strings.TrimSpace(string(c.by)), Reason: strings.TrimSpace(string(c.reason))}
	s.m.call = nil
	if q := s.m.q; q != nil && q.kind == askAnswer {
		q.call, s.m.q = &call, nil
		close(q.done)
		return nil
	}
	s.m.say("bad", call.By+" calls an incident: "+call.Reason)
	return &call
}
