package actions

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/console"
	"keyrite/ceremony/script"
	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
	"keyrite/internal/redact"
	"keyrite/vault/quorum"
)

// twoSafes founds a vault of two safes, with a key in the first that may travel
// and one that may not.
const twoSafes = `format: keyrite/script/v1
kind: genesis
title: Two safes
purpose: a vault with a key that may travel
pins: {keyrite: @KEYRITE@, hsmd: @HSMD@, module: @MODULE@}
environment: {network: any, swap: any}
roles: {conductor: 1, conductor_operates: true, key_masters: {need: 3, of: 5}, witnesses: 2, approvers: {need: 2, of: 2}}
safes: [{name: work, token: tok}, {name: work2, token: tok-2}]
keys:
  - {id: traveller, safe: work, purpose: travels, algorithm: p256, domain: dsse, movable: true, usage: {sign: true, decrypt: false, unwrap: false, derive: false, sign_recover: false, extractable: true, wrap_with_trusted: true, sensitive: true, always_authenticate: false, destroyable: true}}
  - {id: stays, safe: work, purpose: stays, algorithm: p256, domain: dsse, usage: &sign {sign: true, decrypt: false, unwrap: false, derive: false, sign_recover: false, extractable: false, sensitive: true, always_authenticate: false, destroyable: true}}
  - {id: home, safe: work2, purpose: is there, algorithm: p384, domain: x509, usage: *sign}
summon:
  - {id: "1.1", do: environment.check, title: t, limit: 10m}
  - {id: "1.2", do: people.identify, title: t, limit: 10m}
  - {id: "1.3", do: documents.see, title: t, limit: 10m}
run:
  - {id: "2.1", do: genesis.sign, title: t, limit: 10m}
  - {id: "3.1", do: token.init, safe: work, title: t, limit: 10m}
  - {id: "3.2", do: token.admit, safe: work, title: t, limit: 10m}
  - {id: "3.3", do: shares.deal, safe: work, title: t, limit: 10m}
  - {id: "3.4", do: shares.receipts, safe: work, title: t, limit: 10m}
  - {id: "3.5", do: token.pins, safe: work, title: t, limit: 10m}
  - {id: "4.1", do: token.init, safe: work2, title: t, limit: 10m}
  - {id: "4.2", do: token.admit, safe: work2, title: t, limit: 10m}
  - {id: "4.3", do: shares.deal, safe: work2, title: t, limit: 10m}
  - {id: "4.4", do: shares.receipts, safe: work2, title: t, limit: 10m}
  - {id: "4.5", do: token.pins, safe: work2, title: t, limit: 10m}
  - {id: "5.1", do: key.generate, key: traveller, title: t, limit: 10m}
  - {id: "5.2", do: key.generate, key: stays, title: t, limit: 10m}
  - {id: "5.3", do: key.generate, key: home, title: t, limit: 10m}
  - {id: "6.1", do: charter.append, title: t, limit: 10m}
seal:
  - {id: "7.1", do: keys.store, safe: work, title: t, limit: 10m}
  - {id: "7.2", do: keys.store, safe: work2, title: t, limit: 10m}
  - {id: "7.3", do: keys.prove, safe: work, title: t, limit: 10m}
  - {id: "7.4", do: keys.prove, safe: work2, title: t, limit: 10m}
  - {id: "7.5", do: outputs.write, title: t, limit: 10m}
  - {id: "7.6", do: read.aloud, title: t, limit: 10m}
`

// perform runs a script in this process, over the shares of the whole test.
func (h *house) perform(t testing.TB, label, text, incident string, edit func(*Bind)) (string, error) {
	t.Helper()
	programs, err := Programs(h.env.Config.HSMD, h.env.Config.Module)
	if err != nil {
		t.Fatal(err)
	}
	text = strings.NewReplacer("@KEYRITE@", programs[0].SHA256, "@HSMD@", programs[1].SHA256, "@MODULE@", programs[2].SHA256, "@NETWORK@", "any", "@SWAP@", "any", "@DUMPS@", "any", "@CLOCK@", "any").Replace(text)
	s, err := script.Parse(label, []byte(text))
	if err == nil {
		err = s.Lint()
	}
	if err != nil {
		t.Fatal(err)
	}
	bind := h.bind(t, "bind.yaml")
	bind.Shares = "shares-all"
	if edit != nil {
		edit(bind)
	}
	answers, err := os.ReadFile(h.path("answers.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	h.write(t, "answers-"+label+".yaml", append(answers, incident...))
	cons, err := console.LoadAnswers(h.path("answers-"+label+".yaml"), console.NewLine(io.Discard, nil))
	if err != nil {
		t.Fatal(err)
	}
	people, err := bind.Participants(s)
	if err != nil {
		t.Fatal(err)
	}
	self, err := quorum.Self()
	if err != nil {
		t.Fatal(err)
	}
	acts, err := New(s, bind, self, h.env.Config.HSMD)
	if err != nil {
		return "", err
	}
	env, err := Environment(bind)
	if err != nil {
		t.Fatal(err)
	}
	dir := h.path("record-" + label)
	var after *record.Ref
	if h.after != "" {
		st, err := ceremony.ReadState(h.after)
		if err != nil {
			t.Fatal(err)
		}
		after = st.Ref()
		if err := acts.Adopt(h.after); err != nil {
			return dir, err
		}
	}
	_, err = ceremony.Execute(context.Background(), ceremony.Config{
		After: after, Script: s, ScriptBytes: []byte(text), BindHash: bind.Hash(), Dir: dir, World: bind.World, People: people, Programs: programs,
		Environment: env, Media: Media(s), Console: stepped(cons), Clock: ceremony.SystemClock(), Actions: acts, Base: acts.Base(),
	})
	return dir, err
}

// found plays a genesis and returns what makes a binding continue it.
func (h *house) found(t testing.TB, text, safes string) (on func(*Bind), record string) {
	t.Helper()
	first, err := h.perform(t, "genesis", text, "", func(b *Bind) {
		b.Tokens = map[string]string{}
		for s := range strings.FieldsSeq(safes) {
			b.Tokens[s] = "fresh"
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	h.cosign(t, first, "witness2")
	if _, err := verifyOwn(first); err != nil {
		t.Fatal(err)
	}
	return continues(first), first
}

// foundTwoSafes is the vault of twoSafes, whose genesis is held once for all tests,
// with what continues it and its record.
func foundTwoSafes(t testing.TB) (h *house, on func(*Bind), first string) {
	t.Helper()
	h = vaultOf(t, "two-safes", func() *house {
		h := newHouse(t)
		h.found(t, twoSafes, "work work2")
		return h
	})
	first = h.path("record-genesis")
	return h, continues(first), first
}

// continues makes a binding continue the vault of a record.
func continues(first string) func(*Bind) {
	return func(b *Bind) {
		b.Tokens = nil
		b.Anchors, b.Charter = first+"/outputs/anchors.json", first+"/outputs/charter.jsonl"
		b.Records = []string{first}
	}
}

func transferScript(t testing.TB, key string) string {
	t.Helper()
	text, err := os.ReadFile("../../scripts/ceremonies/transfer.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer("@TITLE@", "Test transfer", "firmware-gw300", key, "@WORK@", "tok").Replace(string(text))
}

// labels counts the objects of a token by label. The token is opened by three
// shares and a supervisor of its own, as keyrite-vault does it.
func (h *house) labels(t testing.TB, safe, dir string) map[string]int {
	t.Helper()
	lines, err := os.ReadFile(filepath.Join(dir, "outputs", "charter.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	state := &charter.State{}
	for line := range strings.Lines(string(lines)) {
		if err := state.Apply([]byte(strings.TrimSuffix(line, "\n"))); err != nil {
			t.Fatal(err)
		}
	}
	p := quorum.OpenParams{State: state, Safe: safe, Operation: strings.Repeat("0", 64), Nonce: make([]byte, 32)}
	pass := ""
	for i := range 3 {
		name := "master" + itoa(i+1)
		key, err := os.ReadFile(h.path(name + ".key"))
		if err != nil {
			t.Fatal(err)
		}
		share, err := os.ReadFile(filepath.Join(h.path("shares-all"), safe, name+".share"))
		if err != nil {
			t.Fatal(err)
		}
		p.Openers = append(p.Openers, quorum.Opener{Key: key, Share: share})
		pass += passphrase(name) + "\n"
	}
	if p.Passphrases, err = secretPipe(redact.New([]byte(pass))); err != nil {
		t.Fatal(err)
	}
	self, err := quorum.Self()
	if err != nil {
		t.Fatal(err)
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	if _, err := self.Open(t.Context(), p, pw); err != nil {
		t.Fatal(err)
	}
	pw.Close()
	sup := h.env.Start(t)
	e := state.Epochs[safe].Token
	id := hsm.TokenID{Label: e.Label, Serial: e.Serial}
	if err := sup.TakePINs(t.Context(), id, pr, hsm.Current); err != nil {
		t.Fatal(err)
	}
	s, err := sup.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	objs, err := s.Objects(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]int{}
	for _, o := range objs {
		out[o.Label]++
	}
	return out
}

// TestTransferMovesAKey runs the shipped script on two real tokens.
func TestTransferMovesAKey(t *testing.T) {
	t.Parallel()
	h, on, first := foundTwoSafes(t)
	if _, err := h.perform(t, "stays", transferScript(t, "stays"), "", on); fault.ClassOf(err) != fault.Void {
		t.Errorf("a key that is not movable: %v", err)
	}
	dir, err := h.perform(t, "transfer", transferScript(t, "traveller"), "", on)
	if err != nil {
		t.Fatal(err)
	}
	h.cosign(t, dir, "witness2")
	v, err := verifyOwn(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Moved) != 1 || v.Moved[0].Key.ID != "traveller" || v.Charter.Keys["traveller"].Token.Label != "tok-2" {
		t.Errorf("moved %+v, charter %+v", v.Moved, v.Charter.Keys["traveller"].Token)
	}
	if _, err := record.Verify(os.DirFS(first), v.Anchors); err != nil {
		t.Errorf("the genesis under the same anchors: %v", err)
	}
	if here := h.labels(t, "work", dir); here["traveller"] != 0 || here["stays"] != 2 {
		t.Errorf("safe work holds %v", here)
	}
	if there := h.labels(t, "work2", dir); there["traveller"] != 2 || there["home"] != 2 || there["receiver"] != 0 {
		t.Errorf("safe work2 holds %v", there)
	}
}

// TestTransferVoid ends a transfer at each point that matters, and looks where the
// key is: in one token, and in the record.
func TestTransferVoid(t *testing.T) {
	t.Parallel()
	h, on, first := foundTwoSafes(t)
	for _, tc := range []struct {
		step, by        string
		here, there     int
		kept, destroyed bool
	}{
		{"2.2", "conductor", 2, 0, false, false},
		{"3.1", "witness1", 2, 0, false, true}, // it is there by now
		{"4.1", "conductor", 2, 0, false, true},
		{"5.1", "witness1", 0, 2, true, false}, // it is gone from here by now
	} {
		dir, err := h.perform(t, "void-"+tc.step, transferScript(t, "traveller"), "incident: {step: \""+tc.step+"\", by: "+tc.by+", reason: a stranger came in}\n", on)
		if fault.ClassOf(err) != fault.Void {
			t.Fatalf("%s: %v", tc.step, err)
		}
		here, there := h.labels(t, "work", first), h.labels(t, "work2", first)
		if here["traveller"] != tc.here || there["traveller"] != tc.there || there["receiver"] != 0 || here["stays"] != 2 || there["home"] != 2 {
			t.Errorf("%s: safe work holds %v, safe work2 %v", tc.step, here, there)
		}
		v, err := record.Read(os.DirFS(dir))
		if fault.ClassOf(err) != fault.Void {
			t.Errorf("%s: the record: %v", tc.step, err)
		}
		kept, destroyed := false, false
		for _, l := range v.Timeline {
			if c, ok := l.Data.(*record.Cleanup); ok && c.Safe == "work2" {
				kept = len(c.Kept) == 1 && strings.HasPrefix(c.Kept[0], "traveller ")
				for _, d := range c.Destroyed {
					destroyed = destroyed || strings.HasPrefix(d, "pair ")
				}
			}
		}
		if kept != tc.kept || destroyed != tc.destroyed {
			t.Errorf("%s: the clean-up kept it: %v, destroyed it: %v", tc.step, kept, destroyed)
		}
	}
}

// TestForgedTransferIsRefused has everybody sign a transfer that did not happen
// as it should.
func TestForgedTransferIsRefused(t *testing.T) {
	t.Parallel()
	h, on, _ := foundTwoSafes(t)
	dir, err := h.perform(t, "transfer", transferScript(t, "traveller"), "", on)
	if err != nil {
		t.Fatal(err)
	}
	h.cosign(t, dir, "witness2")
	v, err := verifyOwn(dir)
	if err != nil {
		t.Fatal(err)
	}
	at := func(l []entry, typ string) *entry {
		i := slices.IndexFunc(l, func(e entry) bool { return e.Type == typ })
		return &l[i]
	}
	attribute := func(list, name, value string) func(l []entry) []entry {
		return func(l []entry) []entry {
			for _, a := range at(l, "transferred").Data[list].([]any) {
				if a := a.(map[string]any); a["name"] == name {
					a["got"], a["wanted"] = value, value
				}
			}
			return l
		}
	}
	drop := func(is func(e entry) bool) func(l []entry) []entry {
		return func(l []entry) []entry { return slices.DeleteFunc(l, is) }
	}
	for _, tc := range []struct {
		name, text string
		edit       func(l []entry) []entry
	}{
		{"nothing", "", func(l []entry) []entry { return l }},
		{"it could leave any way", "CKA_WRAP_WITH_TRUSTED", attribute("left", "CKA_WRAP_WITH_TRUSTED", "false")},
		{"it can leave again", "CKA_EXTRACTABLE", attribute("arrived", "CKA_EXTRACTABLE", "true")},
		{"it was born where it is", "CKA_LOCAL", attribute("arrived", "CKA_LOCAL", "true")},
		{"nobody trusted the wrapping key", "CKA_TRUSTED", attribute("wrapping", "CKA_TRUSTED", "false")},
		{"the wrapping key decrypts", "CKA_DECRYPT", attribute("unwrapping", "CKA_DECRYPT", "true")},
		{"the receiver was brought in", "CKA_LOCAL", attribute("made", "CKA_LOCAL", "false")},
		{"the receiver can leave", "CKA_EXTRACTABLE", attribute("made", "CKA_EXTRACTABLE", "true")},
		{"the receiver decrypts", "CKA_DECRYPT", attribute("made", "CKA_DECRYPT", "true")},
		{"the receiver takes any padding", "CKA_ALLOWED_MECHANISMS", attribute("made", "CKA_ALLOWED_MECHANISMS", "CKM_RSA_PKCS")},
		{"the receiver unwraps anything", "CKA_UNWRAP_TEMPLATE", attribute("made", "CKA_UNWRAP_TEMPLATE", "")},
		{"the receiver is another object", "announced", attribute("made", "CKA_ID", strings.Repeat("0a", 16))},
		{"nothing is known of the receiver", "does not show", func(l []entry) []entry {
			at(l, "transferred").Data["made"] = []any{}
			return l
		}},
		{"a receiver of somebody else", "", func(l []entry) []entry {
			at(l, "transferred").Data["receiver"] = at(l, "transferred").Data["key"].(map[string]any)["public"]
			return l
		}},
		{"the receiver is still there", "", drop(func(e entry) bool { return e.Type == "removed" && e.Data["key"] == "" })},
		{"an attribute is missing", "does not show", func(l []entry) []entry {
			at(l, "transferred").Data["arrived"] = at(l, "transferred").Data["arrived"].([]any)[:20]
			return l
		}},
		{"no receiver was stated", "nobody stated", drop(func(e entry) bool { return e.Type == "statement" && e.Step == "3.1" })},
		{"no intent", "without an intent", drop(func(e entry) bool { return e.Type == "intent" && e.Data["effect"] == "transfer" })},
		{"nobody opened the other safe", "open", drop(func(e entry) bool { return e.Type == "opening" && e.Step == "2.2" })},
		{"it went nowhere", "nowhere", func(l []entry) []entry {
			at(l, "transferred").Data["to"] = at(l, "transferred").Data["from"]
			return l
		}},
		{"it is still where it was", "", drop(func(e entry) bool { return e.Type == "removed" })},
		{"it was destroyed before it was proven", "", drop(func(e entry) bool { return e.Type == "possession" })},
		{"another wrapped key", "", func(l []entry) []entry {
			at(l, "transferred").Data["wrapped"] = strings.Repeat("00", 32)
			return l
		}},
		{"one receipt for both", "", func(l []entry) []entry {
			at(l, "transferred").Data["received"] = at(l, "transferred").Data["gave"]
			return l
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			forgery{h, dir, v.Anchors, everybody()}.refused(t, tc.edit, tc.text, tc.name == "nothing")
		})
	}
}

// transferEnv names the house of a transfer that is held in another process.
const transferEnv = "KEYRITE_TEST_TRANSFER"

// TestTransferElsewhere is a transfer in a process of its own, for a test to kill.
func TestTransferElsewhere(t *testing.T) {
	dir := os.Getenv(transferEnv)
	if dir == "" {
		return // started only by TestKilledTransfer, in a process of its own
	}
	h := &house{dir: dir, env: &hsmtest.Env{Config: hsm.Config{Module: hsmtest.Module(t), HSMD: os.Getenv("KEYRITE_TEST_HSMD")}}}
	_, err := h.perform(t, os.Getenv("KEYRITE_TEST_NAME"), transferScript(t, "traveller"), "", continues(h.path("record-genesis")))
	t.Fatalf("it was to be killed: %v", err)
}

// TestKilledTransfer kills a transfer and recovers it with the shares of both
// safes: the key is in one token, or the record names it.
func TestKilledTransfer(t *testing.T) {
	t.Parallel()
	h, on, first := foundTwoSafes(t)
	for _, tc := range []struct {
		name        string
		when        func([]byte) bool
		here, there int
		kept        bool
	}{
		{"receiver", entryOf("statement", `"receiver"`), 2, 0, false},
		{"arrived", entryOf("transferred", ""), 2, 0, false},
		{"destroyed", entryOf("removed", "traveller"), 0, 2, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			data := h.killedTransfer(t, tc.name, on, tc.when)
			here, there := h.labels(t, "work", first), h.labels(t, "work2", first)
			if here["traveller"] != tc.here || there["traveller"] != tc.there || there["receiver"] != 0 {
				t.Errorf("safe work holds %v, safe work2 %v", here, there)
			}
			if got := strings.Contains(data, `"kept":["traveller `); got != tc.kept {
				t.Errorf("the record names a kept key: %v", got)
			}
		})
	}
}

// killedTransfer kills a transfer when it is time, recovers it, and returns the
// transcript.
func (h *house) killedTransfer(t *testing.T, name string, on func(*Bind), when func([]byte) bool) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestTransferElsewhere$", "-test.v")
	cmd.Env = append(slices.Concat(os.Environ(), h.env.Config.Env), transferEnv+"="+h.dir, "KEYRITE_TEST_HSMD="+h.env.Config.HSMD, "KEYRITE_TEST_NAME="+name)
	dir := h.path("record-" + name)
	killWhen(t, cmd, dir, when)
	bind := h.bind(t, "bind.yaml")
	bind.Shares = "shares-all"
	on(bind)
	c := &Cleaner{Bind: bind, Record: dir, HSMD: h.env.Config.HSMD}
	for _, safe := range []string{"work", "work2"} {
		c.Openers = append(c.Openers, h.openersOf(t, safe)...)
	}
	if err := ceremony.Recover(t.Context(), dir, ceremony.SystemClock(), c, false); fault.ClassOf(err) != fault.Void {
		t.Fatalf("recover: %v", err)
	}
	data, err := os.ReadFile(filepath.Join(dir, record.TranscriptFile))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestLongTransferKilledAtEachEntry kills a transfer after each entry of its
// transcript from ARMED on, each time with the tokens as they were: afterwards the
// key is in one token, or the record names the second, and no receiver is left.
func TestLongTransferKilledAtEachEntry(t *testing.T) {
	if os.Getenv("KEYRITE_TEST_LONG") == "" {
		t.Skip("long: set KEYRITE_TEST_LONG=1")
	}
	h, on, first := foundTwoSafes(t)
	saved := filepath.Join(t.TempDir(), "tokens")
	if err := os.CopyFS(saved, os.DirFS(h.env.TokenDir)); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		t.Helper()
		old, err := os.ReadDir(h.env.TokenDir)
		for _, d := range old {
			err = errors.Join(err, os.RemoveAll(filepath.Join(h.env.TokenDir, d.Name())))
		}
		if err := errors.Join(err, os.CopyFS(h.env.TokenDir, os.DirFS(saved))); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := h.perform(t, "whole", transferScript(t, "traveller"), "", on)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, record.TranscriptFile))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	from := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, `"ARMED"`) })
	tally := map[string]int{}
	for n := from + 1; n < len(lines); n++ {
		restore()
		at := "after entry " + itoa(n) + " of " + itoa(len(lines))
		text := h.killedTransfer(t, "killed-"+itoa(n), on, func(data []byte) bool { return strings.Count(string(data), "\n") >= n })
		here, there := h.labels(t, "work", first), h.labels(t, "work2", first)
		kept := strings.Contains(text, `"kept":["traveller `)
		tally[fmt.Sprintf("%d objects here, %d there, second one named %v", here["traveller"], there["traveller"], kept)]++
		whole := here["traveller"] == 2 && there["traveller"] == 0 || kept && there["traveller"] == 2
		if !whole || there["receiver"] != 0 || here["stays"] != 2 || there["home"] != 2 {
			t.Errorf("%s: safe work holds %v, safe work2 %v, named %v", at, here, there, kept)
		}
	}
	t.Log(tally)
	t.Logf("long: kills after each entry of a transfer: %d of %d", len(lines)-from-1, len(lines)-from-1)
}

func (h *house) openersOf(t testing.TB, safe string) []SafeOpener {
	t.Helper()
	return h.openersIn(t, "shares-all", safe)
}

// openersIn are three key masters with their shares of a safe.
func (h *house) openersIn(t testing.TB, shares, safe string) []SafeOpener {
	t.Helper()
	var out []SafeOpener
	for i := range 3 {
		name := "master" + itoa(i+1)
		key, err := os.ReadFile(h.path(name + ".key"))
		if err != nil {
			t.Fatal(err)
		}
		share, err := os.ReadFile(filepath.Join(h.path(shares), safe, name+".share"))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, SafeOpener{Safe: safe, Opener: quorum.Opener{Key: key, Share: share}, Passphrase: redact.New([]byte(passphrase(name)))})
	}
	return out
}
