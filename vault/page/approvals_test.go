package page_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/vault/charterstore"
)

// approval is what an approver makes at home of the file that a proposal's page gives.
func (r *rig) approval(id, name string) string {
	r.t.Helper()
	st, err := charter.Fold(r.Charter, r.World.World, r.State.Vault)
	r.ok(err)
	p, err := charterstore.Open([]byte(r.get(anna, "/proposals/file?id="+id).text), st)
	r.ok(err)
	a, err := charterstore.Approve(p, r.People[name])
	r.ok(err)
	return string(a)
}

// bring sends the form of a proposal's page.
func (r *rig) bring(who, id, approval string, headers ...string) reply {
	r.t.Helper()
	form := url.Values{"id": {id}, "approval": {approval}}
	return r.ask(who, http.MethodPost, "/proposals/one", form.Encode(), append([]string{"Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin"}, headers...)...)
}

// TestBringApprovalsOnAPage: what people signed at home is brought by a form, in a
// browser too; one that does not count comes back with the reason, one of another site or
// by whoever may not changes nothing, and none of it puts a statement in force.
func TestBringApprovalsOnAPage(t *testing.T) {
	r := newRig(t)
	r.open()
	size := r.node.Status().Charter
	propose := func(id string) string {
		p := r.post(anna, url.Values{"type": {"mount"}, "body": {`{"engine":"kv","id":"` + id + `"}`}})
		return strings.TrimPrefix(p.header.Get("Location"), "/proposals/one?id=")
	}
	id, other := propose("kv2"), propose("kv3")
	one := r.approval(id, "approver1")
	for what, c := range map[string]struct {
		who, id, approval string
		want              int
		has               string
		headers           []string
	}{
		"of another one": {anna, id, r.approval(other, "approver1"), 400, "of another proposal", nil},
		"altered":        {anna, id, strings.Replace(one, `"sig":"`, `"sig":"AAAA`, 1), 400, "approver1", nil},
		"no JSON":        {anna, id, poison, 400, "&lt;script&gt;document.title", nil},
		"nothing":        {anna, id, "", 400, "pproval", nil},
		"no id":          {anna, "x", one, 400, "64 digits", nil},
		"of nothing":     {anna, strings.Repeat("0", 64), one, 404, "not in the vault", nil},
		"no right":       {clerk, id, one, 403, "keyrite/proposals/" + id + "/approvals", nil},
		"another site":   {anna, id, one, 403, "another origin", []string{"Sec-Fetch-Site", "cross-site"}},
	} {
		p := r.bring(c.who, c.id, c.approval, c.headers...)
		if p.status != c.want {
			t.Errorf("%s: %d, want %d", what, p.status, c.want)
		}
		p.has(t, what, c.has)
		p.lacks(t, what, "<script", "\u202e")
	}
	r.get(anna, "/proposals/one?id="+id).has(t, "nothing kept", "0 of 2 approvals")
	if p := r.bring(anna, id, one+"\r\n"); p.status != http.StatusSeeOther || p.header.Get("Location") != "/proposals/one?id="+id {
		t.Errorf("a good one: %d %s", p.status, p.text)
	}
	if p := r.bring(anna, id, one); p.status != 400 {
		t.Errorf("twice: %d", p.status)
	}
	raw, err := json.Marshal(r.approval(id, "approver2"))
	r.ok(err)
	b := r.browse(t, anna)
	b.show("/proposals/one?id=" + id)
	b.Eval("(document.querySelector('#approval').value = " + string(raw) + ", document.querySelector('button').focus())")
	b.Press("Enter", false)
	b.Await("the approval", func() bool {
		return b.Eval("document.readyState") == "complete" && strings.Contains(b.text(), "2 of 2 approvals")
	})
	b.check("proposal-ready")
	if !strings.Contains(b.text(), "Ready") || r.node.Status().Charter != size {
		t.Errorf("the charter had %d statements and has %d; the page says %s", size, r.node.Status().Charter, b.text())
	}
}
