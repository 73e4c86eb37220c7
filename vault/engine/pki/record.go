package pki

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// What the store keeps at a mount.
//
//	pki/MOUNT          number → issued
//	pki-index/MOUNT    role/expiry/number, to count and to forget; the value is empty
//	pki-begun/MOUNT    number → RFC 3339, of what was taken and not given out yet
//	pki-revoked/MOUNT  number → RFC 3339
//	pki-crl/MOUNT      "list" → keptCRL, "generation" → decimal, one more for each revocation
func (e *Engine) bucket() string  { return e.host.Bucket("pki") }
func (e *Engine) index() string   { return e.host.Bucket("pki-index") }
func (e *Engine) begun() string   { return e.host.Bucket("pki-begun") }
func (e *Engine) revoked() string { return e.host.Bucket("pki-revoked") }
func (e *Engine) lists() string   { return e.host.Bucket("pki-crl") }

const (
	issuedFormat = "keyrite/pki-issued/v1"
	// keepExpired is how long a certificate that ended is still known and listed: a
	// list must bear what was revoked beyond its end (RFC 5280, section 3.3).
	keepExpired = 7 * 24 * time.Hour
	// lostAfter is when what was taken and not given out counts as revoked.
	lostAfter = 5 * time.Minute
	// maxForgotten bounds what one request takes away.
	maxForgotten = 100
)

// issued is a certificate as the store has it, from before it is signed.
type issued struct {
	Certificate []byte   `json:"certificate,omitempty"` // DER, once it was signed
	Expires     string   `json:"expires"`               // RFC 3339, UTC
	Format      string   `json:"format"`
	Identity    string   `json:"identity"` // who asked
	Names       []string `json:"names"`
	Role        string   `json:"role"`
	Time        string   `json:"time"` // RFC 3339, UTC
}

// shownSerial is how clients of HashiCorp Vault write a number: 3a:0f:…
func shownSerial(serial string) string {
	var b strings.Builder
	for i := 0; i < len(serial); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(serial[i : i+2])
	}
	return b.String()
}

// parseSerial reads a number with or without its colons or hyphens.
func parseSerial(s string) (string, error) {
	hexed := strings.ToLower(strings.NewReplacer(":", "", "-", "").Replace(s))
	raw, err := hex.DecodeString(hexed)
	var n birthcert.CertSerial
	if err != nil || len(raw) != len(n) {
		return "", fault.Errorf(fault.Usage, "%.60q is no certificate number: 16 bytes in hex", s)
	}
	return hexed, nil
}

func (e *Engine) record(s lister, serial string) (*issued, error) {
	raw, err := s.Get(e.bucket(), serial)
	if errors.Is(err, seal.ErrNotFound) {
		return nil, engine.ErrNotThere
	}
	if err != nil {
		return nil, err
	}
	var c issued
	if err := jcs.Unmarshal(raw, &c); err != nil {
		return nil, err
	}
	if c.Format != issuedFormat {
		return nil, fault.Errorf(fault.Verify, "certificate %s in the store has format %.40q", serial, c.Format)
	}
	return &c, nil
}

// serials are the numbers of what was given out.
func (e *Engine) serials(s lister) []string {
	open := map[string]bool{}
	for _, n := range s.Keys(e.begun(), "") {
		open[n] = true
	}
	var out []string
	for _, n := range s.Keys(e.bucket(), "") {
		if !open[n] {
			out = append(out, shownSerial(n))
		}
	}
	return out
}

func (e *Engine) put(tx *seal.Tx, serial string, c *issued) error {
	c.Format = issuedFormat
	raw, err := jcs.Marshal(c)
	if err != nil {
		return err
	}
	return tx.Put(e.bucket(), serial, raw)
}

// indexed is the place in the index: in the order of the ends.
func indexed(role string, end time.Time, serial string) string {
	return fmt.Sprintf("%s/%012x/%s", role, end.Unix(), serial)
}

// take takes a number for a role before anything is signed, and forgets what ended
// long ago.
func (e *Engine) take(tx *seal.Tx, serial string, c *issued, limit int, now time.Time) error {
	live := 0
	forgotten := 0
	for _, at := range tx.Keys(e.index(), c.Role+"/") {
		parts := strings.Split(at, "/")
		end, err := strconv.ParseInt(parts[len(parts)-2], 16, 64)
		if err != nil {
			return fault.Errorf(fault.Verify, "index of certificates: %w", err)
		}
		switch ended := now.Sub(time.Unix(end, 0)); {
		case ended < 0:
			live++
		case ended > keepExpired && forgotten < maxForgotten:
			forgotten++
			if err := e.forget(tx, at, parts[len(parts)-1]); err != nil {
				return err
			}
		}
	}
	if live >= limit {
		return fault.Hint(ErrFull, "wait until one ends, or let the approvers raise max_live of the role; a revoked one counts until its end")
	}
	end, err := charter.ParseTime(c.Expires)
	if err != nil {
		return err
	}
	if err := tx.Put(e.index(), indexed(c.Role, end, serial), nil); err != nil {
		return err
	}
	if err := tx.Put(e.begun(), serial, []byte(charter.FormatTime(now))); err != nil {
		return err
	}
	return e.put(tx, serial, c)
}

// forget takes everything about a certificate away.
func (e *Engine) forget(tx *seal.Tx, at, serial string) error {
	for _, x := range [][2]string{{e.index(), at}, {e.bucket(), serial}, {e.begun(), serial}, {e.revoked(), serial}} {
		if err := tx.Delete(x[0], x[1]); err != nil && !errors.Is(err, seal.ErrNotFound) {
			return err
		}
	}
	return nil
}

// given says that a certificate was signed and is about to be given out.
func (e *Engine) given(tx *seal.Tx, serial string, der []byte) error {
	c, err := e.record(tx, serial)
	if err != nil {
		return err
	}
	c.Certificate = der
	if err := e.put(tx, serial, c); err != nil {
		return err
	}
	return tx.Delete(e.begun(), serial)
}

// revocation says when a certificate was revoked; nil if it was not.
func (e *Engine) revocation(s lister, serial string) (*revocation, error) {
	raw, err := s.Get(e.revoked(), serial)
	if errors.Is(err, seal.ErrNotFound) {
		return nil, nil //nolint:nilnil // it holds, and that is no error
	}
	if err != nil {
		return nil, err
	}
	at, err := charter.ParseTime(string(raw))
	return &revocation{serial: serial, at: at}, err
}

// lost says when a certificate was taken that was never given out; nil for all others,
// and while it may still be.
func (e *Engine) lost(s lister, serial string, now time.Time) (*revocation, error) {
	raw, err := s.Get(e.begun(), serial)
	if errors.Is(err, seal.ErrNotFound) {
		return nil, nil //nolint:nilnil // it was given out, or never taken
	}
	if err != nil {
		return nil, err
	}
	at, err := charter.ParseTime(string(raw))
	if err != nil || now.Before(at.Add(lostAfter)) {
		return nil, err
	}
	return &revocation{serial: serial, at: at}, nil
}

// revocation is an entry of the list.
type revocation struct {
	serial string
	at     time.Time
}

// revocations are all that are in force, in the order of their numbers.
func (e *Engine) revocations(s lister, now time.Time) ([]revocation, error) {
	var out []revocation
	for _, src := range []struct {
		bucket string
		get    func(string) (*revocation, error)
	}{
		{e.revoked(), func(n string) (*revocation, error) { return e.revocation(s, n) }},
		{e.begun(), func(n string) (*revocation, error) { return e.lost(s, n, now) }},
	} {
		for _, n := range s.Keys(src.bucket, "") {
			v, err := src.get(n)
			if err != nil {
				return nil, err
			}
			if v != nil {
				out = append(out, *v)
			}
		}
	}
	return out, nil
}

// generation counts revocations.
func (e *Engine) generation(s lister) (int64, error) {
	raw, err := s.Get(e.lists(), "generation")
	if errors.Is(err, seal.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(raw), 10, 64)
}

// revoke revokes one that was taken; a second time is fine. It says when.
func (e *Engine) revoke(tx *seal.Tx, serial string, now time.Time) (time.Time, error) {
	if _, err := e.record(tx, serial); err != nil {
		return time.Time{}, err
	}
	v, err := e.revocation(tx, serial)
	if err != nil {
		return time.Time{}, err
	}
	if v != nil {
		return v.at, nil
	}
	at := now.UTC().Truncate(time.Second)
	if err := tx.Put(e.revoked(), serial, []byte(charter.FormatTime(at))); err != nil {
		return at, err
	}
	// From here on it is not lost any more, but revoked.
	if err := tx.Delete(e.begun(), serial); err != nil && !errors.Is(err, seal.ErrNotFound) {
		return at, err
	}
	g, err := e.generation(tx)
	if err != nil {
		return at, err
	}
	return at, tx.Put(e.lists(), "generation", strconv.AppendInt(nil, g+1, 10))
}
