package console

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/ceremony"
	"keyrite/ceremony/script"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// scene is a moment of a ceremony with fixed ids and a fixed clock.
func scene() *model {
	m := &model{
		view: ceremony.View{Title: "Genesis of the plant in Basel", Kind: "genesis", Record: "00112233445566ff", World: "rehearsal:abcdefgh", State: "RUNNING", Entries: 86, Root: strings.Repeat("5ca1ab1e", 8)},
		step: &script.Step{ID: "3.4", Do: "shares.receipts", Safe: "root", Title: "Receipts", Say: "Each key master reads the share back from the medium and signs for it.", Limit: time.Hour},
		n:    7, of: 40, phase: "run",
		ends:  noon.Add(47*time.Minute + 12*time.Second),
		count: &ceremony.Count{What: "receipts", Done: []string{"master1", "master2"}, Need: 5, Of: 5},
	}
	m.say("good", "token abc-root of SoftHSM v2 admitted")
	m.say("", "share 5 of 5 for master5")
	m.say("good", "master1 has the share of safe root")
	m.say("good", "master2 has the share of safe root")
	m.say("bad", "master3: wrong passphrase")
	m.q = &question{kind: askSecret, who: "master3", text: "type the passphrase of your key. Nothing is shown, not even stars."}
	return m
}

// scenes are the moments that the golden files hold.
func scenes() map[string]*model {
	confirm := scene()
	confirm.q = &question{kind: askAnswer, who: "witness1", role: "witness", text: "Do you agree with step 3.4?", want: []string{"yes"}, typed: []rune("ye")}
	confirm.count = &ceremony.Count{What: "confirmations", Need: 2, Of: 2}
	works := scene()
	works.q, works.ends = nil, noon.Add(40*time.Second)
	incident := scene()
	incident.q = confirm.q
	incident.call = &dialogue{by: []rune("witness1"), at: 1, reason: []rune("the door stood open")}
	void := scene()
	void.q, void.view.State, void.end = nil, "VOID", "Enter = leave this screen"
	void.say("bad", "INVALID: incident called by witness1: the door stood open")
	void.say("bad", "VOID. Nothing of this attempt may be used.")
	closed := scene()
	closed.q, closed.view.State, closed.view.World, closed.end = nil, "CLOSED", "live", "Enter = leave this screen"
	return map[string]*model{"passphrase": scene(), "confirm": confirm, "works": works, "incident": incident, "void": void, "closed": closed, "start": {}}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update rewrites it):\n%s", path, got)
	}
}

// helperScene shows a scene on the terminal of this process until a line comes.
func helperScene(name string) error {
	s, err := OpenScreen(func() {}, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	s.change(func() {
		s.now = func() time.Time { return noon }
		s.m = *scenes()[name]
	})
	select {
	case <-s.gone:
	case <-time.After(time.Minute):
	}
	return nil
}

// helperPanic panics in this goroutine, or in the reader's at Ctrl-C.
func helperPanic(what string) error {
	s, err := OpenScreen(func() { panic("the reader fell") }, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	s.Say("", "about to fall")
	if what == "main" {
		panic("main fell")
	}
	_, _, err = s.Ask(context.Background(), ceremony.Prompt{Who: "witness1", Text: "Fall?", Want: []string{"yes"}})
	return errors.Join(err, errors.New("it did not fall"))
}

func TestMain(m *testing.M) {
	flag.Parse()
	kind, arg, ok := strings.Cut(os.Getenv("KEYRITE_CONSOLE_HELPER"), ":")
	if !ok {
		os.Exit(m.Run())
	}
	var err error
	switch kind {
	case "scene":
		err = helperScene(arg)
	case "panic":
		err = helperPanic(arg)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}
