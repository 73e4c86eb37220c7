package transit

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/hsm"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// Classes of refusal of releases.
var (
	// ErrRelease says that a key signs nothing but approved releases.
	ErrRelease = fault.New(fault.Policy, "this key signs only what the release approvers approved")
	// ErrBound says that who asks for a release must be at the other end of the line.
	ErrBound = fault.New(fault.Policy, "releases are signed only for a client with a certificate")
	// ErrExpired says that nobody used an approval in time.
	ErrExpired = fault.New(fault.Policy, "the approval of the release expired")
	// ErrLost says that a signature was begun and nobody knows what came of it.
	ErrLost = fault.New(fault.Policy, "the release is lost: the vault or the token stopped while it was signed, and it is not signed twice")
	// ErrRollback says that a higher security version of the product was signed.
	ErrRollback = fault.New(fault.Policy, "a higher security version of this product was signed before")
	// ErrBusy says that the same release is being signed.
	ErrBusy = fault.New(fault.Sealed, "the same release is being signed")
)

// What the store keeps of releases. It is the same at every mount, for a key could
// be known at two in the course of time.
const (
	bucketReleases = "releases"       // id of the approval → signed, in JCS
	bucketFloors   = "release-floors" // product → highest security version signed, decimal
	signedFormat   = "keyrite/transit-release/v1"
)

// States of an approved release. One in state begun that no request of this
// process works on is lost.
const (
	stateApproved = "approved"
	stateBegun    = "begun"
	stateSigned   = "signed"
	stateLost     = "lost"
)

// signed is what became of an approval.
type signed struct {
	Format    string `json:"format"`
	Intent    uint64 `json:"intent,omitempty"` // number of the entry that took it; none in a store of before
	Key       string `json:"key"`              // id of the key record
	Signature []byte `json:"signature,omitempty"`
	State     string `json:"state"` // begun or signed
	Time      string `json:"time"`  // RFC 3339, UTC, whole seconds
}

// underway are the releases that requests of this process have begun.
type underway struct {
	mu    sync.Mutex // guards the rest
	since map[string]time.Time
}

// maxSigning is how long one that was begun may be called busy. It is lost after
// that, as it would be after a restart.
const maxSigning = 5 * time.Minute

func (u *underway) begin(id string, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.since[id] = at
}

func (u *underway) end(id string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.since, id)
}

func (u *underway) is(id string, at time.Time) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	since, ok := u.since[id]
	return ok && at.Before(since.Add(maxSigning))
}

// release is a request for the signature of an approved release.
type release struct {
	*call
	what     *charter.ReleaseApproved
	wrong    error // with the request; nothing else is set then
	opts     crypto.SignerOpts
	in       []byte
	now      time.Time
	reserved bool
	intent   uint64 // number of the entry that took the approval
	asked    bool   // the token may have signed
	kept     []byte // the signature
	again    bool   // it was made before
}

// planRelease reads a request to sign with a key that signs releases.
func (e *Engine) planRelease(r *engine.Request, w *work) (*engine.Plan, error) {
	if !r.Caller.Bound {
		return nil, ErrBound
	}
	if w.batch {
		return nil, fault.New(fault.Usage, "releases are signed one by one")
	}
	u, err := e.use(w.name)
	if err != nil {
		return nil, err
	}
	w.keyUse = u
	x := &release{call: w.call, now: r.Now}
	plan := &engine.Plan{Needs: access.Update, Strict: true, Intent: true, Reserve: x.reserve, Undo: x.undo, Work: x.work, Apply: x.apply}
	// What is wrong is said after the decision: who may not sign learns nothing.
	if x.wrong = x.read(w.items[0]); x.wrong == nil {
		a := x.what
		plan.Shown = map[string]any{
			"digest": a.Digest, "key": a.Key, "product": a.Product, "release": a.ID, "security_version": a.SecurityVersion, "version": a.Version,
		}
	}
	return plan, nil
}

// read finds the approval of what is to be signed.
func (x *release) read(p engine.Params) error {
	if err := x.scheme(); err != nil {
		return err
	}
	if n, err := x.forNew(x.params); err != nil || n != x.latest {
		return errors.Join(err, ErrVersion)
	}
	in, opts, err := x.signed(p)
	if err != nil {
		return err
	}
	digest := in
	if opts.HashFunc() == 0 { // the message itself
		sum := sha256.Sum256(in)
		digest = sum[:]
	}
	a, ok := x.engine.host.Charter().Release(x.record.ID, hex.EncodeToString(digest))
	if !ok || opts.HashFunc() != 0 && a.Hash != x.hashName() {
		return fault.Hint(ErrRelease, "the release approvers allow it: keyrite charter propose "+charter.TypeReleaseApproved+" --body FILE, for key "+x.record.ID+" and digest "+hex.EncodeToString(digest))
	}
	x.what, x.in, x.opts = a, in, opts
	return nil
}

// hashName is the hash of the request as approvals call it.
func (c *call) hashName() string {
	if c.hash == "" {
		return "sha2-256"
	}
	return c.hash
}

// reserve takes the approval, in the transaction of the intent: from here on it is
// spent, unless undo gives it back.
func (x *release) reserve(tx *seal.Tx) error {
	if x.wrong != nil {
		return x.wrong
	}
	had, err := readSigned(tx.Get(bucketReleases, x.what.ID))
	if err != nil {
		return err
	}
	if had != nil && had.State == stateSigned {
		x.kept, x.again, x.reserved = had.Signature, true, true
		return nil
	}
	switch {
	case x.engine.releases.is(x.what.ID, x.now):
		return ErrBusy
	case had != nil:
		return ErrLost
	}
	if err := x.fresh(tx); err != nil {
		return err
	}
	x.engine.releases.begin(x.what.ID, x.now)
	x.reserved, x.intent = true, tx.Seq()
	return putSigned(tx, x.what.ID, &signed{Intent: x.intent, Key: x.record.ID, State: stateBegun, Time: charter.FormatTime(x.now)})
}

// undo gives the approval back, if this request has it and the token was surely not
// asked. Once it may have been, nothing gives it back: the signature may exist.
func (x *release) undo(tx *seal.Tx) (map[string]any, error) {
	if !x.reserved || x.again || x.asked {
		return nil, nil //nolint:nilnil // nothing is given back, and that is no error
	}
	had, err := readSigned(tx.Get(bucketReleases, x.what.ID))
	if err != nil {
		return nil, err
	}
	if had == nil || had.State != stateBegun || had.Intent != x.intent {
		return nil, nil //nolint:nilnil // another request has it by now
	}
	x.engine.releases.end(x.what.ID)
	return map[string]any{"release": x.what.ID, "undone": "the token was not asked; the approval can be used again"}, tx.Delete(bucketReleases, x.what.ID)
}

// fresh wants an approval in its time, and nothing higher signed.
func (x *release) fresh(tx *seal.Tx) error {
	end, err := charter.ParseTime(x.what.Expires)
	if err != nil {
		return err
	}
	if !x.now.Before(end) {
		return ErrExpired
	}
	floor, err := floorOf(tx, x.what.Product)
	if err != nil {
		return err
	}
	floor = max(floor, x.engine.host.Charter().Floors[x.what.Product].SecurityVersion)
	if x.what.SecurityVersion < floor {
		return fault.Errorf(fault.Policy, "%w: %d, and %d was", ErrRollback, x.what.SecurityVersion, floor)
	}
	return nil
}

// work has the token sign, once.
func (x *release) work(ctx context.Context) error {
	if !x.reserved {
		return fault.New(fault.Unexpected, "a release was to be signed that was not taken first")
	}
	if x.again {
		return nil
	}
	s, err := x.signer(ctx, x.latest)
	if err != nil {
		return fmt.Errorf("the token was not asked: %w", err)
	}
	x.asked = true
	sig, err := s.Sign(rand.Reader, x.in, x.opts)
	if err != nil {
		if errors.Is(err, hsm.ErrNotDone) {
			x.asked = false // it never came to the token
		} else {
			x.engine.releases.end(x.what.ID) // lost
		}
		return fault.Errorf(fault.ClassOf(err), "sign release %s: %w", x.what.ID, err)
	}
	x.kept = sig // verified by hsm.Key
	return nil
}

// apply keeps the signature with its entry, and gives it out.
func (x *release) apply(tx *seal.Tx) (*engine.Answer, error) {
	if len(x.kept) == 0 {
		return nil, fault.New(fault.Unexpected, "a release was to be given out that was not signed")
	}
	if !x.again {
		defer x.engine.releases.end(x.what.ID)
		if err := x.keep(tx); err != nil {
			return nil, err
		}
	}
	pub, _, err := x.public(x.latest)
	if err != nil {
		return nil, err
	}
	out, err := x.encoded(pub, x.kept)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(x.kept)
	return &engine.Answer{
		Data:   map[string]any{"signature": prefix(x.latest) + out, "key_version": x.latest},
		Result: map[string]any{"again": x.again, "key_version": x.latest, "release": x.what.ID, "signature_sha256": hex.EncodeToString(sum[:])},
	}, nil
}

func (x *release) keep(tx *seal.Tx) error {
	floor, err := floorOf(tx, x.what.Product)
	if err != nil {
		return err
	}
	if err := tx.Put(bucketFloors, x.what.Product, strconv.AppendInt(nil, max(floor, x.what.SecurityVersion), 10)); err != nil {
		return err
	}
	return putSigned(tx, x.what.ID, &signed{Intent: x.intent, Key: x.record.ID, Signature: x.kept, State: stateSigned, Time: charter.FormatTime(x.now)})
}

// getter is a store at one moment.
type getter interface {
	Get(bucket, key string) ([]byte, error)
}

func floorOf(s getter, product string) (int64, error) {
	raw, err := s.Get(bucketFloors, product)
	if errors.Is(err, seal.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 1 {
		return 0, fault.Errorf(fault.Verify, "security version of %s in the store: %w", product, seal.ErrAltered)
	}
	return n, nil
}

// readSigned is nil where nothing was begun.
func readSigned(raw []byte, err error) (*signed, error) {
	if errors.Is(err, seal.ErrNotFound) {
		return nil, nil //nolint:nilnil // nothing was begun, and that is no error
	}
	if err != nil {
		return nil, err
	}
	var s signed
	if err := jcs.Unmarshal(raw, &s); err != nil {
		return nil, err
	}
	if s.Format != signedFormat || !slices.Contains([]string{stateBegun, stateSigned}, s.State) || (s.State == stateSigned) != (len(s.Signature) > 0) {
		return nil, fault.Errorf(fault.Verify, "a release in the store is of state %.20q: %w", s.State, seal.ErrAltered)
	}
	return &s, nil
}

func putSigned(tx *seal.Tx, id string, s *signed) error {
	s.Format = signedFormat
	raw, err := jcs.Marshal(s)
	if err != nil {
		return err
	}
	return tx.Put(bucketReleases, id, raw)
}

// planReleases lists what was approved for a key, and what became of it.
func (e *Engine) planReleases(r *engine.Request, rest []string) (*engine.Plan, error) {
	if len(rest) != 1 || r.Method != engine.Read {
		return nil, engine.ErrNoPath
	}
	if err := r.Params.Only(); err != nil {
		return nil, err
	}
	return &engine.Plan{Needs: access.Read, Apply: func(tx *seal.Tx) (*engine.Answer, error) {
		k, err := e.key(rest[0])
		if err != nil {
			return nil, err
		}
		if k.record == nil {
			return nil, ErrType
		}
		list := []map[string]any{}
		for _, a := range e.host.Charter().Releases.ByID {
			if a.Key != k.record.ID {
				continue
			}
			s, err := readSigned(tx.Get(bucketReleases, a.ID))
			if err != nil {
				return nil, err
			}
			list = append(list, map[string]any{
				"digest": a.Digest, "expires": a.Expires, "hash": a.Hash, "id": a.ID, "product": a.Product,
				"security_version": a.SecurityVersion, "state": e.stateOf(a.ID, s, r.Now), "version": a.Version,
			})
		}
		slices.SortFunc(list, func(a, b map[string]any) int { return strings.Compare(fmt.Sprint(a["id"]), fmt.Sprint(b["id"])) })
		return &engine.Answer{Data: map[string]any{"releases": list}}, nil
	}}, nil
}

func (e *Engine) stateOf(id string, s *signed, at time.Time) string {
	switch {
	case s == nil:
		return stateApproved
	case s.State == stateBegun && !e.releases.is(id, at):
		return stateLost
	}
	return s.State
}

// forReleases says whether a key signs nothing but approved releases.
func (k *key) forReleases() bool { return k.record != nil && k.record.Domain != anchor.DomainGeneral }
