package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"html/template"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"keyrite/artifact/fault"
	"keyrite/artifact/words"
	"keyrite/internal/cli"
)

//go:embed *.html
var sources embed.FS

//go:embed page.css
var css []byte

// stylePath is where the style sheet is.
const stylePath = "/page.css"

// pages are the templates.
type pages struct {
	*template.Template
	styleTag string
}

func newPages() (*pages, error) {
	t, err := template.New("").Funcs(template.FuncMap{
		"group": words.Group, "words": words.List, "when": when, "join": strings.Join, "capital": capital, "add": func(a, b int) int { return a + b },
	}).ParseFS(sources, "*.html")
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "page templates: %w", err)
	}
	sum := sha256.Sum256(css)
	return &pages{t, `"` + hex.EncodeToString(sum[:8]) + `"`}, nil
}

// style answers the style sheet, which is the same for everybody.
func (s *Server) style(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", "text/css; charset=utf-8")
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", s.pages.styleTag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(css))
}

// frame is what stands around every page.
type frame struct {
	Title    string
	World    string // "live" or "rehearsal:ID"
	Live     bool
	Vault    string // id, hex
	Sealed   bool
	Identity string // "" for a stranger
	Menu     []entry
}

// entry is one of the menu.
type entry struct {
	Path, Title string
	Here        bool
}

func (x *look) frame(title string) *frame {
	f := &frame{Title: title, World: string(x.state.World), Live: x.state.World.IsLive(), Vault: x.state.Vault, Sealed: x.state.Sealed, Identity: x.identity}
	if x.identity == "" || x.state.Sealed {
		return f
	}
	for _, v := range x.s.views {
		if v.menu {
			f.Menu = append(f.Menu, entry{v.path, v.title, x.view != nil && (v.path == x.view.path || v.path != "/" && strings.HasPrefix(x.view.path, v.path+"/"))})
		}
	}
	return f
}

// render writes a page. What could hide or reorder text is made visible in all of it.
func (x *look) render(status int, title, name string, data any) {
	var b bytes.Buffer
	f := x.frame(title)
	for _, part := range []struct {
		name string
		data any
	}{{"top", f}, {name, data}, {"bottom", f}} {
		if err := x.s.pages.ExecuteTemplate(&b, part.name, part.data); err != nil {
			x.s.cfg.Log.LogAttrs(x.r.Context(), slog.LevelError, "a page could not be made", slog.String("page", name), slog.String("error", err.Error()))
			http.Error(x.w, "The page could not be made; the vault's log says why.", http.StatusInternalServerError)
			return
		}
	}
	x.write(status, "text/html; charset=utf-8", visible(b.String()))
}

func (x *look) write(status int, contentType, text string) {
	x.w.Header().Set("Content-Type", contentType)
	x.w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	x.w.WriteHeader(status)
	if x.r.Method == http.MethodHead {
		return
	}
	_, _ = x.w.Write([]byte(text)) // a client that is gone is told nothing
}

// visible shows control characters, bidirectional and zero-width marks and broken UTF-8
// as what they are, so that no text can reorder or hide another.
func visible(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = cli.Escape(l)
	}
	return strings.Join(lines, "\n")
}

// when shows a time of RFC 3339 to people, in UTC and to the second.
func when(s string) string {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return s
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// capital begins a sentence.
func capital(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:]
}
