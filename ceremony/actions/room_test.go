package actions

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/console"
	"keyrite/ceremony/script"
	"keyrite/internal/redact"
	"keyrite/vault/quorum"
)

// seat is a console whose people answer as the test says, else as prepared.
type seat struct {
	*console.Answers
	ask    func(p ceremony.Prompt) (string, *ceremony.Call)
	free   func(ctx context.Context, p ceremony.Prompt) (string, *ceremony.Call, error) // for who is not in the room
	page   func(code string, rows []string)
	secret func(who string) string
	said   []string
}

func (s *seat) Say(level, text string) {
	s.said = append(s.said, text)
	s.Answers.Say(level, text)
}

func (s *seat) Page(_ context.Context, _, code string, rows []string) error {
	s.page(code, rows)
	return nil
}

func (s *seat) Ask(ctx context.Context, p ceremony.Prompt) (string, *ceremony.Call, error) {
	if s.free != nil && p.Role == "" {
		return s.free(ctx, p)
	}
	if s.ask != nil {
		if a, c := s.ask(p); a != "" || c != nil {
			return a, c, nil
		}
	}
	return s.Answers.Ask(ctx, p)
}

func (s *seat) Secret(ctx context.Context, who string) (*redact.Secret, error) {
	if s.secret != nil {
		if text := s.secret(who); text != "" {
			return redact.New([]byte(text)), nil
		}
	}
	return s.Answers.Secret(ctx, who)
}

// scene is one attempt with these steps, which make no keys.
type scene struct {
	summon, run   string
	contingencies string
	head          string // members of the script
	bind          string // members of the binding
	seat          seat
	media         func() ([]string, error)
	interrupt     chan os.Signal
}

// play runs the scene and returns its record folder.
func (h *house) play(t *testing.T, x *scene) (string, error) {
	t.Helper()
	programs, err := Programs(h.env.Config.HSMD, h.env.Config.Module)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`format: keyrite/script/v1
kind: genesis
title: Scene
purpose: test the room
pins: {keyrite: %s, hsmd: %s, module: %s%s
roles: {conductor: 1, conductor_operates: true, key_masters: {need: 3, of: 5}, witnesses: 2, approvers: {need: 2, of: 2}}
contingencies: [%s]
summon:
%s
run:
%s
seal: []
`, programs[0].SHA256, programs[1].SHA256, programs[2].SHA256, x.head, x.contingencies, x.summon, x.run)
	s, err := script.Parse("scene.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	base, err := os.ReadFile(h.path("bind.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "bind-scene.yaml", append(base, x.bind...))
	bind := h.bind(t, "bind-scene.yaml")
	people, err := bind.Participants(s)
	if err != nil {
		t.Fatal(err)
	}
	if x.seat.Answers, err = console.LoadAnswers(h.path("answers.yaml"), console.NewLine(io.Discard, nil)); err != nil {
		t.Fatal(err)
	}
	env, err := Environment(bind)
	if err != nil {
		t.Fatal(err)
	}
	self, err := quorum.Self()
	if err != nil {
		t.Fatal(err)
	}
	acts, err := New(s, bind, self, h.env.Config.HSMD)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "record")
	_, err = ceremony.Execute(context.Background(), ceremony.Config{
		Script: s, ScriptBytes: []byte(text), BindHash: bind.Hash(), Dir: dir, World: bind.World, People: people, Programs: programs,
		Environment: env, Console: &x.seat, Clock: ceremony.SystemClock(), Actions: acts, Media: x.media, Interrupt: x.interrupt,
	})
	return dir, err
}

const anyEnvironment = "}\nenvironment: {network: any, swap: any}"

// say answers as given to the questions that contain a text, in order; the last
// answer stays.
func say(text string, answers ...string) func(p ceremony.Prompt) (string, *ceremony.Call) {
	return func(p ceremony.Prompt) (string, *ceremony.Call) {
		if !strings.Contains(p.Text, text) {
			return "", nil
		}
		a := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		return a, nil
	}
}

func types(t *testing.T, dir, typ string) []entry {
	t.Helper()
	var out []entry
	for _, e := range entries(t, dir) {
		if e.Type == typ {
			out = append(out, e)
		}
	}
	return out
}

// What people predictably do goes on, and the record says what happened: a
// passphrase mistyped twice, and once more than allowed where that is planned, a
// late person, a break, a printer that fails, a medium that cannot be read.
func TestPlannedForInTheRoom(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	const identify = `  - {id: "1.1", do: people.identify, title: Who, limit: 1m`
	for _, tt := range []struct {
		name   string
		scene  scene
		misses int
		met    []string // contingencies, in order
		void   string   // why, "" if it closes
	}{
		{"a passphrase mistyped twice", scene{summon: identify + "}", seat: seat{secret: func() func(string) string {
			n := 0
			return func(who string) string {
				if n++; who == "conductor" && n <= 2 {
					return "mistyped"
				}
				return ""
			}
		}()}}, 2, nil, ""},
		{"a passphrase mistyped more often, planned", scene{
			contingencies: "{id: calm, on: passphrase, then: again, steps: []}", summon: identify + ", planned: [calm]}",
			seat: seat{secret: func() func(string) string {
				n := 0
				return func(who string) string {
					if who == "master2" {
						if n++; n <= 3 {
							return "mistyped"
						}
					}
					return ""
				}
			}()},
		}, 3, []string{"calm"}, ""},
		{"a late person", scene{
			contingencies: `{id: wait, on: late, then: again, steps: [{id: A.1, do: paper.print, title: Wait, limit: 1m}]}`, summon: identify + ", planned: [wait]}",
			seat: seat{ask: say("Is witness1 here?", "late", "here")},
		}, 0, []string{"wait"}, ""},
		{"a break", scene{summon: identify + "}", run: `  - {id: "2.1", do: break, title: Lunch, limit: 1m}`}, 0, nil, ""},
		{"a break from which somebody comes late, planned", scene{
			contingencies: "{id: wait, on: late, then: again, steps: []}", summon: identify + "}",
			run:  `  - {id: "2.1", do: break, title: Lunch, limit: 1m, planned: [wait]}`,
			seat: seat{ask: say("after the break", "late", "here")},
		}, 0, []string{"wait"}, ""},
		{"a break from which somebody does not come back", scene{
			summon: identify + "}", run: `  - {id: "2.1", do: break, title: Lunch, limit: 1m}`,
			seat: seat{ask: say("after the break", "late")},
		}, 0, nil, "approver1 says: late"},
		{"a printer that fails twice", scene{
			contingencies: "{id: other, on: printer, then: again, steps: []}", summon: identify + "}",
			run:  `  - {id: "2.1", do: paper.print, title: Sheet, limit: 1m, planned: [other]}`,
			seat: seat{ask: say("Is the page printed?", "printer", "printer", "printed")},
		}, 0, []string{"other", "other"}, ""},
		{"a printer that fails, not planned", scene{
			summon: identify + "}", run: `  - {id: "2.1", do: paper.print, title: Sheet, limit: 1m}`,
			seat: seat{ask: say("Is the page printed?", "printer")},
		}, 0, nil, "conductor says: printer"},
		{"a medium that is not there, then is", scene{
			head: anyEnvironment + "\nmedia: [{name: disc, label: DISC 1}]", bind: "media: {disc: later}\n",
			contingencies: "{id: reinsert, on: medium, then: again, steps: []}", summon: identify + "}",
			run: `  - {id: "2.1", do: medium.in, medium: disc, title: In, limit: 1m, planned: [reinsert]}
  - {id: "2.2", do: medium.out, medium: disc, title: Out, limit: 1m}`,
			seat: seat{ask: func() func(ceremony.Prompt) (string, *ceremony.Call) {
				n := 0
				return func(p ceremony.Prompt) (string, *ceremony.Call) {
					if strings.Contains(p.Text, "DISC 1 in the drive") {
						if n++; n == 2 {
							_ = os.Mkdir(h.path("later"), 0o700)
						}
						return "in", nil
					}
					return "", nil
				}
			}()},
		}, 0, []string{"reinsert"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.scene.head == "" {
				tt.scene.head = anyEnvironment
			}
			if tt.scene.run == "" {
				tt.scene.run = "  []"
			}
			dir, err := h.play(t, &tt.scene)
			if tt.void != "" {
				if fault.ClassOf(err) != fault.Void || !strings.Contains(err.Error(), tt.void) {
					t.Errorf("got %v", err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if n := len(types(t, dir, "miss")); n != tt.misses {
				t.Errorf("%d misses are recorded", n)
			}
			var met []string
			for _, e := range types(t, dir, "contingency") {
				met = append(met, e.Data["id"].(string))
			}
			if strings.Join(met, " ") != strings.Join(tt.met, " ") {
				t.Errorf("contingencies %v", met)
			}
			if v, err := record.Read(os.DirFS(dir)); v == nil || fault.ClassOf(err) != fault.Void {
				t.Errorf("the record reads as %v", err)
			}
		})
	}
}

// A read-only medium is hashed: anybody can repeat it with sha256sum.
func TestMediumIsHashed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if err := os.MkdirAll(h.path("disc/sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	h.write(t, "disc/b", []byte("two"))
	h.write(t, "disc/sub/a", []byte("one"))
	x := &scene{
		head: anyEnvironment + "\nmedia: [{name: disc, label: DISC 1, read_only: true}]", bind: "media: {disc: disc}\n",
		summon: `  - {id: "1.1", do: medium.in, medium: disc, title: In, limit: 1m}
  - {id: "1.2", do: people.identify, title: Who, limit: 1m}
  - {id: "1.3", do: medium.out, medium: disc, title: Out, limit: 1m}`, run: "  []",
	}
	dir, err := h.play(t, x)
	if err != nil {
		t.Fatal(err)
	}
	list := types(t, dir, "medium")
	want := sha256.Sum256([]byte("b " + sum([]byte("two")) + "\nsub/a " + sum([]byte("one")) + "\n"))
	if len(list) != 2 || list[0].Data["sha256"] != hex.EncodeToString(want[:]) || list[1].Data["direction"] != "out" {
		t.Errorf("%+v", list)
	}
	if err := os.Symlink("b", h.path("disc/link")); err != nil {
		t.Fatal(err)
	}
	if _, err := h.play(t, x); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a link on the medium: %v", err)
	}
}
