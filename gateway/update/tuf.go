package update

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/succession"
	"keyrite/internal/durable"
)

// Limits of what is read from a repository.
const (
	maxRootBytes      = 256 << 10
	maxTimestampBytes = 16 << 10
	maxSnapshotBytes  = 1 << 20
	maxTargetsBytes   = 4 << 20
	maxRootRotations  = 64 // at one refresh; the next goes on
	maxOffers         = 64 // releases looked at
)

// Client finds releases in a repository.
type Client struct {
	Source  Source
	Dir     string // verified metadata is kept here; made if missing
	Root    []byte // 1.root.json, given at enrolment
	Anchors *anchor.Anchors
	Element Element
	Device  Device
	Now     func() time.Time
	// Succession is that of the gateway's slots; what the repository offers is
	// added to it. Anchors are those of the birth all the same.
	Succession *Succession
}

// Offer is a release that TUF offers and whose statement holds.
type Offer struct {
	Target    string // name in the repository
	Statement *firmware.Statement

	c    *Client
	file *metadata.TargetFiles
	path string
}

// Find refreshes the metadata and returns the best release for this device: the
// highest security version, then the latest signed.
func (c *Client) Find(ctx context.Context) (*Offer, error) {
	files, prefix, err := c.refresh(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.checkNewest(); err != nil {
		return nil, err
	}
	floor, err := c.Element.SecurityVersion()
	if err != nil {
		return nil, err
	}
	var best *Offer
	var refusal error
	for _, f := range files {
		o, err := c.look(ctx, f, prefix)
		if err == nil {
			err = admit(o.Statement, c.Device, c.Anchors.World, floor)
		}
		if err != nil {
			if c := fault.ClassOf(err); c != fault.Verify && c != fault.Policy {
				return nil, err
			}
			refusal = worse(refusal, fault.Errorf(fault.ClassOf(err), "release %s: %w", f.Path, err))
			continue
		}
		if best == nil || better(o.Statement, best.Statement) {
			best = o
		}
	}
	switch {
	case best != nil:
		return best, nil
	case refusal != nil:
		return nil, refusal
	}
	return nil, ErrNoOffer
}

// worse keeps the refusal that says most: a broken signature before a wrong
// product.
func worse(a, b error) error {
	if a == nil || fault.ClassOf(a) == fault.Policy && fault.ClassOf(b) == fault.Verify || errors.Is(a, ErrOther) {
		return b
	}
	return a
}

func better(a, b *firmware.Statement) bool {
	if a.Predicate.SecurityVersion != b.Predicate.SecurityVersion {
		return a.Predicate.SecurityVersion > b.Predicate.SecurityVersion
	}
	return a.Predicate.Time > b.Predicate.Time // one format, UTC: text order is time order
}

// look reads the head of a release: its statement and log proof.
func (c *Client) look(ctx context.Context, f *metadata.TargetFiles, prefix bool) (*Offer, error) {
	o := &Offer{Target: f.Path, c: c, file: f, path: f.Path}
	sum, ok := f.Hashes["sha256"]
	if !ok || len(sum) != sha256.Size || f.Length < 1 {
		return nil, fault.Errorf(fault.Verify, "%w: no SHA-256 or length", ErrTUF)
	}
	if prefix {
		o.path = hex.EncodeToString(sum) + "." + f.Path
	}
	k, r, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	o.Statement = k.Statement
	return o, r.Close()
}

// stream is a target on its way, counted, hashed and bounded.
type stream struct {
	io.Reader
	closer io.Closer
	h      hash.Hash
	n      int64
}

func (s *stream) Close() error { return s.closer.Close() }

func (s *stream) Write(b []byte) (int, error) {
	s.n += int64(len(b))
	return s.h.Write(b)
}

func (o *Offer) open(ctx context.Context) (*firmware.KRF, *stream, error) {
	t, err := o.c.trust()
	if err != nil {
		return nil, nil, err
	}
	body, err := o.c.Source.Target(ctx, o.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fault.Errorf(fault.Verify, "%w: it is missing", ErrTarget)
	}
	if err != nil {
		return nil, nil, err
	}
	s := &stream{closer: body, h: sha256.New()}
	s.Reader = io.TeeReader(io.LimitReader(body, o.file.Length+1), s)
	k, err := firmware.OpenKRF(s, t)
	if err != nil {
		_ = body.Close()
		return nil, nil, err
	}
	return k, s, nil
}

// trust is what an offer is checked with: the key in force, nothing else.
func (c *Client) trust() (*firmware.Trust, error) {
	if c.Succession.Counter() > 0 {
		return firmware.TrustOf(c.Succession.InForce(c.Anchors))
	}
	key, err := logKey(c.Anchors)
	if err != nil {
		return nil, err
	}
	return trust(c.Element, key)
}

func logKey(a *anchor.Anchors) (ed25519.PublicKey, error) {
	_, pub, err := a.Key(firmware.LogKeyID, "note")
	if err != nil {
		return nil, err
	}
	k, ok := pub.(ed25519.PublicKey)
	if !ok {
		return nil, fault.New(fault.Verify, "the anchors' log key is not Ed25519")
	}
	return k, nil
}

// copyTo streams the image to w. When it returns nil, the image is that of the
// statement and the file that of TUF.
func (o *Offer) copyTo(ctx context.Context, w io.Writer) ([]byte, error) {
	k, s, err := o.open(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = s.Close() }() // read only
	if err := k.CopyTo(w); err != nil {
		return nil, err
	}
	if s.n != o.file.Length || string(s.h.Sum(nil)) != string(o.file.Hashes["sha256"]) {
		return nil, ErrTarget
	}
	if k.Statement.Image() != o.Statement.Image() {
		return nil, fault.Errorf(fault.Verify, "%w: it changed while it was read", ErrTarget)
	}
	return k.Bundle, nil
}

type fetchFunc func(name string, limit int64) ([]byte, error)

// DownloadFile implements go-tuf's fetcher.
func (f fetchFunc) DownloadFile(name string, limit int64, _ time.Duration) ([]byte, error) {
	return f(name, limit)
}

const remoteBase = "metadata/" // go-tuf puts it before each name

// fetcher reads from the source, and leaves the roots it read in work: the chain
// of them is what later trust is built on.
func (c *Client) fetcher(ctx context.Context, work string) fetchFunc {
	return func(name string, limit int64) ([]byte, error) {
		name = strings.TrimPrefix(name, remoteBase)
		body, err := c.Source.Metadata(ctx, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &metadata.ErrDownloadHTTP{StatusCode: http.StatusNotFound, URL: name}
		}
		if err != nil {
			return nil, err
		}
		defer func() { _ = body.Close() }() // read only
		data, err := io.ReadAll(io.LimitReader(body, limit+1))
		if err != nil {
			return nil, fetchError(err)
		}
		if int64(len(data)) > limit {
			return nil, &metadata.ErrDownloadLengthMismatch{Msg: fmt.Sprintf("%s has more than %d bytes", name, limit)}
		}
		if strings.HasSuffix(name, rootSuffix) {
			if err := os.WriteFile(filepath.Join(work, filepath.Base(name)), data, 0o600); err != nil {
				return nil, fault.Errorf(fault.Storage, "keep TUF metadata: %w", err)
			}
		}
		return data, nil
	}
}

// now is the clock, but never before the element's time floor.
func (c *Client) now() (time.Time, error) {
	floor, err := c.Element.TimeFloor()
	if now := c.Now(); err != nil || now.After(floor) {
		return now, err
	}
	return floor, nil
}

// refresh runs the TUF client workflow in a scratch folder and keeps what it
// verified: go-tuf does not sync what it writes, and a half written timestamp
// would stop every later update.
func (c *Client) refresh(ctx context.Context) ([]*metadata.TargetFiles, bool, error) {
	if err := CheckRoot(c.Root, c.Anchors); err != nil {
		return nil, false, err
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, false, fault.Errorf(fault.Storage, "keep TUF metadata: %w", err)
	}
	work, err := os.MkdirTemp(c.Dir, ".work-")
	if err != nil {
		return nil, false, fault.Errorf(fault.Storage, "keep TUF metadata: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	root, err := c.load(work)
	if err != nil {
		return nil, false, err
	}
	u, err := c.run(ctx, work, root)
	if err != nil {
		return nil, false, err
	}
	if err := c.keep(work); err != nil {
		return nil, false, err
	}
	if err := c.learn(ctx, u); err != nil {
		return nil, false, err
	}
	return c.releases(u)
}

// learn takes the succession statement that the repository offers.
func (c *Client) learn(ctx context.Context, u *updater.Updater) error {
	f := u.GetTopLevelTargets()[SuccessionTarget]
	if f == nil || c.Succession == nil {
		return nil
	}
	sum := f.Hashes["sha256"]
	if len(sum) != sha256.Size || f.Length < 1 || f.Length > succession.MaxBytes {
		return fault.Errorf(fault.Verify, "%w: %s", ErrTUF, SuccessionTarget)
	}
	path := SuccessionTarget
	if u.GetTrustedMetadataSet().Root.Signed.ConsistentSnapshot {
		path = hex.EncodeToString(sum) + "." + path
	}
	body, err := c.Source.Target(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.Errorf(fault.Verify, "%w: it is missing", ErrTarget)
	}
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // read only
	data, err := io.ReadAll(io.LimitReader(body, f.Length+1))
	if err != nil {
		return fetchError(err)
	}
	if got := sha256.Sum256(data); int64(len(data)) != f.Length || string(got[:]) != string(sum) {
		return ErrTarget
	}
	return c.Succession.take(data, c.Anchors)
}

// checkNewest wants the newest root to be signed by the root token's key in
// force: TUF's own threshold could be met without it.
func (c *Client) checkNewest() error {
	_, root, err := c.walk()
	if err != nil {
		return err
	}
	return checkRootSigner(root, c.Succession.InForce(c.Anchors))
}

func roleFiles() []string {
	return []string{"timestamp.json", "snapshot.json", "targets.json"}
}

const rootSuffix = ".root.json"

func rootFile(version int64) string { return strconv.FormatInt(version, 10) + rootSuffix }

// walk follows the kept roots from the one of the enrolment, each signed by the
// one before and by itself, and returns the newest. What lies in the state folder
// is trusted for nothing else.
func (c *Client) walk() ([]byte, *metadata.Metadata[metadata.RootType], error) {
	data := c.Root
	root, err := metadata.Root().FromBytes(data)
	if err != nil {
		return nil, nil, fault.Errorf(fault.Verify, "TUF root: %w: %w", ErrTUF, err)
	}
	for {
		name := rootFile(root.Signed.Version + 1)
		b, err := os.ReadFile(filepath.Join(c.Dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			return data, root, nil
		}
		if err != nil {
			return nil, nil, fault.Errorf(fault.Storage, "read TUF metadata: %w", err)
		}
		next, err := metadata.Root().FromBytes(b)
		if err == nil {
			err = root.VerifyDelegate(metadata.ROOT, next)
		}
		if err == nil {
			err = next.VerifyDelegate(metadata.ROOT, next)
		}
		if err == nil && next.Signed.Version != root.Signed.Version+1 {
			err = &metadata.ErrBadVersionNumber{Msg: "not the next version"}
		}
		if err != nil {
			return nil, nil, fault.Errorf(fault.Verify, "kept TUF root %s: %w: %w", name, ErrTUF, err)
		}
		data, root = b, next
	}
}

// load copies the kept metadata to work and returns the newest trusted root.
func (c *Client) load(work string) ([]byte, error) {
	root, _, err := c.walk()
	if err != nil {
		return nil, err
	}
	for _, name := range roleFiles() {
		b, err := os.ReadFile(filepath.Join(c.Dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(work, name), b, 0o600)
		}
		if err != nil {
			return nil, fault.Errorf(fault.Storage, "read TUF metadata: %w", err)
		}
	}
	return root, nil
}

func (c *Client) run(ctx context.Context, work string, root []byte) (u *updater.Updater, err error) {
	cfg, err := config.New(strings.TrimSuffix(remoteBase, "/"), root)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "set up TUF: %w", err)
	}
	cfg.Fetcher, cfg.LocalMetadataDir, cfg.LocalTargetsDir = c.fetcher(ctx, work), work, work
	cfg.RootMaxLength, cfg.TimestampMaxLength, cfg.SnapshotMaxLength, cfg.TargetsMaxLength = maxRootBytes, maxTimestampBytes, maxSnapshotBytes, maxTargetsBytes
	cfg.MaxRootRotations = maxRootRotations
	now, err := c.now()
	if err != nil {
		return nil, err
	}
	// A signed document that lacks a part makes go-tuf panic; to a gateway that
	// is bad metadata like any other.
	defer func() {
		if r := recover(); r != nil {
			u, err = nil, fault.Errorf(fault.Verify, "%w: incomplete", ErrTUF)
		}
	}()
	u, err = updater.New(cfg)
	if err != nil {
		return nil, tufError(err)
	}
	u.UnsafeSetRefTime(now.UTC())
	if err := u.Refresh(); err != nil {
		return nil, tufError(err)
	}
	return u, nil
}

// tufError gives go-tuf's errors their class.
func tufError(err error) error {
	var status *metadata.ErrDownloadHTTP
	var path *fs.PathError
	switch {
	case fault.ClassOf(err) != fault.Unexpected:
		return err
	case errors.Is(err, &metadata.ErrExpiredMetadata{}), errors.Is(err, &metadata.ErrBadVersionNumber{}):
		return fault.Errorf(fault.Policy, "%w: %w", ErrStale, err)
	case errors.As(err, &status):
		return fault.Errorf(fault.Verify, "%w: the repository lacks %s", ErrTUF, status.URL)
	case errors.As(err, &path):
		return fault.Errorf(fault.Storage, "keep TUF metadata: %w", err)
	}
	return fault.Errorf(fault.Verify, "%w: %w", ErrTUF, err)
}

// keep makes the verified metadata durable, the roots first and in order, so that
// what is kept can always be read with the roots beside it.
func (c *Client) keep(work string) error {
	_, root, err := c.walk()
	if err != nil {
		return err
	}
	var names []string
	for v := root.Signed.Version + 1; ; v++ {
		if _, err := os.Stat(filepath.Join(work, rootFile(v))); err != nil {
			break
		}
		names = append(names, rootFile(v))
	}
	for _, name := range append(names, roleFiles()...) {
		b, err := os.ReadFile(filepath.Join(work, name))
		if err != nil {
			return fault.Errorf(fault.Storage, "keep TUF metadata: %w", err)
		}
		if have, err := os.ReadFile(filepath.Join(c.Dir, name)); err == nil && string(have) == string(b) {
			continue
		}
		if err := durable.Replace(filepath.Join(c.Dir, name), b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// releases lists the .krf targets by name.
func (c *Client) releases(u *updater.Updater) ([]*metadata.TargetFiles, bool, error) {
	var out []*metadata.TargetFiles
	for path, f := range u.GetTopLevelTargets() {
		if f != nil && strings.HasSuffix(path, firmware.KRFSuffix) && !strings.Contains(path, "/") {
			f.Path = path
			out = append(out, f)
		}
	}
	if len(out) > maxOffers {
		return nil, false, fault.Errorf(fault.Verify, "%w: %d releases, more than %d", ErrTUF, len(out), maxOffers)
	}
	slices.SortFunc(out, func(a, b *metadata.TargetFiles) int { return strings.Compare(a.Path, b.Path) })
	return out, u.GetTrustedMetadataSet().Root.Signed.ConsistentSnapshot, nil
}
