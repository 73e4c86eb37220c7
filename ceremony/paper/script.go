package paper

import (
	_ "embed"
	"strings"

	"keyrite/ceremony/script"
)

//go:embed script.html
var scriptHTML string

// namedHash is one entry of the annex of hashes.
type namedHash struct{ What, Hex string }

// plain is one heading of the explanation with its lines.
type plain struct {
	Head  string
	Lines []string
}

// scriptPage is what script.html shows.
type scriptPage struct {
	Script *script.Script
	Plan   *plan
	Plain  []plain
	Hashes []namedHash
	Later  []string // hashes that are known only on the day
}

// Script renders the printed script: cover, what is made, steps, contingencies,
// exception sheets, hashes, and a place for the words of the anchors. The same
// input gives the same bytes.
func Script(in Input) ([]byte, error) {
	s := in.Script
	h := head{Title: s.Title, World: in.World, Footer: "script " + s.Hash()}
	return renderPage("script", page{h, scriptPage{s, in.plan(), explained(s), in.hashes(), in.later()}}, scriptHTML)
}

// page is a page with its head.
type page struct {
	H head
	B any
}

// explained cuts the plain-language explanation into headings and lines. Its
// first line repeats the title.
func explained(s *script.Script) []plain {
	lines := s.Explain()
	if len(lines) > 0 {
		lines = lines[1:]
	}
	var out []plain
	for _, l := range lines {
		switch {
		case strings.TrimSpace(l) == "":
		case !strings.HasPrefix(l, " "):
			out = append(out, plain{Head: l})
		case len(out) == 0:
			out = append(out, plain{Lines: []string{strings.TrimSpace(l)}})
		default:
			last := &out[len(out)-1]
			last.Lines = append(last.Lines, strings.TrimSpace(l))
		}
	}
	return out
}

// hashes are those that are known before the day.
func (in *Input) hashes() []namedHash {
	s := in.Script
	out := []namedHash{{"Script file", s.Hash()}, {"Program keyrite", s.Pins.Keyrite}, {"Program keyrite-hsmd", s.Pins.HSMD}, {"PKCS#11 module", s.Pins.Module}}
	if in.BindHash != "" {
		out = append(out, namedHash{"Binding", in.BindHash})
	}
	for _, p := range in.People {
		out = append(out, namedHash{"Key of " + p.Name + " (" + roleWord(p.Role) + ")", p.Fingerprint})
	}
	return out
}

// later are those that are filled in by hand.
func (in *Input) later() []string {
	var out []string
	if in.BindHash == "" {
		out = append(out, "Binding")
	}
	for _, m := range in.Script.Media {
		if m.ReadOnly {
			out = append(out, "Medium “"+m.Name+"” ("+m.Label+")")
		}
	}
	return out
}
