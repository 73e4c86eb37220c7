package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"keyrite/artifact/record"
	"keyrite/hsm/hsmtest"
)

// liveHouse is a house whose script was rehearsed, and live people of the same
// names, who made their keys with the program and a passphrase of their own.
type liveHouse struct {
	*house
	offline []string // what starts a program without a network
}

func newLiveHouse(t *testing.T) *liveHouse {
	t.Helper()
	h := &liveHouse{house: newHouse(t), offline: []string{"unshare", "--net", "--"}}
	if os.Geteuid() != 0 {
		h.offline = []string{"unshare", "--user", "--map-root-user", "--net", "--"}
	}
	if code, out, errs := h.run(t, "ceremony", "new", "genesis", "--module", h.env.Config.Module, "--title", "Genesis of the plant", "--break=no", "--printer=no", "--root-token", "plant-root", "--work-token", "plant-work", "--out", "plant.yaml"); code != 0 {
		t.Fatalf("new: exit %d, %s%s", code, out, errs)
	}
	base, err := os.ReadFile(h.path("bind-base.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "bind-rehearsal.yaml", string(base)+"shares: shares-rehearsal\n")
	code, text := h.offlineRun(t, "ceremony", "rehearse", "plant.yaml", "--bind", "bind-rehearsal.yaml", "--answers", "answers.yaml", "--record", "rehearsal")
	if code == 0 {
		code, text = h.cosign(t, "rehearsal", "witness2", "")
	}
	if code != 0 {
		t.Fatalf("rehearsal: exit %d, %s", code, text)
	}
	if err := os.Mkdir(h.path("live"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, n := range h.names {
		if code, text := h.withPhrase(t, n, "person", "new", n, "--out", "live", "--passphrase-fd", "3"); code != 0 {
			t.Fatalf("person new: exit %d, %s", code, text)
		}
		// The work factor of a live key is the whole one (age's default).
		if key, err := os.ReadFile(h.path("live/" + n + ".key")); err != nil || !bytes.Contains(key, []byte(" 18\n")) {
			t.Fatalf("%.80q, %v", key, err)
		}
	}
	live := strings.NewReplacer(houseWorld, "live", "{person: ", "{person: live/", "key: witness1.key", "elsewhere: medium", "key: ", "key: live/").Replace(string(base))
	if err := os.Mkdir(h.path("medium"), 0o700); err != nil || !strings.Contains(live, "elsewhere: medium") {
		t.Fatal(err)
	}
	h.write(t, "bind-live-base.yaml", live)
	return h
}

func (h *liveHouse) offlineRun(t *testing.T, args ...string) (int, string) {
	t.Helper()
	cmd := h.detached(args...)
	out, _ := cmd.CombinedOutput() // the exit code is looked at
	return cmd.ProcessState.ExitCode(), string(out)
}

func (h *liveHouse) detached(args ...string) *exec.Cmd {
	cmd := h.command(args...)
	full := exec.Command(h.offline[0], append(append(h.offline[1:], cmd.Path), args...)...)
	full.Dir, full.Env, full.SysProcAttr = cmd.Dir, append(cmd.Env, "PATH="+os.Getenv("PATH")), cmd.SysProcAttr
	return full
}

// withPhrase runs a program that reads the passphrase of name from descriptor 3.
func (h *house) withPhrase(t *testing.T, name string, args ...string) (int, string) {
	t.Helper()
	f, err := os.Open(h.path(name + ".pass"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := h.command(args...)
	cmd.ExtraFiles = []*os.File{f}
	out, _ := cmd.CombinedOutput() // the exit code is looked at
	return cmd.ProcessState.ExitCode(), string(out)
}

// cosignAtHome is what a witness does on a machine of his own, at his own terminal.
func (h *house) cosignAtHome(t *testing.T, dir, anchors, name, folder string) {
	t.Helper()
	x := h.play(t, 0, 0, nil, nil, "keyrite-verify", "cosign", dir, "--key", folder+name+".key", "--anchor", anchors)
	if code := x.exit(); code != 0 || len(x.seen) != 1 {
		t.Errorf("cosign: exit %d after %q, %s", code, x.seen, x.output())
	}
	x.noPassphrase(h)
}

// cosign is the same with the passphrase from a descriptor.
func (h *house) cosign(t *testing.T, dir, name, folder string) (int, string) {
	t.Helper()
	return h.withPhrase(t, name, "keyrite-verify", "cosign", dir, "--key", folder+name+".key", "--passphrase-fd", "3", "--anchor", dir+"/outputs/anchors.json")
}

// live plays one live attempt at the room's terminal, in a token store of its own:
// the rehearsal's tokens have the same labels. witness1, who must not sign in the
// room, is not in it: his requests go to "medium".
func (h *liveHouse) live(t *testing.T, store *hsmtest.Env, label string, reply func(step, question string) (string, bool), more ...string) *player {
	t.Helper()
	h.write(t, "bind-"+label+".yaml", mustRead(t, h.path("bind-live-base.yaml"))+"shares: shares-"+label+"\n")
	args := append([]string{"ceremony", "run", "plant.yaml", "--bind", "bind-" + label + ".yaml", "--rehearsal", "rehearsal", "--record", "record-" + label}, more...)
	return h.in(t, store, reply, args...)
}

// in plays a command at a terminal, with the tokens of store.
func (h *liveHouse) in(t *testing.T, store *hsmtest.Env, reply func(step, question string) (string, bool), args ...string) *player {
	t.Helper()
	inner := h.env
	h.env = store
	defer func() { h.env = inner }()
	return h.playCommand(t, h.detached(args...), 120, 40, nil, reply)
}

// later is the binding of a reshare after the genesis in folder record.
func later(base, record, shares string) string {
	var keep strings.Builder
	for l := range strings.Lines(base) {
		if !strings.HasPrefix(l, "tokens:") && !strings.HasPrefix(l, "requests:") && !strings.HasPrefix(l, "keys:") {
			keep.WriteString(l)
		}
	}
	return keep.String() + "shares: " + shares + "\nanchors: " + record + "/outputs/anchors.json\ncharter: " + record + "/outputs/charter.jsonl\nrecords: [" + record + "]\n"
}

// rehearseReshare writes the script of a reshare by the same people and rehearses
// it in the rehearsal's own tokens.
func (h *liveHouse) rehearseReshare(t *testing.T) {
	t.Helper()
	if code, out, errs := h.run(t, "ceremony", "new", "reshare", "--module", h.env.Config.Module, "--root-token", "plant-root", "--work-token", "plant-work", "--out", "new.yaml"); code != 0 {
		t.Fatalf("new: exit %d, %s%s", code, out, errs)
	}
	var text strings.Builder
	for l := range strings.Lines(mustRead(t, h.path("new.yaml"))) {
		if !strings.Contains(l, "do: people.change") {
			text.WriteString(l)
		}
	}
	h.write(t, "reshare.yaml", text.String())
	h.write(t, "bind-reshare-rehearsal.yaml", later(mustRead(t, h.path("bind-base.yaml")), "rehearsal", "shares-rehearsal"))
	code, out := h.offlineRun(t, "ceremony", "rehearse", "reshare.yaml", "--bind", "bind-reshare-rehearsal.yaml", "--answers", "answers.yaml", "--record", "reshare-rehearsal")
	if code != 0 {
		t.Fatalf("rehearsal of the reshare: exit %d, %s", code, out)
	}
	if code, text := h.withPhrase(t, "witness2", "keyrite-verify", "cosign", "reshare-rehearsal", "--key", "witness2.key", "--passphrase-fd", "3", "--anchor", "rehearsal/outputs/anchors.json"); code != 0 {
		t.Fatalf("cosign: exit %d, %s", code, text)
	}
}

// A live genesis at the full screen: live people, their real passphrases at the
// full work factor, no network, after a rehearsal of the very same script. One
// terminal serves the room; the witness who must not sign in it has his own, where
// he signs what he saw, the founding and an incident, and cosigns; key masters prove
// their shares at theirs; in the reshare an approver is elsewhere, too. It closes,
// and the record verifies. Before it, a witness spoils one by an incident, and a
// rehearsal of other bytes is refused (R-CER-10, R-CER-11, R-CER-12, R-CER-14).
func TestLiveGenesis(t *testing.T) {
	h := newLiveHouse(t)

	t.Run("another script", func(t *testing.T) {
		text, err := os.ReadFile(h.path("plant.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		h.write(t, "other.yaml", string(text)+"# one comment more\n")
		h.write(t, "bind-other.yaml", mustRead(t, h.path("bind-live-base.yaml"))+"shares: shares-other\n")
		code, text2 := h.offlineRun(t, "ceremony", "run", "other.yaml", "--bind", "bind-other.yaml", "--rehearsal", "rehearsal", "--record", "record-other")
		if code != 13 || !strings.Contains(text2, "is not a rehearsal of this script") {
			t.Errorf("exit %d, %s", code, text2)
		}
		if _, err := os.Stat(h.path("record-other")); err == nil {
			t.Error("it has a record")
		}
	})

	t.Run("incident", func(t *testing.T) {
		called := ""
		x := h.live(t, hsmtest.NewStore(t), "void", func(step, question string) (string, bool) {
			switch {
			case called == "" && step == "5.1" && strings.HasPrefix(question, "witness1"):
				called = step
				return "!", true
			case strings.HasPrefix(question, "Who calls it?"):
				return "witness1\r", true
			case strings.HasPrefix(question, "What happened?"):
				return "the door stood open\r", true
			}
			return "", false
		})
		if code := h.meanwhile(t, x, "live/", "witness1"); code != 11 || called == "" {
			t.Fatalf("exit %d, %s", code, x.output())
		}
		x.noPassphrase(h.house)
		v, err := record.Read(os.DirFS(h.path("record-void")))
		if v == nil || v.State != "VOID" || len(v.Incidents) != 1 || v.Incidents[0].By != "witness1" || v.Incidents[0].Envelope == nil {
			t.Errorf("%+v, %v", v, err)
		}
	})

	store := hsmtest.NewStore(t)
	x := h.live(t, store, "live", nil, "--after", "record-void")
	if code := h.meanwhile(t, x, "live/", "witness1"); code != 0 {
		t.Fatalf("exit %d after %q\n%s", code, x.seen, x.output())
	}
	x.noPassphrase(h.house)
	if len(x.vt.Strange) > 0 || !strings.Contains(x.output(), "witness1 cosigns on another machine") {
		t.Errorf("strange %q", x.vt.Strange)
	}
	verify := []string{"keyrite-verify", "record", "record-live", "--anchor", "record-live/outputs/anchors.json"}
	if code, out, errs := h.run(t, verify...); code != 10 || !strings.Contains(out+errs, "witness1") {
		t.Errorf("before witness1 cosigned: exit %d, %s%s", code, out, errs)
	}
	h.cosignAtHome(t, "record-live", "record-live/outputs/anchors.json", "witness1", "live/")
	if code, out, errs := h.run(t, verify...); code != 0 || !strings.Contains(out, "world live") {
		t.Errorf("verify: exit %d, %s%s", code, out, errs)
	}
	t.Run("shares alive", func(t *testing.T) { h.proveAtHome(t) })
	t.Run("reshare", func(t *testing.T) { h.reshare(t, store) })
	h.noOrphans(t)
}

// reshare deals all four safes of the live vault anew, at the full screen.
func (h *liveHouse) reshare(t *testing.T, store *hsmtest.Env) {
	h.rehearseReshare(t)
	base := strings.Replace(mustRead(t, h.path("bind-live-base.yaml")), "key: live/approver2.key", "elsewhere: medium", 1)
	h.write(t, "bind-reshare.yaml", later(base, "record-live", "shares-live"))
	x := h.in(t, store, nil, "ceremony", "run", "reshare.yaml", "--bind", "bind-reshare.yaml", "--rehearsal", "reshare-rehearsal", "--record", "record-reshare")
	if code := h.meanwhile(t, x, "live/", "witness1", "approver2"); code != 0 {
		t.Fatalf("exit %d after %q\n%s", code, x.seen, x.output())
	}
	x.noPassphrase(h.house)
	if len(x.vt.Strange) > 0 {
		t.Errorf("strange %q", x.vt.Strange)
	}
	anchors := "record-live/outputs/anchors.json"
	h.cosignAtHome(t, "record-reshare", anchors, "witness1", "live/")
	if code, out, errs := h.run(t, "keyrite-verify", "record", "record-reshare", "--anchor", anchors); code != 0 {
		t.Errorf("verify: exit %d, %s%s", code, out, errs)
	}
}

func mustRead(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
