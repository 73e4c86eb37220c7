package main

import (
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/artifact/world"
	"keyrite/hsm"
	"keyrite/internal/config"
	"keyrite/internal/intake"
	"keyrite/vault/unseal"
	"keyrite/vault/watch"
)

// bindFormat names the binding file of a vault.
const bindFormat = "keyrite/vault-bind/v1"

// bind says what a vault is bound to on this host. Who may do what stands in the
// charter alone. Relative paths are taken from the file's folder. docs/formats/vault-bind.md
type bind struct {
	Format     string      `yaml:"format"`     // keyrite/vault-bind/v1. Required.
	World      world.World `yaml:"world"`      // live or rehearsal:ID. Required.
	Host       string      `yaml:"host"`       // this host's id in the charter. Required.
	Safe       string      `yaml:"safe"`       // whose token the vault works with: "work". Required.
	Module     string      `yaml:"module"`     // PKCS#11 module. Required.
	Admissions []string    `yaml:"admissions"` // reports of 'keyrite hsm admit', or admissions.json of a record. Required.
	Anchors    string      `yaml:"anchors"`    // anchors file. Required.
	Charter    string      `yaml:"charter"`    // charter file; read again when it has grown. Required.
	Succession string      `yaml:"succession"` // succession statement, if there was one
	Head       bindHead    `yaml:"head"`       // where the newest head of the store is kept. Required.
	TPM        string      `yaml:"tpm"`        // the TPM of this host, for unattended restarts. Default head.tpm.
	Attempt    string      `yaml:"attempt"`    // how long key masters may take, to 24h. Default 15m.
	Sandbox    bindSandbox `yaml:"sandbox"`    // Optional.
	TLS        bindTLS     `yaml:"tls"`        // Required for listeners of clients.
	Watch      bindWatch   `yaml:"watch"`      // files of which people are told before they end. Optional.
	Public     string      `yaml:"public"`     // address under which clients reach the vault: https://HOST:PORT

	dir string
}

// bindHead names exactly one keeper of the head.
type bindHead struct {
	File     string        `yaml:"file"`     // a file: in a rehearsal only
	Cosigner *bindCosigner `yaml:"cosigner"` // a process on another machine
	TPM      string        `yaml:"tpm"`      // the TPM of this host: its device, such as /dev/tpmrm0; HOST:PORT in a rehearsal only
}

func (h *bindHead) keepers() (n int) {
	for _, there := range []bool{h.File != "", h.Cosigner != nil, h.TPM != ""} {
		if there {
			n++
		}
	}
	return n
}

// tpm is where the TPM of this host is; "" if nothing of the vault is in it.
func (b *bind) tpm() string {
	if b.TPM != "" {
		return b.TPM
	}
	return b.Head.TPM
}

// unvouched says whether nobody outside vouches for a time: then nothing that waits for
// one, delegation or break-glass, is ever used. In a rehearsal the host's clock does.
func (b *bind) unvouched() bool { return b.World.IsLive() && b.Head.Cosigner == nil }

// bindCosigner says where a cosigner is; who it is stands in the charter's audit-log.
type bindCosigner struct {
	Name string `yaml:"name"` // as in the charter. Required.
	URL  string `yaml:"url"`  // https://HOST:PORT, or http to loopback. Required.
	CA   string `yaml:"ca"`   // PEM file that its certificate must follow from. Required for https.
}

// bindSandbox is what the module may use beside what its own configuration names.
type bindSandbox struct {
	Sockets  []string `yaml:"sockets"`   // "unix", or "tcp:PORT"
	Folders  []string `yaml:"folders"`   // absolute, which it writes to
	StateDir string   `yaml:"state_dir"` // absolute, for the counter of wrong PINs
}

// bindTLS names the server's own certificate.
type bindTLS struct {
	Certificate string `yaml:"certificate"` // PEM, with its chain
	Key         string `yaml:"key"`         // PEM, 0600
}

// bindWatch names files that end: see vault/watch.
type bindWatch struct {
	TUF          []string `yaml:"tuf"`          // folders with the metadata of update repositories
	Bundles      []string `yaml:"bundles"`      // bundles of factories
	Rehearsals   []string `yaml:"rehearsals"`   // records of rehearsals, or folders of records
	CRLs         []string `yaml:"crls"`         // lists of others
	Certificates []string `yaml:"certificates"` // certificates of others
}

func (b *bindWatch) all() []string {
	return slices.Concat(b.TUF, b.Bundles, b.Rehearsals, b.CRLs, b.Certificates)
}

var bindIDRE = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)

func loadBind(path string) (*bind, error) {
	b := &bind{dir: filepath.Dir(path)}
	if _, err := config.Load(path, b); err != nil {
		return nil, err
	}
	if err := b.faults().Err(path); err != nil {
		return nil, fault.Hint(err, "docs/formats/vault-bind.md has every member, with an example")
	}
	return b, nil
}

// faults are all that is wrong.
func (b *bind) faults() *config.Faults {
	f := &config.Faults{}
	f.If(b.Format != bindFormat, "format is %.40q, not %q", b.Format, bindFormat)
	f.If(b.World.Check() != nil, "world is neither live nor rehearsal:ID")
	f.If(!bindIDRE.MatchString(b.Host), "host is missing, or no id")
	f.If(!bindIDRE.MatchString(b.Safe), "safe is missing, or no id")
	f.If(!filepath.IsAbs(b.Module), "module is missing, or not absolute")
	f.If(len(b.Admissions) == 0, "admissions names no report")
	f.If(b.Anchors == "", "anchors is missing")
	f.If(b.Charter == "", "charter is missing")
	f.If(b.Head.keepers() != 1, "head names one keeper: cosigner, tpm or, in a rehearsal, file")
	f.If(b.World.IsLive() && b.Head.TPM != "" && !filepath.IsAbs(b.Head.TPM), "head.tpm is no device: a TPM behind a socket is for rehearsals, since its state can be put back")
	f.If(b.Head.File != "" && b.World.IsLive(), "head.file is for rehearsals: it is put back together with the store")
	f.If(b.World.IsLive() && b.TPM != "" && !filepath.IsAbs(b.TPM), "tpm is no device: a TPM behind a socket is for rehearsals")
	f.If(b.TPM != "" && b.Head.TPM != "" && b.TPM != b.Head.TPM, "tpm and head.tpm are two TPMs, and a host has one")
	if c := b.Head.Cosigner; c != nil {
		f.If(c.Name == "" || c.URL == "", "head.cosigner needs name and url")
	}
	_, err := b.valid()
	f.If(err != nil, "attempt is no duration from 1s to 24h, such as 15m")
	f.If(len(b.Watch.all()) > watch.MaxFiles || slices.Contains(b.Watch.all(), ""), "watch names %d files at most, and none without a name", watch.MaxFiles)
	f.If((b.TLS.Certificate == "") != (b.TLS.Key == ""), "tls needs certificate and key")
	return f
}

// valid is how long an attempt may take.
func (b *bind) valid() (time.Duration, error) {
	if b.Attempt == "" {
		return unseal.DefaultValid, nil
	}
	d, err := time.ParseDuration(b.Attempt)
	if err != nil || d < time.Second || d > openrequest.MaxValidity {
		return 0, fault.New(fault.Usage, "attempt is no duration from 1s to 24h")
	}
	return d, nil
}

func (b *bind) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(b.dir, p)
}

func (b *bind) hsm() hsm.Config {
	return hsm.Config{Module: b.Module, Sockets: b.Sandbox.Sockets, Folders: b.Sandbox.Folders, StateDir: b.Sandbox.StateDir}
}

// watched makes what looks at the files, and at the reports.
func (b *bind) watched(reports [][]byte) *watch.Watch {
	paths := func(list []string) []string {
		out := make([]string, len(list))
		for i, p := range list {
			out[i] = b.path(p)
		}
		return out
	}
	c := watch.Config{Admissions: reports, Files: watch.Files{
		TUF: paths(b.Watch.TUF), Bundles: paths(b.Watch.Bundles), Rehearsals: paths(b.Watch.Rehearsals), CRLs: paths(b.Watch.CRLs), Certificates: paths(b.Watch.Certificates),
	}}
	if b.TLS.Certificate != "" {
		c.Server = b.path(b.TLS.Certificate)
	}
	return watch.New(c)
}

// reports reads the admission reports.
func (b *bind) reports() ([][]byte, error) {
	var out [][]byte
	for _, p := range b.Admissions {
		data, err := intake.Read(b.path(p), admission.MaxKeptBytes)
		if err != nil {
			return nil, err
		}
		out = append(out, data)
	}
	return out, nil
}
