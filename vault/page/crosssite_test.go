package page_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/internal/clitest"
	"keyrite/vault/api"
)

type ruleOf = access.Rule

func readOnly() []access.Capability { return []access.Capability{access.Read} }

// serveAPI serves the interface for programs of the same vault, with the same
// certificate.
func (r *rig) serveAPI() string {
	r.t.Helper()
	s, err := api.New(api.Config{Vault: r.node, Version: "1.15.0"})
	r.ok(err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	r.ok(err)
	done := make(chan error, 1)
	go func() {
		done <- s.Serve(l, api.TLS(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &r.server, nil }))
	}()
	r.t.Cleanup(func() {
		_ = s.Shutdown(r.t.Context())
		<-done
	})
	return l.Addr().String()
}

// TestHostileSite: a web page of another origin, in the browser of an auditor that shows
// her certificate by itself, has neither the pages nor the interface for programs do
// anything in her name.
func TestHostileSite(t *testing.T) {
	r := newRig(t)
	r.open()
	program := r.serveAPI()
	evil := fmt.Sprintf(`<!DOCTYPE html><title>evil</title><body>
<form id="page" method="post" target="f1" action="https://%[1]s/proposals/new"><input name="type" value="mount"><input name="body" value='{"engine":"kv","id":"evil"}'></form>
<form id="api" method="post" enctype="text/plain" target="f2" action="https://%[2]s/v1/keyrite/proposals"><input name='{"type":"mount","body":{"engine":"kv","id":"evil"},"x":"' value='"}'></form>
<iframe name="f1"></iframe><iframe name="f2"></iframe><iframe src="https://%[1]s/charter"></iframe><iframe src="https://%[2]s/v1/keyrite/charter"></iframe>
<img src="https://%[1]s/charter/line?number=1"><img src="https://%[2]s/v1/keyrite/charter"><link rel="stylesheet" href="https://%[1]s/page.css"><script src="https://%[2]s/v1/keyrite/status"></script>
<script>
window.got = [];
const all = ['https://%[1]s/trail', 'https://%[2]s/v1/keyrite/trail', 'https://%[2]s/v1/keyrite/status'].flatMap(u => [
  fetch(u, {credentials: 'include'}).then(r => r.text()).then(t => got.push('read ' + t)).catch(() => 0),
  fetch(u, {credentials: 'include', mode: 'no-cors'}).then(r => got.push('type ' + r.type)).catch(() => 0),
  fetch(u, {credentials: 'include', mode: 'no-cors', method: 'POST', body: '{}'}).catch(() => 0)]);
document.getElementById('page').submit(); document.getElementById('api').submit();
Promise.all(all).then(() => window.done = true);
</script>`, r.addr, program)
	site, err := net.Listen("tcp", "127.0.0.1:0")
	r.ok(err)
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = w.Write([]byte(evil))
	})}
	go func() { _ = srv.Serve(site) }()
	t.Cleanup(func() { _ = srv.Close() })

	b := r.browse(t, anna, program)
	b.show("/") // she is known, and her certificate was shown
	from := r.size()
	// Another site, and another origin of the same site: a port is no other site.
	for _, host := range []string{"localhost", "127.0.0.1"} {
		_, port, err := net.SplitHostPort(site.Addr().String())
		r.ok(err)
		b.Navigate("http://" + host + ":" + port + "/")
		if !clitest.Await(20*time.Second, func() bool { return b.Eval("window.done") == "true" && b.Eval("document.readyState") == "complete" }) {
			t.Fatal("the hostile page does not come to its end")
		}
		if got := b.Eval("got.filter(g => g.startsWith('read')).join()"); got != "" {
			t.Errorf("%s read %s", host, got)
		}
		asked := strings.Join(b.Requests, " ")
		for _, u := range []string{"https://" + r.addr + "/proposals/new", "https://" + program + "/v1/keyrite/proposals", "https://" + r.addr + "/trail"} {
			if !strings.Contains(asked, u) {
				t.Errorf("%s did not ask for %s, so nothing was tried", host, u)
			}
		}
	}
	refused := 0
	for _, e := range r.entries(from) {
		if e.Identity != anna && e.Identity != "" {
			continue
		}
		if e.Kind != "refused" || e.Class != "policy" && e.Class != "peer" {
			t.Errorf("in her name: %s %v", line(&e), e.Error)
		}
		refused++
	}
	if refused == 0 {
		t.Error("nothing was refused: the browser did not show her certificate, or nothing came")
	}
	b.show("/proposals")
	if strings.Contains(b.text(), "evil") {
		t.Errorf("it was proposed: %s", b.text())
	}
	// A link is followed by her own click alone.
	b.Navigate("http://" + site.Addr().String() + "/")
	from = r.size()
	b.Eval(fmt.Sprintf("(location.href = 'https://%s/keys')", r.addr))
	b.Await("the door", func() bool { return strings.HasPrefix(b.Eval("document.title"), "From another site") })
	for _, e := range r.entries(from) {
		if e.Path == "keyrite/charter" && e.Kind != "refused" {
			t.Errorf("a link of another site looks in her name: %s", line(&e))
		}
	}
	b.Complaints, b.Requests = nil, nil // of the hostile page
	b.check("door")
	b.Eval("document.querySelector('a.button').focus()")
	b.Press("Enter", false)
	b.Await("the page behind it", func() bool { return strings.HasPrefix(b.Eval("document.title"), "Keys") })
}
