package update_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/jcs"
	"keyrite/artifact/succession"
	"keyrite/artifact/world"
	"keyrite/gateway/update"
)

var errCut = errors.New("the power is cut")

// TestPowerCutAtEveryStep cuts the power before each effect of an update, in the
// middle of each write, and starts again: always the old release or the new one,
// verified, and the next update goes through.
func TestPowerCutAtEveryStep(t *testing.T) {
	w := artifacttest.New(t)
	r := newRepo(t, w)
	older, newer := w.Release(image(t, 600_000), "1.0.0", 1), w.Release(image(t, 600_000), "1.1.0", 2)
	seen := map[string]int{}
	for cut := 1; ; cut++ {
		e := newFake(w)
		dir := t.TempDir()
		s := openSlots(t, dir, e)
		r.publish(map[string][]byte{"x.krf": older.KRF})
		o, err := r.client(e).Find(t.Context())
		r.check(err)
		_, err = s.Install(t.Context(), o)
		r.check(err)
		_, err = s.Boot()
		r.check(err)
		_, err = s.Confirm()
		r.check(err)
		r.publish(map[string][]byte{"x.krf": newer.KRF})
		o, err = r.client(e).Find(t.Context())
		r.check(err)
		steps := 0
		s.CutPower(func(string) error {
			if steps++; steps >= cut { // once off, it stays off
				return errCut
			}
			return nil
		})
		_, err = s.Install(t.Context(), o)
		if err == nil {
			_, err = s.Boot()
		}
		if err == nil {
			_, err = s.Confirm()
		}
		done := err == nil
		if !done && !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		r.check(s.Close())
		s = openSlots(t, dir, e)
		b, err := s.Boot()
		if err != nil {
			t.Fatalf("cut %d: does not start: %v", cut, err)
		}
		seen[b.Statement.Predicate.Version]++
		_, err = s.Confirm()
		r.check(err)
		_, err = s.Install(t.Context(), o)
		r.check(err)
		b, err = s.Boot()
		if err != nil || b.Statement.Predicate.Version != "1.1.0" {
			t.Fatalf("cut %d: the next update: %+v, %v", cut, b, err)
		}
		r.check(s.Close())
		if done {
			break
		}
	}
	if seen["1.0.0"] < 5 || seen["1.1.0"] < 2 || len(seen) != 2 {
		t.Errorf("the sweep started %v", seen)
	}
}

// TestPowerCutWhileASuccessionIsTaken cuts the power before each write of a succession,
// and between the counts of the element, and starts again: what was confirmed starts
// each time, and once the statement is kept the gateway has it in force and counted, so
// that neither an older folder nor the old key's release comes through.
func TestPowerCutWhileASuccessionIsTaken(t *testing.T) {
	w := artifacttest.New(t)
	w.AddSuccessors()
	r := newRepo(t, w)
	older := w.Release(image(t, 50_000), "1.0.0", 1)
	thief := w.Release(image(t, 50_000), "9.0.0", 9)
	st := statement(t, w, "succession", "firmware", "log")
	s, err := succession.Verify(st, w.Anchors)
	r.check(err)
	told := w.Anchors
	w.Anchors, err = succession.Apply(told, s)
	r.check(err)
	log := w.Keys["log"]
	w.Keys["log"] = w.Keys["log-2"]
	fresh := w.ReleaseBy("firmware-2", image(t, 50_000), "1.1.0", 2)
	w.Anchors, w.Keys["log"] = told, log
	hash, err := w.Anchors.Hash()
	r.check(err)
	var before, between, counting int
	for cut := 1; ; cut++ {
		e := newFake(w)
		e.anchors = hash
		dir := t.TempDir()
		slots := openSlots(t, dir, e)
		r.publish(map[string][]byte{"x.krf": older.KRF})
		c := r.client(e)
		c.Succession = slots.Succession()
		o, err := c.Find(t.Context())
		r.check(err)
		_, err = slots.Install(t.Context(), o)
		r.check(err)
		_, err = slots.Boot()
		r.check(err)
		_, err = slots.Confirm()
		r.check(err)
		empty := t.TempDir() // the folder as it was, for somebody to put back
		r.check(os.CopyFS(empty, os.DirFS(dir)))

		r.publish(map[string][]byte{update.SuccessionTarget: st, "x.krf": thief.KRF})
		steps := 0
		power := func() error {
			if steps++; steps >= cut { // once off, it stays off
				return errCut
			}
			return nil
		}
		slots.Succession().CutPower(func(string) error { return power() })
		e.power = power
		_, err = c.Find(t.Context())
		done := !errors.Is(err, errCut)
		if done && !errors.Is(err, firmware.ErrGone) {
			t.Fatalf("cut %d: a release by the old key: %v", cut, err)
		}
		e.power = nil
		at := e.follows
		r.check(slots.Close())
		_, err = os.Stat(filepath.Join(dir, update.SuccessionTarget))
		kept := err == nil
		switch {
		case !kept:
			before++
		case at == 0:
			between++
		case at < 4:
			counting++
		}

		slots = openSlots(t, dir, e)
		if want := map[bool]int64{true: 4, false: 0}[kept]; e.follows != want {
			t.Errorf("cut %d: the element counts %d after the start, want %d", cut, e.follows, want)
		}
		if b, err := slots.Boot(); err != nil || b.Statement.Predicate.Version != "1.0.0" {
			t.Fatalf("cut %d: does not start: %+v, %v", cut, b, err)
		}
		_, err = slots.Confirm()
		r.check(err)
		c = r.client(e)
		c.Succession = slots.Succession()
		if kept { // also when the statement is no longer offered
			r.publish(map[string][]byte{"x.krf": thief.KRF})
			if _, err := c.Find(t.Context()); !errors.Is(err, firmware.ErrGone) {
				t.Errorf("cut %d: a release by the old key: %v", cut, err)
			}
			if _, err := update.OpenSlots(empty, e, device()); fault.ClassOf(err) != fault.Policy {
				t.Errorf("cut %d: the folder of before opens: %v", cut, err)
			}
		}
		r.publish(map[string][]byte{update.SuccessionTarget: st, "x.krf": fresh.KRF})
		o, err = c.Find(t.Context())
		r.check(err)
		_, err = slots.Install(t.Context(), o)
		r.check(err)
		if b, err := slots.Boot(); err != nil || b.Statement.Predicate.Version != "1.1.0" {
			t.Fatalf("cut %d: the release of the new key: %+v, %v", cut, b, err)
		}
		_, err = slots.Confirm()
		r.check(err)
		if e.follows != 5 {
			t.Errorf("cut %d: the element counts %d in the end", cut, e.follows)
		}
		r.check(slots.Close())
		if done {
			break
		}
	}
	if before < 2 || between < 1 || counting < 2 {
		t.Errorf("cut %d times before the statement was kept, %d before the element counted, %d while it did", before, between, counting)
	}
}

// killed is what a child process of TestKilled works on.
type killed struct {
	Dir           string
	Repos, TUF    [2]string
	Anchors, Root []byte
	Key           []byte
}

// TestKilled kills a process that goes from one release to another and back,
// with SIGKILL at many moments, and looks each time at what it left.
func TestKilled(t *testing.T) {
	if os.Getenv("KEYRITE_UPDATE_CHILD") != "" {
		child(t)
		return
	}
	w := artifacttest.New(t)
	e := newFake(w)
	in := killed{Dir: t.TempDir(), TUF: [2]string{t.TempDir(), t.TempDir()}, Key: w.SPKI("firmware")}
	var first *repo
	for i, v := range []string{"1.0.0", "1.1.0"} {
		r := newRepo(t, w)
		r.publish(map[string][]byte{"x.krf": w.Release(image(t, 400_000), v, 1).KRF})
		in.Repos[i], in.Root = r.dir, r.root
		if first == nil {
			first = r
		}
	}
	r := first
	var err error
	in.Anchors, err = w.Anchors.Marshal()
	r.check(err)
	stdin, err := json.Marshal(in)
	r.check(err)
	s := openSlots(t, in.Dir, e)
	o, err := r.client(e).Find(t.Context())
	r.check(err)
	_, err = s.Install(t.Context(), o)
	r.check(err)
	_, err = s.Boot()
	r.check(err)
	_, err = s.Confirm()
	r.check(err)
	r.check(s.Close())
	seen := map[string]int{}
	for i := range 25 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "KEYRITE_UPDATE_CHILD=1")
		cmd.Stdin = bytes.NewReader(stdin)
		out, err := cmd.StdoutPipe()
		r.check(err)
		r.check(cmd.Start())
		if _, err := out.Read(make([]byte, 1)); err != nil { // it has begun
			t.Fatal(err)
		}
		<-time.After(time.Duration(i*4) * time.Millisecond) // the moment of the cut is what is tried
		r.check(cmd.Process.Kill())
		_ = cmd.Wait()
		s := openSlots(t, in.Dir, e)
		st, err := s.State()
		r.check(err)
		b, err := s.Boot()
		if err != nil || len(b.Refused) != 0 {
			t.Fatalf("kill %d: started %+v, %v", i, b, err)
		}
		seen["a "+st.A.State+", b "+st.B.State]++
		_, err = s.Confirm()
		r.check(err)
		r.check(s.Close())
	}
	t.Logf("slots found: %v", seen)
}

func child(t *testing.T) {
	var in killed
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		t.Fatal(err)
	}
	a, err := anchor.Parse(in.Anchors)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKIXPublicKey(in.Key)
	if err != nil {
		t.Fatal(err)
	}
	e := &fake{world: a.World, vault: a.Vault, key: key.(*ecdsa.PublicKey)}
	s := openSlots(t, in.Dir, e)
	_, _ = os.Stdout.WriteString(".")
	for i := 1; ; i++ {
		c := &update.Client{
			Source: update.NewFolder(in.Repos[i%2]), Dir: in.TUF[i%2], Root: in.Root, Anchors: a, Element: e, Device: device(), Now: time.Now,
		}
		o, err := c.Find(t.Context())
		if err == nil {
			_, err = s.Install(t.Context(), o)
		}
		if err == nil {
			_, err = s.Boot()
		}
		if err == nil {
			_, err = s.Confirm()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzState(f *testing.F) {
	w := world.World("rehearsal:0123456789ab")
	good, err := jcs.Marshal(update.State{Format: update.StateFormat, World: w, A: update.Slot{Bundle: []byte("x"), State: update.Good}, B: update.Slot{Bundle: []byte{}, State: update.Empty}, Active: "a"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		st, err := update.ParseState(data, w)
		if err != nil {
			return
		}
		if again, err := jcs.Marshal(st); err != nil || !bytes.Equal(again, data) {
			t.Errorf("accepted bytes come back differently: %v", err)
		}
	})
}
