package main

import (
	"os"
	"strings"
	"testing"
)

// TestImportBoulder runs the command: a script that lints and notes beside it, no
// PIN in either, and nothing left of what cannot be carried over.
func TestImportBoulder(t *testing.T) {
	h := newHouse(t)
	config := func(name string) []byte {
		data, err := os.ReadFile("../../ceremony/boulder/testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	h.write(t, "root-a.yaml", string(config("root-a.yaml")))
	h.write(t, "ocsp.yaml", "ceremony-type: ocsp-response\n")
	h.write(t, "weak.yaml", strings.Replace(string(config("root-b.yaml")), "4096", "2048", 1))
	if err := os.Mkdir(h.path("people"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args   []string
		exit   int
		stdout string
		stderr string
	}{
		{[]string{"root-a.yaml"}, 0, "root-a.script.yaml: genesis, lints", ""},
		{[]string{"root-a.yaml"}, 16, "", "exists"},
		{[]string{"root-a.yaml", "--existing", "--safe", "vault2", "--out", "bin", "--json"}, 0, `{"schema":"keyrite/import-boulder/v1","script":"bin/root-a.script.yaml","kind":"new-key"`, ""},
		{[]string{"ocsp.yaml"}, 2, "", "not carried over"},
		{[]string{"root-a.yaml", "--out", "people", "--masters", "7", "--masters-need", "4", "--witnesses", "3", "--approvers", "3"}, 0, "people/root-a.script.yaml: genesis, lints", ""},
		{[]string{"root-a.yaml", "--out", "people2", "--masters-need", "1"}, 2, "", "need"},
		{[]string{"weak.yaml", "--json"}, 2, "", "2,048 bits"},
		{[]string{"none.yaml"}, 2, "", "none.yaml"},
	} {
		code, out, errs := h.run(t, append([]string{"ceremony", "import-boulder", "--module", h.env.Config.Module}, tc.args...)...)
		if code != tc.exit || !strings.Contains(out, tc.stdout) || !strings.Contains(errs, tc.stderr) || code != 0 && out != "" {
			t.Errorf("%v: exit %d\n%s%s", tc.args, code, out, errs)
		}
	}
	for _, gone := range []string{"ocsp.script.yaml", "weak.script.yaml", "none.script.yaml", "ocsp.notes.txt"} {
		if _, err := os.Stat(h.path(gone)); err == nil {
			t.Errorf("%s was left", gone)
		}
	}
	for _, name := range []string{"root-a.script.yaml", "root-a.notes.txt"} {
		data, err := os.ReadFile(h.path(name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(data), "975312") {
			t.Errorf("%s holds the PIN", name)
		}
	}
	for _, name := range []string{"root-a.script.yaml", "people/root-a.script.yaml", "bin/root-a.script.yaml"} {
		if code, out, errs := h.run(t, "ceremony", "lint", name); code != 0 {
			t.Errorf("lint %s: exit %d\n%s%s", name, code, out, errs)
		}
	}
	data, err := os.ReadFile(h.path("people/root-a.script.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"key_masters: {need: 4, of: 7}", "witnesses: 3", "approvers: {need: 2, of: 3}", "network: down, swap: off, core_dumps: off, clock: utc"} {
		if !strings.Contains(string(data), want) {
			t.Errorf("the script does not say %q:\n%s", want, data)
		}
	}
}
