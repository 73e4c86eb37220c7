package tuf

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

// Folders of a repository, and the lock beside them.
const (
	metadataDir = "metadata"
	targetsDir  = "targets"
	lockFile    = ".publish.lock"

	maxMetadataBytes = 4 << 20
)

// Validity says how long metadata holds. Timestamp and Snapshot are what limits
// how long somebody can keep news from a gateway.
type Validity struct {
	Targets, Snapshot, Timestamp time.Duration
}

// DefaultValidity is for a repository whose keys need a quorum to be opened:
// short enough to matter, long enough for people. A vault that is online renews
// snapshot and timestamp daily.
func DefaultValidity() Validity {
	const day = 24 * time.Hour
	return Validity{Targets: 90 * day, Snapshot: 30 * day, Timestamp: 30 * day}
}

// Repository is a folder with metadata and targets, to be served as it is. It is
// for one process at a time.
type Repository struct {
	dir   string
	state *charter.State
	trust *firmware.Trust
	lock  *durable.Append
	now   func() time.Time

	root    []byte // newest
	version int64  // of targets, snapshot and timestamp, which count together
	targets map[string]*metadata.TargetFiles
	newRoot bool // root is not in the folder yet
}

// Open opens the repository in dir and checks everything in it up to the root.
// For a repository that does not exist yet root is its first root metadata; else
// root may be nil, or a new root with the next version number.
func Open(dir string, root []byte, c *charter.State, t *firmware.Trust, now func() time.Time) (*Repository, error) {
	for _, d := range []string{metadataDir, targetsDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil { //nolint:gosec // the repository is public and served by other programs
			return nil, fault.Errorf(fault.Storage, "make repository: %w", err)
		}
	}
	lock, _, err := durable.OpenAppend(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, err
	}
	r := &Repository{dir: dir, state: c, trust: t, lock: lock, now: now, targets: map[string]*metadata.TargetFiles{}}
	if err := r.load(root); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return r, nil
}

// Close gives the repository free.
func (r *Repository) Close() error { return r.lock.Close() }

func (r *Repository) metadata(name string) ([]byte, error) {
	data, err := intake.Read(filepath.Join(r.dir, metadataDir, name), maxMetadataBytes)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fault.Errorf(fault.Verify, "%w: %w", ErrRepository, err)
	}
	return data, err
}

func (r *Repository) load(next []byte) error {
	first, err := r.metadata("1.root.json")
	if errors.Is(err, os.ErrNotExist) {
		if next == nil {
			return fault.Hint(fault.Errorf(fault.Usage, "the repository %q is new and has no root", r.dir), "pass the root metadata signed in the ceremony")
		}
		if _, err := os.Stat(filepath.Join(r.dir, metadataDir, "timestamp.json")); err == nil {
			return fault.Errorf(fault.Verify, "%w: it has a timestamp and no root", ErrRepository)
		}
		r.root, r.newRoot = next, true
		return CheckRoot(next, r.state)
	}
	if err != nil {
		return err
	}
	return r.follow(first, next)
}

// follow walks from the first root to the targets, as a client would, except
// that expired metadata is taken: renewing it is what this is for.
func (r *Repository) follow(first, next []byte) error {
	t, err := trustedmetadata.New(first)
	if err != nil {
		return repositoryError("1.root.json", err)
	}
	t.RefTime = time.Time{}
	before := first
	r.root = first
	for v := int64(2); ; v++ {
		data, err := r.metadata(fmt.Sprintf("%d.root.json", v))
		if errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		if _, err := t.UpdateRoot(data); err != nil {
			return repositoryError(fmt.Sprintf("%d.root.json", v), err)
		}
		before, r.root = r.root, data
	}
	if next != nil && string(next) != string(r.root) {
		if err := CheckRoot(next, r.state); err != nil {
			return err
		}
		if _, err := t.UpdateRoot(next); err != nil {
			return fault.Errorf(fault.Verify, "%w: %w", ErrRoot, err)
		}
		before, r.root, r.newRoot = r.root, next, true
	}
	if err := CheckRoot(r.root, r.state); err != nil {
		return err
	}
	err = r.followRoles(t)
	if err == nil || string(before) == string(r.root) {
		return err
	}
	return r.resume(before, err)
}

// resume goes on where a new root gave the offer to other keys: what stands there
// is signed by those of the root before. Its version counts on; what it offers is
// not taken over, for those keys may be in other hands by now. why is the error
// under the new root.
func (r *Repository) resume(before []byte, why error) error {
	t, err := trustedmetadata.New(before)
	if err != nil {
		return why
	}
	t.RefTime = time.Time{}
	if err := r.followRoles(t); err != nil {
		return why
	}
	r.targets = map[string]*metadata.TargetFiles{}
	return nil
}

// SuccessionTarget is the name under which gateways look for the succession
// statement.
const SuccessionTarget = "succession.json"

// AddSuccession offers a verified succession statement, in place of the one that
// was offered.
func (r *Repository) AddSuccession(data []byte) error {
	sum := sha256.Sum256(data)
	path := filepath.Join(r.dir, targetsDir, hex.EncodeToString(sum[:])+"."+SuccessionTarget)
	if err := durable.Replace(path, data, 0o644); err != nil {
		return err
	}
	f := metadata.TargetFile()
	f.Length, f.Hashes, f.Path = int64(len(data)), metadata.Hashes{"sha256": sum[:]}, SuccessionTarget
	r.targets[SuccessionTarget] = f
	return nil
}

func (r *Repository) followRoles(t *trustedmetadata.TrustedMetadata) error {
	data, err := r.metadata("timestamp.json")
	if errors.Is(err, os.ErrNotExist) {
		return nil // a first publication was cut off before it counted
	}
	if err != nil {
		return err
	}
	ts, err := t.UpdateTimestamp(data)
	if err != nil {
		return repositoryError("timestamp.json", err)
	}
	r.version = ts.Signed.Version
	name := fmt.Sprintf("%d.snapshot.json", ts.Signed.Meta["snapshot.json"].Version)
	if data, err = r.metadata(name); err != nil {
		return repositoryError(name, err)
	}
	sn, err := t.UpdateSnapshot(data, false)
	if err != nil {
		return repositoryError(name, err)
	}
	name = fmt.Sprintf("%d.targets.json", sn.Signed.Meta["targets.json"].Version)
	if data, err = r.metadata(name); err != nil {
		return repositoryError(name, err)
	}
	tg, err := t.UpdateTargets(data)
	if err != nil {
		return repositoryError(name, err)
	}
	r.version = max(r.version, sn.Signed.Version, tg.Signed.Version)
	r.targets = tg.Signed.Targets
	return nil
}

func repositoryError(name string, err error) error {
	return fault.Errorf(fault.Verify, "%w: %s: %w", ErrRepository, name, err)
}

// Offer is a release as the repository shows it to people. Devices read none of
// it: they read the statement in the .krf.
type Offer struct {
	Target          string   `json:"-"`
	Channel         string   `json:"channel"`
	Hardware        []string `json:"hardware"`
	Product         string   `json:"product"`
	SecurityVersion int64    `json:"security_version"`
	Version         string   `json:"version"`
}

// Offers lists the releases offered now.
func (r *Repository) Offers() ([]Offer, error) {
	var out []Offer
	for name, f := range r.targets {
		if !strings.HasSuffix(name, firmware.KRFSuffix) || f.Custom == nil {
			continue
		}
		var o Offer
		if err := json.Unmarshal(*f.Custom, &o); err != nil {
			return nil, fault.Errorf(fault.Verify, "%w: target %.80q: %w", ErrRepository, name, err)
		}
		o.Target = name
		out = append(out, o)
	}
	return out, nil
}

// Add verifies a .krf, copies it and its bundle into targets under the names
// HASH.PRODUCT_CHANNEL_VERSION.krf and .sigstore.json, and offers it in place of what
// was offered for the same product and channel. Nothing is visible to clients
// before Publish.
func (r *Repository) Add(ctx context.Context, path string) (*Offer, error) {
	in, err := intake.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	h := sha256.New()
	k, err := firmware.VerifyKRF(io.TeeReader(in.Reader(ctx), h), r.trust)
	if err != nil {
		return nil, err
	}
	p := &k.Statement.Predicate
	o := &Offer{Channel: p.Channel, Hardware: p.Hardware, Product: p.Product, SecurityVersion: p.SecurityVersion, Version: p.Version}
	// None of the first two has an underscore, so the name is never another's.
	stem := p.Product + "_" + p.Channel + "_" + p.Version
	o.Target = stem + firmware.KRFSuffix
	if err := r.replace(o); err != nil {
		return nil, err
	}
	if err := r.copyTarget(ctx, in, o, h.Sum(nil)); err != nil {
		return nil, err
	}
	return o, r.putBundle(stem+firmware.BundleSuffix, k.Bundle, o)
}

// replace withdraws what o takes the place of.
func (r *Repository) replace(o *Offer) error {
	have, err := r.Offers()
	if err != nil {
		return err
	}
	for _, h := range have {
		if h.Product != o.Product || h.Channel != o.Channel {
			continue
		}
		if h.SecurityVersion > o.SecurityVersion {
			return fault.Errorf(fault.Policy, "%w: %s, security version %d", ErrOlder, h.Target, h.SecurityVersion)
		}
		delete(r.targets, h.Target)
		delete(r.targets, strings.TrimSuffix(h.Target, firmware.KRFSuffix)+firmware.BundleSuffix)
	}
	return nil
}

func (r *Repository) copyTarget(ctx context.Context, in *intake.File, o *Offer, sum []byte) error {
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return fault.Errorf(fault.Storage, "read release again: %w", err)
	}
	name := filepath.Join(r.dir, targetsDir, hex.EncodeToString(sum)+"."+o.Target)
	out, err := durable.Create(name, 0o644)
	if err != nil {
		if errors.Is(err, os.ErrExist) {
			return r.present(ctx, name, sum, in.Size(), o) // an earlier run was cut off
		}
		return err
	}
	defer out.Abort()
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), in.Reader(ctx))
	if err != nil {
		return &durable.Error{Op: "copy", Path: name, Err: err}
	}
	if string(h.Sum(nil)) != string(sum) {
		return fault.Errorf(fault.Verify, "the release changed while it was copied")
	}
	if err := out.Commit(); err != nil {
		return err
	}
	return r.list(o.Target, n, sum, o)
}

// present lists a target file that is there already, after hashing it.
func (r *Repository) present(ctx context.Context, name string, sum []byte, size int64, o *Offer) error {
	f, err := intake.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f.Reader(ctx)); err != nil {
		return fault.Errorf(fault.Storage, "read target: %w", err)
	}
	if f.Size() != size || string(h.Sum(nil)) != string(sum) {
		return fault.Errorf(fault.Verify, "%w: %s is not what its name says", ErrRepository, filepath.Base(name))
	}
	return r.list(o.Target, size, sum, o)
}

func (r *Repository) putBundle(name string, data []byte, o *Offer) error {
	sum := sha256.Sum256(data)
	path := filepath.Join(r.dir, targetsDir, hex.EncodeToString(sum[:])+"."+name)
	if err := durable.Replace(path, data, 0o644); err != nil {
		return err
	}
	return r.list(name, int64(len(data)), sum[:], o)
}

func (r *Repository) list(name string, size int64, sum []byte, o *Offer) error {
	custom, err := json.Marshal(o)
	if err != nil {
		return fault.Errorf(fault.Unexpected, "encode target: %w", err)
	}
	f := metadata.TargetFile()
	f.Length = size
	f.Hashes = metadata.Hashes{"sha256": sum}
	f.Custom = (*json.RawMessage)(&custom)
	f.Path = name
	r.targets[name] = f
	return nil
}

// Keys gives a key of the open work token.
type Keys func(id string) (crypto.Signer, error)

// Publish signs and writes new metadata. The order makes a crash harmless:
// target files are there already, then new root, targets and snapshot under
// names that nothing refers to yet, and at last the timestamp, by one rename.
func (r *Repository) Publish(keys Keys, v Validity) error {
	targetsKey, err := r.key(keys, TargetsKeyID)
	if err != nil {
		return err
	}
	online, err := r.key(keys, OnlineKeyID)
	if err != nil {
		return err
	}
	next := r.version + 1
	now := r.now().UTC().Truncate(time.Second)
	tg := metadata.Targets(now.Add(v.Targets))
	tg.Signed.Version, tg.Signed.Targets = next, r.targets
	sn := metadata.Snapshot(now.Add(v.Snapshot))
	sn.Signed.Version = next
	sn.Signed.Meta["targets.json"] = metadata.MetaFile(next)
	ts := metadata.Timestamp(now.Add(v.Timestamp))
	ts.Signed.Version = next
	tgData, err := sign(tg, tg.Signed, targetsKey)
	if err != nil {
		return err
	}
	snData, err := sign(sn, sn.Signed, online)
	if err != nil {
		return err
	}
	// Length and hash in the timestamp bound what a client must fetch.
	sum := sha256.Sum256(snData)
	meta := metadata.MetaFile(next)
	meta.Length, meta.Hashes = int64(len(snData)), metadata.Hashes{"sha256": sum[:]}
	ts.Signed.Meta["snapshot.json"] = meta
	tsData, err := sign(ts, ts.Signed, online)
	if err != nil {
		return err
	}
	if err := r.check(tgData, snData, tsData); err != nil {
		return err
	}
	return r.write(next, tgData, snData, tsData)
}

// check reads the new metadata as a client will.
func (r *Repository) check(tg, sn, ts []byte) error {
	t, err := trustedmetadata.New(r.root)
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: %w", ErrRoot, err)
	}
	t.RefTime = r.now().UTC()
	if _, err = t.UpdateTimestamp(ts); err == nil {
		if _, err = t.UpdateSnapshot(sn, false); err == nil {
			_, err = t.UpdateTargets(tg)
		}
	}
	if errors.Is(err, &metadata.ErrExpiredMetadata{}) {
		return fault.Hint(fault.Errorf(fault.Policy, "no client would take this: %w", err), "if the root has expired, sign the next one in a ceremony")
	}
	if err != nil {
		return fault.Errorf(fault.Token, "no client would take what was signed: %w", err)
	}
	return nil
}

func (r *Repository) write(v int64, tg, sn, ts []byte) error {
	name := func(n string) string { return filepath.Join(r.dir, metadataDir, n) }
	if r.newRoot {
		m, err := metadata.Root().FromBytes(r.root)
		if err != nil {
			return fault.Errorf(fault.Verify, "%w: %w", ErrRoot, err)
		}
		if err := durable.Replace(name(fmt.Sprintf("%d.root.json", m.Signed.Version)), r.root, 0o644); err != nil {
			return err
		}
	}
	// What a run that was cut off left under these names was never referred to.
	if err := durable.Replace(name(fmt.Sprintf("%d.targets.json", v)), tg, 0o644); err != nil {
		return err
	}
	if err := durable.Replace(name(fmt.Sprintf("%d.snapshot.json", v)), sn, 0o644); err != nil {
		return err
	}
	if err := durable.Replace(name("timestamp.json"), ts, 0o644); err != nil {
		return err
	}
	r.version, r.newRoot = v, false
	return nil
}

// Version is the number of the publication in force.
func (r *Repository) Version() int64 { return r.version }

func (r *Repository) key(keys Keys, id string) (crypto.Signer, error) {
	rec, err := r.state.Key(id, id)
	if err != nil {
		return nil, err
	}
	want, err := rec.Key()
	if err != nil {
		return nil, err
	}
	k, err := keys(id)
	if err != nil {
		return nil, err
	}
	if p, ok := k.Public().(interface{ Equal(x crypto.PublicKey) bool }); !ok || !p.Equal(want) {
		return nil, fault.Errorf(fault.Token, "the token's key %s is not the one in the charter", id)
	}
	return k, nil
}

// sign puts one signature under metadata and returns its file.
func sign[T metadata.Roles](m *metadata.Metadata[T], signed any, key crypto.Signer) ([]byte, error) {
	tbs, err := canonical(signed)
	if err != nil {
		return nil, err
	}
	sig, err := envelope.SignBytes(key, tbs)
	if err != nil {
		return nil, err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return nil, err
	}
	m.Signatures = []metadata.Signature{{KeyID: id, Signature: sig}}
	data, err := m.ToBytes(false)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "encode TUF metadata: %w", err)
	}
	return data, nil
}
