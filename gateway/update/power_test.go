package update_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/jcs"
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
