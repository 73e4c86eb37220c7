package page_test

import (
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
	"keyrite/vault/node"
)

// post sends a form as the browser of somebody does.
func (r *rig) post(name string, form url.Values, headers ...string) reply {
	r.t.Helper()
	return r.ask(name, http.MethodPost, "/proposals/new", form.Encode(), append([]string{"Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin"}, headers...)...)
}

const poison = "<script>document.title='owned'</script><img src=x onerror=alert(1)> \u202egnp.exe \u200b\"'&"

// TestProposeOnAPage: a form proposes a statement, which then waits for approvals and is
// not in force; who may not propose cannot, and what is not whole is refused with what
// was written kept.
func TestProposeOnAPage(t *testing.T) {
	r := newRig(t)
	r.open()
	size := r.node.Status().Charter
	body := `{"id":"next","key":"x","products":["gw100"]}`
	p := r.post(anna, url.Values{"type": {"mount"}, "body": {`{"engine":"kv","id":"kv2"}`}, "file": {""}})
	link := p.header.Get("Location")
	if p.status != http.StatusSeeOther || !regexp.MustCompile(`^/proposals/one\?id=[0-9a-f]{64}$`).MatchString(link) {
		t.Fatalf("propose: %d %q %s", p.status, link, p.text)
	}
	p = r.get(anna, link)
	p.has(t, "proposal", "0 of 2 approvals", "keyrite charter approve", "kv2", "approver1, approver2", "brought by anna")
	id := strings.TrimPrefix(link, "/proposals/one?id=")
	r.get(anna, "/proposals").has(t, "proposals", link, "mount kv2", "brought by anna")
	file := r.get(anna, "/proposals/file?id="+id)
	if !strings.HasPrefix(file.text, "{") || file.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("file: %d %s", file.status, file.text)
	}
	if r.node.Status().Charter != size || r.node.Charter().Access.Mounts["kv2"].ID != "" {
		t.Error("a proposal is in force")
	}
	for what, c := range map[string]struct {
		form url.Values
		want int
		has  string
	}{
		"nothing":        {url.Values{"type": {"mount"}}, 400, "There is nothing to propose"},
		"both":           {url.Values{"type": {"mount"}, "body": {body}, "file": {file.text}}, 400, "Either a body"},
		"no type":        {url.Values{"type": {""}, "body": {body}}, 400, "with its type"},
		"no JSON":        {url.Values{"type": {"mount"}, "body": {poison}}, 400, "&lt;script&gt;document.title"},
		"twice a member": {url.Values{"type": {"mount"}, "body": {`{"id":"a","id":"b","engine":"kv"}`}}, 400, "twice"},
		"unknown member": {url.Values{"type": {"mount"}, "body": {`{"id":"a","engine":"kv","x":1}`}}, 400, "unknown field"},
		"no such type":   {url.Values{"type": {"people"}, "body": {`{}`}}, 403, "ceremony"},
		"there already":  {url.Values{"file": {file.text}}, 400, "already"},
		"other file":     {url.Values{"file": {"{}"}}, 400, "format"},
		"field twice":    {url.Values{"type": {"mount", "kv"}, "body": {body}}, 400, "twice"},
		"unknown field":  {url.Values{"type": {"mount"}, "body": {body}, "x": {"y"}}, 400, "not known"},
		"too long":       {url.Values{"type": {"mount"}, "body": {strings.Repeat("x", 500_000)}}, 400, "at most"},
	} {
		p := r.post(anna, c.form)
		if p.status != c.want {
			t.Errorf("%s: %d, want %d", what, p.status, c.want)
		}
		p.has(t, what, c.has)
		p.lacks(t, what, "<script", "\u202e", "\u200b")
	}
	if p := r.ask(anna, http.MethodPost, "/proposals/new", "type=mount&body={}", "Content-Type", "text/plain"); p.status != 400 {
		t.Errorf("no form: %d", p.status)
	}
	// Who may not, and who comes from elsewhere.
	from := r.size()
	if p := r.post(clerk, url.Values{"type": {"mount"}, "body": {`{"engine":"kv","id":"kv3"}`}}); p.status != http.StatusForbidden {
		t.Errorf("who may not propose: %d", p.status)
	}
	if p := r.post("", url.Values{"type": {"mount"}, "body": {`{"engine":"kv","id":"kv3"}`}}); p.status != http.StatusMethodNotAllowed {
		t.Errorf("stranger: %d", p.status)
	}
	if p := r.post(anna, url.Values{"type": {"mount"}, "body": {`{"engine":"kv","id":"kv3"}`}}, "Sec-Fetch-Site", "same-site"); p.status != http.StatusForbidden {
		t.Errorf("another site: %d", p.status)
	}
	for _, e := range r.entries(from) {
		if e.Kind == "request" && e.Path == "keyrite/proposals" {
			t.Errorf("the trail has %s", line(&e))
		}
	}
	r.get(anna, "/proposals").lacks(t, "proposals", "kv3")

	b := r.browse(t, anna)
	b.show("/proposals/new")
	b.check("propose")
	b.Eval(`(document.querySelector('#type').value = 'mount', document.querySelector('#body').value = '{"engine":"kv","id":"kv9"}', document.querySelector('button').focus())`)
	b.Press("Enter", false)
	b.Await("the proposal", func() bool { return strings.HasPrefix(b.Eval("document.title"), "Proposal ") })
	b.check("proposal")
	b.show("/proposals")
	b.check("proposals")
	if !strings.Contains(b.text(), "mount kv9") {
		t.Errorf("what was proposed in the browser is not there: %s", b.text())
	}
}

// TestSearchTheTrail: the form finds what was asked, and goes on where it ended.
func TestSearchTheTrail(t *testing.T) {
	r := newRig(t)
	r.open()
	for range 60 {
		r.get(anna, "/keys")
	}
	r.get(clerk, "/keys")
	p := r.get(anna, "/trail?identity=clerk&class=policy&path=&from=&to=&operation=&kind=refused&peer=")
	p.has(t, "search", "1 found among", "keyrite/charter", "clerk (by cert)", "refused, policy", `value="clerk"`, `<option value="refused" selected>`)
	p = r.get(anna, "/trail?identity=anna")
	older := regexp.MustCompile(`href="(/trail\?before=[0-9]+&amp;identity=anna)"`).FindStringSubmatch(p.text)
	if older == nil {
		t.Fatalf("no way to older entries: %s", p.text)
	}
	r.get(anna, strings.ReplaceAll(older[1], "&amp;", "&")).has(t, "older", "there are no older ones")
	for path, want := range map[string]int{"/trail?kind=other": 400, "/trail?from=yesterday": 400, "/trail?peer=x": 400, "/trail?limit=9": 400, "/trail?path=a//b": 400, "/trail?before=0": 400} {
		if p := r.get(anna, path); p.status != want {
			t.Errorf("%s: %d", path, p.status)
		}
	}
	b := r.browse(t, anna)
	b.show("/trail?identity=anna")
	b.check("trail")
}

// TestHostileTexts: what others wrote runs nothing, reorders nothing and is seen as what
// it is, on every page that shows it.
func TestHostileTexts(t *testing.T) {
	r := newRig(t)
	r.Approve(charter.TypeBreakGlass, charter.BreakGlass{
		ID: "fire", Delay: 3600, Duration: 60, Identity: clerk, People: charter.Set{Members: []string{"approver1", "approver2"}, Need: 2},
		Rules: []ruleOf{{Can: readOnly(), Path: "kv/data/+"}},
	})
	r.Approve(charter.TypeBreakGlassPulled, charter.BreakGlassPulled{ID: "fire", Reason: poison, Times: 1})
	r.file()
	r.open()
	for _, m := range []engine.Method{engine.Read, engine.Write} {
		_, err := r.node.Do(t.Context(), node.Call{
			Method: m, RawPath: "auth/jwt/login", Params: engine.Params{"role": []byte(`"` + "<b>\u202ex" + `"`), "jwt": []byte(`"<script>x"`)},
			Peer: identity.Peer{UID: -1, Remote: netip.MustParseAddr("192.0.2.9")},
		})
		if err == nil {
			t.Error("a job that is none logs in")
		}
	}
	for _, path := range []string{"/", "/due", "/charter", "/trail", "/trail?path=" + url.QueryEscape("kv") + "&identity=" + url.QueryEscape(poison)} {
		p := r.get(anna, path)
		if p.status != http.StatusOK {
			t.Errorf("%s: %d", path, p.status)
		}
		p.lacks(t, path, "<script", "<img", "\u202e", "\u200b", "onerror=alert(1)>")
	}
	r.get(anna, "/charter").has(t, "charter", "&lt;script&gt;document.title=", `\u202egnp.exe`)
	b := r.browse(t, anna)
	for _, path := range []string{"/due", "/charter", "/trail"} {
		b.show(path)
		b.check("hostile" + strings.ReplaceAll(path, "/", "-"))
		if title := b.Eval("document.title"); strings.Contains(title, "owned") || !strings.Contains(b.Eval("document.body.textContent"), "<script>document.title='owned'</script>") {
			t.Errorf("%s: title %q, or the text is not seen", path, title)
		}
	}
}
