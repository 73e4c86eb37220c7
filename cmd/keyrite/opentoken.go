package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/lines"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/artifact/succession"
	"keyrite/ceremony/actions"
	"keyrite/hsm"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
	"keyrite/vault/quorum"
)

// openOptions say how a token is opened by its key masters.
type openOptions struct {
	openers      []string
	passphraseFD int
	bind         string
	command      *cobra.Command // whose --charter says which record is near
	attacking    bool           // the token is opened to be attacked, so no report is asked for
}

// addOpenFlags adds --opener, --passphrase-fd and --bind.
func addOpenFlags(c *cobra.Command, o *openOptions) {
	f := c.Flags()
	f.StringArrayVar(&o.openers, "opener", nil, "KEYFILE:SHAREFILE of one key master, KEYFILE being NAME.key or NAME.card; once for each who opens")
	f.IntVar(&o.passphraseFD, "passphrase-fd", -1, "descriptor with the passphrases, one line each in the order of --opener (default: the terminal)")
	f.StringVar(&o.bind, "bind", "", "binding file that names the PKCS#11 module (required)")
	o.command = c
}

// near is the record that the charter was taken from, if it still lies there.
func (o *openOptions) near() []string {
	f := o.command.Flags().Lookup("charter")
	if f == nil {
		return nil
	}
	dir, err := filepath.Abs(filepath.Dir(f.Value.String()))
	if err != nil || filepath.Base(dir) != record.OutputsDir {
		return nil
	}
	return []string{filepath.Dir(dir)}
}

// load reads the openers' files.
func (o *openOptions) load() ([]quorum.Opener, error) {
	var out []quorum.Opener
	for _, s := range o.openers {
		key, file, ok := strings.Cut(s, ":")
		if !ok {
			return nil, cli.Usagef("--opener %q is not KEYFILE:SHAREFILE", s)
		}
		k, err := intake.Read(key, maxKeyFileBytes)
		if err != nil {
			return nil, err
		}
		sh, err := readShare(file)
		if err != nil {
			return nil, err
		}
		out = append(out, quorum.Opener{Key: k, Share: sh})
	}
	return out, nil
}

// readShare reads a share file, or the lines of its paper form.
func readShare(path string) ([]byte, error) {
	data, err := intake.Read(path, maxKeyFileBytes)
	if err != nil || bytes.HasPrefix(data, []byte("age-encryption.org/")) {
		return data, err
	}
	file, err := lines.Parse(string(data))
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "%q is no share file, and as lines from paper: %w", path, err)
	}
	return file, nil
}

const (
	maxAnchorBytes  = 1 << 20
	maxKeyFileBytes = 64 << 10
	maxCharterBytes = 64 << 20
)

// unlock makes the openers ready. Without a card among them it returns a descriptor
// with one passphrase a line: the caller's own, or a pipe filled at the terminal.
// With one, all keys are opened here, each with its passphrase or PIN, and the
// descriptor is nil, which closes well. release lets go of them.
func (o *openOptions) unlock(ctx context.Context, std cli.IO, openers []quorum.Opener) (pass *os.File, release func(), err error) {
	release = func() {
		for _, x := range openers {
			if x.Unlocked != nil {
				x.Unlocked.Zero()
			}
		}
	}
	if !slices.ContainsFunc(openers, func(x quorum.Opener) bool { return person.IsCardFile(x.Key) }) {
		pass, err = o.passphrases(std)
		return pass, release, err
	}
	secrets := cli.NewSecrets(std, o.passphraseFD)
	for i := range openers {
		key, _, _ := strings.Cut(o.openers[i], ":")
		if openers[i].Unlocked, err = openKeyWith(ctx, key, secrets); err != nil {
			release()
			return nil, nil, err
		}
	}
	return nil, release, nil
}

func (o *openOptions) passphrases(std cli.IO) (*os.File, error) {
	if o.passphraseFD >= 0 {
		f := os.NewFile(uintptr(o.passphraseFD), "passphrases")
		if f == nil {
			return nil, cli.Usagef("descriptor %d is not open", o.passphraseFD)
		}
		return f, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "make pipe: %w", err)
	}
	defer w.Close()
	secrets := cli.NewSecrets(std, -1)
	for _, op := range o.openers {
		key, _, _ := strings.Cut(op, ":")
		pass, err := secrets.Next("passphrase of " + key)
		if err == nil {
			line := append(append([]byte{}, pass.Bytes()...), '\n')
			_, err = w.Write(line)
			clear(line)
			pass.Zero()
		}
		if err != nil {
			_ = r.Close()
			return nil, err
		}
	}
	return r, nil
}

// opened is a token opened by a quorum for one operation.
type opened struct {
	sup     *hsm.Supervisor
	sess    *hsm.Session // only to be attacked; else
	pool    *hsm.Pool    // outlives a crash of the module while large images are hashed
	state   *charter.State
	token   anchor.Token
	report  *actions.Admitted // why it may be opened; nil only for an attack
	Holders []string
}

// open has the key masters open safe's token for an operation, whose bytes name
// what is done; their signed openings bind to its hash.
func (o *openOptions) open(ctx context.Context, std cli.IO, state *charter.State, safe string, operation []byte) (*opened, error) {
	if o.bind == "" {
		return nil, cli.Usagef("--bind is missing: the file that names the PKCS#11 module")
	}
	bind, err := actions.LoadBind(o.bind)
	if err != nil {
		return nil, err
	}
	epoch, err := state.Epoch(safe)
	if err != nil {
		return nil, err
	}
	openers, err := o.load()
	if err != nil {
		return nil, err
	}
	if len(openers) < epoch.Need {
		return nil, fault.Hint(fault.Errorf(fault.Quorum, "quorum not met: %d shares of safe %s, %d needed", len(openers), safe, epoch.Need),
			"give --opener KEYFILE:SHAREFILE once for each key master present")
	}
	pass, release, err := o.unlock(ctx, std, openers)
	if err != nil {
		return nil, err
	}
	defer release()
	defer pass.Close()
	sup, err := hsm.Start(ctx, bind.HSM(""))
	if err != nil {
		return nil, err
	}
	x := &opened{sup: sup, state: state, token: epoch.Token}
	if !o.attacking {
		if err := x.admitted(ctx, bind.Reports(state, o.near()...)); err != nil {
			return nil, errors.Join(err, sup.Close())
		}
	}
	if err := x.login(ctx, quorum.OpenParams{State: state, Safe: safe, Openers: openers, Passphrases: pass}, operation); err != nil {
		return nil, errors.Join(err, sup.Close())
	}
	return x, nil
}

// login lets the PIN flow from the share child to the supervisor.
func (x *opened) login(ctx context.Context, p quorum.OpenParams, operation []byte) error {
	conf, err := quorum.Self()
	if err != nil {
		return err
	}
	sum := sha256.Sum256(operation)
	p.Operation, p.Nonce = hex.EncodeToString(sum[:]), make([]byte, 32)
	rand.Read(p.Nonce)
	r, w, err := os.Pipe()
	if err != nil {
		return fault.Errorf(fault.Unexpected, "make pipe: %w", err)
	}
	defer r.Close()
	res, err := conf.Open(ctx, p, w)
	_ = w.Close()
	if err != nil {
		return err
	}
	id := hsm.TokenID{Label: x.token.Label, Serial: x.token.Serial}
	if err := x.sup.TakePINs(ctx, id, r, hsm.Current); err != nil {
		return err
	}
	x.Holders = res.Holders
	if x.report == nil { // an attack wants a session of its own
		x.sess, err = x.sup.Open(ctx, id)
		return err
	}
	if x.pool, err = hsm.NewPool(ctx, x.sup, id, hsm.PoolConfig{}); err != nil {
		return err
	}
	if err := x.report.Check(x.pool.Access, time.Now()); err != nil {
		return errors.Join(err, x.pool.Close())
	}
	return nil
}

// admitted finds the report that admits the token, before a share is combined and
// before the module sees a PIN.
func (x *opened) admitted(ctx context.Context, reports *actions.Reports) error {
	tokens, module, err := x.sup.Tokens(ctx)
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if (anchor.Token{Label: t.Label, Serial: t.Serial}) == x.token {
			x.report, err = reports.Admit(module, t, time.Now())
			return err
		}
	}
	return fault.Errorf(fault.Token, "there is no token %s with serial %s", x.token.Label, x.token.Serial)
}

// Signer returns the key id of the charter as a signer, after checking that the
// token holds that very key.
func (x *opened) Signer(ctx context.Context, id string) (crypto.Signer, error) {
	rec, err := inForce(x.state, id)
	if err != nil {
		return nil, err
	}
	if rec.Token != x.token {
		return nil, fault.Errorf(fault.Policy, "key %s in force lies in token %s, not in %s", rec.ID, rec.Token.Label, x.token.Label)
	}
	if x.report == nil {
		return nil, fault.Errorf(fault.Token, "token %s is not admitted", x.token.Label)
	}
	if err := x.report.Report.CheckAlgorithm(rec.Algorithm); err != nil {
		return nil, err
	}
	id = rec.ID
	objs, err := x.pool.Objects(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range objs {
		raw, err := hex.DecodeString(o.ID)
		if o.Class != "CKO_PRIVATE_KEY" || o.Label != id || err != nil || len(raw) != len(hsm.KeyID{}) {
			continue
		}
		k, err := x.pool.Signer(ctx, hsm.KeyID(raw))
		if err != nil {
			return nil, err
		}
		if st := k.State(); string(st.SPKI) != string(rec.Public) {
			return nil, fault.Errorf(fault.Verify, "key %s in token %s is not the one in the charter", id, x.token.Label)
		}
		return k, nil
	}
	return nil, fault.Errorf(fault.Token, "token %s holds no key %s", x.token.Label, id)
}

// inForce is the key that stands for id in the charter: its own, or the one that
// took over.
func inForce(s *charter.State, id string) (*anchor.KeyRecord, error) {
	return s.Key(id, s.Keys[id].Domain)
}

// safeOf is the safe in which the key that stands for id lies: usual, until another
// key took over.
func safeOf(s *charter.State, id, usual string) (string, error) {
	rec, err := inForce(s, id)
	if err != nil {
		return "", err
	}
	name, ok := s.SafeOf(rec)
	if !ok && rec.ID == id {
		return usual, nil
	}
	if !ok {
		return "", fault.Errorf(fault.Policy, "key %s lies in token %s, which is no safe of the charter", rec.ID, rec.Token.Label)
	}
	return name, nil
}

// Close logs out and ends the supervisor.
func (x *opened) Close() error {
	if x.sess != nil {
		return errors.Join(x.sess.Close(), x.sup.Close())
	}
	return errors.Join(x.pool.Close(), x.sup.Close())
}

func removeQuietly(path string) { _ = os.Remove(path) }

// trustOptions name anchors and charter, the two files that stand for a vault.
type trustOptions struct{ anchor, charter, succession string }

func (o *trustOptions) addFlags(c *cobra.Command) {
	c.Flags().StringVar(&o.anchor, "anchor", "", "anchors file of the vault (required)")
	c.Flags().StringVar(&o.charter, "charter", "", "charter file of the vault (required)")
	c.Flags().StringVar(&o.succession, "succession", "", "succession statement: which keys of the anchors have been replaced since")
}

func (o *trustOptions) load() (*anchor.Anchors, *charter.State, error) {
	if o.anchor == "" || o.charter == "" {
		return nil, nil, cli.Usagef("--anchor and --charter are required")
	}
	a, err := o.loadAnchors()
	if err != nil {
		return nil, nil, err
	}
	data, err := intake.Read(o.charter, maxCharterBytes)
	if err != nil {
		return nil, nil, err
	}
	st, err := charter.Fold(data, a.World, a.Vault)
	if err != nil {
		return nil, nil, fault.Errorf(fault.ClassOf(err), "charter %q: %w", o.charter, err)
	}
	return a, st, nil
}

// loadAnchors reads the anchors in force: those of the file, or what a
// succession statement made of them.
func (o *trustOptions) loadAnchors() (*anchor.Anchors, error) {
	data, err := intake.Read(o.anchor, maxAnchorBytes)
	if err != nil {
		return nil, err
	}
	var statement []byte
	if o.succession != "" {
		if statement, err = intake.Read(o.succession, succession.MaxBytes); err != nil {
			return nil, err
		}
	}
	a, err := succession.Effective(data, statement)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "anchors %q: %w", o.anchor, err)
	}
	return a, nil
}
