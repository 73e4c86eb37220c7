package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/redact"
	"keyrite/internal/tpm"
	"keyrite/vault/seal"
	"keyrite/vault/unattended"
)

// tpmFile is, in the state folder, the authorisation of the vault's indexes.
const tpmFile = "tpm.json"

const tpmFormat = "keyrite/vault-tpm/v1"

// tpmState is the form of tpmFile. The authorisation is text, because a TPM takes
// zeros at the end of one away.
type tpmState struct {
	Auth   string      `json:"auth"` // 32 hex digits
	Format string      `json:"format"`
	World  world.World `json:"world"`
}

// authBytes is the length of an authorisation before it is text: as text it has the
// 32 bytes that a SHA-256 index takes.
const authBytes = 16

// tpmIndexes are all that a vault has in its host's TPM.
func tpmIndexes() []tpm.Index { return append(seal.TPMIndexes(), unattended.Counter()) }

// loadTPM reads the authorisation, which nobody else may read.
func loadTPM(dir string, w world.World) ([]byte, error) {
	path := filepath.Join(dir, tpmFile)
	data, err := loadSecret(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "%q has no %s", dir, tpmFile), "'keyrite-vault tpm create' makes the vault's indexes in the TPM, and that file")
	}
	if err != nil {
		return nil, err
	}
	defer clear(data)
	var s tpmState
	if err := jcs.Unmarshal(data, &s); err != nil {
		return nil, fault.Errorf(fault.Usage, "%q is damaged", path) // what is wrong with it is not shown: it is secret
	}
	if raw, err := hex.DecodeString(s.Auth); err != nil || len(raw) != authBytes || s.Format != tpmFormat {
		return nil, fault.Errorf(fault.Usage, "%q is damaged, or of another format", path)
	}
	if err := world.Match(w, s.World); err != nil {
		return nil, err
	}
	return []byte(s.Auth), nil
}

// place is where this host keeps what a restart needs. Without a TPM, or its
// authorisation, nothing is kept; what is there of before is destroyed.
func (b *bind) place(dir string) (*unattended.Place, error) {
	p := &unattended.Place{Dir: dir, TPM: b.tpm()}
	if _, err := os.Lstat(filepath.Join(dir, tpmFile)); p.TPM == "" || errors.Is(err, fs.ErrNotExist) {
		p.TPM = ""
		return p, nil
	}
	var err error
	p.Auth, err = loadTPM(dir, b.World)
	return p, err
}

// tpmHead keeps the head in the host's TPM.
func (v *vault) tpmHead() (seal.Keeper, error) {
	auth, err := loadTPM(v.dir, v.bind.World)
	if err != nil {
		return nil, err
	}
	defer clear(auth)
	return seal.NewTPMKeeper(func() (*tpm.Device, error) { return tpm.Open(v.bind.Head.TPM) }, auth), nil
}

func newTPM() *cobra.Command {
	c := &cobra.Command{
		Use:   "tpm",
		Short: "Prepare the TPM of a vault's host",
	}
	c.AddCommand(newTPMCreate(), newTPMHostKey())
	return c
}

// tpmOptions are those of what makes something in the TPM.
type tpmOptions struct {
	placeOptions
	ownerFD int
	replace bool
}

func (o *tpmOptions) addFlags(c *cobra.Command, replace string) {
	o.placeOptions.addFlags(c)
	c.Flags().IntVar(&o.ownerFD, "owner-auth-fd", -1, "descriptor with the authorisation of the TPM's owner, one line; without it, the empty one")
	c.Flags().BoolVar(&o.replace, "replace", false, replace)
}

// tpmJob is a TPM in which something is made, while no vault runs from the folder.
type tpmJob struct {
	bind    *bind
	device  *tpm.Device
	owner   *redact.Secret // the owner's authorisation
	release func()
}

// begin needs what a tpmJob has. The caller ends it.
func (o *tpmOptions) begin() (*tpmJob, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	b, err := loadBind(o.bind)
	if err != nil {
		return nil, err
	}
	if b.tpm() == "" {
		return nil, fault.Hint(fault.New(fault.Usage, "the binding names no TPM"), "head: {tpm: /dev/tpmrm0}, or tpm: /dev/tpmrm0 for the host's key and unattended restarts alone; see docs/formats/vault-bind.md")
	}
	release, err := holdState(o.stateDir)
	if err != nil {
		return nil, err
	}
	j := &tpmJob{bind: b, release: release}
	if j.owner, err = o.ownerAuth(); err == nil {
		j.device, err = tpm.Open(b.tpm())
	}
	if err != nil {
		j.end()
		return nil, err
	}
	return j, nil
}

func (j *tpmJob) end() {
	if j.device != nil {
		_ = j.device.Close() // every answer has been read
	}
	if j.owner != nil {
		j.owner.Zero()
	}
	j.release()
}

func newTPMCreate() *cobra.Command {
	var o tpmOptions
	c := &cobra.Command{
		Use:   "create --bind FILE --state-dir DIR [--owner-auth-fd N] [--replace]",
		Short: "Make the vault's indexes in the TPM of this host",
		Long: `Make the NV indexes that a vault keeps in its host's TPM, under a random authorisation
that only the state folder has (tpm.json, 0600). It is done once on a host, after 'create'
and before the first unseal. The TPM's owner must agree: on most machines his
authorisation is empty; where it is not, the descriptor gives it as one line.

With --replace, indexes that are there already are removed first: a vault whose head was
in them is sealed from then on, until its key masters take it over with the operation
rehead.

Exit codes: 0 made; 2 the binding names no TPM, or no state folder; 12 the TPM cannot; 13 the owner's
authorisation was refused; 15 the vault is running; 16 there are such indexes already; 19
no TPM answers.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runTPMCreate(c, &o) },
	}
	o.addFlags(c, "remove indexes that are there first")
	return c
}

func runTPMCreate(c *cobra.Command, o *tpmOptions) error {
	j, err := o.begin()
	if err != nil {
		return err
	}
	defer j.end()
	auth, err := makeAuth(o.stateDir, j.bind.World)
	if err != nil {
		return err
	}
	defer clear(auth)
	for _, x := range tpmIndexes() {
		if err := o.define(j.device, x, auth, j.owner.Bytes()); err != nil {
			return err
		}
	}
	res := struct {
		Schema  string   `json:"schema"`
		TPM     string   `json:"tpm"`
		Indexes []string `json:"indexes"`
	}{Schema: "keyrite/vault-tpm-create/v1", TPM: j.bind.tpm()}
	for _, x := range tpmIndexes() {
		res.Indexes = append(res.Indexes, fmt.Sprintf("%#x", x.Handle))
	}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "the TPM at %s has the vault's indexes: %v\n", cli.Escape(res.TPM), res.Indexes)
	})
}

// ownerAuth is the owner's authorisation.
func (o *tpmOptions) ownerAuth() (*redact.Secret, error) {
	if o.ownerFD < 0 {
		return redact.New(nil), nil
	}
	return cli.NewSecrets(cli.IO{}, o.ownerFD).Next("authorisation of the TPM's owner")
}

// define makes one index.
func (o *tpmOptions) define(d *tpm.Device, x tpm.Index, auth, owner []byte) error {
	if o.replace {
		if err := d.Undefine(x, owner); err != nil && !errors.Is(err, tpm.ErrMissing) {
			return err
		}
	}
	err := d.Define(x, auth, owner)
	if errors.Is(err, tpm.ErrDefined) {
		return fault.Hint(err, "this vault had it, or another one of this host has; with --replace it is made anew")
	}
	return err
}

// newAuth is a new authorisation.
func newAuth() (string, error) {
	raw := make([]byte, authBytes)
	defer clear(raw)
	if _, err := rand.Read(raw); err != nil {
		return "", fault.Errorf(fault.Unexpected, "read system random: %w", err)
	}
	return hex.EncodeToString(raw), nil
}

// makeAuth is the folder's authorisation; a new one is on the disk before it is used.
func makeAuth(dir string, w world.World) ([]byte, error) {
	auth, err := loadTPM(dir, w)
	if err == nil {
		return auth, nil
	}
	if _, there := os.Lstat(filepath.Join(dir, tpmFile)); !errors.Is(there, fs.ErrNotExist) {
		return nil, err
	}
	text, err := newAuth()
	if err != nil {
		return nil, err
	}
	s := tpmState{Auth: text, Format: tpmFormat, World: w}
	data, err := jcs.Marshal(s)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	return []byte(s.Auth), durable.WriteNew(filepath.Join(dir, tpmFile), data, 0o600)
}
