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
	if code, out, errs := h.run(t, "ceremony", "lint", "root-a.script.yaml"); code != 0 {
		t.Errorf("lint: exit %d\n%s%s", code, out, errs)
	}
}
