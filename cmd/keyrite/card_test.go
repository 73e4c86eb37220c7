package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"keyrite/artifact/lines"
	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
	"keyrite/internal/cli"
)

// card replaces a person of the house by one whose keys are on a card or token.
func (h *house) card(t *testing.T, name, module string, id hsm.TokenID, pin string, extra ...string) {
	t.Helper()
	for _, suffix := range []string{".person", ".key", ".pass"} {
		if err := os.Remove(h.path(name + suffix)); err != nil {
			t.Fatal(err)
		}
	}
	h.write(t, name+".pass", pin+"\n")
	args := append([]string{
		"person", "new", name, "--out", ".", "--rehearsal", strings.TrimPrefix(houseWorld, "rehearsal:"), "--module", module,
		"--token", id.Label + "/" + id.Serial, "--key", "02", "--secrets-key", "03", "--passphrase-fd", "3",
	}, extra...)
	code, out, errs := h.withPass(t, []string{name}, args...)
	if code != 0 || !strings.Contains(out, name+".card") {
		t.Fatalf("person new: exit %d, %s%s", code, out, errs)
	}
	base, err := os.ReadFile(h.path("bind-base.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "bind-base.yaml", strings.Replace(string(base), "key: "+name+".key", "token: "+name+".card", 1))
}

// withPass runs a command with the passphrases or PINs of names on descriptor 3.
func (h *house) withPass(t *testing.T, names []string, args ...string) (int, string, string) {
	t.Helper()
	cmd := h.command(args...)
	var lines string
	for _, n := range names {
		b, err := os.ReadFile(h.path(n + ".pass"))
		if err != nil {
			t.Fatal(err)
		}
		lines += string(b)
	}
	return runLines(t, cmd, lines)
}

func runLines(t *testing.T, cmd *exec.Cmd, lines string) (int, string, string) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString(lines); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	cmd.ExtraFiles = []*os.File{r}
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit code is looked at
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// master5's keys are in a SoftHSM token, witness1's on a PIV card under OpenSC; a
// genesis goes through with them, its record verifies, master5's share opens with
// his token, and wrong PINs are not given twice (issue 3 item 7).
func TestGenesisWithCards(t *testing.T) {
	h := newHouse(t)
	token := h.personToken(t)
	h.card(t, "master5", h.env.Config.Module, token, "master five", "--make")
	reader := hsmtest.NewCardReader(t)
	piv := hsmtest.NewPIVCard(t)
	reader.Insert(t, piv)
	h.extra = reader.Config.Env
	sup, err := hsm.Start(t.Context(), reader.Config)
	if err != nil {
		t.Fatal(err)
	}
	id := reader.Token(t, sup)
	_ = sup.Close()
	h.card(t, "witness1", reader.Config.Module, id, hsmtest.PIVPIN)

	h.signElsewhere(t, "approver2")
	args := h.attempt(t, "cards", "answers.yaml")
	if code, out, errs := h.run(t, args...); code != 0 || !strings.HasPrefix(out, "CLOSED") {
		t.Fatalf("rehearse: exit %d, %s%s", code, out, errs)
	}
	if piv.Signed == 0 || piv.Wrong != 0 {
		t.Errorf("the card made %d signatures and saw %d wrong PINs", piv.Signed, piv.Wrong)
	}
	anchors := "record-cards/outputs/anchors.json"
	h.cosignByRequest(t, "witness2", anchors)
	if code, out, errs := h.run(t, "keyrite-verify", "record", "record-cards", "--anchor", anchors); code != 0 {
		t.Fatalf("verify: exit %d, %s%s", code, out, errs)
	}
	t.Run("share check", func(t *testing.T) {
		check := []string{"share", "check", "--safe", "work", "--anchor", anchors, "--charter", "record-cards/outputs/charter.jsonl", "--passphrase-fd", "3"}
		for _, n := range []string{"master5.card", "master1.key"} {
			check = append(check, "--opener", n+":shares-cards/work/"+strings.Split(n, ".")[0]+".share")
		}
		if code, out, errs := h.withPass(t, []string{"master5", "master1"}, check...); code != 0 || !strings.Contains(out, "master5 holds a good share") {
			t.Errorf("exit %d, %s%s", code, out, errs)
		}
		h.paperCheck(t, check[:10])
		if code, _, errs := runLines(t, h.command(check...), "wrong\nwrong\n"); code != 12 || !strings.Contains(errs, "refused the PIN") {
			t.Errorf("wrong PIN: exit %d, %s", code, errs)
		}
	})
	t.Run("shares alive", func(t *testing.T) { h.aliveness(t, anchors) })
	t.Run("no plain share", func(t *testing.T) { h.noPlainShare(t, anchors) })
	t.Run("wrong PIN of the card", func(t *testing.T) {
		args := []string{
			"person", "new", "witness1", "--out", "other", "--rehearsal", strings.TrimPrefix(houseWorld, "rehearsal:"), "--module", reader.Config.Module,
			"--token", id.Label + "/" + id.Serial, "--key", "02", "--secrets-key", "03", "--passphrase-fd", "3",
		}
		if err := os.Mkdir(h.path("other"), 0o700); err != nil {
			t.Fatal(err)
		}
		if code, _, errs := runLines(t, h.command(args...), "999999\n"); code != 12 || piv.Wrong != 1 || strings.Contains(errs, "999999") {
			t.Errorf("exit %d, %d wrong PINs, %s", code, piv.Wrong, errs)
		}
		if code, out, errs := h.withPass(t, []string{"witness1"}, args...); code != 0 {
			t.Errorf("exit %d, %s%s", code, out, errs)
		}
		a, _ := os.ReadFile(h.path("witness1.person"))
		b, _ := os.ReadFile(h.path("other/witness1.person"))
		if string(a) != string(b) {
			t.Errorf("the same card gives another person: %s, %s", a, b)
		}
	})
}

// personToken initialises a token of its owner, who knows its PIN.
func (h *house) personToken(t *testing.T) hsm.TokenID {
	t.Helper()
	cmd := exec.Command("softhsm2-util", "--init-token", "--free", "--label", "master5", "--so-pin", "officer5", "--pin", "master five")
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+h.env.Conf)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sup, err := hsm.Start(t.Context(), h.env.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer sup.Close()
	id, err := sup.Find(t.Context(), "master5")
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// aliveness has two holders of the record "cards" prove their shares, one of them
// with his token, and looks at what the challenger and the status say.
func (h *house) aliveness(t *testing.T, anchors string) {
	t.Helper()
	trust := []string{"--anchor", anchors, "--charter", "charter.jsonl"}
	line, err := os.ReadFile(h.path("record-cards/outputs/charter.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "charter.jsonl", string(line))
	expect := func(want int, text string, args ...string) {
		t.Helper()
		if code, out, errs := h.run(t, args...); code != want || !strings.Contains(out+errs, text) {
			t.Errorf("%s: exit %d, want %d, %s%s", strings.Join(args[:2], " "), code, want, out, errs)
		}
	}
	with := func(args ...string) []string { return append(args, trust...) }
	expect(0, "asks the holders of safe work", with("share", "challenge", "--safe", "work", "--purpose", "spring check", "--out", "spring.challenge")...)
	expect(2, "7 days", with("share", "challenge", "--safe", "work", "--purpose", "x", "--valid", "200h", "--out", "long.challenge")...)
	expect(13, "no safe", with("share", "challenge", "--safe", "attic", "--purpose", "x", "--out", "attic.challenge")...)
	expect(16, "exists", with("share", "challenge", "--safe", "work", "--purpose", "x", "--out", "spring.challenge")...)
	for _, x := range [][2]string{{"master5", "card"}, {"master1", "key"}} {
		args := with("share", "prove", "spring.challenge", "--opener", x[0]+"."+x[1]+":shares-cards/work/"+x[0]+".share", "--passphrase-fd", "3", "--out", x[0]+".proof")
		if code, out, errs := h.withPass(t, x[:1], args...); code != 0 || !strings.Contains(errs, "spring check") {
			t.Errorf("prove: exit %d, %s%s", code, out, errs)
		}
	}
	swapped := with("share", "prove", "spring.challenge", "--opener", "master1.key:shares-cards/work/master2.share", "--passphrase-fd", "3", "--out", "swapped.proof")
	if code, _, errs := h.withPass(t, []string{"master1"}, swapped...); code != 14 {
		t.Errorf("another's share: exit %d, %s", code, errs)
	}
	if _, err := os.Stat(h.path("swapped.proof")); err == nil {
		t.Error("a failed proof left a file")
	}
	expect(13, "no challenge of this ledger", with("keyrite-verify", "share-proof", "master1.proof", "--ledger", "elsewhere.proofs")...)
	expect(0, "master5 proved the share of safe work", with("keyrite-verify", "share-proof", "master1.proof", "master5.proof")...)
	expect(13, "accepted before", with("keyrite-verify", "share-proof", "master5.proof")...)
	expect(0, "master5 proved", with("keyrite-verify", "share-proof", "master5.proof", "--ledger", "elsewhere.proofs", "--challenge", "spring.challenge")...)
	expect(0, "safe work, epoch 1: 5 of 5 shares alive, last today; 3 open it", "ceremony", "status", "--record", "record-cards", "--charter", "charter.jsonl")
}

// signElsewhere has that person sign on another machine from now on: whatever
// request appears in the folder "medium" is answered there.
func (h *house) signElsewhere(t *testing.T, name string) {
	t.Helper()
	if err := os.Mkdir(h.path("medium"), 0o700); err != nil {
		t.Fatal(err)
	}
	base, err := os.ReadFile(h.path("bind-base.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "bind-base.yaml", strings.Replace(string(base), "key: "+name+".key", "elsewhere: medium", 1))
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { done <- n }()
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
			}
			found, err := filepath.Glob(h.path(fmt.Sprintf("medium/%s-*-%d.request", name, n+1)))
			if err != nil || len(found) != 1 {
				continue
			}
			next := strings.TrimSuffix(found[0], ".request")
			n++
			if code, out, errs := h.withPass(t, []string{name}, "person", "sign", next+".request", "--key", name+".key", "--out", next+".answer", "--passphrase-fd", "3"); code != 0 || !strings.Contains(errs, "in words: ") {
				t.Errorf("person sign: exit %d, %s%s", code, out, errs)
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		if n := <-done; n < 3 {
			t.Errorf("%s was asked %d times", name, n)
		}
	})
}

// cosignByRequest cosigns with the key on another machine than the record.
func (h *house) cosignByRequest(t *testing.T, name, anchors string) {
	t.Helper()
	if code, out, errs := h.run(t, "keyrite-verify", "cosign", "record-cards", "--anchor", anchors, "--request-for", name, "--request", "1.request"); code != 0 {
		t.Fatalf("request: exit %d, %s%s", code, out, errs)
	}
	if code, _, errs := h.withPass(t, []string{"witness1"}, "person", "sign", "1.request", "--key", "witness1.card", "--out", "x.answer", "--passphrase-fd", "3"); code != 13 {
		t.Errorf("answered by another: exit %d, %s", code, errs)
	}
	code, out, errs := h.withPass(t, []string{name}, "person", "sign", "1.request", "--key", name+".key", "--out", "1.answer", "--passphrase-fd", "3")
	if code != 0 || !strings.Contains(errs, "You cosign the log keyrite/record/") {
		t.Fatalf("sign: exit %d, %s%s", code, out, errs)
	}
	args := []string{"keyrite-verify", "cosign", "record-cards", "--anchor", anchors, "--request", "1.request", "--signature", "1.answer"}
	if code, out, errs := h.run(t, args...); code != 0 || !strings.Contains(out, name+" cosigned") {
		t.Fatalf("cosign: exit %d, %s%s", code, out, errs)
	}
	if code, _, errs := h.run(t, args...); code != 16 {
		t.Errorf("cosigned twice: exit %d, %s", code, errs)
	}
}

// noPlainShare decrypts a share outside keyrite and looks whether any command takes
// it so, says that it would, or wrote it anywhere (issue 3 item 6).
func (h *house) noPlainShare(t *testing.T, anchors string) {
	t.Helper()
	sealed, err := os.ReadFile(h.path("shares-cards/work/master1.share"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(sealed), h.people["master1"].Identity())
	if err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer
	if _, err := plain.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	var file struct{ Share []byte }
	if err := json.Unmarshal(plain.Bytes(), &file); err != nil || len(file.Share) != 33 {
		t.Fatalf("%d bytes, %v", len(file.Share), err)
	}
	forms := map[string]string{"json": plain.String(), "raw": string(file.Share), "hex": hex.EncodeToString(file.Share) + "\n", "base64": base64.StdEncoding.EncodeToString(file.Share) + "\n"}
	h.noneWritten(t, forms)
	trust := []string{"--anchor", anchors, "--charter", "charter.jsonl", "--passphrase-fd", "3"}
	for form, text := range forms {
		h.write(t, "plain", text)
		for _, args := range [][]string{
			append([]string{"share", "check", "--safe", "work", "--opener", "master1.key:plain"}, trust...),
			append([]string{"share", "prove", "spring.challenge", "--opener", "master1.key:plain", "--out", "plain.out"}, trust...),
			{"share", "print", "plain", "--out", "plain.out"},
			{"share", "read", "plain", "--out", "plain.out"},
		} {
			code, out, errs := h.withPass(t, []string{"master1"}, args...)
			if code == 0 || out != "" || strings.Contains(errs, strings.TrimSpace(forms["base64"])) {
				t.Errorf("%s, %s: exit %d, %s%s", args[1], form, code, out, errs)
			}
			if _, err := os.Lstat(h.path("plain.out")); err == nil {
				t.Errorf("%s, %s: a file is left", args[1], form)
			}
		}
	}
	_ = os.Remove(h.path("plain"))
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		help := c.Short + c.Long + c.UsageString()
		for _, word := range []string{"plain share", "raw share", "share in the clear", "unencrypted share", "print-share", "show-share"} {
			if strings.Contains(strings.ToLower(help), word) {
				t.Errorf("the help of %q says %q", c.CommandPath(), word)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot(cli.Std()))
}

// noneWritten looks for the share in everything that the ceremony left.
func (h *house) noneWritten(t *testing.T, forms map[string]string) {
	t.Helper()
	err := filepath.WalkDir(h.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		for form, text := range forms {
			if bytes.Contains(data, []byte(strings.TrimSpace(text))) {
				t.Errorf("%s holds the share as %s", path, form)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// paperCheck checks a share from its lines on paper, and with one line misread.
func (h *house) paperCheck(t *testing.T, check []string) {
	t.Helper()
	file, err := os.ReadFile(h.path("shares-cards/work/master2.share"))
	if err != nil {
		t.Fatal(err)
	}
	typed, err := lines.Of(file)
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "paper.txt", strings.Join(typed, "\n")+"\n")
	check = append(slices.Clip(check), "--opener", "master2.key:paper.txt")
	if code, out, errs := h.withPass(t, []string{"master2"}, check...); code != 0 || !strings.Contains(out, "master2 holds a good share") {
		t.Errorf("from paper: exit %d, %s%s", code, out, errs)
	}
	b := []byte(typed[3])
	if b[4]++; b[4] > 'Z' || b[4] < 'A' {
		b[4] = 'A'
	}
	typed[3] = string(b)
	h.write(t, "paper.txt", strings.Join(typed, "\n")+"\n")
	if code, _, errs := h.withPass(t, []string{"master2"}, check...); code != 14 || !strings.Contains(errs, "line 03") {
		t.Errorf("misread: exit %d, %s", code, errs)
	}
}
