package unattended

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/tpm"
	"keyrite/internal/tpm/tpmtest"
	"keyrite/vault/seal"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectors = "../../testdata/vectors/unattended"

var (
	testAuth = []byte("0123456789abcdef0123456789abcdef")
	testKey  = bytes.Repeat([]byte{5}, seal.KeyBytes)
	testPIN  = []byte("canary PIN of nobody")
)

// host is a prepared TPM, a place and a charter with a statement.
type host struct {
	*artifacttest.World
	t *testing.T
	m *tpmtest.TPM
	p *Place
	u charter.Unattended
}

func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{World: artifacttest.New(t), t: t, m: tpmtest.Start(t)}
	h.p = &Place{Dir: t.TempDir(), TPM: h.m.Addr, Auth: testAuth}
	d, err := tpm.Open(h.m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Define(Counter(), testAuth, nil); err != nil {
		t.Fatal(err)
	}
	h.u = charter.Unattended{Expires: charter.FormatTime(artifacttest.Now().Add(24 * time.Hour)), Host: "vault1", ID: "nights", PCRs: []int{0, 7}}
	return h
}

func (h *host) asked() *Asked {
	return &Asked{
		Statement: h.u, Safe: "work", Epoch: 1, Holders: []string{"master1", "master2"}, Now: charter.FormatTime(artifacttest.Now()),
		TPM: h.m.Addr, Vault: h.State.Vault, World: h.World.World,
	}
}

func (h *host) keep() *File {
	h.t.Helper()
	f, err := Keep(h.asked(), testAuth, testKey, testPIN)
	if err != nil {
		h.t.Fatal(err)
	}
	return f
}

// restart switches the machine off and on.
func (h *host) restart() {
	h.t.Helper()
	h.m.Restart()
	h.p.TPM = h.m.Addr
}

func (h *host) opens(f *File) error {
	key, pin, err := f.Open(h.m.Addr, testAuth)
	if err == nil && (!bytes.Equal(key, testKey) || !bytes.Equal(pin, testPIN)) {
		err = errors.New("another key or PIN")
	}
	return err
}

// What is kept opens after a restart of the same host in the same state; a later
// keeping, a revocation, another state, an altered file or another TPM end it.
func TestKeptForARestart(t *testing.T) {
	h := newHost(t)
	first := h.keep()
	data, err := first.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(data, []byte("canary")) || bytes.Contains(data, testKey) {
		t.Error("a secret stands in the file")
	}
	h.restart()
	if err := h.opens(first); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	h.m.Extend(7)
	if err := h.opens(first); fault.ClassOf(err) != fault.Policy || !strings.Contains(err.Error(), "PCRs [0 7]") {
		t.Errorf("another boot: %v", err)
	}
	h.restart()
	if _, _, err := first.Open(h.m.Addr, []byte("another")); fault.ClassOf(err) != fault.Policy {
		t.Errorf("another authorisation: %v", err)
	}
	second := h.keep()
	if err := h.opens(first); fault.ClassOf(err) != fault.Policy {
		t.Errorf("of before: %v", err)
	}
	if err := h.opens(second); err != nil {
		t.Error(err)
	}
	for name, edit := range alterations() {
		x := *second
		edit(&x)
		if err := h.opens(&x); err == nil {
			t.Errorf("%s: opens", name)
		}
	}
	other := newHost(t)
	other.keep()
	if _, _, err := second.Open(other.m.Addr, testAuth); err == nil {
		t.Error("opens in another TPM")
	}
	h.m.Stop()
	if err := h.opens(second); fault.ClassOf(err) != fault.Unreachable {
		t.Errorf("no TPM: %v", err)
	}
}

// alterations are files that say something else than was bound.
func alterations() map[string]func(*File) {
	return map[string]func(*File){
		"another safe":      func(f *File) { f.Safe = "root" },
		"another epoch":     func(f *File) { f.Epoch = 2 },
		"another host":      func(f *File) { f.Host = "vault2" },
		"another statement": func(f *File) { f.ID = "days" },
		"another body":      func(f *File) { f.Body = strings.Repeat("0", 64) },
		"another end":       func(f *File) { f.Expires = "2027-11-22T02:00:00Z" },
		"another vault":     func(f *File) { f.Vault = strings.Repeat("1", 64) },
		"another world":     func(f *File) { f.World = "live" },
		"other holders":     func(f *File) { f.Holders = []string{"master3", "master4"} },
		"a later TPM clock": func(f *File) { f.TPMClock = "9999999999999" },
		"another counter":   func(f *File) { f.Counter = "1" + f.Counter },
		"fewer PCRs":        func(f *File) { f.PCRs = f.PCRs[:1] },
		"another digest":    func(f *File) { f.Digest = strings.Repeat("0", 64) },
		"a flipped bit":     func(f *File) { f.Box = bytes.Clone(f.Box); f.Box[30] ^= 1 },
	}
}

// The statement's own digest must be the host's, and its time must be in force.
func TestKeepIsRefused(t *testing.T) {
	h := newHost(t)
	d, err := tpm.Open(h.m.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	now, err := d.PCRDigest(h.u.PCRs)
	if err != nil {
		t.Fatal(err)
	}
	other := sha256.Sum256([]byte("another state"))
	for name, c := range map[string]struct {
		edit func(*Asked)
		want fault.Class
	}{
		"another state":      {func(a *Asked) { a.Statement.Digest = other[:] }, fault.Policy},
		"ended":              {func(a *Asked) { a.Statement.Expires = a.Now }, fault.Policy},
		"no time":            {func(a *Asked) { a.Now = "" }, fault.Verify},
		"longer than may be": {func(a *Asked) { a.Statement.Expires = "2028-01-01T00:00:00Z" }, fault.Policy},
		"no PCRs":            {func(a *Asked) { a.Statement.PCRs = nil }, fault.Usage},
		"no TPM":             {func(a *Asked) { a.TPM = "127.0.0.1:1" }, fault.Unreachable},
	} {
		a := h.asked()
		c.edit(a)
		if _, err := Keep(a, testAuth, testKey, testPIN); fault.ClassOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, bad := range map[string][2][]byte{"no key": {nil, testPIN}, "no PIN": {testKey, nil}, "a long PIN": {testKey, make([]byte, MaxPINBytes+1)}} {
		if _, err := Keep(h.asked(), testAuth, bad[0], bad[1]); err == nil {
			t.Errorf("%s: kept", name)
		}
	}
	a := h.asked()
	a.Statement.Digest = now[:]
	if _, err := Keep(a, testAuth, testKey, testPIN); err != nil {
		t.Errorf("the state that it names: %v", err)
	}
}

// A revocation ends it for every copy; begun and cut off, it is never undone; without
// the TPM it stays begun until that answers.
func TestRevoked(t *testing.T) {
	h := newHost(t)
	f := h.keep()
	data, err := f.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if h.p.Holds() {
		t.Error("something is there")
	}
	if err := h.p.Save(data); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(h.p.file()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if _, _, err := h.p.Load(); err != nil || !h.p.Holds() || h.p.Pending() {
		t.Fatalf("%v", err)
	}
	if err := h.p.Begin(); err != nil { // and here the process is killed
		t.Fatal(err)
	}
	if _, _, err := h.p.Load(); !errors.Is(err, ErrNothing) {
		t.Errorf("begun: %v", err)
	}
	if err := h.p.Save(data); fault.ClassOf(err) != fault.Policy {
		t.Errorf("saved over a revocation: %v", err)
	}
	h.m.Stop()
	if err := h.p.Revoke(); fault.ClassOf(err) != fault.Unreachable || !h.p.Pending() {
		t.Errorf("without the TPM: %v", err)
	}
	if _, err := os.Lstat(h.p.file()); err == nil {
		t.Error("the file is left")
	}
	h.restart()
	if err := h.opens(f); err != nil {
		t.Errorf("the copy, until the TPM was asked: %v", err)
	}
	if err := h.p.Revoke(); err != nil || h.p.Holds() {
		t.Errorf("%v", err)
	}
	if err := h.opens(f); fault.ClassOf(err) != fault.Policy {
		t.Errorf("the copy, revoked: %v", err)
	}
	if err := (&Place{Dir: h.p.Dir}).Revoke(); fault.ClassOf(err) != fault.Usage {
		t.Errorf("no TPM in the binding: %v", err)
	}
	h.p.Auth = []byte("another")
	if err := h.p.Revoke(); err == nil || !h.p.Pending() {
		t.Errorf("another authorisation: %v", err)
	}
}

// A file is for one statement, host, safe and epoch of one vault.
func TestFileForCharter(t *testing.T) {
	h := newHost(t)
	h.AddHost("vault1")
	h.Approve(charter.TypeUnattended, h.u)
	st := h.State
	st.Epochs["work"] = charter.Epoch{Epoch: 1, Safe: "work"} // as if it was dealt
	f := h.keep()
	u, err := st.UnattendedAt("vault1", artifacttest.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.For(st, u, "work"); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*File){
		"another safe": func(f *File) { f.Safe = "root" }, "another vault": func(f *File) { f.Vault = strings.Repeat("1", 64) }, "another world": func(f *File) { f.World = "live" },
		"another host": func(f *File) { f.Host = "vault2" }, "another statement": func(f *File) { f.ID = "days" }, "another body": func(f *File) { f.Body = strings.Repeat("0", 64) },
		"another end": func(f *File) { f.Expires = "2027-11-22T02:00:00Z" }, "an epoch before": func(f *File) { f.Epoch++ },
	} {
		x := *f
		edit(&x)
		if err := x.For(st, u, "work"); err == nil {
			t.Errorf("%s: for this charter", name)
		}
	}
}

// badFiles are files that are not read; the sound one is "ok".
func badFiles(t testing.TB, good *File) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for name, edit := range map[string]func(*File){
		"ok": func(*File) {}, "other-format": func(f *File) { f.Format = "keyrite/unattended/v2" }, "no-world": func(f *File) { f.World = "" }, "no-box": func(f *File) { f.Box = nil },
		"short-box": func(f *File) { f.Box = f.Box[:70] }, "long-box": func(f *File) { f.Box = make([]byte, 400) }, "no-pcrs": func(f *File) { f.PCRs = []int{} },
		"pcrs-unsorted": func(f *File) { f.PCRs = []int{7, 0} }, "pcr-beyond": func(f *File) { f.PCRs = []int{24} }, "counter-with-sign": func(f *File) { f.Counter = "-1" },
		"counter-with-zero": func(f *File) { f.Counter = "01" }, "counter-too-long": func(f *File) { f.Counter = strings.Repeat("9", 20) }, "no-clock": func(f *File) { f.TPMClock = "" },
		"digest-in-capitals": func(f *File) { f.Digest = strings.Repeat("AB", 32) }, "short-digest": func(f *File) { f.Digest = "ab" }, "no-statement": func(f *File) { f.ID = "" },
		"one-holder": func(f *File) { f.Holders = []string{"master1"} }, "epoch-0": func(f *File) { f.Epoch = 0 }, "no-end": func(f *File) { f.Expires = "" },
		"local-time": func(f *File) { f.Made = "2026-11-22T02:00:00+01:00" }, "no-public": func(f *File) { f.Public = nil }, "long-private": func(f *File) { f.Private = make([]byte, 1025) },
	} {
		x := *good
		edit(&x)
		data, err := x.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		out[name] = data
	}
	sound := out["ok"]
	out["empty"], out["cut"], out["trailing"] = []byte{}, sound[:len(sound)/2], append(bytes.Clone(sound), '\n')
	out["unknown-member"] = bytes.Replace(sound, []byte(`"box"`), []byte(`"a":1,"box"`), 1)
	out["twice"] = bytes.Replace(sound, []byte(`"epoch":1`), []byte(`"epoch":1,"epoch":1`), 1)
	out["spaces"] = bytes.Replace(sound, []byte(`"epoch":1`), []byte(`"epoch": 1`), 1)
	out["huge"] = bytes.Repeat([]byte("x"), MaxBytes+1)
	return out
}

func TestVectors(t *testing.T) {
	if *update {
		h := newHost(t)
		if err := os.MkdirAll(vectors, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, data := range badFiles(t, h.keep()) {
			expect := "verify"
			if name == "ok" {
				expect = "ok"
			}
			artifacttest.WriteVector(t, vectors, artifacttest.Vector{Name: name, Expect: expect, Body: data}, name)
		}
	}
	seen := map[string]int{}
	for _, x := range artifacttest.Vectors(t, vectors) {
		got := "ok"
		if _, err := Parse(x.Body); err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != x.Expect {
			t.Errorf("%s: %s, want %s", x.Name, got, x.Expect)
		}
		seen[got]++
	}
	if seen["ok"] != 1 || seen["verify"] < 20 {
		t.Errorf("%v", seen)
	}
}

// FuzzParse: what is read is written as it was.
func FuzzParse(f *testing.F) {
	for _, x := range artifacttest.Vectors(f, vectors) {
		f.Add(x.Body)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := Parse(data)
		if err != nil {
			return
		}
		again, err := x.Marshal()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s is written as %s (%v)", data, again, err)
		}
		if _, err := hex.DecodeString(x.Digest); err != nil {
			t.Errorf("digest %q", x.Digest)
		}
	})
}
