package page_test

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/share"
	"keyrite/vault/duty"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
	"keyrite/vault/node"
	"keyrite/vault/vaulttest"
)

// call makes a call as a program of somebody would, and puts the answer into out.
func (r *rig) call(name, path, body string, out any) {
	r.t.Helper()
	p := engine.Params{}
	r.ok(json.Unmarshal([]byte(body), &p))
	a, err := r.node.Do(r.t.Context(), node.Call{Method: engine.Write, RawPath: path, Params: p, Peer: identity.Peer{UID: -1, Certificates: []*x509.Certificate{r.issue(name, uriOf(name)).Leaf}, Remote: netip.MustParseAddr("192.0.2.7")}})
	r.ok(err)
	raw, err := json.Marshal(a.Answer.Data)
	r.ok(err)
	r.ok(json.Unmarshal(raw, out))
}

// inUse is a vault about which everything there is stands on the pages: challenges, one
// of them answered, and things of each level.
func inUse(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.outside = []duty.Thing{
		{Kind: duty.Bundle, Name: "b", About: "bundle of factory factory1, number 7", Ends: time.Now().Add(-48 * time.Hour)},
		{Kind: duty.TUFTimestamp, Name: "r", About: "update repository /srv/updates: timestamp", Ends: time.Now().Add(48 * time.Hour)},
		{Kind: duty.WatchedCRL, Name: "c", About: "list /srv/\u202eroot.crl", Fault: "no such file"},
	}
	r.open()
	var made struct{ Challenge string }
	r.call(anna, "keyrite/shares/challenges", `{"safe":"work","purpose":"check, spring"}`, &made)
	c, err := share.ParseChallenge([]byte(made.Challenge))
	r.ok(err)
	proof, err := json.Marshal(map[string]string{"proof": string(r.Prove(t, c, "master4"))})
	r.ok(err)
	r.call(anna, "keyrite/shares", string(proof), &struct{}{})
	return r
}

// TestSharesAndDue: the pages say in words who is alive and by what, what waits, and what
// is late; whoever may not see them is told what would let him.
func TestSharesAndDue(t *testing.T) {
	r := inUse(t)
	r.get(anna, "/shares").has(t, "shares", "Safe "+vaulttest.Safe, "master1", "opened the vault", "master4", "answered a challenge", "A proof counts for 92 days")
	p := r.get(anna, "/shares/challenges")
	p.has(t, "challenges", "check, spring", "answered by</dt><dd>master4", "keyrite/share-challenge/v1")
	_, id, _ := strings.Cut(p.text, "/shares/challenge?id=")
	file := r.get(anna, "/shares/challenge?id="+id[:64])
	if c, err := share.ParseChallenge([]byte(file.text)); err != nil || c.Purpose != "check, spring" || file.header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("the file: %v %q", err, file.text)
	}
	if p := r.get(anna, "/shares/challenge?id=x"); p.status != http.StatusBadRequest {
		t.Errorf("no such challenge: %d", p.status)
	}
	p = r.get(anna, "/due")
	p.has(t, "due", "Late: 2; soon: ", "bundle of factory factory1", "keyrite provision export", "/srv/updates: timestamp", "no such file", "now", `list /srv/\u202eroot.crl`)
	p.lacks(t, "due", "\u202e")
	if late, soon := strings.Index(p.text, "factory1, number 7"), strings.Index(p.text, "/srv/updates"); late > soon {
		t.Error("what is late comes after what is soon")
	}
	for _, path := range []string{"/shares", "/shares/challenges", "/shares/challenge", "/due"} {
		p := r.get(clerk, path)
		p.has(t, path, "You may not see this page", strings.TrimSuffix("keyrite"+path, "s"))
		p.lacks(t, path, "master1", "factory1", "spring")
		if p := r.get("", path); p.status != http.StatusForbidden || strings.Contains(p.text, "master1") {
			t.Errorf("%s as a stranger: %d", path, p.status)
		}
		if p := r.get(anna, path+"?x=1"); p.status != http.StatusBadRequest {
			t.Errorf("%s with a parameter: %d", path, p.status)
		}
	}
}

// TestSharesAndDueInABrowser looks at them in Chromium.
func TestSharesAndDueInABrowser(t *testing.T) {
	r := inUse(t)
	b := r.browse(t, anna)
	for path, name := range map[string]string{"/shares": "shares", "/shares/challenges": "challenges", "/due": "due"} {
		b.show(path)
		b.check(name)
	}
	b.show("/due")
	for _, level := range []string{"late", "soon", "fine"} { // in words, not by colour alone
		if got := b.Eval("[...document.querySelectorAll('td[data-of=level]')].filter(e => e.innerText.trim() == '" + level + "').length"); got == "0" {
			t.Errorf("nothing is said to be %s", level)
		}
	}
}
