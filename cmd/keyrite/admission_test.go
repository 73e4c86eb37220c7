package main

import (
	"os"
	"strings"
	"testing"
)

// A safe is opened, to release, export or look, under a report on its token that
// holds, and by nobody under none; key masters open it without one only to attack
// it (R-CER-9).
func TestOpeningAsksForAdmission(t *testing.T) {
	h := newHouse(t)
	if code, out, errs := h.run(t, h.attempt(t, "one", "answers.yaml")...); code != 0 {
		t.Fatalf("genesis: exit %d\n%s%s", code, out, errs)
	}
	cosign := h.command("keyrite-verify", "cosign", "record-one", "--key", "witness2.key", "--anchor", "record-one/outputs/anchors.json", "--passphrase-fd", "3")
	phrases := func(names ...string) *os.File {
		t.Helper()
		text := ""
		for _, n := range names {
			data, err := os.ReadFile(h.path(n + ".pass"))
			if err != nil {
				t.Fatal(err)
			}
			text += strings.TrimSpace(string(data)) + "\n"
		}
		h.write(t, "phrases-"+strings.Join(names, "-"), text)
		f, err := os.Open(h.path("phrases-" + strings.Join(names, "-")))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	masters := []string{"master1", "master2", "master3"}
	copied, err := os.ReadFile(h.path("record-one/outputs/charter.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "charter.jsonl", string(copied))
	charter, signer := "charter.jsonl", "conductor"
	// open runs a command that opens safe work with a binding.
	open := func(bind string, args ...string) (int, string, string) {
		t.Helper()
		all := append([]string{"hsm"}, args...)
		all = append(all, "--safe", "work", "--anchor", "record-one/outputs/anchors.json", "--charter", charter, "--bind", bind, "--passphrase-fd", "3", "--json")
		for _, m := range masters {
			all = append(all, "--opener", m+".key:shares-one/work/"+m+".share")
		}
		cmd := h.command(all...)
		cmd.ExtraFiles = []*os.File{phrases(masters...), phrases(signer)}
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		_ = cmd.Run() // the exit code is looked at
		return cmd.ProcessState.ExitCode(), out.String(), errs.String()
	}
	base, err := os.ReadFile(h.path("bind-one.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "bind-record.yaml", string(base)+"records: [record-one]\n")
	h.write(t, "bind-report.yaml", string(base)+"admissions: [work.admission]\n")
	refused := func(what string, code int, out, errs, text string) {
		t.Helper()
		if code != 12 || out != "" || !strings.Contains(errs, text) {
			t.Errorf("%s: exit %d, %q, %q", what, code, out, errs)
		}
	}
	code, out, errs := open("bind-one.yaml", "inspect")
	refused("nothing named", code, out, errs, "is not admitted")
	if code, _, _ = open("bind-record.yaml", "inspect"); code == 0 {
		t.Error("a record that the second witness has not cosigned admits a token")
	}
	cosign.ExtraFiles = []*os.File{phrases("witness2")}
	if out, err := cosign.CombinedOutput(); err != nil {
		t.Fatalf("cosign: %v\n%s", err, out)
	}
	if code, _, errs := open("bind-record.yaml", "inspect"); code != 0 {
		t.Errorf("its record: exit %d, %s", code, errs)
	}
	charter = "record-one/outputs/charter.jsonl"
	if code, _, errs := open("bind-one.yaml", "inspect"); code != 0 {
		t.Errorf("the record that the charter lies in: exit %d, %s", code, errs)
	}
	charter = "charter.jsonl"
	code, out, errs = open("bind-report.yaml", "inspect")
	refused("no such report", code, out, errs, "work.admission")

	// Key masters open the safe for an attack, with its keys in it.
	if code, _, errs := open("bind-one.yaml", "admit", "--signer", "conductor.key", "--signer-fd", "4", "--out", "work.admission", "--algorithm", "p256"); code != 0 {
		t.Fatalf("admit: exit %d, %s", code, errs)
	}
	// A witness signs what he reads in the token, and it is what the record says.
	check := func(file string) (int, string) {
		code, _, errs := h.run(t, "keyrite-verify", "inspection", file, "--record", "record-one", "--anchor", "record-one/outputs/anchors.json")
		return code, errs
	}
	signer = "witness1"
	if code, _, errs := open("bind-report.yaml", "inspect", "--out", "work.inspection", "--signer", "witness1.key", "--signer-fd", "4"); code != 0 {
		t.Fatalf("inspection: exit %d, %s", code, errs)
	}
	if code, errs := check("work.inspection"); code != 0 {
		t.Errorf("inspection: exit %d, %s", code, errs)
	}
	// Whatever somebody puts beside the keys is named; no PIN is needed for a note.
	h.write(t, "note", "x")
	pkcs11Tool(t, h.env.Conf, "one-work", "--write-object", h.path("note"), "--type", "data", "--label", "note")
	if code, _, errs := open("bind-report.yaml", "inspect", "--out", "note.inspection", "--signer", "witness1.key", "--signer-fd", "4"); code != 0 {
		t.Fatalf("inspection: exit %d, %s", code, errs)
	}
	if code, errs := check("note.inspection"); code != 14 || !strings.Contains(errs, "CKO_DATA") {
		t.Errorf("with an object that the record does not know: exit %d, %s", code, errs)
	}
	if code, _, _ := open("bind-report.yaml", "inspect", "--out", "work.inspection", "--signer", "witness1.key", "--signer-fd", "4"); code != 16 {
		t.Errorf("a second inspection over the first: exit %d", code)
	}
	signer = "conductor"
	if code, _, errs := open("bind-report.yaml", "inspect", "--out", "conductor.inspection", "--signer", "conductor.key", "--signer-fd", "4"); code != 0 {
		t.Fatalf("inspection: exit %d, %s", code, errs)
	}
	if code, errs := check("conductor.inspection"); code != 14 {
		t.Errorf("an inspection by the conductor, who is no witness: exit %d, %s", code, errs)
	}
	code, out, errs = open("bind-report.yaml", "inspect")
	if code != 0 || strings.Contains(out, "admission-") {
		t.Errorf("its report: exit %d, %s, throw-away keys left: %v", code, errs, strings.Contains(out, "admission-"))
	}
	file, err := os.ReadFile(h.path("work.admission"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "work.admission", strings.Replace(string(file), `"sig":"`, `"sig":"AAAA`, 1))
	code, out, errs = open("bind-report.yaml", "inspect")
	refused("altered", code, out, errs, "work.admission")
	// Another configuration of the module than the one that was attacked.
	h.write(t, "work.admission", string(file))
	conf, err := os.ReadFile(h.env.Conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.env.Conf, []byte(string(conf)+"slots.removable = true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs = open("bind-report.yaml", "inspect")
	refused("another configuration", code, out, errs, "softhsm2.conf")
}
