package paper

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/internal/clitest"
)

// browser is one headless Chromium for a whole test, driven over its debugging
// pipe: starting one for each page would take longer than all pages.
type browser struct {
	t       *testing.T
	in      *os.File
	out     *bufio.Reader
	session string
	id      int
	errors  []string // what the page's console complained of
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is missing; scripts/setup installs it")
	}
	toR, toW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	fromR, fromW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-extensions", "--user-data-dir="+t.TempDir(), "--remote-debugging-pipe", "about:blank")
	c.ExtraFiles = []*os.File{toR, fromW} // descriptors 3 and 4
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	toR.Close()
	fromW.Close()
	b := &browser{t: t, in: toW, out: bufio.NewReaderSize(fromR, 1<<20)}
	// A page that hangs must not hang the test.
	dead := time.AfterFunc(3*time.Minute, func() { c.Process.Kill() })
	t.Cleanup(func() {
		dead.Stop()
		b.call("Browser.close", nil)
		toW.Close()
		c.Wait()
		fromR.Close()
	})
	target := b.call("Target.createTarget", map[string]any{"url": "about:blank"})
	got := b.call("Target.attachToTarget", map[string]any{"targetId": target["targetId"], "flatten": true})
	b.session, _ = got["sessionId"].(string)
	for _, domain := range []string{"Page", "Log", "Runtime", "Network"} {
		b.call(domain+".enable", nil)
	}
	return b
}

// call sends one command and waits for its answer.
func (b *browser) call(method string, params map[string]any) map[string]any {
	b.id++
	m := map[string]any{"id": b.id, "method": method, "params": params}
	if params == nil {
		m["params"] = map[string]any{}
	}
	if b.session != "" && !strings.HasPrefix(method, "Browser.") {
		m["sessionId"] = b.session
	}
	data, err := json.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.in.Write(append(data, 0)); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	for {
		if r := b.read(method); int(num(r["id"])) == b.id {
			if r["error"] != nil {
				b.t.Fatalf("%s: %v", method, r["error"])
			}
			result, _ := r["result"].(map[string]any)
			return result
		}
	}
}

// read takes the next message and keeps what pages complain of.
func (b *browser) read(method string) map[string]any {
	data, err := b.out.ReadBytes(0)
	if err != nil {
		if method == "Browser.close" {
			return map[string]any{"id": float64(b.id)}
		}
		b.t.Fatalf("%s: %v", method, err)
	}
	var r map[string]any
	if err := json.Unmarshal(data[:len(data)-1], &r); err != nil {
		b.t.Fatal(err)
	}
	switch r["method"] {
	case "Log.entryAdded", "Runtime.exceptionThrown":
		b.errors = append(b.errors, fmt.Sprint(r["params"]))
	case "Network.requestWillBeSent":
		p, _ := r["params"].(map[string]any)
		q, _ := p["request"].(map[string]any)
		if u := fmt.Sprint(q["url"]); !strings.HasPrefix(u, "file:") {
			b.errors = append(b.errors, "it asks for "+u)
		}
	}
	return r
}

func num(v any) float64 { f, _ := v.(float64); return f }

// load opens a file and waits until it is drawn.
func (b *browser) load(path string) {
	b.errors = nil
	b.call("Page.navigate", map[string]any{"url": "file://" + path})
	if !clitest.Await(30*time.Second, func() bool { return b.eval("document.readyState + location.pathname") == "complete"+path }) {
		b.t.Fatalf("%s did not load", path)
	}
}

func (b *browser) eval(js string) string {
	r := b.call("Runtime.evaluate", map[string]any{"expression": "String(" + js + ")", "returnByValue": true})
	v, _ := r["result"].(map[string]any)
	s, _ := v["value"].(string)
	return s
}

func (b *browser) screen(width, height int, dark bool, media string) {
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})
	b.call("Emulation.setEmulatedMedia", map[string]any{"media": media, "features": []map[string]any{{"name": "prefers-color-scheme", "value": scheme}}})
}

// shot writes a picture, for who wants to look: KEYRITE_SHOTS names a folder.
func (b *browser) shot(name string) {
	dir := os.Getenv("KEYRITE_SHOTS")
	if dir == "" {
		return
	}
	b.save(filepath.Join(dir, name), b.call("Page.captureScreenshot", map[string]any{"format": "png"}))
}

func (b *browser) save(path string, r map[string]any) {
	s, _ := r["data"].(string)
	data, err := base64.StdEncoding.DecodeString(s)
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// pdf prints the page and returns the text of each sheet.
func (b *browser) pdf(path string) []string {
	b.save(path, b.call("Page.printToPDF", map[string]any{"preferCSSPageSize": true, "printBackground": true}))
	out, err := exec.CommandContext(b.t.Context(), "pdftotext", "-layout", path, "-").Output()
	if err != nil {
		b.t.Fatalf("pdftotext: %v", err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\f"), "\f")
}

// checkScreen looks at a loaded page as people do: small, large, light, dark.
func (b *browser) checkScreen(name string) {
	for _, v := range []struct {
		width, height int
		dark          bool
		tag           string
	}{{360, 740, false, "phone"}, {1280, 900, true, "desk"}} {
		b.screen(v.width, v.height, v.dark, "screen")
		if got := b.eval(tooWide); got != "" {
			b.t.Errorf("%s, %s: wider than the screen: %s", name, v.tag, got)
		}
		if got := b.eval(contrast); got != "" {
			b.t.Errorf("%s, %s: hard to read: %s", name, v.tag, got)
		}
		b.shot(name + "-" + v.tag + ".png")
	}
	if got := b.eval("getComputedStyle(document.body).marginTop + document.styleSheets.length"); got != "0px1" {
		b.t.Errorf("%s: the style sheet does not apply: %s", name, got)
	}
	for _, e := range b.errors {
		b.t.Errorf("%s: %s", name, e)
	}
}

// tooWide lists what makes a page scroll sideways.
const tooWide = `(() => { const w = document.documentElement.clientWidth; if (document.documentElement.scrollWidth <= w) return '';
return [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > w + 1).slice(-3).map(e => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40)).join(' | ') || 'something'; })()`

// contrast lists texts whose contrast to the ground is below 4.5 (WCAG 2.2,
// 1.4.3). Every ground of ours is opaque.
const contrast = `(() => { const lum = c => { const v = c.match(/[\d.]+/g).slice(0, 3).map(x => x / 255).map(x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const bad = new Set(); for (const e of document.querySelectorAll('body *')) { if (![...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())) continue; if (!e.getClientRects().length) continue;
let g = e; while (g && getComputedStyle(g).backgroundColor == 'rgba(0, 0, 0, 0)') g = g.parentElement; const a = lum(getComputedStyle(e).color), b = lum(getComputedStyle(g || document.body).backgroundColor);
if ((Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5) bad.add(e.tagName + '.' + e.className); } return [...bad].join(' '); })()`

// checkPrint prints a page on A4 and reads it back: numbered sheets with the foot
// on each, nothing wider than the paper, no heading at the end of a sheet, and
// every text of want.
func (b *browser) checkPrint(name, foot string, want ...string) []string {
	b.screen(680, 1000, true, "print") // 180 mm at 96 dots an inch
	if got := b.eval(tooWide); got != "" {
		b.t.Errorf("%s: wider than the paper, Chromium would shrink it: %s", name, got)
	}
	if got := b.eval("getComputedStyle(document.body).color"); got != "rgb(0, 0, 0)" {
		b.t.Errorf("%s: prints in %s, not in black", name, got)
	}
	var headings []string
	if err := json.Unmarshal([]byte(b.eval("JSON.stringify([...document.querySelectorAll('h1,h2,h3,caption')].map(h => h.innerText.trim().replace(/\\s+/g, ' ')))")), &headings); err != nil {
		b.t.Fatal(err)
	}
	path := filepath.Join(b.t.TempDir(), "page.pdf")
	if dir := os.Getenv("KEYRITE_SHOTS"); dir != "" {
		path = filepath.Join(dir, name+".pdf")
	}
	sheets := b.pdf(path)
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
