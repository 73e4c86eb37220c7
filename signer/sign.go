package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/tlog"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
	"keyrite/signer/releaselog"
)

// Signers gives the key of that id from the open work token.
type Signers func(keyID string) (crypto.Signer, error)

// Checked is a release that may be signed. Only Check makes one.
type Checked struct {
	req      *Requested
	consents []consent
	resume   *Entry // signed before and not finished
}

// Resumes says that the signature exists already and only the rest is to be
// done.
func (c *Checked) Resumes() bool { return c.resume != nil }

// Request is the hash of the request.
func (c *Checked) Request() string { return c.req.Hash }

// Product is what the release is for.
func (c *Checked) Product() string { return c.req.Request.Product }

// Check holds request and approvals against charter and ledger.
func Check(q *Requested, approvals [][]byte, l *Ledger, now time.Time) (*Checked, error) {
	c := &Checked{req: q}
	for _, data := range approvals {
		a, err := openApproval(data, q, now)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(c.consents, func(b consent) bool { return a.approver == b.approver }) {
			return nil, fault.Errorf(fault.Quorum, "%w: %s", ErrTwice, a.approver)
		}
		c.consents = append(c.consents, a)
	}
	if need := q.state.People.Sets.Releases.Need; len(c.consents) < need {
		return nil, fault.Hint(fault.Errorf(fault.Quorum, "%w: %d of the %d needed", ErrApprovals, len(c.consents), need),
			"release approvers are: "+strings.Join(q.state.People.Sets.Releases.Members, ", "))
	}
	slices.SortFunc(c.consents, func(a, b consent) int { return strings.Compare(a.approver, b.approver) })
	return c, c.checkHistory(l)
}

func (c *Checked) checkHistory(l *Ledger) error {
	q := c.req
	if e, ok := l.find(q.Hash); ok {
		switch e.State {
		case kindResult, kindLogged:
			c.resume = e
			return nil
		case kindLost:
			return fault.Hint(fault.Errorf(fault.Policy, "the request %w: the signer was stopped between intent and signature", ErrReplay), "request and approve again")
		}
		return fault.Errorf(fault.Policy, "the request %w, at %s", ErrReplay, e.Time)
	}
	for _, a := range c.consents {
		if l.spent(a.hash) {
			return fault.Errorf(fault.Policy, "the approval of %s %w", a.approver, ErrReplay)
		}
	}
	if high := max(l.highest(q.Request.Product), q.state.Floors[q.Request.Product].SecurityVersion); q.Request.SecurityVersion < high {
		return fault.Errorf(fault.Policy, "%w: %d, and %d is signed for %s", ErrRollback, q.Request.SecurityVersion, high, q.Request.Product)
	}
	return nil
}

// Released is what a release left behind.
type Released struct {
	Statement *firmware.Statement
	Bundle    string // path
	KRF       string // path
	Index     int64  // in the release log
	Resumed   bool   // the signature was made by an earlier run
}

// Signer releases what was checked.
type Signer struct {
	State  *charter.State
	Ledger *Ledger
	Keys   Signers
	Now    func() time.Time
}

// Ready is a checked release whose image was measured and whose outputs are free.
// Only Prepare makes one.
type Ready struct {
	checked *Checked
	image   *intake.File
	out     outFiles
}

// Prepare hashes the image again, whoever hashed it before, and finds whatever
// else would refuse the release without the token, so that a token is not opened
// in vain. image stays open until Release has returned.
func Prepare(ctx context.Context, c *Checked, image *intake.File, outDir string) (*Ready, error) {
	if fi, err := os.Stat(outDir); err != nil || !fi.IsDir() {
		return nil, fault.Errorf(fault.Usage, "there is no folder %q for the release", outDir)
	}
	out := outputs(outDir, c.req.Request.File)
	if err := out.free(c.Resumes()); err != nil {
		return nil, err
	}
	sum, size, err := firmware.Measure(image.Reader(ctx))
	if err != nil {
		return nil, err
	}
	if err := c.req.CheckImage(sum, size); err != nil {
		return nil, err
	}
	return &Ready{c, image, out}, image.Unchanged()
}

// Release signs, logs and writes IMAGE.sigstore.json and NAME.krf, in an order
// in which a crash leaves either nothing, or a ledger that a second run with the
// same files finishes without a second signature. The image is hashed once more
// while it is copied into the .krf.
func (s *Signer) Release(ctx context.Context, r *Ready) (*Released, error) {
	c := r.checked
	// Opening the token took its time.
	if err := r.image.Unchanged(); err != nil {
		return nil, err
	}
	entry, err := s.signAndLog(ctx, c)
	if err != nil {
		return nil, err
	}
	trust, err := s.trust()
	if err != nil {
		return nil, err
	}
	stmt, err := firmware.Open(entry.bundle, trust)
	if err != nil {
		return nil, err
	}
	proof, err := firmware.CheckProof(entry.proof, entry.bundle, trust)
	if err != nil {
		return nil, err
	}
	if err := r.out.write(ctx, entry, r.image, trust); err != nil {
		return nil, err
	}
	if err := s.Ledger.write(kindPublished, closing{entry.Seq}); err != nil {
		return nil, err
	}
	return &Released{Statement: stmt, Bundle: r.out.bundle, KRF: r.out.krf, Index: proof.Index, Resumed: c.Resumes()}, nil
}

// signAndLog opens the log first: a log that cannot be written to, or that is
// not where the ledger left it, must be found before the token signs.
func (s *Signer) signAndLog(ctx context.Context, c *Checked) (*Entry, error) {
	if c.resume != nil && c.resume.State != kindResult {
		return c.resume, nil // logged before
	}
	key, err := s.key(firmware.LogKeyID, "note")
	if err != nil {
		return nil, err
	}
	log, err := releaselog.Open(ctx, filepath.Join(s.Ledger.dir, LogFolder), firmware.LogOrigin(s.State.World, s.State.Vault), key, s.Ledger.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	for _, e := range s.Ledger.entries {
		if e.State == kindResult { // signed by a run that did not get this far
			if err := s.log(log, e); err != nil {
				return nil, err
			}
		}
	}
	if c.resume != nil {
		return c.resume, nil
	}
	if err := log.CheckSize(s.Ledger.loggedCount()); err != nil {
		return nil, err
	}
	e, err := s.sign(ctx, c)
	if err != nil {
		return nil, err
	}
	return e, s.log(log, e)
}

// sign is the only use of the release key.
func (s *Signer) sign(ctx context.Context, c *Checked) (*Entry, error) {
	key, err := s.key(RoleOf(s.State, c.req.Request.Product), "dsse")
	if err != nil {
		return nil, err
	}
	stmt, err := s.statement(c)
	if err != nil {
		return nil, err
	}
	payload, err := stmt.Marshal()
	if err != nil {
		return nil, err
	}
	r := &c.req.Request
	in := intent{
		Product: r.Product, Request: c.req.Hash, SecurityVersion: r.SecurityVersion,
		Statement: base64.StdEncoding.EncodeToString(payload), Version: r.Version,
	}
	for _, a := range c.consents {
		in.Approvals = append(in.Approvals, a.hash)
	}
	if err := ctx.Err(); err != nil {
		return nil, fault.Errorf(fault.Interrupted, "stopped before signing: %w", err)
	}
	if err := s.Ledger.write(kindIntent, in); err != nil {
		return nil, err
	}
	entry, _ := s.Ledger.find(c.req.Hash)
	env, err := envelope.Sign(firmware.PayloadType, payload, key)
	if err != nil {
		// The token said no: nothing was signed, but nobody can prove it.
		return nil, errors.Join(err, s.Ledger.write(kindLost, closing{entry.Seq}))
	}
	bundle, err := firmware.NewBundle(env)
	if err != nil {
		return nil, err
	}
	trust, err := s.trust()
	if err != nil {
		return nil, err
	}
	if _, err := firmware.Open(bundle, trust); err != nil {
		lost := s.Ledger.write(kindLost, closing{entry.Seq})
		return nil, errors.Join(fault.Errorf(fault.Token, "the token's signature does not hold and was thrown away: %w", err), lost)
	}
	return entry, s.Ledger.write(kindResult, result{Bundle: base64.StdEncoding.EncodeToString(bundle), Intent: entry.Seq})
}

// statement computes what is signed, from the charter and the checked request
// alone.
func (s *Signer) statement(c *Checked) (*firmware.Statement, error) {
	r := &c.req.Request
	rec, err := s.State.Key(RoleOf(s.State, r.Product), "dsse")
	if err != nil {
		return nil, err
	}
	st := &firmware.Statement{
		Type: firmware.StatementType, PredicateType: firmware.PredicateType,
		Subject: []firmware.Subject{{Digest: firmware.Digest{SHA256: r.SHA256}, Name: r.File}},
		Predicate: firmware.Predicate{
			Approvals: []firmware.Approval{}, Channel: r.Channel, Charter: firmware.Charter{Head: s.State.Head(), Size: s.State.Size()},
			Hardware: r.Hardware, Key: firmware.Key{ID: rec.ID, Record: rec.Record, ScriptHash: s.State.Genesis.ScriptHash, SpecHash: rec.SpecHash},
			Pipeline: r.Pipeline, Product: r.Product, Request: c.req.Hash, SecurityVersion: r.SecurityVersion, Size: r.Size,
			Time: charter.FormatTime(s.Now()), Vault: r.Vault, Version: r.Version, World: r.World,
		},
	}
	for _, a := range c.consents {
		st.Predicate.Approvals = append(st.Predicate.Approvals, firmware.Approval{Approver: a.approver, Hash: a.hash})
	}
	return st, nil
}

// key takes a key from the token and makes sure that it is the charter's.
func (s *Signer) key(id, domain string) (crypto.Signer, error) {
	rec, err := s.State.Key(id, domain)
	if err != nil {
		return nil, err
	}
	want, err := rec.Key()
	if err != nil {
		return nil, err
	}
	k, err := s.Keys(id)
	if err != nil {
		return nil, err
	}
	if p, ok := k.Public().(interface{ Equal(x crypto.PublicKey) bool }); !ok || !p.Equal(want) {
		return nil, fault.Errorf(fault.Token, "%w: %s", ErrKey, id)
	}
	return k, nil
}

// trust is what every reader of our releases will check them with.
func (s *Signer) trust() (*firmware.Trust, error) { return TrustOf(s.State) }

// TrustOf takes from the charter what readers take from the anchors.
func TrustOf(c *charter.State) (*firmware.Trust, error) {
	t := &firmware.Trust{World: c.World, Vault: c.Vault, Products: map[string]crypto.PublicKey{}}
	for id := range c.Keys {
		own := ownKey(c, id)
		if id != firmware.KeyID && !own {
			continue
		}
		pub, _, err := releaseKey(c, id)
		if own && err != nil {
			continue // it signs nothing any more
		}
		if _, ok := pub.(*ecdsa.PublicKey); err == nil && !ok {
			err = fault.Errorf(fault.Verify, "the release key %s is not ECDSA", id)
		}
		if err != nil {
			return nil, err
		}
		if own {
			t.Products[strings.TrimPrefix(id, firmware.KeyIDOf(""))] = pub
		} else {
			t.Firmware = pub
		}
	}
	rec, err := c.Key(firmware.LogKeyID, "note")
	if err != nil {
		return nil, err
	}
	t.Log, err = ed25519Key(rec)
	return t, err
}

// log puts the release into the release log.
func (s *Signer) log(log *releaselog.Log, e *Entry) error {
	env, err := firmware.ParseBundle(e.bundle)
	if err != nil {
		return err
	}
	leaf, err := firmware.Leaf(env)
	if err != nil {
		return err
	}
	proof, state, err := log.Append(leaf, s.Ledger.loggedCount())
	if err != nil {
		return err
	}
	return s.Ledger.write(kindLogged, logged{
		Index: proof.Index, Intent: e.Seq, Proof: base64.StdEncoding.EncodeToString(proof.Marshal()), Root: tlog.Hex(state.Root), Size: state.Size,
	})
}

// outFiles are the two files of a release.
type outFiles struct{ bundle, krf string }

// outputs names them: firmware.img gives firmware.img.sigstore.json and
// firmware.krf.
func outputs(dir, file string) outFiles {
	stem := strings.TrimSuffix(file, filepath.Ext(file))
	return outFiles{bundle: filepath.Join(dir, file+firmware.BundleSuffix), krf: filepath.Join(dir, stem+firmware.KRFSuffix)}
}

// free refuses to start when an output is there. A resumed run may find what the
// run before it wrote; write compares it.
func (o outFiles) free(resumed bool) error {
	if resumed {
		return nil
	}
	for _, p := range []string{o.bundle, o.krf} {
		if _, err := os.Lstat(p); err == nil {
			return &durable.Error{Op: "create", Path: p, Err: os.ErrExist}
		}
	}
	return nil
}

func (o outFiles) write(ctx context.Context, e *Entry, image *intake.File, t *firmware.Trust) (err error) {
	madeBundle, err := o.writeBundle(e.bundle)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil && madeBundle {
			_ = os.Remove(o.bundle)
		}
	}()
	if same, err := o.haveKRF(ctx, e, t); same || err != nil {
		return err
	}
	if _, err := image.Seek(0, io.SeekStart); err != nil {
		return fault.Errorf(fault.Storage, "read image again: %w", err)
	}
	f, err := durable.Create(o.krf, 0o644)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := firmware.WriteKRF(f, e.bundle, e.proof, image.Reader(ctx), t); err != nil {
		return err
	}
	if err := image.Unchanged(); err != nil {
		return err
	}
	return f.Commit()
}

// writeBundle says whether it made the file.
func (o outFiles) writeBundle(data []byte) (bool, error) {
	err := durable.WriteNew(o.bundle, data, 0o644)
	if errors.Is(err, os.ErrExist) {
		if have, rerr := intake.Read(o.bundle, firmware.MaxBundleBytes); rerr == nil && bytes.Equal(have, data) {
			return false, nil
		}
	}
	return err == nil, err
}

// haveKRF says whether an earlier run wrote this very .krf.
func (o outFiles) haveKRF(ctx context.Context, e *Entry, t *firmware.Trust) (bool, error) {
	f, err := intake.Open(o.krf)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	k, err := firmware.VerifyKRF(f.Reader(ctx), t)
	if err != nil || !bytes.Equal(k.Bundle, e.bundle) {
		return false, &durable.Error{Op: "create", Path: o.krf, Err: os.ErrExist}
	}
	return true, nil
}
