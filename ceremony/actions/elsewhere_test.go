package actions

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/lines"
	"keyrite/artifact/record"
	"keyrite/artifact/signrequest"
	"keyrite/ceremony"
)

// far is a ceremony with witness1 on another machine: he says which documents he
// saw before ARMED, and the ceremony breaks for lunch after it.
type far struct {
	*house
	t     *testing.T
	scene scene
}

func newFar(t *testing.T) *far {
	t.Helper()
	h := newHouse(t)
	base, err := os.ReadFile(h.path("bind.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "bind.yaml", []byte(strings.Replace(string(base), "key: witness1.key", "elsewhere: medium", 1)))
	if err := os.Mkdir(h.path("medium"), 0o700); err != nil {
		t.Fatal(err)
	}
	return &far{house: h, t: t, scene: scene{
		head: anyEnvironment,
		summon: `  - {id: "1.1", do: people.identify, title: Who, limit: 1m}
  - {id: "1.2", do: documents.see, title: Documents, limit: 1m}`,
		run: `  - {id: "2.1", do: break, title: Lunch, limit: 1m}`,
	}}
}

// request is the newest one on the medium, and where it is without .request.
func (f *far) request() (*signrequest.Request, string) {
	f.t.Helper()
	list, err := filepath.Glob(f.path("medium/witness1-*.request"))
	if err != nil || len(list) == 0 {
		f.t.Fatalf("no request: %v", err)
	}
	data, err := os.ReadFile(list[len(list)-1])
	if err != nil {
		f.t.Fatal(err)
	}
	r, err := signrequest.Parse(data)
	if err != nil {
		f.t.Fatal(err)
	}
	return r, strings.TrimSuffix(list[len(list)-1], ".request")
}

// signed is what name's own machine makes of a request to witness1.
func (f *far) signed(name string, r *signrequest.Request) *signrequest.Answer {
	f.t.Helper()
	own := *r
	own.Name = name
	a, err := signrequest.Sign(&own, f.people[name], time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	if a.Request, err = r.ID(); err != nil {
		f.t.Fatal(err)
	}
	a.Name = r.Name
	return a
}

func (f *far) bring(base string, a *signrequest.Answer) {
	f.t.Helper()
	b, err := a.Marshal()
	if err != nil {
		f.t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(base+".tmp", b, 0o600), os.Rename(base+".tmp", base+".answer")); err != nil {
		f.t.Fatal(err)
	}
}

// wait is a room in which nobody answers for who is elsewhere.
func wait(ctx context.Context, _ ceremony.Prompt) (string, *ceremony.Call, error) {
	<-ctx.Done()
	return "", nil, ctx.Err()
}

func (f *far) play() (string, error) { return f.house.play(f.t, &f.scene) }

// closed wants the ceremony to have gone to its end (a scene makes no keys, so that
// its record cannot verify) with witness1's signature in it.
func (f *far) closed(misses int) {
	f.t.Helper()
	dir, err := f.play()
	if err != nil {
		f.t.Fatal(err)
	}
	if n := len(types(f.t, dir, "miss")); n != misses {
		f.t.Errorf("%d misses are recorded", n)
	}
	if n := len(types(f.t, dir, "documents")); n != 1 {
		f.t.Errorf("%d documents", n)
	}
}

// His answer comes as a file; the room hears the words that he compares, and a sheet
// to print lies beside the request.
func TestElsewhereByFile(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	f.scene.seat.free = func(ctx context.Context, p ceremony.Prompt) (string, *ceremony.Call, error) {
		r, base := f.request()
		f.bring(base, f.signed("witness1", r))
		return wait(ctx, p)
	}
	f.closed(0)
	r, base := f.request()
	_, words := r.Digest()
	if !slices.ContainsFunc(f.scene.seat.said, func(s string) bool {
		return strings.Contains(s, "witness1 signs elsewhere") && strings.Contains(s, words)
	}) {
		t.Errorf("the room heard %q", f.scene.seat.said)
	}
	if sheet, err := os.ReadFile(base + ".html"); err != nil || !strings.Contains(string(sheet), "witness1 is asked to sign") {
		t.Errorf("the sheet: %v", err)
	}
}

// Without a medium: the request is read off the screen as a code, and the answer is
// typed line by line. A line that was misread costs nothing but typing it again.
func TestElsewhereTyped(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	var typed []string
	f.scene.seat.page = func(code string, rows []string) {
		r, err := signrequest.Read([]byte(code)) // the scanner gives the file
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(rows, func(s string) bool { return strings.HasPrefix(s, "00 ") })
		if again, err := signrequest.Read([]byte(strings.Join(rows[max(i, 0):], "\n"))); err != nil || again.Name != "witness1" {
			t.Errorf("the request in lines: %v", err)
		}
		if typed, err = f.signed("witness1", r).Lines(); err != nil {
			t.Fatal(err)
		}
		typed = append([]string{"what?", strings.Replace(typed[0], " ", " B", 1)}, typed...)
	}
	f.scene.seat.free = func(_ context.Context, p ceremony.Prompt) (string, *ceremony.Call, error) {
		if len(typed) == 0 {
			return p.Want[1], nil, nil // show; once for what he saw, once to cosign
		}
		a := typed[0]
		typed = typed[1:]
		return strings.ToLower(a), nil, nil
	}
	f.closed(0)
	if !slices.ContainsFunc(f.scene.seat.said, func(s string) bool { return strings.Contains(s, "line 00 has 49 characters, not 48") }) {
		t.Errorf("the room heard %q", f.scene.seat.said)
	}
}

// A scanner gives all lines at once, as a keyboard would.
func TestElsewhereScanned(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	f.scene.seat.free = func(context.Context, ceremony.Prompt) (string, *ceremony.Call, error) {
		r, _ := f.request()
		code, err := f.signed("witness1", r).Code()
		return code, nil, err
	}
	f.closed(0)
}

// old is his good answer to a request of an earlier attempt, by the same name.
func (f *far) old(r *signrequest.Request) *signrequest.Answer {
	f.t.Helper()
	before, err := signrequest.New(f.people["witness1"].Public(), r.Asks, r.Message, time.Now(), time.Minute)
	if err != nil {
		f.t.Fatal(err)
	}
	return f.signed("witness1", before)
}

// The answer of another attempt, or of somebody else, is a planned miss, by file and
// typed; the right one goes on.
func TestElsewhereWrongAnswers(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	n := 0
	f.scene.seat.free = func(ctx context.Context, p ceremony.Prompt) (string, *ceremony.Call, error) {
		r, base := f.request()
		switch n++; n {
		case 1:
			f.bring(base, f.old(r))
			return wait(ctx, p) // until the file was judged
		case 2:
			code, err := f.signed("witness2", r).Code()
			return code, nil, err
		}
		f.bring(base, f.signed("witness1", r))
		return wait(ctx, p)
	}
	f.closed(2)
	for _, want := range []string{"not an answer to this request", "signature", "which names this ceremony"} {
		if !slices.ContainsFunc(f.scene.seat.said, func(s string) bool { return strings.Contains(s, want) }) {
			t.Errorf("%q was not said: %q", want, f.scene.seat.said)
		}
	}
}

// As often as the step allows and no oftener.
func TestElsewhereTriesEnd(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	f.scene.seat.free = func(context.Context, ceremony.Prompt) (string, *ceremony.Call, error) {
		r, _ := f.request()
		code, err := f.old(r).Code()
		return code, nil, err
	}
	if _, err := f.play(); fault.ClassOf(err) != fault.Verify || !errors.Is(err, signrequest.ErrAnswer) || !strings.Contains(err.Error(), "3 times") {
		t.Errorf("got %v", err)
	}
}

// Half an answer on a slow medium is no miss; what stays wrong is judged once.
func TestElsewhereHalfAFile(t *testing.T) {
	t.Parallel()
	f := newFar(t)
	p := f.people["witness1"].Public()
	payload, err := jcs.Marshal(record.IncidentCall{Format: "keyrite/incident/v1", Reason: "test", Record: "0123456789abcdef", World: testWorld})
	if err != nil {
		t.Fatal(err)
	}
	r, err := signrequest.New(p, "test", envelope.PAE(record.IncidentType, payload), time.Now(), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	a := &errand{e: &elsewhere{person: p}, q: r, base: f.path("medium/x"), typed: &lines.Sheet{}}
	good, err := f.signed("witness1", r).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	look := func(what string, content []byte, times int, judged bool) {
		t.Helper()
		f.write(t, "medium/x.answer", content)
		for range times - 1 {
			if a.look() != nil {
				t.Fatalf("%s: judged too early", what)
			}
		}
		if got := a.look() != nil; got != judged {
			t.Fatalf("%s: judged %v", what, got)
		}
	}
	look("nothing yet", nil, 9, false)
	look("a third", good[:len(good)/3], answerStill-1, false)
	look("a half", good[:len(good)/2], answerStill-1, false)
	look("half of it for good", good[:len(good)/2], 1, true)
	look("the same again", good[:len(good)/2], 9, false)
	look("all of it", good, 1, true)
}

// A time limit, Ctrl-C before ARMED, and a folder that is not there end the wait at
// once and leave no verb that hangs.
func TestElsewhereWaitEnds(t *testing.T) {
	t.Run("time limit", func(t *testing.T) {
		f := newFar(t)
		f.scene.summon = strings.Replace(f.scene.summon, "title: Documents, limit: 1m", "title: Documents, limit: 2s", 1)
		f.scene.seat.free = wait
		if _, err := f.play(); fault.ClassOf(err) != fault.Unreachable || !strings.Contains(err.Error(), "the time limit passed") || strings.Contains(err.Error(), "hangs") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("interrupt", func(t *testing.T) {
		f := newFar(t)
		f.scene.interrupt = make(chan os.Signal, 1)
		f.scene.seat.free = func(ctx context.Context, p ceremony.Prompt) (string, *ceremony.Call, error) {
			f.scene.interrupt <- syscall.SIGINT
			return wait(ctx, p)
		}
		if _, err := f.play(); fault.ClassOf(err) != fault.Interrupted || strings.Contains(err.Error(), "hangs") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no folder", func(t *testing.T) {
		f := newFar(t)
		if err := os.Remove(f.path("medium")); err != nil {
			t.Fatal(err)
		}
		if _, err := f.play(); fault.ClassOf(err) != fault.Usage || !strings.Contains(fault.HintOf(err), "mount the medium") {
			t.Errorf("got %v, hint %q", err, fault.HintOf(err))
		}
	})
}

// Somebody in the room calls an incident instead of bringing the answer, and
// witness1, who is elsewhere, calls one himself: it is void either way, signed if
// his answer comes, and unsigned if the room says that it does not.
func TestElsewhereIncident(t *testing.T) {
	t.Parallel()
	begin := func(p ceremony.Prompt) (string, *ceremony.Call) {
		if p.Text == "Begin step 2.1?" {
			return "", &ceremony.Call{By: "witness1", Reason: "I do not see the room any more"}
		}
		return "", nil
	}
	for name, answers := range map[string]bool{"signed": true, "unsigned": false} {
		t.Run(name, func(t *testing.T) {
			f := newFar(t)
			f.scene.seat.ask = begin
			f.scene.seat.free = func(ctx context.Context, p ceremony.Prompt) (string, *ceremony.Call, error) {
				r, base := f.request()
				if shown, err := r.Show(); err != nil || shown.Purpose != signrequest.Incident || answers {
					f.bring(base, f.signed("witness1", r))
					return wait(ctx, p)
				}
				return sayUnsigned, nil, nil
			}
			dir, err := f.play()
			if fault.ClassOf(err) != fault.Void || !errors.Is(err, ceremony.ErrIncident) {
				t.Fatalf("got %v", err)
			}
			list := types(t, dir, "incident")
			if len(list) != 1 || list[0].Data["by"] != "witness1" || (list[0].Data["envelope"] != nil) != answers {
				t.Errorf("recorded: %v", list)
			}
		})
	}
	t.Run("by the room", func(t *testing.T) {
		f := newFar(t)
		f.scene.seat.free = func(context.Context, ceremony.Prompt) (string, *ceremony.Call, error) {
			return "", &ceremony.Call{By: "conductor", Reason: "the medium is gone"}, nil
		}
		dir, err := f.play()
		if !errors.Is(err, ceremony.ErrIncident) {
			t.Errorf("got %v", err)
		}
		if list := types(t, dir, "incident"); len(list) != 1 || list[0].Data["by"] != "conductor" || list[0].Data["envelope"] == nil {
			t.Errorf("recorded: %v", list)
		}
	})
}
