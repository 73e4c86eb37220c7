package clitest

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Browser is one headless Chromium for a whole test, driven over its debugging pipe:
// starting one for each page would take longer than all pages.
type Browser struct {
	// Requests are the addresses that it asked for since the last Navigate, Complaints
	// what its console said.
	Requests, Complaints []string

	t       testing.TB
	in      *os.File
	out     *bufio.Reader
	session string
	id      int
}

// NewBrowser starts one; it ends with the test. profile is its folder of settings, ""
// for a new one. env is added to the environment.
func NewBrowser(t testing.TB, profile string, env ...string) *Browser {
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
	if profile == "" {
		profile = t.TempDir()
	}
	// The test's context ends before what is cleaned up, and the browser is to end in order.
	c := exec.CommandContext(context.WithoutCancel(t.Context()), path, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--disable-extensions", "--user-data-dir="+profile, "--remote-debugging-pipe", "about:blank")
	c.Env = append(os.Environ(), env...)
	c.ExtraFiles = []*os.File{toR, fromW} // descriptors 3 and 4
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	toR.Close()
	fromW.Close()
	b := &Browser{t: t, in: toW, out: bufio.NewReaderSize(fromR, 1<<20)}
	// A page that hangs must not hang the test.
	dead := time.AfterFunc(5*time.Minute, func() { _ = c.Process.Kill() })
	t.Cleanup(func() {
		dead.Stop()
		b.Call("Browser.close", nil)
		toW.Close()
		_ = c.Wait() // it was asked to end, or killed
		fromR.Close()
	})
	target := b.Call("Target.createTarget", map[string]any{"url": "about:blank"})
	got := b.Call("Target.attachToTarget", map[string]any{"targetId": target["targetId"], "flatten": true})
	b.session, _ = got["sessionId"].(string)
	for _, domain := range []string{"Page", "Log", "Runtime", "Network", "Accessibility"} {
		b.Call(domain+".enable", nil)
	}
	return b
}

// Call sends one command of the DevTools protocol and waits for its answer.
func (b *Browser) Call(method string, params map[string]any) map[string]any {
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
		if method == "Browser.close" {
			return nil // it has ended already
		}
		b.t.Fatalf("%s: %v", method, err)
	}
	for {
		if r := b.read(method); int(number(r["id"])) == b.id {
			if r["error"] != nil {
				b.t.Fatalf("%s: %v", method, r["error"])
			}
			result, _ := r["result"].(map[string]any)
			return result
		}
	}
}

// read takes the next message and keeps what pages ask for and complain of.
func (b *Browser) read(method string) map[string]any {
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
		b.Complaints = append(b.Complaints, fmt.Sprint(r["params"]))
	case "Network.requestWillBeSent":
		p, _ := r["params"].(map[string]any)
		q, _ := p["request"].(map[string]any)
		b.Requests = append(b.Requests, fmt.Sprint(q["url"]))
	}
	return r
}

func number(v any) float64 { f, _ := v.(float64); return f }

// Navigate opens an address and waits until the page is drawn.
func (b *Browser) Navigate(address string) {
	b.t.Helper()
	b.Requests, b.Complaints = nil, nil
	b.Call("Page.navigate", map[string]any{"url": address})
	b.Await(address, func() bool { return b.Eval("document.readyState + location.href") == "complete"+address })
}

// Await waits until the browser is where it is to be.
func (b *Browser) Await(what string, there func() bool) {
	b.t.Helper()
	if !Await(30*time.Second, there) {
		b.t.Fatalf("%s did not load; the browser is at %s: %s", what, b.Eval("location.href"), b.Eval("document.body ? document.body.innerText : ''"))
	}
}

// Eval is the value of an expression of the page, as a string.
func (b *Browser) Eval(js string) string {
	r := b.Call("Runtime.evaluate", map[string]any{"expression": "String(" + js + ")", "returnByValue": true})
	v, _ := r["result"].(map[string]any)
	s, _ := v["value"].(string)
	return s
}

// Press presses and releases a key, such as Tab, Enter or a letter.
func (b *Browser) Press(key string, shift bool) {
	code := map[string]int{"Tab": 9, "Enter": 13, " ": 32, "Escape": 27}[key]
	text := map[string]string{"Enter": "\r", " ": " "}[key]
	mod := 0
	if shift {
		mod = 8
	}
	for _, kind := range []string{"keyDown", "keyUp"} {
		p := map[string]any{"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": mod}
		if kind == "keyDown" && text != "" {
			p["text"] = text
		}
		b.Call("Input.dispatchKeyEvent", p)
	}
}

// Screen sets the size of the screen, its colours and the medium, screen or print.
func (b *Browser) Screen(width, height int, dark bool, media string) {
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	b.Call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})
	b.Call("Emulation.setEmulatedMedia", map[string]any{"media": media, "features": []map[string]any{{"name": "prefers-color-scheme", "value": scheme}}})
}

// Shot writes a picture, for who wants to look: KEYRITE_SHOTS names a folder. whole
// takes all of the page, not the part on the screen.
func (b *Browser) Shot(name string, whole bool) {
	dir := os.Getenv("KEYRITE_SHOTS")
	if dir == "" {
		return
	}
	b.save(filepath.Join(dir, name), b.Call("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": whole}))
}

func (b *Browser) save(path string, r map[string]any) {
	s, _ := r["data"].(string)
	data, err := base64.StdEncoding.DecodeString(s)
	if err == nil {
		err = os.WriteFile(path, data, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// PDF prints the page into a file and returns the text of each sheet.
func (b *Browser) PDF(path string) []string {
	b.save(path, b.Call("Page.printToPDF", map[string]any{"preferCSSPageSize": true, "printBackground": true}))
	out, err := exec.CommandContext(b.t.Context(), "pdftotext", "-layout", path, "-").Output()
	if err != nil {
		b.t.Fatalf("pdftotext: %v", err)
	}
	return strings.Split(strings.TrimSuffix(string(out), "\f"), "\f")
}

// TooWide lists what makes a page scroll sideways; "" if nothing does.
func (b *Browser) TooWide() string {
	return b.Eval(`(() => { const w = document.documentElement.clientWidth; if (document.documentElement.scrollWidth <= w) return '';
return [...document.querySelectorAll('body *')].filter(e => e.getBoundingClientRect().right > w + 1).slice(-3).map(e => e.tagName + '.' + e.className + ' ' + e.textContent.slice(0, 40)).join(' | ') || 'something'; })()`)
}

// HardToRead lists texts whose contrast to the ground is below 4.5 (WCAG 2.2, 1.4.3).
// Every ground of ours is opaque.
func (b *Browser) HardToRead() string {
	return b.Eval(`(() => { const lum = c => { const v = c.match(/[\d.]+/g).slice(0, 3).map(x => x / 255).map(x => x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4); return .2126 * v[0] + .7152 * v[1] + .0722 * v[2]; };
const bad = new Set(); for (const e of document.querySelectorAll('body *')) { if (![...e.childNodes].some(n => n.nodeType == 3 && n.data.trim())) continue; if (!e.getClientRects().length) continue;
let g = e; while (g && getComputedStyle(g).backgroundColor == 'rgba(0, 0, 0, 0)') g = g.parentElement; const a = lum(getComputedStyle(e).color), b = lum(getComputedStyle(g || document.body).backgroundColor);
if ((Math.max(a, b) + .05) / (Math.min(a, b) + .05) < 4.5) bad.add(e.tagName + '.' + e.className); } return [...bad].join(' '); })()`)
}
