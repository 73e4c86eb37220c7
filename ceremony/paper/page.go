// Package paper renders what people hold in their hands: the printed script, the
// kit around it, the sheet of a share, the sheet of the anchors' words, and the
// report of a record.
//
// Every page is one file of HTML that needs nothing from outside, runs no
// program, and prints on A4; its Content-Security-Policy allows one style sheet,
// by hash, and nothing else. Pages are made from scripts, records and public
// halves only, so no secret can be on one; the sheet of a share holds the share
// encrypted to its holder. The report is not evidence: keyrite-verify reads the
// record, never a page.
package paper

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html/template"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	"keyrite/artifact/fault"
	"keyrite/artifact/words"
	"keyrite/ceremony/qr"
)

//go:embed theme.css
var theme string

// head is what the frame of every page needs.
type head struct {
	Title  string
	World  string // "live", "rehearsal:ID", or "" where it is not known yet
	Footer string // at the foot of every printed page, left of the page number
}

// Style is the style sheet with the running lines of this page. Chromium prints
// margin boxes; other browsers print their own.
func (h head) Style() template.CSS {
	//nolint:gosec // every text in it went through cssString
	return template.CSS(theme + fmt.Sprintf(`@page { size: A4; margin: 19mm 15mm 19mm;
@top-left { content: %s; font: 8pt sans-serif; } @top-right { content: %s; font: bold 8pt sans-serif; }
@bottom-left { content: %s; font: 7.5pt monospace; width: 78%%; } @bottom-right { content: "page " counter(page) " of " counter(pages); font: 8pt sans-serif; } }
`, cssString(h.Title), cssString(h.worldMark()), cssString(h.Footer)))
}

func (h head) worldMark() string {
	switch h.World {
	case "":
		return ""
	case "live":
		return "LIVE"
	}
	return "REHEARSAL – nothing here is live"
}

// Live says whether the page is of the live world.
func (h head) Live() bool { return h.World == "live" }

// CSP allows the page's own style sheet and nothing else.
func (h head) CSP() string {
	sum := sha256.Sum256([]byte(h.Style()))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'"
}

// cssString writes s as a CSS string in which nothing but ASCII letters and
// digits stands for itself (CSS Syntax Level 3, section 4.3.7: up to six hex
// digits escape a code point). It is cut where the margin of a page ends.
func cssString(s string) string {
	const most = 90
	var b strings.Builder
	b.WriteByte('"')
	n := 0
	for _, r := range visible(s) {
		if n++; n > most {
			b.WriteString(`\002026`)
			break
		}
		// A blank after an escape would belong to the escape, so it is escaped too.
		if r < 0x80 && (unicode.IsLetter(r) || unicode.IsDigit(r)) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\%06x`, r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// visible shows control characters, bidirectional and zero-width marks and
// broken UTF-8 as what they are, so that no name can reorder or hide text.
func visible(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case r == '\n' || r == '\t' || unicode.IsPrint(r) && !unicode.Is(unicode.Cf, r):
			b.WriteString(s[:n])
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		s = s[n:]
	}
	return b.String()
}

// pages are all templates; each file defines them by name.
func pages(sources ...string) (*template.Template, error) {
	t := template.New("").Funcs(template.FuncMap{
		"group": words.Group, "wordList": words.List, "blanks": blanks, "seq": func(n int) []struct{} { return make([]struct{}, n) },
		"clock": clock, "mono": isHash, "number": isNumber, "limit": limit, "add": func(a, b int) int { return a + b }, "qr": qr.SVG,
	})
	for _, src := range append([]string{layoutHTML}, sources...) {
		if _, err := t.Parse(src); err != nil {
			return nil, fault.Errorf(fault.Unexpected, "page template: %w", err)
		}
	}
	return t, nil
}

//go:embed layout.html
var layoutHTML string

// writePage executes one template into w. What the template prints is made
// visible as it passes.
func writePage(w io.Writer, name string, data any, sources ...string) error {
	t, err := pages(sources...)
	if err != nil {
		return err
	}
	v := &visibleWriter{w: w}
	if err := t.ExecuteTemplate(v, name, data); err != nil {
		return fault.Errorf(fault.Unexpected, "render %s: %w", name, err)
	}
	return v.flush()
}

func renderPage(name string, data any, sources ...string) ([]byte, error) {
	var b bytes.Buffer
	err := writePage(&b, name, data, sources...)
	return b.Bytes(), err
}

// visibleWriter applies visible to a stream; a rune may be cut between writes.
type visibleWriter struct {
	w    io.Writer
	rest []byte
}

func (v *visibleWriter) Write(p []byte) (int, error) {
	data := append(v.rest, p...)
	whole := len(data)
	for i := 1; i <= min(utf8.UTFMax-1, len(data)); i++ {
		if c := data[len(data)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(data[len(data)-i:]) {
				whole = len(data) - i
			}
			break
		}
	}
	_, err := io.WriteString(v.w, visible(string(data[:whole])))
	v.rest = append([]byte(nil), data[whole:]...)
	return len(p), err
}

func (v *visibleWriter) flush() error {
	_, err := io.WriteString(v.w, visible(string(v.rest)))
	v.rest = nil
	return err
}

// isHash says whether a text is a hash, which is shown as one and may be broken
// anywhere.
func isHash(s string) bool {
	_, err := hex.DecodeString(s)
	return err == nil && len(s) >= 32
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// blanks are places for the words of one hash.
func blanks() []string { return make([]string, sha256.Size) }
