package docscheck

import (
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Programs that stop reading before their input ends. The program before them
// in a pipe is then killed by SIGPIPE, or is not, as the scheduler will have
// it; under pipefail the script fails now and then, and nowhere twice.
var stopsReading = regexp.MustCompile(`\|\s*(head\b|grep\s+-[A-Za-z]*[qm]|sed\s+[^|]*\bq['"}])`)

func TestNoPipeEndsEarly(t *testing.T) {
	for line, bad := range map[string]bool{
		`sed s/a/b/ f | head -n 3`:    true,
		`cat f |grep -aqE x`:          true,
		`cat f | sed -n '1p;q'`:       true,
		`head -n 3 f | sed s/a/b/`:    false,
		`grep -q x f`:                 false,
		`cat f | grep -ac x`:          false,
		`[ -n "$(find . | sort)" ]`:   false,
		`cat f || head -n 1 g`:        false,
		`cat f | sed 's/quick/slow/'`: false,
	} {
		if got := stopsReading.MatchString(strings.ReplaceAll(line, "||", "")); got != bad {
			t.Errorf("%s: found %v, want %v", line, got, bad)
		}
	}
	files := 0
	err := filepath.WalkDir(filepath.Join(root, "scripts"), func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil || !strings.HasPrefix(string(b), "#!") && !strings.HasSuffix(name, ".sh") {
			return err
		}
		files++
		for i, line := range strings.Split(string(b), "\n") {
			if stopsReading.MatchString(strings.ReplaceAll(line, "||", "")) {
				t.Errorf("%s:%d: the last program of this pipe stops reading early, so that the one before it may die of SIGPIPE: %s", name, i+1, line)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 10 {
		t.Errorf("only %d scripts were read", files)
	}
}

// A program that was built in the root of the tree is soon committed, and then stays
// in everybody's clone.
func TestNoProgramIsCommitted(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "git", "-C", root, "ls-files", "-z").Output()
	if err != nil {
		t.Fatal(err)
	}
	files := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	for _, name := range files {
		f, err := os.Open(filepath.Join(root, name))
		if err != nil {
			continue // deleted, and not committed yet
		}
		magic := make([]byte, 4)
		if _, err := io.ReadFull(f, magic); err == nil && string(magic) == "\x7fELF" {
			t.Errorf("%s is a program", name)
		}
		f.Close()
	}
	if len(files) < 1000 {
		t.Errorf("only %d files are committed", len(files))
	}
}
