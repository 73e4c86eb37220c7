package paper

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/internal/clitest"
)

// browser looks at pages that lie in files.
type browser struct {
	*clitest.Browser
	t *testing.T
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	return &browser{clitest.NewBrowser(t, ""), t}
}

// load opens a file and waits until it is drawn.
func (b *browser) load(path string) { b.t.Helper(); b.Navigate("file://" + path) }

// checkScreen looks at a loaded page as people do: small, large, light, dark.
func (b *browser) checkScreen(name string) {
	for _, v := range []struct {
		width, height int
		dark          bool
		tag           string
	}{{360, 740, false, "phone"}, {1280, 900, true, "desk"}} {
		b.Screen(v.width, v.height, v.dark, "screen")
		if got := b.TooWide(); got != "" {
			b.t.Errorf("%s, %s: wider than the screen: %s", name, v.tag, got)
		}
		if got := b.HardToRead(); got != "" {
			b.t.Errorf("%s, %s: hard to read: %s", name, v.tag, got)
		}
		b.Shot(name+"-"+v.tag+".png", false)
	}
	if got := b.Eval("getComputedStyle(document.body).marginTop + document.styleSheets.length"); got != "0px1" {
		b.t.Errorf("%s: the style sheet does not apply: %s", name, got)
	}
	for _, e := range b.Complaints {
		b.t.Errorf("%s: %s", name, e)
	}
	for _, u := range b.Requests {
		if !strings.HasPrefix(u, "file:") {
			b.t.Errorf("%s asks for %s", name, u)
		}
	}
}

// checkPrint prints a page on A4 and reads it back: numbered sheets with the foot
// on each, nothing wider than the paper, no heading at the end of a sheet, and
// every text of want.
func (b *browser) checkPrint(name, foot string, want ...string) []string {
	b.Screen(680, 1000, true, "print") // 180 mm at 96 dots an inch
	if got := b.TooWide(); got != "" {
		b.t.Errorf("%s: wider than the paper, Chromium would shrink it: %s", name, got)
	}
	if got := b.Eval("getComputedStyle(document.body).color"); got != "rgb(0, 0, 0)" {
		b.t.Errorf("%s: prints in %s, not in black", name, got)
	}
	var headings []string
	if err := json.Unmarshal([]byte(b.Eval("JSON.stringify([...document.querySelectorAll('h1,h2,h3,caption')].map(h => h.innerText.trim().replace(/\\s+/g, ' ')))")), &headings); err != nil {
		b.t.Fatal(err)
	}
	path := filepath.Join(b.t.TempDir(), "page.pdf")
	if dir := os.Getenv("KEYRITE_SHOTS"); dir != "" {
		path = filepath.Join(dir, name+".pdf")
	}
	sheets := b.PDF(path)
	for i, text := range sheets {
		lines := slices.DeleteFunc(strings.Split(text, "\n"), func(l string) bool { return strings.TrimSpace(l) == "" })
		last := strings.Join(strings.Fields(lines[len(lines)-1]), " ")
		if wantFoot := fmt.Sprintf("%s page %d of %d", foot, i+1, len(sheets)); last != wantFoot {
			b.t.Errorf("%s, sheet %d: its foot is %q, not %q", name, i+1, last, wantFoot)
		}
		if len(lines) < 3 {
			b.t.Errorf("%s, sheet %d is empty", name, i+1)
			continue
		}
		if l := strings.Join(strings.Fields(lines[len(lines)-2]), " "); slices.Contains(headings, l) {
			b.t.Errorf("%s, sheet %d ends with the heading %q", name, i+1, l)
		}
	}
	all := strings.Join(strings.Fields(strings.Join(sheets, " ")), " ")
	for _, w := range want {
		if !strings.Contains(all, w) {
			b.t.Errorf("%s: the print lacks %q", name, w)
		}
	}
	return sheets
}
