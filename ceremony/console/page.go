package console

import (
	"context"
	"strconv"
	"strings"

	"keyrite/ceremony/qr"
)

// page covers the full screen until somebody presses Enter.
type page struct {
	title string
	code  []string
	rows  []string
	at    int           // first row shown
	done  chan struct{} // closed by Enter
}

// Page covers the screen with a code and rows. Enter, Ctrl-C and an incident take
// it away.
func (s *Screen) Page(ctx context.Context, title, code string, rows []string) error {
	p := &page{title: title, rows: rows, done: make(chan struct{})}
	if code != "" {
		var err error
		if p.code, err = qr.Rows(code, s.look.ascii); err != nil {
			return err
		}
	}
	s.change(func() { s.m.page = p })
	var err error
	select {
	case <-p.done:
	case <-ctx.Done():
		err = ctx.Err()
	case <-s.gone:
		err = ErrClosed
	}
	s.change(func() {
		if s.m.page == p {
			s.m.page = nil
		}
	})
	return err
}

// closePage needs mu.
func (m *model) closePage() {
	if m.page != nil {
		close(m.page.done)
		m.page = nil
	}
}

// turn takes a key that the page is for, and says whether it was one.
func (m *model) turn(k key) bool {
	if m.page == nil {
		return false
	}
	switch k.kind {
	case keyEnter:
		m.closePage()
	case keyUp:
		m.page.at = max(m.page.at-1, 0)
	case keyDown:
		m.page.at++
	case keyInterrupt, keyIncident:
		m.closePage()
		return false
	case keyText, keyBackspace, keyClear, keyRedraw:
		return k.kind != keyRedraw
	}
	return true
}

// cover paints a page instead of the step.
func (p *painter) cover() {
	g := p.m.page
	p.bar("1;7", p.world(), p.clean(g.title), p.m.view.State)
	type row struct {
		text  string
		drawn bool
	}
	var rows []row
	if len(g.code) > 0 {
		if width := cells(g.code[0]); width > p.w || len(g.code) > p.h-2 {
			rows = append(rows, row{"The code to scan wants a screen of " + strconv.Itoa(width) + "x" + strconv.Itoa(len(g.code)+2) + " characters, and this one has " + strconv.Itoa(p.w) + "x" + strconv.Itoa(p.h) + ":", false}, row{"take a smaller font, print the sheet, or type the lines.", false}, row{})
		} else {
			for _, r := range g.code {
				rows = append(rows, row{r, true})
			}
		}
	}
	for _, r := range g.rows {
		rows = append(rows, row{" " + p.clean(r), false})
	}
	free := p.h - 2
	g.at = max(min(g.at, len(rows)-free), 0)
	for _, r := range rows[g.at:min(g.at+free, len(rows))] {
		if r.drawn {
			p.out = append(p.out, p.paint("97;40", r.text))
		} else {
			p.line("", r.text)
		}
	}
	for len(p.out) < p.h-1 {
		p.out = append(p.out, "")
	}
	keys := " Enter = back   Ctrl-X = CALL AN INCIDENT"
	if len(rows) > free {
		keys = " arrows = more (" + strconv.Itoa(g.at+1) + " of " + strconv.Itoa(len(rows)) + ")  " + keys
	}
	p.line("7", keys+strings.Repeat(" ", max(p.w-cells(keys), 0)))
}
