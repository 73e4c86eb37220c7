package console

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// The smallest terminal for the full screen. A smaller one gets lines.
const (
	minCols = 80
	minRows = 24
)

// Rows beside the block letters: heading, label, title, label, question, input,
// keys, quorum, running hash; and at least so many for what is read aloud and
// said.
const (
	fixedRows = 9
	textRows  = 7
)

// frame is a picture of the room.
type frame struct {
	rows     []string
	row, col int // cursor, from 1; 0 is none
}

// painter lays out one frame.
type painter struct {
	look
	m    *model
	w, h int
	now  time.Time
	out  []string
	row  int
	col  int
}

// render draws m on w columns and h rows.
func render(m *model, l look, w, h int, now time.Time) frame {
	p := &painter{look: l, m: m, w: w, h: h, now: now}
	switch {
	case w < minCols || h < minRows:
		p.small()
	case m.page != nil:
		p.cover()
	default:
		p.full()
	}
	if len(p.out) > h {
		p.out = p.out[:h]
	}
	if p.row > h {
		p.row = 0
	}
	return frame{p.out, p.row, p.col}
}

func (p *painter) line(code, text string) {
	p.out = append(p.out, p.paint(code, cut(text, p.w)))
}

// bar is a line of inverse letters over the whole width: three texts.
func (p *painter) bar(code, left, mid, right string) {
	room := p.w - cells(left) - cells(right) - 4
	mid = cut(mid, max(room, 0))
	gap := max(p.w-cells(left)-cells(mid)-cells(right)-2, 2)
	text := " " + left + strings.Repeat(" ", gap/2) + mid + strings.Repeat(" ", gap-gap/2) + right + " "
	p.line(code, text)
}

func (p *painter) world() string {
	w := string(p.m.view.World)
	if w == "live" {
		return "LIVE"
	}
	return p.clean(strings.ToUpper(strings.Replace(w, ":", " ", 1)))
}

// code of the heading: what went wrong is red, and says so in words.
func (p *painter) headCode() string {
	if p.m.failed() || p.m.call != nil {
		return "1;7;31"
	}
	return "1;7"
}

func (p *painter) full() {
	p.bar(p.headCode(), p.world(), p.clean(p.m.view.Title), p.m.view.State)
	step, name := p.scales()
	p.steps(step)
	p.who(name)
	p.question()
	p.texts()
	hash := "running hash " + shortHash(p.m.view.Root) + " · entry " + strconv.FormatInt(p.m.view.Entries, 10)
	for len(p.out) < p.h-1 {
		p.out = append(p.out, "")
	}
	p.line("7", " "+pad(p.clean(hash), p.w-1))
}

func pad(text string, n int) string {
	return text + strings.Repeat(" ", max(n-cells(text), 0))
}

// scales chooses how large step and name are: as large as fits, the name first.
func (p *painter) scales() (step, name int) {
	budget := p.h - fixedRows - textRows
	if p.ascii {
		budget += 2 // letters are whole rows there; texts give way
	}
	_, who := p.m.actor()
	for name = 4; name > 0; name-- {
		if bigHeight(name, p.ascii)+1 <= budget && big(who, name, p.w-2, p.ascii) != nil {
			break
		}
	}
	for step = max(name, 1); step > 0; step-- {
		rest := budget - max(bigHeight(max(name, 1), p.ascii), 1)
		if bigHeight(step, p.ascii) <= rest && p.numbers(step) != nil {
			break
		}
	}
	return step, name
}

func (p *painter) number() string {
	if p.m.of == 0 {
		return ""
	}
	return strconv.Itoa(p.m.n) + "/" + strconv.Itoa(p.m.of)
}

// numbers are the step and the time left side by side, nil if they do not fit.
func (p *painter) numbers(scale int) []string {
	left := p.m.left(p.now)
	a := big(p.number(), scale, p.w, p.ascii)
	b := big(left, scale, p.w, p.ascii)
	if p.number() == "" || a == nil || b == nil || cells(a[0])+cells(b[0])+8 > p.w {
		return nil
	}
	for i := range a {
		a[i] = " " + a[i] + strings.Repeat(" ", p.w-2-cells(a[i])-cells(b[i])) + b[i]
	}
	return a
}

func (p *painter) steps(scale int) {
	right := "TIME LEFT"
	if p.m.hurry(p.now) {
		right = "! HURRY, TIME LEFT"
	}
	if p.m.left(p.now) == "" {
		right = ""
	}
	if rows := p.numbers(scale); scale > 0 && rows != nil {
		p.line("1", " "+pad("STEP", p.w-2-cells(right))+right)
		for _, r := range rows {
			p.line("1", r)
		}
	} else {
		p.line("1", " "+pad("STEP "+p.number(), p.w-3-cells(right)-len(p.m.left(p.now)))+right+" "+p.m.left(p.now))
	}
	if st := p.m.step; st != nil {
		title := []string{" " + st.ID + "  " + st.Title, st.Safe, st.Key, st.Cert, p.m.phase}
		title = slices.DeleteFunc(title, func(s string) bool { return s == "" })
		p.line("1", p.clean(strings.Join(title, " · ")))
	} else {
		p.line("", "")
	}
}

func (p *painter) who(scale int) {
	label, name := p.m.actor()
	code := "1;33"
	switch {
	case p.m.q == nil && p.m.over() == "CLOSED":
		code = "1;32"
	case p.m.failed() && p.m.q == nil, p.m.call != nil:
		code = "1;31"
	case p.m.q == nil:
		code = "1"
	}
	p.line("7;"+code, pad(" "+p.clean(label), p.w))
	if scale > 0 {
		for _, r := range big(name, scale, p.w-2, p.ascii) {
			p.line(code, "  "+r)
		}
		return
	}
	p.line(code, "  "+p.clean(strings.ToUpper(name)))
}

func (p *painter) question() {
	text, typed, keys := p.m.ask()
	lines := wrap(p.clean(text), p.w-2)
	if len(lines) == 0 {
		lines = []string{""}
	}
	if len(lines) > 3 {
		lines = append(lines[:2], cut(strings.Join(lines[2:], " "), p.w-2))
	}
	for _, l := range lines {
		p.line("1", " "+l)
	}
	open := p.m.call != nil || p.m.q != nil
	if open {
		typed = p.clean(typed)
		for cells(typed) > p.w-6 {
			_, size := firstRune(typed)
			typed = typed[size:]
		}
		p.line("1", " > "+typed)
		p.row, p.col = len(p.out), 4+cells(typed)
	} else {
		p.line("", "")
	}
	p.line("", " "+p.clean(keys))
}

func firstRune(s string) (rune, int) {
	for i, r := range s {
		if i > 0 {
			return r, i
		}
	}
	return 0, len(s)
}

// texts are what is read aloud, the quorum and the messages, in what is left.
func (p *painter) texts() {
	free := p.h - 1 - len(p.out)
	var aloud []string
	if st := p.m.step; st != nil && st.Say != "" && p.m.over() == "" {
		aloud = wrap(p.clean("READ ALOUD: “"+st.Say+"”"), p.w-2)
	}
	quorum := p.quorum()
	if quorum != "" {
		free--
	}
	if len(aloud) > max(free-2, 1) {
		aloud = aloud[:max(free-2, 1)]
	}
	for _, l := range aloud {
		p.line("1", " "+l)
	}
	if quorum != "" {
		p.line("1", " "+quorum)
	}
	p.messages(p.h - 1 - len(p.out))
}

// quorum is one line: what, a bar of signs, the numbers, the names.
func (p *painter) quorum() string {
	c := p.m.count
	if c == nil || p.m.over() != "" {
		return ""
	}
	sign := strings.Repeat("■", len(c.Done)) + strings.Repeat("□", max(c.Need-len(c.Done), 0))
	if c.Need > 20 {
		sign = ""
	}
	text := strings.ToUpper(c.What) + " " + sign + " " + strconv.Itoa(len(c.Done)) + " of " + strconv.Itoa(c.Need)
	if c.Of > c.Need {
		text += " (" + strconv.Itoa(c.Of) + " could)"
	}
	if len(c.Done) > 0 {
		text += ": " + strings.Join(c.Done, " ")
	}
	return cut(p.clean(text), p.w-2)
}

var marks = map[string]string{"good": "✓ ", "bad": "✗ "}

// messages fills n rows with what was said last, the newest at the bottom.
func (p *painter) messages(n int) {
	if n < 2 {
		return
	}
	p.line("", strings.Repeat(p.clean("─"), p.w))
	n--
	type row struct{ code, text string }
	var rows []row
	for i := len(p.m.said) - 1; i >= 0 && len(rows) < n+p.m.scroll; i-- {
		s := p.m.said[i]
		mark, code := "  ", ""
		if m, ok := marks[s.level]; ok {
			mark = m
		}
		if s.level == "good" {
			code = "32"
		}
		if s.level == "bad" {
			code = "1;31"
		}
		lines := wrap(p.clean(s.text), p.w-4)
		for j := range slices.Backward(lines) {
			head := "  "
			if j == 0 {
				head = p.clean(mark)
			}
			rows = append(rows, row{code, " " + head + lines[j]})
		}
	}
	from := min(p.m.scroll, max(len(rows)-n, 0))
	p.m.scroll = from
	for i := min(from+n, len(rows)) - 1; i >= from; i-- {
		p.line(rows[i].code, rows[i].text)
	}
}

// small is what a terminal that shrank still shows.
func (p *painter) small() {
	label, name := p.m.actor()
	text, typed, _ := p.m.ask()
	size := strconv.Itoa(p.w) + "x" + strconv.Itoa(p.h)
	p.line("1;7", "TERMINAL TOO SMALL ("+size+"): make it "+strconv.Itoa(minCols)+"x"+strconv.Itoa(minRows))
	p.line("1", p.clean(p.m.view.State+" "+p.number()+" "+p.m.left(p.now)))
	p.line("", p.clean(label))
	p.line("1", p.clean(strings.ToUpper(name)))
	for _, l := range wrap(p.clean(text), p.w) {
		p.line("", l)
	}
	if p.m.call != nil || p.m.q != nil {
		typed = p.clean(typed)
		p.line("1", cut("> "+typed, p.w))
		p.row, p.col = len(p.out), min(3+cells(typed), p.w)
	}
}
