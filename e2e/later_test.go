package e2e

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

// way is what keyrite trace --json says.
type way struct {
	Complete bool `json:"complete"`
	Links    []struct {
		What   string `json:"what"`
		Is     string `json:"is"`
		Proven bool   `json:"proven"`
	} `json:"links"`
}

func (h *shop) trace(t *testing.T, args ...string) (way, string) {
	t.Helper()
	var w way
	out := h.must(t, nil, append([]string{"trace", "--json"}, args...)...)
	if err := json.Unmarshal([]byte(out), &w); err != nil {
		t.Fatal(err)
	}
	var what []string
	for _, l := range w.Links {
		mark := ""
		if !l.Proven {
			mark = "?"
		}
		what = append(what, mark+l.What)
	}
	return w, strings.Join(what, " ")
}

// TestKeyOfALaterCeremony makes a release key for one product months after the genesis,
// with the programs as they are shipped: it signs, holders of the old anchors verify by
// the statement of both root tokens, and the way back leads through both ceremonies.
func TestKeyOfALaterCeremony(t *testing.T) {
	h := newShop(t)
	h.must(t, nil, "release", "pipeline-key", "--out", "pipeline1.key")
	module := []string{"--module", h.env.Config.Module, "--enforce=false", "--defaults", "--printer=no", "--root-token", "one-root", "--work-token", "one-work"}
	h.must(t, nil, append([]string{"ceremony", "new", "genesis", "--break=no", "--out", "one.yaml"}, module...)...)
	h.must(t, nil, "ceremony", "rehearse", "one.yaml", "--bind", "bind-one.yaml", "--answers", "answers.yaml", "--record", "record-one")
	anchors := []string{"--anchor", "record-one/outputs/anchors.json"}
	h.must(t, []string{phrase("witness2")}, append([]string{"keyrite-verify", "cosign", "record-one", "--key", "witness2.key"}, anchors...)...)

	h.must(t, nil, append([]string{"ceremony", "new", "new-key", "--key", "firmware-gw100", "--key-purpose", "signs release statements of the product gw100", "--out", "key.yaml"}, module...)...)
	base, err := os.ReadFile(h.path("bind-one.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(base), "tokens: {root: fresh, work: fresh, root2: fresh, work2: fresh}\n", "", 1)
	h.write(t, "bind-key.yaml", text+"anchors: record-one/outputs/anchors.json\ncharter: record-one/outputs/charter.jsonl\nrecords: [record-one]\n")
	h.must(t, nil, "ceremony", "rehearse", "key.yaml", "--bind", "bind-key.yaml", "--answers", "answers.yaml", "--record", "record-key")
	h.must(t, []string{phrase("witness2")}, append([]string{"keyrite-verify", "cosign", "record-key", "--key", "witness2.key"}, anchors...)...)
	h.must(t, nil, append([]string{"keyrite-verify", "record", "record-key"}, anchors...)...)

	charter := []string{"--charter", "record-key/outputs/charter.jsonl"}
	statement := []string{"--succession", "record-key/outputs/succession.json"}
	untold, _ := h.prepared(t, "untold.img", "0.9", "1", "work", append(anchors, charter...))
	if code, _, errs := h.run(t, untold...); code != 13 || !strings.Contains(errs, "--succession") {
		t.Errorf("signed with a key that the field is not told of: exit %d, %s", code, errs)
	}
	krf := h.released(t, "new.img", "1.0", "1", "work", append(append(append([]string{}, anchors...), charter...), statement...))
	h.must(t, nil, append(append([]string{"keyrite-verify", "firmware", krf}, anchors...), statement...)...)
	if code, _, _ := h.run(t, append([]string{"keyrite-verify", "firmware", krf}, anchors...)...); code != 14 {
		t.Errorf("without the statement: exit %d", code)
	}

	known := append(append([]string{krf}, anchors...), statement...)
	w, what := h.trace(t, append(known, "--record", "record-key", "--record", "record-one")...)
	if !w.Complete || what != "image signature release decision key record birth script people genesis founders" || !strings.HasPrefix(w.Links[4].Is, "firmware-gw100 ") {
		t.Errorf("the whole way: %s", what)
	}
	if w, what := h.trace(t, append(known, "--record", "record-key")...); w.Complete || !strings.HasSuffix(what, "people ?before") {
		t.Errorf("without the genesis: %s", what)
	}
	if w, what := h.trace(t, append(known, "--record", "record-one")...); w.Complete || !strings.HasSuffix(what, "key ?record") {
		t.Errorf("without the key's ceremony: %s", what)
	}
	if code, _, errs := h.run(t, append(append([]string{"trace"}, known...), "--record", "record-one", "--record", "record-one")...); code != 2 || !strings.Contains(errs, "twice") {
		t.Errorf("a record twice: exit %d, %s", code, errs)
	}
}
