package api_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"keyrite/vault/audit"
	"keyrite/vault/node"
	"keyrite/vault/seal"
)

// asked is one row of the document: an operation and how it is asked here.
type asked struct {
	method, path string
	public       bool
}

// every is the whole table of what is served, as the document has it.
func (r *rig) every() []asked {
	r.t.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			Security []map[string]any `json:"security"`
		} `json:"paths"`
	}
	r.ok(json.Unmarshal(r.get("sys/internal/specs/openapi").raw, &doc))
	var out []asked
	for path, methods := range doc.Paths {
		for method, o := range methods {
			at := strings.NewReplacer("{means}", "cert", "{path}", "kv", "{name}", "line1", "{mount}", "kv").Replace(strings.TrimPrefix(path, "/"))
			if i := strings.Index(at, "{"); i >= 0 {
				at = strings.NewReplacer("{", "", "}", "").Replace(at)
			}
			out = append(out, asked{strings.ToUpper(method), at, len(o.Security) == 0})
		}
	}
	if len(out) < 50 {
		r.t.Fatalf("only %d operations", len(out))
	}
	slices.SortFunc(out, func(a, b asked) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return out
}

// TestEveryOperationHasItsEntry: of everything that is served only sys/health leaves no
// entry, whoever asks and whatever comes of it; while the vault is sealed it is counted,
// and one entry tells of it when the vault is opened.
func TestEveryOperationHasItsEntry(t *testing.T) {
	r := newRig(t)
	all, anonymous := r.every(), r.as(nil)
	ask := func(o asked) {
		t.Helper()
		c := r.client
		if o.public {
			c = anonymous
		}
		if p := r.ask(c, o.method, o.path, ""); p.status == 0 || p.status == http.StatusInternalServerError {
			t.Errorf("%s %s: %d", o.method, o.path, p.status)
		}
	}
	size := func() int64 { return r.node.Status().Store.Size }
	unwritten := []string{}
	for _, o := range all {
		if o.path == "sys/seal" {
			continue // at the end
		}
		had := size()
		if ask(o); size() == had {
			unwritten = append(unwritten, o.method+" "+o.path)
		}
	}
	if !slices.Equal(unwritten, []string{"GET sys/health"}) {
		t.Errorf("without an entry: %q", unwritten)
	}
	had := size()
	ask(asked{method: "PUT", path: "sys/seal"})
	for _, o := range all {
		ask(o)
	}
	told := r.reopened(had)
	if len(told) < 4 || told[0].Path != "sys/seal" || told[1].Operation != "seal" {
		t.Fatalf("sealing wrote %+v", told)
	}
	counts, _ := told[len(told)-1].Result["counts"].(map[string]any)
	sum := 0.0
	for _, n := range counts {
		sum += n.(float64)
	}
	for _, want := range []string{"read sys/seal-status", "read sys/leader", "read sys/init", "update sys/unseal", "read sys/internal/specs/openapi", "refused"} {
		if counts[want] == nil {
			t.Errorf("%q is not among %v", want, counts)
		}
	}
	if counts["read sys/health"] != nil || int(sum) != len(all)-1 {
		t.Errorf("of %d operations %v were counted: %v", len(all), sum, counts)
	}
}

// reopened opens the sealed vault in its process, and returns the entries from number
// from on.
func (r *rig) reopened(from int64) []*audit.Entry {
	r.t.Helper()
	r.ok(r.seal()) // also the store
	c, err := r.store()
	r.ok(err)
	k, err := r.key()
	r.ok(err)
	defer k.Wipe()
	st, err := seal.Open(r.t.Context(), c, k)
	r.ok(err)
	shut, err := r.node.Open(r.t.Context(), node.Opened{Store: st, Head: c.Head})
	r.ok(err)
	defer func() { r.ok(errors.Join(shut.Close(), st.Close())) }()
	var out []*audit.Entry
	for n := from; n < r.node.Status().Store.Size; n++ {
		e, err := audit.NewJournal(st).Read(uint64(n))
		r.ok(err)
		out = append(out, e)
	}
	return out
}
