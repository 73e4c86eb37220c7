package update_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/gateway/secureelement/setest"
	"keyrite/gateway/update"
)

func image(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	rand.Read(b)
	b[0] = 0x7f
	return b
}

func wantClass(t *testing.T, err error, want fault.Class) {
	t.Helper()
	if got := fault.ClassOf(err); got != want {
		t.Errorf("class %q, want %q: %v", got, want, err)
	}
}

func openSlots(t *testing.T, dir string, e update.Element) *update.Slots {
	t.Helper()
	s, err := update.OpenSlots(dir, e, device())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// TestUpdateOnTPM goes the whole way with the keys in a real secure element:
// two releases by TUF over HTTP, trial, confirmation, rollback refused.
func TestUpdateOnTPM(t *testing.T) {
	w := artifacttest.New(t)
	b := setest.Birth(t, w, 1)
	r := newRepo(t, w)
	old := w.Release(image(t, 300_000), "1.0.0", 1)
	r.publish(map[string][]byte{"gw100-1.0.0.krf": old.KRF})
	srv := httptest.NewTLSServer(http.StripPrefix("/v1", http.FileServer(http.Dir(r.dir))))
	t.Cleanup(srv.Close)
	c := r.client(b)
	c.Source = update.NewRemote(srv.Client(), srv.URL+"/v1/metadata/", srv.URL+"/v1/targets/")
	dir := t.TempDir()
	install := func(want string) {
		t.Helper()
		s := openSlots(t, dir, b)
		defer s.Close()
		o, err := c.Find(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Install(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		booted, err := s.Boot()
		if err != nil || booted.Statement.Predicate.Version != want {
			t.Fatalf("booted %+v, %v", booted, err)
		}
		if _, err := s.Confirm(); err != nil {
			t.Fatal(err)
		}
		again, err := s.Install(t.Context(), o)
		if err != nil || !again.UpToDate {
			t.Errorf("second install: %+v, %v", again, err)
		}
	}
	install("1.0.0")
	r.publish(map[string][]byte{"gw100-1.0.0.krf": old.KRF, "gw100-1.1.0.krf": w.Release(image(t, 200_000), "1.1.0", 2).KRF})
	install("1.1.0")
	if v, err := b.SecurityVersion(); err != nil || v != 2 {
		t.Errorf("security version %d, %v", v, err)
	}
	r.publish(map[string][]byte{"gw100-1.0.0.krf": old.KRF})
	_, err := c.Find(t.Context())
	wantClass(t, err, fault.Policy)
	if !errors.Is(err, update.ErrRollback) {
		t.Errorf("older release offered: %v", err)
	}
}

// TestFindRefuses is the table of what a repository, or whoever sits before it,
// can do.
func TestFindRefuses(t *testing.T) {
	w, foreign := artifacttest.New(t), artifacttest.New(t)
	good := w.Release(image(t, 70_000), "1.0.0", 1)
	flip := func(at int) []byte {
		b := bytes.Clone(good.KRF)
		b[at] ^= 1
		return b
	}
	statement := func(change func(*firmware.Statement)) []byte {
		s := w.Statement(good.Image, "1.0.0", 1)
		change(s)
		p, err := s.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		bundle := w.Sign(p, "firmware")
		var krf bytes.Buffer
		if err := firmware.WriteKRF(&krf, bundle, w.Prove(bundle), bytes.NewReader(good.Image), w.Trust()); err != nil {
			t.Fatal(err)
		}
		return krf.Bytes()
	}
	tests := []struct {
		name  string
		spoil func(r *repo, c *update.Client)
		want  fault.Class
		is    error
	}{
		{"release of another world", func(r *repo, _ *update.Client) {
			r.publish(map[string][]byte{"x.krf": foreign.Release(image(t, 100), "9", 9).KRF})
		}, fault.Policy, nil},
		{"signature changed, and listed so by the online keys", func(r *repo, _ *update.Client) { r.publish(map[string][]byte{"x.krf": flip(900)}) }, fault.Verify, nil},
		{"other product", func(r *repo, _ *update.Client) {
			r.publish(map[string][]byte{"x.krf": statement(func(s *firmware.Statement) { s.Predicate.Product = "gw200" })})
		}, fault.Policy, update.ErrOther},
		{"other hardware", func(r *repo, _ *update.Client) {
			r.publish(map[string][]byte{"x.krf": statement(func(s *firmware.Statement) { s.Predicate.Hardware = []string{"gw300"} })})
		}, fault.Policy, update.ErrOther},
		{"below the security version", func(r *repo, c *update.Client) { c.Element.(*fake).security = 2 }, fault.Policy, update.ErrRollback},
		{"security version beyond what the element counts", func(r *repo, _ *update.Client) {
			r.publish(map[string][]byte{"x.krf": statement(func(s *firmware.Statement) { s.Predicate.SecurityVersion = 1 << 20 })})
		}, fault.Policy, nil},
		{"nothing offered", func(r *repo, _ *update.Client) { r.publish(nil) }, fault.Policy, update.ErrNoOffer},
		{"only other files offered", func(r *repo, _ *update.Client) { r.publish(map[string][]byte{"readme.txt": []byte("x")}) }, fault.Policy, update.ErrNoOffer},
		{"expired timestamp", func(r *repo, _ *update.Client) {
			r.expires = time.Now().Add(-time.Minute)
			r.publish(map[string][]byte{"x.krf": good.KRF})
		}, fault.Policy, update.ErrStale},
		{"expired by the element's time floor", func(_ *repo, c *update.Client) { c.Element.(*fake).floor = time.Now().Add(48 * time.Hour) }, fault.Policy, update.ErrStale},
		{"rolled back timestamp", func(r *repo, c *update.Client) {
			r.publish(map[string][]byte{"x.krf": good.KRF})
			if _, err := c.Find(t.Context()); err != nil {
				t.Fatal(err)
			}
			r.version = 0
			r.publish(map[string][]byte{"x.krf": good.KRF})
		}, fault.Policy, update.ErrStale},
		{"timestamp signed by the targets key", func(r *repo, _ *update.Client) {
			r.w.Keys["tuf-online"], r.w.Keys["tuf-targets"] = r.w.Keys["tuf-targets"], r.w.Keys["tuf-online"]
			defer func() {
				r.w.Keys["tuf-online"], r.w.Keys["tuf-targets"] = r.w.Keys["tuf-targets"], r.w.Keys["tuf-online"]
			}()
			r.publish(map[string][]byte{"x.krf": good.KRF})
		}, fault.Verify, update.ErrTUF},
		{"no timestamp", func(r *repo, _ *update.Client) { r.check(os.Remove(filepath.Join(r.dir, "metadata/timestamp.json"))) }, fault.Verify, update.ErrTUF},
		{"empty timestamp", func(r *repo, _ *update.Client) { r.put("metadata/timestamp.json", nil) }, fault.Verify, update.ErrTUF},
		{"timestamp without end", func(r *repo, _ *update.Client) {
			r.put("metadata/timestamp.json", bytes.Repeat([]byte(" "), 1<<20))
		}, fault.Verify, update.ErrTUF},
		{"target missing", func(r *repo, _ *update.Client) {
			files, err := filepath.Glob(filepath.Join(r.dir, "targets/*.krf"))
			r.check(err)
			r.check(os.Remove(files[0]))
		}, fault.Verify, update.ErrTarget},
		{"another first root", func(_ *repo, c *update.Client) { c.Root = newRepo(t, foreign).root }, fault.Verify, update.ErrTUF},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRepo(t, w)
			r.publish(map[string][]byte{"x.krf": good.KRF})
			c := r.client(newFake(w))
			tt.spoil(r, c)
			_, err := c.Find(t.Context())
			wantClass(t, err, tt.want)
			if tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %v, want %v", err, tt.is)
			}
		})
	}
}

// TestCheckRoot: a root that TUF itself would take is refused if it does not
// bind the roles to the anchors' keys.
func TestCheckRoot(t *testing.T) {
	w := artifacttest.New(t)
	r := newRepo(t, w)
	key := func(id string) *metadata.Key {
		k, err := metadata.KeyFromPublicKey(w.Keys[id].Public())
		r.check(err)
		return k
	}
	own := setest.Key(t)
	w.Keys["own"] = own
	tests := []struct {
		name string
		root []byte
		good bool
	}{
		{"as genesis makes it", r.root, true},
		{"unsigned", r.makeRoot(nil), false},
		{"a second targets key", r.makeRoot(func(m *metadata.Metadata[metadata.RootType]) { r.check(m.Signed.AddKey(key("own"), "targets")) }, "tuf-root"), false},
		{"targets by the online key", r.makeRoot(func(m *metadata.Metadata[metadata.RootType]) {
			m.Signed.Roles["targets"].KeyIDs = m.Signed.Roles["snapshot"].KeyIDs
		}, "tuf-root"), false},
		{"threshold met without the root key", r.makeRoot(func(m *metadata.Metadata[metadata.RootType]) { r.check(m.Signed.AddKey(key("own"), "root")) }, "own"), false},
		{"root key of somebody else", r.makeRoot(func(m *metadata.Metadata[metadata.RootType]) {
			m.Signed.Roles["root"].KeyIDs = nil
			r.check(m.Signed.AddKey(key("own"), "root"))
		}, "own"), false},
		{"no timestamp role", r.makeRoot(func(m *metadata.Metadata[metadata.RootType]) { delete(m.Signed.Roles, "timestamp") }, "tuf-root"), false},
		{"text", []byte("x"), false},
		{"nothing", nil, false},
		{"too long", bytes.Repeat([]byte(" "), 1<<20), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := update.CheckRoot(tt.root, w.Anchors)
			if tt.good != (err == nil) {
				t.Errorf("got %v", err)
			}
			if err != nil {
				wantClass(t, err, fault.Verify)
			}
		})
	}
}

// TestRootRotation: a new root signed by the old one is followed and kept.
func TestRootRotation(t *testing.T) {
	w := artifacttest.New(t)
	r := newRepo(t, w)
	r.publish(map[string][]byte{"x.krf": w.Release(image(t, 100), "1", 1).KRF})
	next := setest.Key(t)
	w.Keys["next-online"] = next
	k, err := metadata.KeyFromPublicKey(next.Public())
	r.check(err)
	r.put("metadata/2.root.json", r.makeRoot(func(m *metadata.Metadata[metadata.RootType]) {
		m.Signed.Version = 2
		for _, role := range []string{"snapshot", "timestamp"} {
			m.Signed.Roles[role].KeyIDs = nil
			r.check(m.Signed.AddKey(k, role))
		}
	}, "tuf-root"))
	c := r.client(newFake(w))
	_, err = c.Find(t.Context())
	wantClass(t, err, fault.Verify) // timestamp is still the old key's
	w.Keys["tuf-online"] = next
	r.publish(map[string][]byte{"x.krf": w.Release(image(t, 100), "1", 1).KRF})
	if _, err := c.Find(t.Context()); err != nil {
		t.Error(err)
	}
	r.check(os.Remove(filepath.Join(r.dir, "metadata/2.root.json")))
	if _, err := c.Find(t.Context()); err != nil {
		t.Errorf("with the root kept: %v", err)
	}
}

// TestPlantedRoot: a root laid into the state folder is not one that the
// enrolled root leads to, so the repository of whoever made it is refused.
func TestPlantedRoot(t *testing.T) {
	for _, name := range []string{"root.json", "2.root.json"} {
		t.Run(name, func(t *testing.T) {
			w := artifacttest.New(t)
			r := newRepo(t, w)
			c := r.client(newFake(w))
			evil := setest.Key(t)
			k, err := metadata.KeyFromPublicKey(evil.Public())
			r.check(err)
			w.Keys["evil"] = evil
			root := r.makeRoot(func(m *metadata.Metadata[metadata.RootType]) {
				m.Signed.Version = 2
				for _, role := range []string{"root", "targets", "snapshot", "timestamp"} {
					m.Signed.Roles[role].KeyIDs = nil
					r.check(m.Signed.AddKey(k, role))
				}
			}, "evil")
			r.check(os.MkdirAll(c.Dir, 0o700))
			r.check(os.WriteFile(filepath.Join(c.Dir, name), root, 0o600))
			w.Keys["tuf-online"], w.Keys["tuf-targets"] = evil, evil
			r.publish(map[string][]byte{"x.krf": w.Release(image(t, 100), "1", 1).KRF})
			_, err = c.Find(t.Context())
			wantClass(t, err, fault.Verify)
			if !errors.Is(err, update.ErrTUF) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestInstallRefusesTamperedImage changes single bytes of the image, in the
// repository (listed so by TUF) and in transit (TUF lists the true one).
func TestInstallRefusesTamperedImage(t *testing.T) {
	w := artifacttest.New(t)
	good := w.Release(image(t, 300_000), "1.0.0", 1)
	start := len(good.KRF) - 300_000 - 2048
	for _, at := range []int{start + 2000, start + 150_000, len(good.KRF) - 1} {
		for _, where := range []string{"repository", "transit"} {
			t.Run(fmt.Sprintf("%s %d", where, at-start), func(t *testing.T) {
				bad := bytes.Clone(good.KRF)
				bad[at] ^= 1
				r := newRepo(t, w)
				if where == "repository" {
					r.publish(map[string][]byte{"x.krf": bad})
				} else {
					r.publish(map[string][]byte{"x.krf": good.KRF})
					files, err := filepath.Glob(filepath.Join(r.dir, "targets/*.krf"))
					r.check(err)
					r.check(os.WriteFile(files[0], bad, 0o600))
				}
				e := newFake(w)
				dir := t.TempDir()
				s := openSlots(t, dir, e)
				o, err := r.client(e).Find(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				_, err = s.Install(t.Context(), o)
				wantClass(t, err, fault.Verify)
				if fi, err := os.Stat(filepath.Join(dir, "a.img")); err != nil || fi.Size() != 0 {
					t.Errorf("left behind: %v %v", fi, err)
				}
				_, err = s.Boot()
				wantClass(t, err, fault.Verify)
			})
		}
	}
}

// TestBootRefusesTamperedSlot changes the image in the slot: every sampled byte
// makes the gateway fall back, and the slot is not looked at again.
func TestBootRefusesTamperedSlot(t *testing.T) {
	w := artifacttest.New(t)
	e := newFake(w)
	r := newRepo(t, w)
	dir := t.TempDir()
	s := openSlots(t, dir, e)
	install := func(version string) *firmware.Statement {
		r.publish(map[string][]byte{"x.krf": w.Release(image(t, 10_000), version, 1).KRF})
		o, err := r.client(e).Find(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Install(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		return o.Statement
	}
	install("1.0.0")
	if _, err := s.Boot(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Confirm(); err != nil {
		t.Fatal(err)
	}
	for at := range 10 {
		install(fmt.Sprintf("1.%d.0", at+1))
		data, err := os.ReadFile(filepath.Join(dir, "b.img"))
		r.check(err)
		data[at*1000] ^= 1
		r.check(os.WriteFile(filepath.Join(dir, "b.img"), data, 0o600))
		b, err := s.Boot()
		if err != nil || b.Slot != "a" || len(b.Refused) != 1 || !errors.Is(b.Refused[0].Err, firmware.ErrImage) {
			t.Fatalf("byte %d: booted %+v, %v", at*1000, b, err)
		}
		b, err = s.Boot()
		if err != nil || b.Slot != "a" || len(b.Refused) != 0 {
			t.Fatalf("second start: %+v, %v", b, err)
		}
	}
	// The active slot spoilt as well: nothing starts, and an update repairs it.
	r.check(os.WriteFile(filepath.Join(dir, "a.img"), []byte("other"), 0o600))
	for range 2 {
		_, err := s.Boot()
		wantClass(t, err, fault.Verify)
		if !errors.Is(err, update.ErrNothing) {
			t.Errorf("with both slots spoilt: %v", err)
		}
	}
	install("2.0.0")
	if b, err := s.Boot(); err != nil || b.Slot != "b" {
		t.Errorf("after the repair: %+v, %v", b, err)
	}
}

// TestTrialFallsBack: a release that is started three times and never confirmed
// gives way to the old one.
func TestTrialFallsBack(t *testing.T) {
	w := artifacttest.New(t)
	e := newFake(w)
	r := newRepo(t, w)
	s := openSlots(t, t.TempDir(), e)
	for _, v := range []string{"1.0.0", "1.1.0"} {
		r.publish(map[string][]byte{"x.krf": w.Release(image(t, 100), v, 1).KRF})
		o, err := r.client(e).Find(t.Context())
		r.check(err)
		_, err = s.Install(t.Context(), o)
		r.check(err)
		_, err = s.Boot()
		r.check(err)
		if v == "1.0.0" {
			_, err = s.Confirm()
			r.check(err)
			continue
		}
		_, err = s.Install(t.Context(), o)
		r.check(err) // up to date
		r.publish(map[string][]byte{"x.krf": w.Release(image(t, 100), "1.2.0", 1).KRF})
		o, err = r.client(e).Find(t.Context())
		r.check(err)
		_, err = s.Install(t.Context(), o)
		wantClass(t, err, fault.Sealed) // the running slot is never written
	}
	var got []string
	for range 3 {
		b, err := s.Boot()
		r.check(err)
		got = append(got, b.Statement.Predicate.Version)
	}
	if strings.Join(got, " ") != "1.1.0 1.1.0 1.0.0" {
		t.Errorf("started %v", got)
	}
}

// TestSpentTrialIsNotHeld: a trial without starts left gives way at the next
// start, so "up to date" would be untrue of it.
func TestSpentTrialIsNotHeld(t *testing.T) {
	w := artifacttest.New(t)
	e := newFake(w)
	r := newRepo(t, w)
	s := openSlots(t, t.TempDir(), e)
	offer := func(v string) *update.Offer {
		r.publish(map[string][]byte{"x.krf": w.Release(image(t, 100), v, 1).KRF})
		o, err := r.client(e).Find(t.Context())
		r.check(err)
		return o
	}
	_, err := s.Install(t.Context(), offer("1.0.0"))
	r.check(err)
	_, err = s.Boot()
	r.check(err)
	_, err = s.Confirm()
	r.check(err)
	next := offer("1.1.0")
	_, err = s.Install(t.Context(), next)
	r.check(err)
	for range update.MaxTries {
		_, err = s.Boot()
		r.check(err)
	}
	if in, err := s.Install(t.Context(), next); err == nil && in.UpToDate {
		t.Error("a trial that was started as often as it may is called up to date")
	}
}

// TestConfirmVerifies: an image that changed since its start is not confirmed,
// and the way back stays open.
func TestConfirmVerifies(t *testing.T) {
	w := artifacttest.New(t)
	e := newFake(w)
	r := newRepo(t, w)
	dir := t.TempDir()
	s := openSlots(t, dir, e)
	r.publish(map[string][]byte{"x.krf": w.Release(image(t, 10_000), "1.0.0", 3).KRF})
	o, err := r.client(e).Find(t.Context())
	r.check(err)
	_, err = s.Install(t.Context(), o)
	r.check(err)
	_, err = s.Boot()
	r.check(err)
	path := filepath.Join(dir, "a.img")
	data, err := os.ReadFile(path)
	r.check(err)
	data[5000] ^= 1
	r.check(os.WriteFile(path, data, 0o600))
	_, err = s.Confirm()
	wantClass(t, err, fault.Verify)
	if st, err := s.State(); err != nil || st.Active != "" || e.security != 0 {
		t.Errorf("active %q, security version %d, %v", st.Active, e.security, err)
	}
}

func TestStateRefuses(t *testing.T) {
	w := artifacttest.New(t)
	e := newFake(w)
	dir := t.TempDir()
	s := openSlots(t, dir, e)
	if _, err := update.OpenSlots(dir, e, device()); fault.ClassOf(err) != fault.Sealed {
		t.Errorf("second process: %v", err)
	}
	r := newRepo(t, w)
	r.publish(map[string][]byte{"x.krf": w.Release(image(t, 100), "1", 1).KRF})
	o, err := r.client(e).Find(t.Context())
	r.check(err)
	_, err = s.Install(t.Context(), o)
	r.check(err)
	state, err := os.ReadFile(filepath.Join(dir, "state.json"))
	r.check(err)
	for name, bad := range map[string][]byte{
		"empty": {}, "cut": state[:len(state)-1], "more": append(bytes.Clone(state), '\n'),
		"other state": bytes.Replace(state, []byte(`"trial"`), []byte(`"golden"`), 1),
		"no bundle":   bytes.Replace(state, []byte(`"state":"empty"`), []byte(`"state":"good"`), 1),
		"slot c":      bytes.Replace(state, []byte(`"active":""`), []byte(`"active":"c"`), 1),
	} {
		r.check(os.WriteFile(filepath.Join(dir, "state.json"), bad, 0o600))
		_, err := s.Boot()
		if fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
}
