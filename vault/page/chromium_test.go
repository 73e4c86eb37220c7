package page_test

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/internal/clitest"
)

// browser is a Chromium that trusts the CA of the test and shows somebody's certificate,
// over real TLS: the certificate lies in the browser's own database, and its settings say
// that it is shown without asking, which nobody is there to answer.
type browser struct {
	*clitest.Browser
	r *rig
	t *testing.T
}

// browse starts a browser of somebody; "" has no certificate. It is shown to the pages,
// and at the addresses of also.
func (r *rig) browse(t *testing.T, name string, also ...string) *browser {
	t.Helper()
	home := t.TempDir()
	db := filepath.Join(home, ".pki/nssdb")
	r.ok(os.MkdirAll(db, 0o700))
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	file := func(name, kind string, raw []byte) string {
		path := filepath.Join(home, name)
		r.ok(os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), 0o600))
		return path
	}
	run("certutil", "-d", "sql:"+db, "-N", "--empty-password")
	run("certutil", "-d", "sql:"+db, "-A", "-t", "C,,", "-n", "ca", "-i", file("ca.pem", "CERTIFICATE", r.ca.Raw))
	profile := filepath.Join(home, "profile")
	r.ok(os.MkdirAll(filepath.Join(profile, "Default"), 0o700))
	if name != "" {
		c := r.issue(name, uriOf(name))
		der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		r.ok(err)
		p12 := filepath.Join(home, "person.p12")
		run("openssl", "pkcs12", "-export", "-inkey", file("key.pem", "PRIVATE KEY", der), "-in", file("cert.pem", "CERTIFICATE", c.Certificate[0]), "-out", p12, "-passout", "pass:x", "-name", name)
		run("pk12util", "-d", "sql:"+db, "-i", p12, "-W", "x")
		shown := map[string]any{}
		for _, addr := range append(also, r.addr) {
			shown["https://"+addr+",*"] = map[string]any{"setting": map[string]any{"filters": []any{map[string]any{}}}}
		}
		raw, err := json.Marshal(map[string]any{"profile": map[string]any{"content_settings": map[string]any{"exceptions": map[string]any{"auto_select_certificate": shown}}}})
		r.ok(err)
		r.ok(os.WriteFile(filepath.Join(profile, "Default/Preferences"), raw, 0o600))
	}
	return &browser{clitest.NewBrowser(t, profile, "HOME="+home), r, t}
}

// show opens a page of the vault.
func (b *browser) show(path string) { b.t.Helper(); b.Navigate("https://" + b.r.addr + path) }

// text is what stands on the page, as it is read.
func (b *browser) text() string { return b.Eval("document.body.innerText") }

// check looks at the page that is open as people do: on a telephone and at a desk, light
// and dark, with the keyboard alone and on paper. It asks for nothing elsewhere and
// complains of nothing.
func (b *browser) check(name string) {
	b.t.Helper()
	for _, v := range []struct {
		width, height int
		dark          bool
		tag           string
	}{{360, 740, false, "phone"}, {360, 740, true, "phone-dark"}, {1280, 900, false, "desk"}, {1280, 900, true, "desk-dark"}} {
		b.Screen(v.width, v.height, v.dark, "screen")
		if got := b.TooWide(); got != "" {
			b.t.Errorf("%s, %s: wider than the screen: %s", name, v.tag, got)
		}
		if got := b.HardToRead(); got != "" {
			b.t.Errorf("%s, %s: hard to read: %s", name, v.tag, got)
		}
		b.Shot(name+"-"+v.tag+".png", true)
	}
	if got := b.Eval("document.styleSheets.length + ' ' + document.scripts.length + ' ' + getComputedStyle(document.body).marginTop"); got != "1 0 0px" {
		b.t.Errorf("%s: style sheets, scripts, margin: %s", name, got)
	}
	if !strings.Contains(b.text(), "REHEARSAL – nothing here is live") || !strings.Contains(b.text(), string(b.r.World.World)) {
		b.t.Errorf("%s does not name its world", name)
	}
	b.keyboard(name)
	b.named(name)
	b.Screen(680, 1000, true, "print")
	if got := b.TooWide() + b.Eval("getComputedStyle(document.body).color"); got != "rgb(0, 0, 0)" {
		b.t.Errorf("%s on paper: %s", name, got)
	}
	b.Screen(1280, 900, false, "screen")
	b.quiet(name)
}

// quiet wants nothing asked for elsewhere, and no complaint: also none about the policy
// of what a page may do.
func (b *browser) quiet(name string) {
	b.t.Helper()
	for _, u := range b.Requests {
		if !strings.HasPrefix(u, "https://"+b.r.addr+"/") {
			b.t.Errorf("%s asks for %s", name, u)
		}
	}
	for _, c := range b.Complaints {
		b.t.Errorf("%s: %s", name, c)
	}
}

// keyboard goes through the page with Tab: first comes the way to the content, then each
// control in the order of the page, each seen to have the focus.
func (b *browser) keyboard(name string) {
	b.t.Helper()
	want := b.Eval(`[...document.querySelectorAll('a[href],button,input,select,textarea,summary')].filter(e => e.checkVisibility()).length`)
	b.Eval(`(document.activeElement && document.activeElement.blur(), window.scrollTo(0, 0))`)
	seen := 0
	for ; seen < 400; seen++ {
		b.Press("Tab", false)
		at := b.Eval(`(() => { const all = [...document.querySelectorAll('a[href],button,input,select,textarea,summary')].filter(e => e.checkVisibility()), e = document.activeElement;
if (!e || e === document.body) return 'end'; const s = getComputedStyle(e); return all.indexOf(e) + (s.outlineStyle == 'none' || parseFloat(s.outlineWidth) < 2 ? ' unseen' : '') })()`)
		if at == "end" || seen > 0 && at == "0" {
			break
		}
		if at != fmt.Sprint(seen) {
			b.t.Errorf("%s: Tab number %d is at control %s", name, seen, at)
			return
		}
	}
	if fmt.Sprint(seen) != want {
		b.t.Errorf("%s: Tab reaches %d of %s controls", name, seen, want)
	}
}

// named wants a name for each control, as a screen reader says it.
func (b *browser) named(name string) {
	b.t.Helper()
	nodes, _ := b.Call("Accessibility.getFullAXTree", nil)["nodes"].([]any)
	controls := 0
	for _, n := range nodes {
		m, _ := n.(map[string]any)
		role, _ := m["role"].(map[string]any)
		label, _ := m["name"].(map[string]any)
		switch role["value"] {
		case "link", "button", "textbox", "searchbox", "combobox", "checkbox", "spinbutton", "DisclosureTriangle", "meter", "navigation":
			controls++
			if s, _ := label["value"].(string); strings.TrimSpace(s) == "" {
				b.t.Errorf("%s: a %v has no name", name, role["value"])
			}
		}
	}
	if controls == 0 {
		b.t.Errorf("%s: the accessibility tree has no control", name)
	}
	if got := b.Eval("document.querySelectorAll('h1').length + document.documentElement.lang + document.querySelectorAll('main').length"); got != "1en1" {
		b.t.Errorf("%s: headings, language, main: %s", name, got)
	}
}

// TestPagesInABrowser looks at every page in Chromium, as an auditor, over mutual TLS.
func TestPagesInABrowser(t *testing.T) {
	r := newRig(t)
	b := r.browse(t, anna)
	b.show("/")
	b.check("sealed-known")
	r.open()
	for path, name := range map[string]string{"/": "overview", "/charter": "charter", "/keys": "keys", "/charter?before=3": "charter-first", "/nothing": "nothing"} {
		b.show(path)
		if name == "nothing" { // its status is a complaint of Chromium's
			b.Complaints = nil
		}
		b.check(name)
	}
	// With the keyboard alone from page to page, and into a statement.
	b.show("/")
	for b.Eval("document.activeElement.textContent") != "Charter" {
		b.Press("Tab", false)
	}
	b.Press("Enter", false)
	b.Await("charter", func() bool { return strings.HasPrefix(b.Eval("document.title"), "Charter") })
	for b.Eval("document.activeElement.tagName") != "SUMMARY" {
		b.Press("Tab", false)
	}
	b.Press("Enter", false)
	if got := b.Eval("document.querySelector('details').open"); got != "true" {
		t.Errorf("Enter does not open the statement: %s", got)
	}
}

// TestStrangerInABrowser: a browser without a certificate is not asked anything, and
// shows the state of the seal.
func TestStrangerInABrowser(t *testing.T) {
	r := newRig(t)
	b := r.browse(t, "")
	b.show("/")
	b.check("sealed")
	r.open()
	b.show("/")
	b.check("open-stranger")
	if got := b.text(); !strings.Contains(got, "The vault is open.") || strings.Contains(got, "auditor") {
		t.Errorf("a stranger sees %s", got)
	}
}
