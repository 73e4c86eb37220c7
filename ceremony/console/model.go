package console

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/internal/redact"
	"keyrite/internal/secmem"
)

// Kinds of question.
const (
	askAnswer = iota // a word, or an incident
	askSecret        // a passphrase
	askText          // anything but nothing
)

// question is what somebody is asked.
type question struct {
	kind      int
	who, role string
	text      string
	want      []string
	typed     []rune         // never a secret
	secret    *secmem.Buffer // a passphrase, in a locked page
	done      chan struct{}  // closed when there is an answer
	answer    string
	pass      *redact.Secret
	call      *ceremony.Call
}

// dialogue is the call of an incident while it is typed.
type dialogue struct {
	by, reason []rune
	at         int // 0 who, 1 what
}

// maxTyped bounds an answer in characters.
const maxTyped = 400

// said is one message.
type said struct{ level, text string }

// maxSaid bounds the messages that can be scrolled back to.
const maxSaid = 200

// model is everything that the screen shows.
type model struct {
	view   ceremony.View
	phase  string
	n, of  int
	step   *script.Step
	ends   time.Time
	count  *ceremony.Count
	said   []said
	scroll int // lines back from the newest
	q      *question
	call   *dialogue
	page   *page  // covers all of it
	end    string // how to leave, once all is over
}

func (m *model) say(level, text string) {
	m.said = append(m.said, said{level, text})
	if len(m.said) > maxSaid {
		m.said = m.said[len(m.said)-maxSaid:]
	}
	m.scroll = 0
}

// left is the time left of the step, "" between steps.
func (m *model) left(now time.Time) string {
	if m.step == nil || m.over() != "" {
		return ""
	}
	d := max(m.ends.Sub(now), 0).Truncate(time.Second)
	if d >= time.Hour {
		return fmt.Sprintf("%d:%02d:%02d", d/time.Hour, d/time.Minute%60, d/time.Second%60)
	}
	return fmt.Sprintf("%d:%02d", d/time.Minute, d/time.Second%60)
}

// hurry says that less than a minute, or a tenth of the limit, is left.
func (m *model) hurry(now time.Time) bool {
	return m.step != nil && m.ends.Sub(now) < max(time.Minute, m.step.Limit/10)
}

// over is the word for a ceremony that has ended, or is about to.
func (m *model) over() string {
	switch m.view.State {
	case "INVALID", "CLEANUP", "VOID", "CLOSED":
		return m.view.State
	}
	return ""
}

func (m *model) failed() bool { return m.over() != "" && m.over() != "CLOSED" }

// actor is who must act, in words of the room: the label, and the big word.
func (m *model) actor() (label, name string) {
	switch q := m.q; {
	case m.call != nil:
		return "✗ SOMEBODY CALLS AN INCIDENT", "INCIDENT"
	case q == nil && m.failed():
		return "✗ NOTHING OF THIS ATTEMPT MAY BE USED", m.over()
	case q == nil && m.over() != "":
		return "✓ THE RECORD IS CLOSED", m.over()
	case q == nil && m.step == nil:
		return "● PLEASE WAIT", "WAIT"
	case q == nil:
		return "● THE MACHINE WORKS (" + m.step.Do + "): NOBODY TYPES", "WAIT"
	case q.kind == askSecret:
		return "▶ TYPES THE PASSPHRASE NOW", q.who
	case q.kind == askText:
		return "▶ IDENTITY DOCUMENT OF", q.who
	case q.role == "":
		return "▶ ANSWERS NOW", q.who
	default:
		return "▶ ANSWERS NOW: " + q.role, q.who
	}
}

// ask is the question in the middle of the screen and what the keys do.
func (m *model) ask() (text, typed, keys string) {
	switch q := m.q; {
	case m.call != nil && m.call.at == 0:
		return "Who calls it? (name)", string(m.call.by), "Enter = next   nothing and Enter = go back"
	case m.call != nil:
		return "What happened?", string(m.call.reason), "Enter = call it: the whole ceremony is void"
	case q == nil && m.end != "":
		return m.lastBad(), "", m.end
	case q == nil && m.failed():
		return m.lastBad(), "", ""
	case q == nil && m.over() != "":
		return "", "", ""
	case q == nil:
		return "", "", "! or Ctrl-X = CALL AN INCIDENT   Ctrl-C = stop"
	case q.kind == askSecret:
		return q.who + ": " + q.text, "", "Enter = done   Ctrl-U = from the start   Ctrl-X = CALL AN INCIDENT   Ctrl-C = stop"
	case q.kind == askText:
		return q.text, string(q.typed), "Enter = done"
	default:
		keys = "Enter = " + q.want[0]
		if len(q.want) > 1 {
			keys += "   or type: " + strings.Join(q.want[1:], ", ")
		}
		return q.who + ": " + q.text, string(q.typed), keys + "   ! or incident = CALL AN INCIDENT"
	}
}

// lastBad is the cause of the end, as the engine said it.
func (m *model) lastBad() string {
	for _, s := range slices.Backward(m.said) {
		if strings.HasPrefix(s.text, "INVALID: ") {
			return s.text
		}
	}
	return ""
}
