package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/lines"
)

// guide is the page that leads a company to its first live genesis.
const guide = "../../docs/operations/first-ceremony.md"

// guideCommands are the indented lines of the page, in its order.
func guideCommands(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "    ") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// playedElsewhere are the commands of the guide that need live people at a
// terminal, or a token that was left in the middle, each with the test of this
// package that plays it.
func playedElsewhere() map[string]string {
	return map[string]string{
		`^keyrite person new conductor --out people$`:                    "TestLiveGenesis",
		`^keyrite ceremony new genesis .*--title "Genesis of the plant"`: "TestLiveGenesis",
		`^keyrite ceremony rehearse genesis.yaml `:                       "TestLiveGenesis",
		`^keyrite ceremony run genesis.yaml `:                            "TestLiveGenesis",
		`^keyrite-verify (record|cosign) genesis `:                       "TestLiveGenesis",
		`^keyrite ceremony recover `:                                     "TestKilledCeremony",
	}
}

// Every command of the guide runs as it stands there, in its order, in one
// folder. Only what a person would type is given by files instead: passphrases,
// the answers of the rehearsal, and the lines of a share read from its paper.
func TestFirstCeremonyGuide(t *testing.T) {
	h := newHouse(t)
	for _, d := range []string{"people", "requests", "keys"} {
		if err := os.Mkdir(h.path(d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	base := strings.NewReplacer("{person: ", "{person: people/", "key: ", "key: people/", houseWorld, "rehearsal:spring2027").Replace(mustRead(t, h.path("bind-base.yaml")))
	h.write(t, "bind.yaml", base+"shares: shares\n")
	commands := guideCommands(t)
	if len(commands) < 20 {
		t.Fatalf("the guide has only %d commands", len(commands))
	}
	for _, c := range commands {
		if strings.HasPrefix(c, "keyrite person new") && strings.Contains(c, "--rehearsal") {
			for _, n := range h.names {
				h.shell(t, strings.Replace(c, "conductor", n, 1)+" --passphrase-fd 3 3<"+n+".pass", 0)
			}
			continue
		}
		if where := elsewhere(c); where != "" {
			h.checkTest(t, c, where)
			continue
		}
		want := 0
		switch {
		case strings.HasPrefix(c, "keyrite ceremony rehearse"):
			c += " --answers answers.yaml"
		case strings.HasPrefix(c, "keyrite-verify record"):
			want = 10 // the witness who is elsewhere has yet to cosign
		case strings.HasPrefix(c, "keyrite-verify cosign"):
			c += " --passphrase-fd 3 3<witness2.pass"
		case strings.HasPrefix(c, "keyrite share check"), strings.HasPrefix(c, "keyrite share prove"):
			c += " --passphrase-fd 3 3<master1.pass"
		case strings.HasPrefix(c, "keyrite share read"):
			h.typeShare(t)
		}
		h.shell(t, c, want)
	}
	// The share proofs and all the rest left the record as it was, and it is whole now.
	h.shell(t, "keyrite-verify record record --anchor record/outputs/anchors.json", 0)
	for _, f := range []string{"practice.html", "kit/index.html", "record/report.html", "master1.html"} {
		if info, err := os.Stat(h.path(f)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v", f, err)
		}
	}
	// The sheets that people take home have the words of the very anchors.
	a, err := anchor.Parse([]byte(mustRead(t, h.path("record/outputs/anchors.json"))))
	if err != nil {
		t.Fatal(err)
	}
	words, err := a.Words()
	if err != nil {
		t.Fatal(err)
	}
	sheets, err := filepath.Glob(h.path("record/outputs/page-*.html"))
	if err != nil || len(sheets) != 1 {
		t.Fatalf("sheets of the anchors' words: %v, %v", sheets, err)
	}
	for w := range strings.FieldsSeq(words) {
		if n := strings.Count(mustRead(t, sheets[0]), "<span>"+w+"</span>"); n < len(h.names) {
			t.Errorf("%s stands %d times on the sheets of %d people", w, n, len(h.names))
		}
	}
	if mustRead(t, h.path("copy.share")) != mustRead(t, h.path("shares/root/master1.share")) {
		t.Error("the share from paper is another one")
	}
}

func elsewhere(command string) string {
	for re, test := range playedElsewhere() {
		if regexp.MustCompile(re).MatchString(command) {
			return test
		}
	}
	return ""
}

// shell runs one line as a person would, with the programs in the path.
func (h *house) shell(t *testing.T, line string, want int) {
	t.Helper()
	line = strings.ReplaceAll(line, "/usr/lib/softhsm/libsofthsm2.so", h.env.Config.Module)
	c := exec.CommandContext(t.Context(), "bash", "-c", line)
	c.Dir = h.dir
	c.Env = []string{"PATH=" + h.path("bin") + ":/usr/bin:/bin", "SOFTHSM2_CONF=" + h.env.Conf, "HOME=" + h.dir}
	if out, _ := c.CombinedOutput(); c.ProcessState.ExitCode() != want {
		t.Fatalf("%s\nexit %d, want %d\n%.2000s", line, c.ProcessState.ExitCode(), want, out)
	}
}

// typeShare writes the lines of the share as somebody types them from paper.
func (h *house) typeShare(t *testing.T) {
	t.Helper()
	typed, err := lines.Of([]byte(mustRead(t, h.path("shares/root/master1.share"))))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "lines.txt", strings.ToLower(strings.Join(typed, "\n")))
}

// checkTest says whether a command is played by a test that exists.
func (h *house) checkTest(t *testing.T, command, name string) {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if strings.Contains(mustRead(t, f), "\nfunc "+name+"(") {
			return
		}
	}
	t.Errorf("%s: there is no test %s", command, name)
}
