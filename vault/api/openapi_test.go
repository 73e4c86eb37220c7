package api_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"keyrite/vault/engine"
	"keyrite/vault/node"
)

// TestOpenAPI: the document names what is served and nothing else, and its parts fit.
func TestOpenAPI(t *testing.T) {
	r := newRig(t)
	p := r.ask(r.as(nil), http.MethodGet, "sys/internal/specs/openapi", "")
	var doc struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			OperationID string              `json:"operationId"`
			Security    []map[string]any    `json:"security"`
			Parameters  []map[string]any    `json:"parameters"`
			Responses   map[string]struct{} `json:"responses"`
		} `json:"paths"`
	}
	r.ok(json.Unmarshal(p.raw, &doc))
	if p.status != 200 || doc.OpenAPI != "3.1.0" {
		t.Fatalf("%d %.200s", p.status, p.raw)
	}
	ids := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, o := range methods {
			if o.OperationID == "" || ids[o.OperationID] || len(o.Responses) < 2 {
				t.Errorf("%s %s: %+v", method, path, o)
			}
			ids[o.OperationID] = true
			if want := strings.Count(path, "{"); len(slices.DeleteFunc(o.Parameters, func(p map[string]any) bool { return p["in"] != "path" })) != want {
				t.Errorf("%s %s: parameters %v", method, path, o.Parameters)
			}
			if strings.HasPrefix(path, "/{") {
				continue // below a mount
			}
			asked := strings.NewReplacer("{means}", "cert", "{path}", "kv", "{name}", "line1").Replace(strings.TrimPrefix(path, "/"))
			if path == "/sys/seal" {
				continue // it is asked elsewhere, and ends everything
			}
			if p := r.ask(r.client, strings.ToUpper(method), asked, ""); p.status == 404 || p.status == 500 {
				t.Errorf("%s %s is in the document and not served: %d", method, path, p.status)
			}
		}
	}
	words := map[engine.Method][]string{engine.Read: {"get"}, engine.Write: {"put", "post"}, engine.List: {"get"}, engine.Delete: {"delete"}}
	for path, methods := range node.Paths() {
		documented := "/" + strings.NewReplacer("+", "{name}", "*", "{path}").Replace(path)
		for _, m := range methods {
			if !slices.ContainsFunc(words[m], func(w string) bool { _, ok := doc.Paths[documented][w]; return ok }) {
				t.Errorf("%s is served (%v) and not in the document: %v", path, m, slices.Collect(maps.Keys(doc.Paths[documented])))
			}
		}
	}
}
