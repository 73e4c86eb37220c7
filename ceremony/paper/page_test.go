package paper

import (
	"crypto/sha256"
	"encoding/base64"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/ceremony/script"
	"keyrite/internal/clitest"
)

// hostile is what a name must not do: markup, control characters, a text that
// runs backwards, broken UTF-8, an end of style.
const hostile = "<script>x</script>\"'><img src=x>\u202egnp.exe\u0007\x1b[2J\xff</style>"

var styleRE = regexp.MustCompile(`(?s)<style>(.*?)</style>`)

// checkMarkup looks at the bytes of a page: no program, nothing from outside, one
// style sheet that the policy allows by hash, nothing invisible.
func checkMarkup(t *testing.T, name string, page []byte) {
	t.Helper()
	text := string(page)
	for _, bad := range []string{"<script", "<img", "<link", "<iframe", "http://", "https://", "url(", "style=\"", "javascript:", "onclick", "\u202e", "\u0007", "\x1b", "\xff"} {
		if strings.Contains(text, bad) {
			t.Errorf("%s has %q", name, bad)
		}
	}
	m := styleRE.FindAllStringSubmatch(text, -1)
	if len(m) != 1 {
		t.Fatalf("%s has %d style sheets", name, len(m))
	}
	sum := sha256.Sum256([]byte(m[0][1]))
	if want := "style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"; !strings.Contains(html.UnescapeString(text), want) {
		t.Errorf("%s: the policy does not name its style sheet", name)
	}
	if !strings.Contains(html.UnescapeString(text), "default-src 'none'") || strings.Contains(text, "unsafe") {
		t.Errorf("%s: the policy is not strict", name)
	}
}

// everyPage renders pages of every sort into a folder: the script and kit of each
// shipped kind, with people and without, sheets and reports.
func everyPage(t *testing.T) (string, []string) {
	t.Helper()
	dir := t.TempDir()
	var names []string
	put := func(name string, page []byte, err error) {
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		checkMarkup(t, name, page)
		if err := os.WriteFile(filepath.Join(dir, name), page, 0o600); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	for kind, s := range shipped(t) {
		full := Input{Script: s, World: "rehearsal:abcdefgh", People: people(s), BindHash: s.Hash()}
		page, err := Script(full)
		put("script-"+kind+".html", page, err)
		if kind != "genesis" {
			continue
		}
		page, err = Script(Input{Script: s})
		put("script-blank.html", page, err)
		files, err := Kit(full)
		for _, f := range files {
			put("kit-"+f.Name, f.HTML, err)
		}
		// What the shipped scripts leave to who writes one: contingencies, media.
		more := *s
		more.Contingencies = []script.Contingency{
			{ID: "printer", On: "printer", Then: "again", Steps: []script.Step{{ID: "A.1", Do: "break", Title: "Fetch the other printer", Limit: 30 * time.Minute, Minutes: 10}}},
			{ID: "late", On: "late", Then: "next"},
		}
		more.Media = []script.Medium{{Name: "requests", Label: "REQUESTS", Purpose: "brings the requests", ReadOnly: true}}
		more.Run = append([]script.Step{{ID: "2.0", Do: "medium.in", Medium: "requests", Title: "Requests", Limit: time.Minute, Planned: []string{"printer", "late"}, Requires: map[string]string{"drive": "empty"}, Sets: map[string]string{"drive": "requests"}}}, s.Run...)
		page, err = Script(Input{Script: &more, World: "live"})
		put("script-planned.html", page, err)
		bad := *s
		bad.Title, bad.Purpose, bad.Run[0].Say = hostile, hostile, hostile
		page, err = Script(Input{Script: &bad, World: hostile, People: []Person{{Name: hostile, Role: "witness", Fingerprint: hostile}}})
		put("script-hostile.html", page, err)
	}
	for _, state := range []string{"CLOSED", "VOID"} {
		for name, text := range map[string]string{"plain": "the cause", "hostile": hostile, "long": strings.Repeat("long", 200)} {
			var verr error
			if state == "VOID" {
				verr = fault.New(fault.Void, text)
			}
			page, err := renderReport(sample(state, text, 30), nil, nil, verr)
			put("report-"+state+"-"+name+".html", page, err)
		}
	}
	page, _ := sheetOfShare(t)
	put("share.html", page, nil)
	return dir, names
}

// A checker that is not ours finds nothing to say about any page.
func TestPagesAreValid(t *testing.T) {
	dir, names := everyPage(t)
	var args []string
	for _, n := range names {
		args = append(args, filepath.Join(dir, n))
	}
	out, err := clitest.Node(t, append([]string{"node_modules/html-validate/bin/html-validate.mjs", "--config", "html-validate.json", "--formatter", "text"}, args...)...)
	if err != nil {
		t.Errorf("html-validate: %v\n%.4000s", err, out)
	}
}

// Pages are readable on a telephone and a desk, by day and by night, and print.
func TestPagesOnScreenAndPaper(t *testing.T) {
	dir, names := everyPage(t)
	b := newBrowser(t)
	scripts := shipped(t)
	b.checkShare(t)
	for _, n := range names {
		if n == "share.html" {
			continue
		}
		b.load(filepath.Join(dir, n))
		kind := strings.TrimSuffix(strings.TrimPrefix(n, "script-"), ".html")
		s := scripts["genesis"]
		if x, ok := scripts[kind]; ok {
			s = x
		}
		if s == scripts["genesis"] { // the other kinds look the same
			b.checkScreen(n)
		}
		var want []string
		if strings.HasPrefix(n, "script-") && kind != "hostile" {
			for _, ph := range s.Phases() {
				for _, st := range ph.Steps {
					want = append(want, st.ID+" ")
				}
			}
			if kind == "planned" {
				want = append(want, "Contingency sheet 1: printer", "Contingency sheet 2: late", "Medium “requests” (REQUESTS)", "Begins only with: drive empty.", "the same is an incident")
			}
			want = append(want, "Exception sheet 3", "Annex A: hashes", "Annex B: words of the anchors")
		}
		foot := "script " + s.Hash()
		if strings.HasPrefix(n, "report-") {
			foot = "record 0123456789abcdef script " + strings.Repeat("cd", 20) + "…"
		}
		sheets := b.checkPrint(n, foot, want...)
		if strings.HasPrefix(n, "kit-card-") && len(sheets) != 1 {
			t.Errorf("%s: a role card is one sheet, not %d", n, len(sheets))
		}
	}
}

// Every step of every shipped script says who acts, what is done, and what must
// be seen, with no place left unfilled.
func TestEveryVerbHasItsText(t *testing.T) {
	for kind, s := range shipped(t) {
		p := (&Input{Script: s}).plan()
		rows := []row{}
		for _, ph := range p.Phases {
			rows = append(rows, ph.Rows...)
		}
		for _, sh := range p.Sheets {
			rows = append(rows, sh.Steps...)
		}
		for _, r := range rows {
			if r.Who == "" || r.Does == "" || r.See == "" || strings.ContainsAny(r.Does+r.See, "{}") || strings.Contains(r.Does+r.See, "“”") {
				t.Errorf("%s, step %s: %s has no text: %q, %q, %q", kind, r.ID, r.Do, r.Who, r.Does, r.See)
			}
		}
	}
}

func TestVisible(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"plain", "Zoë & Ко, 東京\n", "Zoë & Ко, 東京\n"},
		{"bidi", "a\u202eb", `a\u202eb`},
		{"zero width", "a\u200bb\u00ad", `a\u200bb\u00ad`},
		{"control", "a\x1b[2J\x00\x7f", `a\u001b[2J\u0000\u007f`},
		{"broken", "a\xffb", `a\xffb`},
	} {
		if got := visible(c.in); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
		// In pieces the same.
		var b strings.Builder
		w := &visibleWriter{w: &b}
		for i := range len(c.in) {
			if _, err := w.Write([]byte{c.in[i]}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.flush(); err != nil || b.String() != c.want {
			t.Errorf("%s, byte by byte: got %q, want %q", c.name, b.String(), c.want)
		}
	}
	if got := cssString(`a"\</style> é`); got != `"a\000022\00005c\00003c\00002fstyle\00003e\000020\0000e9"` {
		t.Errorf("CSS string %s", got)
	}
}
