package actions

import (
	"slices"
	"testing"
)

// A ceremony that makes no key has no proof of possession in its transcript, and so
// nothing but the verifier's own rules between a conductor and a record in which
// nobody gave a share, or a step did nothing.
func TestForgedOfflineIsRefused(t *testing.T) {
	t.Parallel()
	f := found(t)
	f.request(t, "f2.csr")
	root := rootOf(f, "1.root.json")
	f.later(t, plan{kind: "sign-offline", bind: func(b *Bind) { b.Requests["factory2-ca"] = "f2.csr"; root(b) }})
	f.person(t, "stranger")
	without := func(match func(e entry) bool) func([]entry) []entry {
		return func(l []entry) []entry {
			n := len(l)
			if l = slices.DeleteFunc(l, match); len(l) == n {
				t.Fatal("nothing to leave out")
			}
			return l
		}
	}
	first := func(l []entry, typ string) int {
		return slices.IndexFunc(l, func(e entry) bool { return e.Type == typ })
	}
	tests := map[string]struct {
		edit func([]entry) []entry
		text string
	}{
		"nothing changed": {func(l []entry) []entry { return l }, ""},
		"opened without a share": {without(func(e entry) bool {
			return e.Type == "opening" || e.Type == "admission" || e.Type == "intent" && e.Data["effect"] == "open"
		}), "without an entry opening"},
		"admission by a stranger": {func(l []entry) []entry {
			signReport(t, &l[first(l, "admission")], f.people["stranger"], func(map[string]any) {})
			return l
		}, "may not sign this"},
		"admission by nobody": {func(l []entry) []entry {
			l[first(l, "admission")].Data["envelope"].(map[string]any)["signatures"] = []any{}
			return l
		}, "too few signatures"},
		"admission altered after it was signed": {func(l []entry) []entry {
			e := &l[first(l, "admission")]
			e.Data["envelope"].(map[string]any)["payload"] = payloadOf(t, e, func(r map[string]any) { r["capabilities"] = []any{} })
			return l
		}, "signature does not hold"},
		"admission that failed": {func(l []entry) []entry {
			signReport(t, &l[first(l, "admission")], f.people["conductor"], func(r map[string]any) { r["cases"].([]any)[7].(map[string]any)["pass"] = false })
			return l
		}, "is not admitted"},
		"no admission": {without(func(e entry) bool { return e.Type == "admission" }), "without an admission"},
		"certificate of another issuer": {func(l []entry) []entry {
			l[first(l, "certificate")].Data["issuer"] = "tuf-root"
			return l
		}, "another issuer"},
		"list left out": {without(func(e entry) bool { return e.Type == "crl" }), ""},
		"confirmed after the step": {func(l []entry) []entry {
			i := slices.IndexFunc(l, func(e entry) bool { return e.Type == "done" })
			j := i
			for l[j].Type != "confirm" || l[j].Step != l[i].Step {
				j--
			}
			l[i].Data, l[j].Data = l[j].Data, l[i].Data
			l[i].Type, l[j].Type = l[j].Type, l[i].Type
			return l
		}, "went on without"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			forgery{f.house, f.newest, f.anchors, everybody()}.refused(t, tt.edit, tt.text, name == "nothing changed")
		})
	}
}
