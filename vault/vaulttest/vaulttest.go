// Package vaulttest founds a vault with a real work token for tests, without a
// ceremony: people and charter of artifacttest, a token of hsmtest under PINs that
// were dealt to the key masters, keys born in it, and the report that admits it.
// Only tests import it; their TestMain calls Main.
package vaulttest

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/hsm"
	"keyrite/hsm/admit"
	"keyrite/hsm/hsmtest"
	"keyrite/vault/quorum"
	"keyrite/vault/seal"
	"keyrite/vault/worktoken"
)

// Safe is the safe whose token the vault works with.
const Safe = "work"

// Main runs the tests, or is the child process that one of them started.
func Main(m *testing.M) {
	Child()
	os.Exit(m.Run())
}

// Child does not return where the test program was started as a child: the share
// child, or the guard of a store.
func Child() {
	if len(os.Args) < 2 {
		return
	}
	var err error
	switch os.Args[1] {
	case quorum.ChildCommand:
		err = quorum.Child()
	case seal.CheckCommand:
		err = seal.CheckMain(os.Args[2])
	default:
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		syscall.Exit(1)
	}
	syscall.Exit(0) // os.Exit waits a second under the race detector
}

// Host is the id of the host that the charter knows; its key is Keys[Host].
const Host = "vault1"

// Vault is a founded vault. Its safe "work" is dealt 3 of 5 to master1 … master5 in
// epoch 1; its token holds the keys of Keys.
type Vault struct {
	*artifacttest.World
	HSM    *hsmtest.Env
	Quorum quorum.Config
	Token  hsm.TokenID
	Shares map[string][]byte // NAME.share by holder
	Report []byte            // the admission report, signed by the conductor

	t    testing.TB
	safe string // whose token and shares these are
	tag  hsm.Tag
	n    uint64
}

// Key is a key that is born in the work token and admitted to the charter.
type Key struct {
	ID        string // also its label
	Algorithm string // as in key records: anchor.P256 …
	Domain    string // one of anchor.Domains
}

// Keys are those that New makes: image1 (raw images, P-256), image2 (raw images,
// RSA-3072), ca1 (certificates, P-256) and release1 (release statements, P-256).
func Keys() []Key {
	return []Key{
		{"image1", anchor.P256, "raw-image"},
		{"image2", anchor.RSA3072, "raw-image"},
		{"ca1", anchor.P256, "x509"},
		{"release1", anchor.P256, "dsse"},
	}
}

// New founds a vault, with its token open to nobody. The people named in cards have
// keys on cards.
func New(t testing.TB, cards ...string) *Vault { return NewWith(t, Keys(), cards...) }

// NewWith is New with these keys in the token.
func NewWith(t testing.TB, keys []Key, cards ...string) *Vault {
	t.Helper()
	v := &Vault{World: artifacttest.New(t, cards...), HSM: hsmtest.New(t), t: t, safe: Safe}
	var err error
	if v.Quorum, err = quorum.Self(); err != nil {
		t.Fatal(err)
	}
	if v.tag, err = hsm.NewTag(); err != nil {
		t.Fatal(err)
	}
	if v.Token, err = v.HSM.Supervisor.InitToken(t.Context(), Safe); err != nil {
		t.Fatal(err)
	}
	v.AddHost(Host)
	v.deal()
	v.furnish(keys, "")
	return v
}

// furnish makes keys in the token, each as the successor of the one whose id is its own
// without suffix if there is a suffix, and has the token admitted.
func (v *Vault) furnish(keys []Key, suffix string) {
	t := v.t
	t.Helper()
	sess, err := v.HSM.Supervisor.Open(t.Context(), v.Token)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		v.bear(sess.Access, k, suffix)
	}
	v.admission(sess.Access)
	if err := sess.Close(); err != nil {
		t.Fatal(err)
	}
	if err := v.HSM.Supervisor.WipePINs(t.Context(), v.Token); err != nil {
		t.Fatal(err)
	}
}

// deal deals the safe and puts the token under the PINs that follow.
func (v *Vault) deal() {
	v.t.Helper()
	v.Deal(1)
	if err := v.HSM.Supervisor.ChangePINs(v.t.Context(), v.Token); err != nil {
		v.t.Fatal(err)
	}
}

// Deal deals an epoch of the safe and has the charter say so. Its PINs are the next
// ones of v.HSM.Supervisor; Shares are those of the new epoch.
func (v *Vault) Deal(epoch int) {
	t := v.t
	t.Helper()
	safe, _ := v.State.People.Safe(v.safe)
	random := make([]byte, 32)
	rand.Read(random)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	dealing, err := v.Quorum.Deal(t.Context(), quorum.DealParams{
		Vault: v.State.Vault, World: v.World.World, Safe: *safe, Epoch: epoch, Token: v.Token.Label, HSMRandom: random, Roster: v.State.People.Roster,
	}, w)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := dealing.GivePINs(); err != nil {
		t.Fatal(err)
	}
	if err := v.HSM.Supervisor.TakePINs(t.Context(), v.Token, r, hsm.Next); err != nil {
		t.Fatal(err)
	}
	v.Shares = dealing.Files
	v.Approve(charter.TypeEpoch, charter.Epoch{Epoch: epoch, Need: safe.Openers.Need, Safe: v.safe, Shares: dealing.Shares, Token: anchor.Token{Label: v.Token.Label, Serial: v.Token.Serial}})
}

// bear makes a key in the token and admits it to the charter.
func (v *Vault) bear(a *hsm.Access, k Key, suffix string) {
	t := v.t
	t.Helper()
	v.n++
	of := ""
	if suffix != "" {
		k.ID, of = k.ID+suffix, k.ID
	}
	st, err := a.Generate(t.Context(), hsm.GenerateSpec{Template: hsm.Sign, Algorithm: admit.Algorithms()[k.Algorithm], KeyID: hsm.NewKeyID(v.tag, v.n), Label: k.ID})
	if err != nil {
		t.Fatal(err)
	}
	spec := sha256.Sum256([]byte(k.ID))
	v.Approve(charter.TypeKey, anchor.KeyRecord{
		Algorithm: k.Algorithm, Domain: k.Domain, ID: k.ID, Public: st.SPKI, Record: "keyrite/record/test",
		SpecHash: hex.EncodeToString(spec[:]), SuccessorOf: of, Token: anchor.Token{Label: v.Token.Label, Serial: v.Token.Serial},
	})
}

// admission writes the report as a run without findings makes it: the attacks
// themselves are tested elsewhere, and take long.
func (v *Vault) admission(a *hsm.Access) {
	t := v.t
	t.Helper()
	m, tok := admit.Describe(a.Module(), a.TokenInfo())
	now := time.Now().Add(-time.Minute).Truncate(time.Second)
	r := &admission.Report{
		Algorithms: []string{anchor.Ed25519, anchor.P256, anchor.P384, anchor.RSA3072, anchor.RSA3072PSS}, Capabilities: []string{}, Templates: []string{string(hsm.Sign)},
		Format: admission.Format, World: v.World.World, Made: charter.FormatTime(now), Expires: charter.FormatTime(now.Add(admission.Validity)),
		Module: *m, Token: *tok,
	}
	for i := range admission.MinCases {
		r.Cases = append(r.Cases, admission.Case{ID: "case-" + strconv.Itoa(i), Title: "test", Expected: "refused", Got: "refused", Pass: true})
	}
	v.SignReport(r)
}

// SignReport makes r the report of the vault, signed by the conductor.
func (v *Vault) SignReport(r *admission.Report) {
	v.t.Helper()
	var err error
	if v.Report, err = admission.Sign(r, v.People["conductor"].Signer()); err != nil {
		v.t.Fatal(err)
	}
}

// Opener is a key master who is there with his share and his key, unlocked.
func (v *Vault) Opener(name string) quorum.Opener {
	return quorum.Opener{Share: v.Shares[name], Unlocked: v.People[name]}
}

// Pool opens the work token with the shares of master1 to master3, through the share
// child, in a supervisor of its own. It ends with the test.
func (v *Vault) Pool() *hsm.Pool {
	t := v.t
	t.Helper()
	sup := v.HSM.Start(t)
	v.TakePINs(sup)
	pool, err := hsm.NewPool(t.Context(), sup, v.Token, hsm.PoolConfig{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pool.Close() })
	return pool
}

// TakePINs gives the PINs in force, that of the SO too, to a supervisor, through the
// share child.
func (v *Vault) TakePINs(sup *hsm.Supervisor) {
	t := v.t
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	nonce := make([]byte, 32)
	rand.Read(nonce)
	_, err = v.Quorum.Open(t.Context(), quorum.OpenParams{
		State: v.State, Safe: v.safe, Operation: strings.Repeat("0", 64), Nonce: nonce, SO: true,
		Openers: []quorum.Opener{v.Opener("master1"), v.Opener("master2"), v.Opener("master3")},
	}, w)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := sup.TakePINs(t.Context(), v.Token, r, hsm.Current); err != nil {
		t.Fatal(err)
	}
}

// Open opens the work token as engines see it (engine.Token). The charter is
// v.State as it is at each call.
func (v *Vault) Open() *worktoken.Token {
	t := v.t
	t.Helper()
	x, err := admission.Open(v.Report, &v.State.People)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := worktoken.New(worktoken.Config{Pool: v.Pool(), Charter: func() *charter.State { return v.State }, Report: x.Report})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// StoreConfig is a store in a new folder, with its head in a file and the guard of
// the test program.
func (v *Vault) StoreConfig() seal.Config {
	t := v.t
	t.Helper()
	dir := t.TempDir()
	head, err := seal.NewFileKeeper(filepath.Join(dir, "head"), v.World.World)
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	store := filepath.Join(dir, "store")
	if err := os.Mkdir(store, 0o700); err != nil {
		t.Fatal(err)
	}
	return seal.Config{Dir: store, Place: v.Place(), Head: head, Check: seal.Guard(exe)}
}

// Place is where the data key of the vault's store belongs.
func (v *Vault) Place() seal.Place {
	v.t.Helper()
	p := seal.Place{World: v.World.World, Epoch: uint32(v.State.Epochs[v.safe].Epoch)}
	if _, err := hex.Decode(p.Vault[:], []byte(v.State.Vault)); err != nil {
		v.t.Fatal(err)
	}
	return p
}

// Store makes a store under a data key that was drawn and opens it; both end with
// the test.
func (v *Vault) Store() *seal.Store {
	t := v.t
	t.Helper()
	c := v.StoreConfig()
	k, err := seal.NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Wipe)
	if err := seal.Create(t.Context(), c, k, map[string]string{"did": "create"}); err != nil {
		t.Fatal(err)
	}
	s, err := seal.Open(t.Context(), c, k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
