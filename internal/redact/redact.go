// Package redact holds secrets in memory so that no log, error, format verb or
// JSON encoder can show them by mistake.
//
// It cannot wipe what a library copied; programs that combine shares or hold
// PINs therefore do so in a short-lived process of its own.
package redact

import (
	"fmt"
	"io"
	"log/slog"
)

const shown = "[redacted]"

// Secret holds secret bytes. The zero value is empty. It must not be copied
// after use and is not comparable.
type Secret struct {
	_ [0]func() // not comparable
	// Behind a pointer: fmt follows one by itself, without asking for a
	// Formatter, where a Secret is an unexported field and the verb a wrong one.
	b *[]byte
}

// New takes ownership of b.
func New(b []byte) *Secret { return &Secret{b: &b} }

// Bytes returns the secret itself, not a copy; it is gone after Zero.
func (s *Secret) Bytes() []byte {
	if s == nil || s.b == nil {
		return nil
	}
	return *s.b
}

// Len is the length in bytes.
func (s *Secret) Len() int { return len(s.Bytes()) }

// Zero overwrites the secret.
func (s *Secret) Zero() {
	clear(s.Bytes())
	if s != nil {
		s.b = nil
	}
}

// Format never shows the secret, whatever the verb.
func (s *Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, shown) }

// LogValue never shows the secret.
func (s *Secret) LogValue() slog.Value { return slog.StringValue(shown) }

// MarshalJSON never shows the secret.
func (s *Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + shown + `"`), nil }

// MarshalText never shows the secret.
func (s *Secret) MarshalText() ([]byte, error) { return []byte(shown), nil }
