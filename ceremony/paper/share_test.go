package paper

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/lines"
)

// sheetOfShare is a page with a file of the size of a real share.
func sheetOfShare(t *testing.T) ([]byte, []byte) {
	t.Helper()
	file := make([]byte, 459)
	rand.Read(file)
	html, err := Share(ShareSheet{World: "rehearsal:abcdefgh", Holder: hostile, Safe: "root", File: file})
	if err != nil {
		t.Fatal(err)
	}
	return html, file
}

// Printed by Chromium, scanned by a decoder that is not ours, and typed from the
// text of the print: both give the file back.
func (b *browser) checkShare(t *testing.T) {
	t.Helper()
	html, file := sheetOfShare(t)
	checkMarkup(t, "share", html)
	dir := t.TempDir()
	page := filepath.Join(dir, "share.html")
	if err := os.WriteFile(page, html, 0o600); err != nil {
		t.Fatal(err)
	}
	b.load(page)
	b.checkScreen("share.html")
	want, err := lines.Of(file)
	if err != nil {
		t.Fatal(err)
	}
	check := want[0][strings.LastIndexByte(want[0], ' ')+1:]
	sheets := b.checkPrint("share.html", "share "+check)
	if len(sheets) != 1 {
		t.Errorf("a share takes %d sheets", len(sheets))
	}
	pdf := filepath.Join(dir, "share.pdf")
	b.PDF(pdf)
	// 150 dots an inch, as a simple office scanner.
	if out, err := exec.CommandContext(t.Context(), "pdftoppm", "-r", "150", "-png", "-singlefile", pdf, filepath.Join(dir, "share")).CombinedOutput(); err != nil {
		t.Fatalf("pdftoppm: %v: %s", err, out)
	}
	scanned, err := exec.CommandContext(t.Context(), "zbarimg", "--quiet", "--raw", filepath.Join(dir, "share.png")).Output()
	if err != nil {
		t.Fatalf("zbarimg: %v", err)
	}
	if got, err := lines.Parse(string(scanned)); err != nil || !bytes.Equal(got, file) {
		t.Errorf("scanned: %v", err)
	}
	var typed []string
	for l := range strings.SplitSeq(sheets[0], "\n") {
		if l, ok := strings.CutSuffix(strings.TrimSpace(l), "☐"); ok && strings.Count(l, " ") >= 9 {
			typed = append(typed, l)
		}
	}
	if got, err := lines.Parse(strings.Join(typed, "\n")); err != nil || !bytes.Equal(got, file) {
		t.Errorf("typed: %v: %q", err, typed)
	}
}
