package tuf_test

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/signer/tuf"
)

type bench struct {
	*artifacttest.World
	t    *testing.T
	dir  string
	root []byte
	now  time.Time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{World: artifacttest.New(t, "approver2"), t: t, dir: t.TempDir(), now: artifacttest.Now()}
	b.root = b.makeRoot(1, "tuf-root", "approver1")
	return b
}

func (b *bench) signer(name string) crypto.Signer {
	if p, ok := b.People[name]; ok {
		return p.Signer()
	}
	return b.Keys[name]
}

func (b *bench) spec(version int64) *tuf.RootSpec {
	b.t.Helper()
	spec, err := tuf.RootOf(b.State, version, b.now.AddDate(1, 0, 0))
	if err != nil {
		b.t.Fatal(err)
	}
	return spec
}

func (b *bench) assemble(spec *tuf.RootSpec, names ...string) ([]byte, error) {
	b.t.Helper()
	tbs, err := tuf.RootTBS(spec)
	if err != nil {
		b.t.Fatal(err)
	}
	var sigs []tuf.RootSignature
	for _, n := range names {
		s, err := tuf.SignRoot(tbs, b.signer(n))
		if err != nil {
			b.t.Fatal(err)
		}
		sigs = append(sigs, s)
	}
	return tuf.Assemble(spec, sigs)
}

func (b *bench) makeRoot(version int64, names ...string) []byte {
	b.t.Helper()
	root, err := b.assemble(b.spec(version), names...)
	if err != nil {
		b.t.Fatal(err)
	}
	return root
}

func (b *bench) keys(id string) (crypto.Signer, error) { return b.Keys[id], nil }

func (b *bench) krf(version string, security int64) string {
	b.t.Helper()
	r := b.Release([]byte("\x7fimage "+version), version, security)
	p := filepath.Join(b.dir, version+".krf")
	if err := os.WriteFile(p, r.KRF, 0o600); err != nil {
		b.t.Fatal(err)
	}
	return p
}

func (b *bench) open(root []byte) (*tuf.Repository, error) {
	return tuf.Open(filepath.Join(b.dir, "repo"), root, b.State, b.Trust(), func() time.Time { return b.now })
}

// publish does what the command does.
func (b *bench) publish(root []byte, krfs ...string) error {
	b.t.Helper()
	r, err := b.open(root)
	if err != nil {
		return err
	}
	defer r.Close()
	for _, k := range krfs {
		if _, err := r.Add(b.t.Context(), k); err != nil {
			return err
		}
	}
	return r.Publish(b.keys, tuf.DefaultValidity())
}

// fetch is an independent client: go-tuf's updater over HTTP.
func (b *bench) fetch(target string) ([]byte, error) {
	b.t.Helper()
	srv := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(b.dir, "repo"))))
	defer srv.Close()
	cfg, err := config.New(srv.URL+"/metadata", b.root)
	if err != nil {
		b.t.Fatal(err)
	}
	cfg.LocalMetadataDir, cfg.LocalTargetsDir = b.t.TempDir(), b.t.TempDir()
	cfg.RemoteTargetsURL = srv.URL + "/targets"
	up, err := updater.New(cfg)
	if err != nil {
		return nil, err
	}
	up.UnsafeSetRefTime(b.now)
	if err := up.Refresh(); err != nil {
		return nil, err
	}
	info, err := up.GetTargetInfo(target)
	if err != nil {
		return nil, err
	}
	_, data, err := up.DownloadTarget(info, "", "")
	return data, err
}

func TestPublishIsReadByAnotherClient(t *testing.T) {
	b := newBench(t)
	if err := b.publish(b.root, b.krf("1.0", 1)); err != nil {
		t.Fatal(err)
	}
	data, err := b.fetch("gw100_release_1.0.krf")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := firmware.VerifyKRF(bytes.NewReader(data), b.Trust()); err != nil {
		t.Error(err)
	}
	if _, err := b.fetch("gw100_release_1.0.sigstore.json"); err != nil {
		t.Error(err)
	}
	if err := b.publish(nil, b.krf("1.1", 2)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.fetch("gw100_release_1.1.krf"); err != nil {
		t.Error(err)
	}
	if _, err := b.fetch("gw100_release_1.0.krf"); err == nil {
		t.Error("the older release is still offered")
	}
	if err := b.publish(nil, b.krf("0.9", 1)); !errors.Is(err, tuf.ErrOlder) {
		t.Errorf("offer goes back: %v", err)
	}
	// Renewed after everything but the root has expired, and with a new root.
	b.now = b.now.AddDate(0, 6, 0)
	if _, err := b.fetch("gw100_release_1.1.krf"); err == nil {
		t.Error("expired metadata is taken")
	}
	if err := b.publish(b.makeRoot(2, "approver2", "tuf-root")); err != nil {
		t.Fatal(err)
	}
	if _, err := b.fetch("gw100_release_1.1.krf"); err != nil {
		t.Errorf("after renewal: %v", err)
	}
}

func TestRootsAreRefused(t *testing.T) {
	b, other := newBench(t), newBench(t)
	for _, tt := range []struct {
		name    string
		signers []string
		want    error
	}{
		{"one signature", []string{"tuf-root"}, tuf.ErrSigners},
		{"one key twice", []string{"tuf-root", "tuf-root"}, tuf.ErrRoot},
		{"a key master", []string{"tuf-root", "master1"}, tuf.ErrRoot},
		{"an online key", []string{"tuf-root", "tuf-online"}, tuf.ErrRoot},
	} {
		if _, err := b.assemble(b.spec(1), tt.signers...); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	old, err := tuf.RootTBS(b.spec(2))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := tuf.SignRoot(old, b.Keys["tuf-root"])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tuf.Assemble(b.spec(1), []tuf.RootSignature{sig, sig}); !errors.Is(err, tuf.ErrRoot) {
		t.Errorf("signature over another version: %v", err)
	}
	people := b.makeRoot(1, "approver1", "approver2")
	if err := tuf.CheckRoot(people, b.State); !errors.Is(err, tuf.ErrSigners) {
		t.Errorf("approvers alone: %v", err)
	}
	if err := tuf.CheckRoot(other.root, b.State); fault.ClassOf(err) != fault.Policy {
		t.Errorf("other world: %v", err)
	}
	swapped := b.spec(1)
	swapped.Targets, swapped.Online = swapped.Online, swapped.Targets
	root, err := b.assemble(swapped, "tuf-root", "approver1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tuf.CheckRoot(root, b.State); !errors.Is(err, tuf.ErrRoot) {
		t.Errorf("roles exchanged: %v", err)
	}
	swapped.Online = swapped.Root[0].Public
	if _, err := tuf.RootTBS(swapped); !errors.Is(err, tuf.ErrRoot) {
		t.Errorf("one key in two roles: %v", err)
	}
	if _, err := b.open(nil); fault.ClassOf(err) != fault.Usage {
		t.Errorf("new repository without a root: %v", err)
	}
	for i := range b.root {
		c := bytes.Clone(b.root)
		c[i] ^= 1
		if tuf.CheckRoot(c, b.State) == nil && !bytes.Contains(b.root[max(0, i-80):i+1], []byte("sig")) {
			// A second signature beyond the threshold may be damaged, as TUF has it.
			t.Fatalf("byte %d flipped and accepted", i)
		}
	}
}

func TestAlteredRepositoryIsRefused(t *testing.T) {
	b := newBench(t)
	if err := b.publish(b.root, b.krf("1.0", 1)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"1.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"} {
		p := filepath.Join(b.dir, "repo", "metadata", name)
		good, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, bytes.Replace(good, []byte(`"version":1`), []byte(`"version":2`), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := b.open(nil); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.WriteFile(p, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.publish(nil); err != nil {
		t.Errorf("put right again: %v", err)
	}
}

func TestKRFOfAnotherWorldIsNotOffered(t *testing.T) {
	b, other := newBench(t), newBench(t)
	if err := b.publish(b.root, other.krf("1.0", 1)); fault.ClassOf(err) != fault.Policy {
		t.Errorf("got %v", err)
	}
	p := b.krf("1.0", 1)
	data, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1500] ^= 1
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := b.publish(b.root, p); fault.ClassOf(err) != fault.Verify {
		t.Errorf("altered: %v", err)
	}
}

// Whatever a publication had written when it was cut off, clients see the old
// repository, and the next publication succeeds.
func TestCutOffPublicationLeavesTheOldOne(t *testing.T) {
	b := newBench(t)
	if err := b.publish(b.root, b.krf("1.0", 1)); err != nil {
		t.Fatal(err)
	}
	repo := filepath.Join(b.dir, "repo")
	old := filepath.Join(b.dir, "old")
	if err := os.CopyFS(old, os.DirFS(repo)); err != nil {
		t.Fatal(err)
	}
	if err := b.publish(nil, b.krf("1.1", 2)); err != nil {
		t.Fatal(err)
	}
	var added []string
	for _, d := range []string{"targets", "metadata"} {
		entries, err := os.ReadDir(filepath.Join(repo, d))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if _, err := os.Stat(filepath.Join(old, d, e.Name())); err != nil {
				added = append(added, filepath.Join(d, e.Name()))
			}
		}
	}
	if len(added) != 4 { // two targets, 2.targets.json, 2.snapshot.json
		t.Fatalf("added %v", added)
	}
	for n := range len(added) + 1 {
		t.Run(fmt.Sprintf("after %d files", n), func(t *testing.T) {
			c := &bench{World: b.World, t: t, dir: t.TempDir(), root: b.root, now: b.now}
			if err := os.CopyFS(filepath.Join(c.dir, "repo"), os.DirFS(old)); err != nil {
				t.Fatal(err)
			}
			for _, name := range added[:n] {
				data, err := os.ReadFile(filepath.Join(repo, name))
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(c.dir, "repo", name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := c.fetch("gw100_release_1.0.krf"); err != nil {
				t.Errorf("old offer: %v", err)
			}
			if err := c.publish(nil, filepath.Join(b.dir, "1.1.krf")); err != nil {
				t.Fatal(err)
			}
			if _, err := c.fetch("gw100_release_1.1.krf"); err != nil {
				t.Errorf("new offer: %v", err)
			}
		})
	}
}

func TestOnePublisherAtATime(t *testing.T) {
	b := newBench(t)
	r, err := b.open(b.root)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := b.open(b.root); fault.ClassOf(err) != fault.Sealed {
		t.Errorf("got %v", err)
	}
}

func TestRootSaysItsWorld(t *testing.T) {
	b := newBench(t)
	if !strings.Contains(string(b.root), string(b.World.World)) {
		t.Error("no world in the root")
	}
}
