package page_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/artifact/trail"
	"keyrite/internal/clitest"
	"keyrite/vault/node"
	"keyrite/vault/page"
	"keyrite/vault/unseal"
)

// TestSealedVault: while it is sealed strangers see what everybody is told, and whom the
// charter on the disk lets read keyrite/status sees who gave a share. Whoever may not,
// and everybody if the charter cannot be read, is a stranger.
func TestSealedVault(t *testing.T) {
	r := newRig(t)
	p := r.get("", "/")
	if p.status != http.StatusOK {
		t.Errorf("stranger: %d", p.status)
	}
	p.has(t, "stranger", "REHEARSAL – nothing here is live", string(r.World.World), "sealed", "Your browser showed no certificate")
	x, err := r.attempts.New(t.Context(), unseal.Ask{Operation: openrequest.Create, By: "test"})
	r.ok(err)
	_, err = r.attempts.Answer(t.Context(), r.Answer(t, x.Request, "master2"))
	r.ok(err)
	for _, who := range []string{"", clerk, "nobody"} {
		p := r.get(who, "/")
		p.has(t, "who may not: "+who, "1 of 3 shares are there, 2 are missing")
		p.lacks(t, "who may not: "+who, "master2", x.Attempt, "you are", `href="/charter"`)
	}
	p = r.get(anna, "/")
	p.has(t, "auditor", "master2", "1 of 3 shares", "you are <b>anna</b>", "has no trail")
	if !strings.Contains(r.log.String(), `"identity":"anna"`) {
		t.Errorf("who looked is not in the log: %s", r.log.String())
	}
	for _, path := range []string{"/charter", "/keys", "/charter/line?number=0"} {
		for _, who := range []string{"", anna} {
			if p := r.get(who, path); p.status != http.StatusServiceUnavailable || !strings.Contains(p.text, "The vault is sealed, and has no store yet.") {
				t.Errorf("%s as %q: %d", path, who, p.status)
			}
		}
	}

	// A certificate that was revoked, or an identity that was ended, since: nobody.
	r.Approve(charter.TypeAccessEnded, charter.AccessEnded{Type: charter.TypeIdentity, ID: anna})
	r.get(anna, "/").lacks(t, "whose identity was ended", "master2")
	r.broken = errors.New("unreadable")
	p = r.get(clerk, "/")
	p.has(t, "without a charter", "nobody is known")
	p.lacks(t, "without a charter", "master2", "unreadable")
}

// TestPagesOfAnOpenVault: a stranger sees that it is open and nothing else; who may not
// is told what statement would let him; each look has its entry, as a program's has.
func TestPagesOfAnOpenVault(t *testing.T) {
	r := newRig(t)
	r.open()
	paths := []string{"/", "/charter", "/charter/line?number=3", "/keys", "/shares", "/due", "/trail", "/proposals", "/proposals/new"}
	for _, who := range []string{"", "nobody"} {
		for _, path := range paths {
			at := r.size()
			p := r.get(who, path)
			want := "request read sys/seal-status "
			if who != "" {
				want = "refused"
			}
			if got := r.entries(at); len(got) != 1 || !strings.HasPrefix(line(&got[0]), want) {
				t.Errorf("%s as %q: the trail has %v", path, who, got)
			}
			p.has(t, path+" as a stranger", "The vault is open.")
			p.lacks(t, path+" as a stranger", "master1", "approver1", "image1", "<nav", "auditor")
			if want := path != "/" || who != ""; (p.status == http.StatusForbidden) != want {
				t.Errorf("%s as %q: %d", path, who, p.status)
			}
		}
	}
	for _, path := range paths {
		p := r.get(clerk, path)
		if p.status != http.StatusForbidden {
			t.Errorf("%s: %d", path, p.status)
		}
		p.has(t, path, "You may not see this page", "policy", "],&#34;path&#34;:&#34;keyrite/", "you are <b>clerk</b>")
		p.lacks(t, path, "master1", "approver1", "image1")
	}
	from := r.size()
	for _, path := range paths {
		if p := r.get(anna, path); p.status != http.StatusOK {
			t.Errorf("%s: %d %s", path, p.status, p.text)
		}
	}
	var got []string
	for _, e := range r.entries(from) {
		got = append(got, line(&e))
	}
	want := []string{
		"request read keyrite/status anna", "request update sys/capabilities-self anna", "request read keyrite/due anna", "request read keyrite/charter anna", "request read keyrite/charter anna", "request read keyrite/charter anna",
		"request read keyrite/shares anna", "request read keyrite/due anna", "request read keyrite/trail anna", "request list keyrite/proposals anna",
		"request update sys/capabilities-self anna",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the trail has %q, want %q", got, want)
	}
	r.get(anna, "/").has(t, "overview", "master1, master2, master3", fmt.Sprintf("%d in force", r.State.Size()), "REHEARSAL", r.State.Vault[:16])
	r.get(anna, "/keys").has(t, "keys", "image1", "raw images of boot loaders", "p256", "3 of 5 shares", "master5", "None.")
	r.get(anna, "/").lacks(t, "overview of an auditor", "What you may not see")
	r.get(anna, "/due").has(t, "due", "Nothing has to be done now.")
	r.get(anna, "/shares").has(t, "shares", "of 5 shares are alive", "master4")
	r.get(anna, "/charter").has(t, "charter", "signed by <b>approver1</b>", "decided by the approvers", "Identity clerk is known by a certificate for spiffe://example.com/people/clerk")
	if p := r.get(anna, "/charter/line?number=0"); p.text != string(r.Charter[:strings.Index(string(r.Charter), "\n")+1]) || p.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("line 0: %q", p.text)
	}
}

// TestRequestsThatAreNoPage: what is not asked in the one spelling is refused, and so is
// every form.
func TestRequestsThatAreNoPage(t *testing.T) {
	r := newRig(t)
	r.open()
	for path, want := range map[string]int{
		"/charter/": 404, "//charter": 404, "/%63harter": 404, "/Charter": 404, "/keys/..": 404, "/v1/sys/health": 404, "/favicon.ico": 404,
		"/charter?before=-1": 400, "/charter?before=x": 400, "/charter?before=100000": 400, "/charter?before=1&before=2": 400, "/charter?other=1": 400,
		"/charter?before=%zz": 400, "/charter/line": 400, "/charter/line?number=99999": 400, "/keys?x=1": 400, "/?x=1": 400, "/page.css": 200,
	} {
		if p := r.get(anna, path); p.status != want {
			t.Errorf("%s: %d, want %d", path, p.status, want)
		}
	}
	for _, m := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, "LIST", http.MethodOptions} {
		for _, path := range []string{"/", "/charter", "/keys"} {
			if p := r.ask(anna, m, path, "x=1"); p.status != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", m, path, p.status)
			}
		}
	}
}

// TestHeaders: every answer says that nothing is run, loaded, framed, kept or told.
func TestHeaders(t *testing.T) {
	r := newRig(t)
	r.open()
	for _, path := range []string{"/", "/charter", "/none", "/charter/line?number=1", "/page.css"} {
		h := r.get(anna, path).header
		for name, want := range map[string]string{
			"Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
			"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
		} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q", path, name, h.Get(name))
			}
		}
		if want := "no-store"; h.Get("Cache-Control") != want && path != "/page.css" {
			t.Errorf("%s: Cache-Control %q", path, h.Get("Cache-Control"))
		}
		if len(h.Values("Set-Cookie")) > 0 {
			t.Errorf("%s sets a cookie", path)
		}
	}
}

// TestOtherSites: another web page has no browser look in its user's name: all that is
// written before the user himself opens the page is that it was refused.
func TestOtherSites(t *testing.T) {
	r := newRig(t)
	r.open()
	from := r.size()
	for _, h := range [][]string{
		{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors", "Sec-Fetch-Dest", "image"},
		{"Sec-Fetch-Site", "same-site", "Sec-Fetch-Mode", "cors", "Sec-Fetch-Dest", "empty"},
		{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "iframe"},
		{"Origin", "https://evil.example"},
		{"Origin", "null"},
	} {
		for _, m := range []string{http.MethodGet, http.MethodPost} {
			if p := r.ask(anna, m, "/charter", "", h...); p.status != http.StatusForbidden {
				t.Errorf("%s %v: %d", m, h, p.status)
			}
		}
	}
	p := r.get(anna, "/charter?before=3", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
	p.has(t, "link from another site", `href="/charter?before=3"`)
	p.lacks(t, "link from another site", "approver1")
	if p := r.ask(anna, http.MethodPost, "/charter", "", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"); p.status != http.StatusForbidden {
		t.Errorf("form of another site: %d", p.status)
	}
	entries := r.entries(from)
	for _, e := range entries {
		if e.Kind != trail.Refused && e.Identity != "" || e.Kind == trail.Refused && (e.Identity != anna || e.Class != "policy") {
			t.Errorf("in her name: %s %s", line(&e), e.Class)
		}
	}
	if len(entries) != 12 {
		t.Errorf("12 requests have %d entries", len(entries))
	}
	if p := r.get(anna, "/charter", "Sec-Fetch-Site", "same-origin"); p.status != http.StatusOK {
		t.Errorf("its own link: %d", p.status)
	}
}

// TestEveryPageHasItsEntry: of every page whatever is asked has its entry, with who asks
// where that is known, whatever comes of it; but for what is no page, and the style sheet.
func TestEveryPageHasItsEntry(t *testing.T) {
	r := newRig(t)
	r.open()
	written := func() uint64 {
		st := r.node.Status()
		return uint64(st.Store.Size) + st.LeftOut + st.Unlisted
	}
	var unwritten []string
	ask := func(who, method, path string, headers ...string) {
		t.Helper()
		from, had := r.size(), written()
		p := r.ask(who, method, path, "", headers...)
		if written() == had {
			unwritten = append(unwritten, method+" "+path)
		}
		if got := r.entries(from); who == anna && p.status >= 400 && len(headers) == 0 && !slices.ContainsFunc(got, func(e trail.Entry) bool { return e.Identity == anna }) {
			t.Errorf("%s %s: %d, and the trail has %v", method, path, p.status, got)
		}
	}
	for _, path := range page.Paths() {
		for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, "LIST", http.MethodOptions} {
			ask(anna, m, path)
		}
		for _, who := range []string{anna, clerk, "nobody", ""} {
			ask(who, http.MethodGet, path)
			ask(who, http.MethodGet, path+"?other=1")
			ask(who, http.MethodGet, path+"?x=%zz")
			ask(who, http.MethodGet, path, "Sec-Fetch-Site", "cross-site")
			ask(who, http.MethodGet, path, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
			ask(who, http.MethodPost, path, "Origin", "https://evil.example")
		}
	}
	ask(anna, http.MethodGet, "/page.css", "Sec-Fetch-Site", "cross-site")
	if unwritten != nil {
		t.Errorf("without an entry: %q", unwritten)
	}
	ask(clerk, http.MethodGet, "/page.css")
	ask(clerk, http.MethodGet, "/none")
	if want := []string{"GET /page.css", "GET /none"}; !slices.Equal(unwritten, want) {
		t.Errorf("without an entry: %q, want %q", unwritten, want)
	}
}

// TestSealedWhileOneLooks: a vault that is sealed shows so at once.
func TestSealedWhileOneLooks(t *testing.T) {
	r := newRig(t)
	r.open()
	r.get(anna, "/keys").has(t, "open", "image1")
	r.ok(r.attempts.Seal())
	p := r.get(anna, "/keys")
	p.has(t, "sealed", "The vault is sealed.")
	p.lacks(t, "sealed", "image1")
}

// stopped is a vault whose store stopped after a write that failed.
type stopped struct {
	*node.Node
	why error
}

func (s stopped) Status() node.Status {
	st := s.Node.Status()
	st.Store.Stopped = s.why
	return st
}

// TestStrangersHearWhatClass: where the disk is, and what is wrong with it, is not for
// who is not known.
func TestStrangersHearWhatClass(t *testing.T) {
	r := newRig(t)
	r.open()
	r.serveOf(stopped{r.node, fault.New(fault.Storage, "write /srv/hidden/store.db: no space left")})
	for _, who := range []string{"", "nobody"} {
		p := r.get(who, "/")
		p.has(t, who, "It serves nothing, after a write that failed", "storage")
		p.lacks(t, who, "hidden", "space")
	}
}

// TestLooksOfStrangersAreWritten: who looks at the seal has the entry that a program has
// that asks sys/seal-status.
func TestLooksOfStrangersAreWritten(t *testing.T) {
	r := newRig(t)
	r.get("", "/")
	r.open()
	from := r.size()
	r.get("", "/")
	got := r.entries(from)
	if len(got) != 1 || line(&got[0]) != "request read sys/seal-status " || got[0].Remote != "127.0.0.1" {
		t.Errorf("a stranger's look: %+v", got)
	}
	found := false
	for _, e := range r.entries(0) {
		counts, _ := e.Result["counts"].(map[string]any)
		found = found || e.Operation == "asked while sealed" && fmt.Sprint(counts["read sys/seal-status"]) == "1"
	}
	if !found {
		t.Error("a look at the sealed vault is not told when it is opened")
	}
}

// TestSinkInTroubleShows: what is wrong with a copy of the trail stands on the first page
// until it is mended, and that its file was deleted until the vault is sealed.
func TestSinkInTroubleShows(t *testing.T) {
	r := newRig(t)
	r.Approve(charter.TypeAuditSink, charter.AuditSink{ID: "copy", Kind: "file"})
	r.file()
	path := r.path("copies/copy.jsonl")
	r.ok(os.MkdirAll(path, 0o700)) // a folder takes no entry
	r.open()
	shows := func(what string, texts ...string) {
		t.Helper()
		var p reply
		if !clitest.Await(20*time.Second, func() bool {
			p = r.get(anna, "/")
			return !slices.ContainsFunc(texts, func(x string) bool { return !strings.Contains(p.text, x) })
		}) {
			p.has(t, what, texts...)
		}
	}
	shows("a folder", "What is wrong", "Sink copy gets no copies of the trail since 2", "is not a regular file")
	r.get(anna, "/").lacks(t, "a folder", `<span class="good">well</span>`, "was deleted")
	r.ok(os.Remove(path))
	shows("mended", `<span class="good">well</span>`)
	r.get(anna, "/").lacks(t, "mended", "gets no copies", "What is wrong")
	r.ok(os.Remove(path))
	shows("deleted", "What is wrong", "The file of sink copy was deleted, which was noticed 2", `<span class="bad">its file was deleted</span>`)
	r.get(anna, "/").lacks(t, "deleted", `<span class="good">well</span>`, "gets no copies")
}
