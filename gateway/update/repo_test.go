package update_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/world"
	"keyrite/gateway/secureelement"
	"keyrite/gateway/update"
)

// repo is a TUF repository of a test world.
type repo struct {
	t       *testing.T
	w       *artifacttest.World
	dir     string
	root    []byte
	version int64
	expires time.Time
	suffix  string // of the ids of the keys that sign targets, snapshot and timestamp
}

func newRepo(t *testing.T, w *artifacttest.World) *repo {
	r := &repo{t: t, w: w, dir: t.TempDir(), expires: time.Now().Add(time.Hour)}
	for _, d := range []string{"metadata", "targets"} {
		if err := os.MkdirAll(filepath.Join(r.dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	r.root = r.makeRoot(nil, "tuf-root")
	r.put("metadata/1.root.json", r.root)
	return r
}

func (r *repo) check(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// makeRoot lets change spoil the root before signers sign it.
func (r *repo) makeRoot(change func(*metadata.Metadata[metadata.RootType]), signers ...string) []byte {
	root := metadata.Root(time.Now().Add(24 * time.Hour))
	root.Signed.ConsistentSnapshot = true
	for role, id := range map[string]string{"root": "tuf-root", "targets": "tuf-targets" + r.suffix, "snapshot": "tuf-online" + r.suffix, "timestamp": "tuf-online" + r.suffix} {
		k, err := metadata.KeyFromPublicKey(r.w.Keys[id].Public())
		r.check(err)
		r.check(root.Signed.AddKey(k, role))
	}
	if change != nil {
		change(root)
	}
	for _, s := range signers {
		r.sign(func(x signature.Signer) error { _, err := root.Sign(x); return err }, r.w.Keys[s])
	}
	b, err := root.ToBytes(false)
	r.check(err)
	return b
}

func (r *repo) sign(sign func(signature.Signer) error, key crypto.Signer) {
	r.t.Helper()
	s, err := signature.LoadECDSASigner(key.(*ecdsa.PrivateKey), crypto.SHA256)
	r.check(err)
	r.check(sign(s))
}

func (r *repo) put(name string, data []byte) {
	r.t.Helper()
	r.check(os.WriteFile(filepath.Join(r.dir, name), data, 0o600))
}

// publish replaces what is offered.
func (r *repo) publish(files map[string][]byte) {
	r.t.Helper()
	r.version++
	targets := metadata.Targets(r.expires)
	targets.Signed.Version = r.version
	for name, data := range files {
		f, err := metadata.TargetFile().FromBytes(name, data, "sha256")
		r.check(err)
		targets.Signed.Targets[name] = f
		sum := sha256.Sum256(data)
		r.put("targets/"+hex.EncodeToString(sum[:])+"."+name, data)
	}
	r.sign(func(x signature.Signer) error { _, err := targets.Sign(x); return err }, r.w.Keys["tuf-targets"+r.suffix])
	snapshot := metadata.Snapshot(r.expires)
	snapshot.Signed.Version = r.version
	snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(r.version)
	r.sign(func(x signature.Signer) error { _, err := snapshot.Sign(x); return err }, r.w.Keys["tuf-online"+r.suffix])
	timestamp := metadata.Timestamp(r.expires)
	timestamp.Signed.Version = r.version
	timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(r.version)
	r.sign(func(x signature.Signer) error { _, err := timestamp.Sign(x); return err }, r.w.Keys["tuf-online"+r.suffix])
	v := strconv.FormatInt(r.version, 10)
	for name, m := range map[string]interface{ ToBytes(bool) ([]byte, error) }{v + ".targets.json": targets, v + ".snapshot.json": snapshot, "timestamp.json": timestamp} {
		b, err := m.ToBytes(false)
		r.check(err)
		r.put("metadata/"+name, b)
	}
}

// fake is an element in memory, for sweeps that would wear a TPM out.
type fake struct {
	world    world.World
	vault    string
	anchors  string
	follows  int64
	key      *ecdsa.PublicKey
	security int64
	floor    time.Time
	power    func() error // asked before each count of the succession; nil: it is on
}

func newFake(w *artifacttest.World) *fake {
	return &fake{world: w.World, vault: w.Anchors.Vault, key: w.Keys["firmware"].Public().(*ecdsa.PublicKey)}
}

func (f *fake) Birth() (*secureelement.Birth, error) {
	return &secureelement.Birth{Anchors: f.anchors, World: f.world, Vault: f.vault}, nil
}

func (f *fake) Succession() (int64, bool, error) { return f.follows, true, nil }
func (f *fake) RaiseSuccession(v int64) error {
	for ; f.follows < v; f.follows++ { // as a TPM counts
		if f.power == nil {
			continue
		}
		if err := f.power(); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) FirmwareKey() (*ecdsa.PublicKey, error) { return f.key, nil }
func (f *fake) SecurityVersion() (int64, error)        { return f.security, nil }
func (f *fake) RaiseSecurityVersion(v int64) error {
	if v < f.security {
		return secureelement.ErrRollback
	}
	f.security = v
	return nil
}
func (f *fake) TimeFloor() (time.Time, error) { return f.floor, nil }
func (f *fake) RaiseTimeFloor(t time.Time) error {
	if t.After(f.floor) {
		f.floor = t
	}
	return nil
}

func device() update.Device { return update.Device{Product: "gw100", Hardware: "gw100"} }

func (r *repo) client(e update.Element) *update.Client {
	return &update.Client{
		Source: update.NewFolder(r.dir), Dir: filepath.Join(r.t.TempDir(), "tuf"), Root: r.root, Anchors: r.w.Anchors,
		Element: e, Device: device(), Now: time.Now,
	}
}
