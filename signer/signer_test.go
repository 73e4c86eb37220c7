package signer_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/internal/intake"
	"keyrite/signer"
	"keyrite/signer/releaselog"
)

// bench is a world with an image to release.
type bench struct {
	*artifacttest.World
	t     *testing.T
	dir   string
	image string // path
	sum   string
	size  int64
	keys  signer.Signers
	now   time.Time
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{World: artifacttest.New(t, "approver2"), t: t, dir: t.TempDir(), now: artifacttest.Now().Add(time.Hour)}
	data := bytes.Repeat([]byte("firmware\n"), 10_000)
	sum := sha256.Sum256(data)
	b.image, b.sum, b.size = filepath.Join(b.dir, "firmware.img"), hex.EncodeToString(sum[:]), int64(len(data))
	if err := os.WriteFile(b.image, data, 0o600); err != nil {
		t.Fatal(err)
	}
	b.keys = func(id string) (crypto.Signer, error) { return b.Keys[id], nil }
	return b
}

func (b *bench) wish(security int64) signer.Wish {
	return signer.Wish{Product: "gw100", Version: "1.2.3", Channel: "release", File: "firmware.img", Hardware: []string{"gw100"}, SecurityVersion: security}
}

func (b *bench) request(w signer.Wish) []byte {
	b.t.Helper()
	req, err := signer.NewRequest(b.State, w, b.sum, b.size, b.Keys["pipeline1"], b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	return req
}

func (b *bench) open(req []byte) *signer.Requested {
	b.t.Helper()
	q, err := signer.OpenRequest(req, b.State, b.now)
	if err != nil {
		b.t.Fatal(err)
	}
	return q
}

func (b *bench) approve(req []byte, who ...string) [][]byte {
	b.t.Helper()
	var out [][]byte
	for _, name := range who {
		a, err := signer.Approve(b.open(req), b.sum, b.size, b.People[name], b.now)
		if err != nil {
			b.t.Fatal(err)
		}
		out = append(out, a)
	}
	return out
}

// release does what the command does, as a process of its own.
func (b *bench) release(req []byte, approvals [][]byte, out string) (*signer.Released, error) {
	b.t.Helper()
	now := func() time.Time { return b.now }
	l, err := signer.OpenLedger(filepath.Join(b.dir, "state"), b.State, now)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	q, err := signer.OpenRequest(req, b.State, b.now)
	if err != nil {
		return nil, err
	}
	c, err := signer.Check(q, approvals, l, b.now)
	if err != nil {
		return nil, err
	}
	img, err := intake.Open(b.image)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	dir := filepath.Join(b.dir, out)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &signer.Signer{State: b.State, Ledger: l, Keys: b.keys, Now: now}
	ready, err := signer.Prepare(b.t.Context(), c, img, dir)
	if err != nil {
		return nil, err
	}
	return s.Release(b.t.Context(), ready)
}

func (b *bench) empty(out string) {
	b.t.Helper()
	left, err := os.ReadDir(filepath.Join(b.dir, out))
	if err != nil && !errors.Is(err, os.ErrNotExist) || len(left) != 0 {
		b.t.Errorf("left in %s: %v %v", out, left, err)
	}
}

func TestReleaseIsVerifiable(t *testing.T) {
	b := newBench(t)
	for i, security := range []int64{3, 3, 4} {
		req := b.request(b.wish(security))
		out := []string{"a", "b", "c"}[i]
		r, err := b.release(req, b.approve(req, "approver2", "approver1"), out)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(r.KRF)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		k, err := firmware.VerifyKRF(f, b.Trust())
		if err != nil {
			t.Fatal(err)
		}
		p := k.Statement.Predicate
		if k.Index != int64(i) || p.SecurityVersion != security || p.Pipeline != "pipeline1" || p.Approvals[0].Approver != "approver1" || p.Approvals[1].Approver != "approver2" ||
			p.Charter.Head != b.State.Head() || p.Key.Record != "keyrite/record/test" {
			t.Errorf("release %d: %+v", i, p)
		}
		bundle, err := os.ReadFile(r.Bundle)
		if err != nil || !bytes.Equal(bundle, k.Bundle) {
			t.Errorf("bundle beside and in the .krf differ: %v", err)
		}
	}
}

// TestProductWithAKeyOfItsOwn: once the charter has a key for a product, that one
// signs its releases, approvals are bound to it, and when it is retired nothing else
// takes its place.
func TestProductWithAKeyOfItsOwn(t *testing.T) {
	b := newBench(t)
	req := b.request(b.wish(1))
	before := b.approve(req, "approver1", "approver2")
	own := b.Later("firmware-gw100", "dsse", "")
	if _, err := b.release(req, before, "stale"); fault.ClassOf(err) != fault.Policy {
		t.Errorf("approvals for the common key: %v", err)
	}
	b.empty("stale")
	req = b.request(b.wish(1))
	r, err := b.release(req, b.approve(req, "approver1", "approver2"), "own")
	if err != nil {
		t.Fatal(err)
	}
	if k := r.Statement.Predicate.Key; r.Statement.Role() != "firmware-gw100" || k.ID != own.ID || k.SpecHash != own.SpecHash {
		t.Errorf("signed as %s: %+v", r.Statement.Role(), k)
	}
	f, err := os.Open(r.KRF)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := firmware.VerifyKRF(f, b.Trust()); fault.ClassOf(err) != fault.Verify {
		t.Errorf("anchors that were not told of the key: %v", err)
	}
	b.Approve(charter.TypeKeyRetired, charter.KeyRetired{ID: own.ID, Reason: "compromised", Record: "keyrite/record/2"})
	req, err = signer.NewRequest(b.State, b.wish(2), b.sum, b.size, b.Keys["pipeline1"], b.now)
	if err == nil {
		_, err = signer.Approve(b.open(req), b.sum, b.size, b.People["approver1"], b.now)
	}
	if fault.ClassOf(err) != fault.Policy {
		t.Errorf("a release of a product whose key is retired: %v", err)
	}
}

// A dormant twin that bears the name of a product's key by chance is none: product 2
// has the common key although the charter knows firmware-2, the twin of firmware.
func TestTwinIsNoProductKey(t *testing.T) {
	b := newBench(t)
	b.AddSuccessors()
	if _, ok := b.State.Keys["firmware-2"]; !ok {
		t.Fatal("the fixture has no twin of that name")
	}
	for product, want := range map[string]string{"2": "firmware", "gw100": "firmware"} {
		if got := signer.RoleOf(b.State, product); got != want {
			t.Errorf("product %s is signed as %s, want %s", product, got, want)
		}
	}
	if trust, err := signer.TrustOf(b.State); err != nil || len(trust.Products) != 0 {
		t.Errorf("the twin is trusted for a product: %v, %v", trust, err)
	}
}

func TestRequestsAreRefused(t *testing.T) {
	b, other := newBench(t), newBench(t)
	rogue, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	good := b.request(b.wish(3))
	if _, err := signer.NewRequest(b.State, b.wish(3), b.sum, b.size, rogue, b.now); fault.ClassOf(err) != fault.Policy {
		t.Errorf("unknown pipeline: %v", err)
	}
	foreign := b.wish(3)
	foreign.Product = "gw200"
	if _, err := signer.NewRequest(b.State, foreign, b.sum, b.size, b.Keys["pipeline1"], b.now); !errors.Is(err, signer.ErrProduct) {
		t.Errorf("foreign product: %v", err)
	}
	tests := []struct {
		name string
		data []byte
		now  time.Time
		want error
		cls  fault.Class
	}{
		{"signed by an unknown key under a known name", b.resign(good, signer.RequestType, rogue, nil), b.now, signer.ErrPipeline, fault.Policy},
		{"unknown pipeline", b.resign(good, signer.RequestType, rogue, func(m map[string]any) { m["pipeline"] = "pipeline9" }), b.now, signer.ErrPipeline, fault.Policy},
		{"product of somebody else", b.resign(good, signer.RequestType, b.Keys["pipeline1"], func(m map[string]any) { m["product"] = "gw200" }), b.now, signer.ErrProduct, fault.Policy},
		{"valid for a year", b.resign(good, signer.RequestType, b.Keys["pipeline1"], func(m map[string]any) { m["expires"] = "2027-11-22T03:00:00Z" }), b.now, signer.ErrTime, fault.Policy},
		{"expired", good, b.now.Add(8 * 24 * time.Hour), signer.ErrTime, fault.Policy},
		{"from the future", good, b.now.Add(-time.Hour), signer.ErrTime, fault.Policy},
		{"other world", other.request(other.wish(3)), b.now, nil, fault.Policy},
		{"approval for a request", b.approve(good, "approver1")[0], b.now, envelope.ErrType, fault.Verify},
		{"security version 0", b.resign(good, signer.RequestType, b.Keys["pipeline1"], func(m map[string]any) { m["security_version"] = 0 }), b.now, nil, fault.Verify},
		{"no nonce", b.resign(good, signer.RequestType, b.Keys["pipeline1"], func(m map[string]any) { m["nonce"] = "" }), b.now, nil, fault.Verify},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := signer.OpenRequest(tt.data, b.State, tt.now)
			if fault.ClassOf(err) != tt.cls || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v (%s)", err, fault.ClassOf(err))
			}
		})
	}
	for i := range good {
		c := bytes.Clone(good)
		c[i] ^= 1
		if _, err := signer.OpenRequest(c, b.State, b.now); err == nil {
			t.Fatalf("byte %d flipped and accepted", i)
		}
	}
}

// resign changes a file's payload and signs it with key.
func (b *bench) resign(data []byte, typ string, key crypto.Signer, change func(map[string]any)) []byte {
	b.t.Helper()
	env, err := envelope.Parse(data)
	if err != nil {
		b.t.Fatal(err)
	}
	payload := env.Payload
	if change != nil {
		var m map[string]any
		if err := jcs.Unmarshal(payload, &m); err != nil {
			b.t.Fatal(err)
		}
		change(m)
		if payload, err = jcs.Marshal(m); err != nil {
			b.t.Fatal(err)
		}
	}
	env, err = envelope.Sign(typ, payload, key)
	if err != nil {
		b.t.Fatal(err)
	}
	out, err := env.Marshal()
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

func TestApprovalsAreRefused(t *testing.T) {
	b := newBench(t)
	req := b.request(b.wish(3))
	good := b.approve(req, "approver1", "approver2")
	otherReq := b.request(b.wish(3))
	stranger, err := person.New("approver2", b.World.World)
	if err != nil {
		t.Fatal(err)
	}
	changed := func(change func(map[string]any)) [][]byte {
		return [][]byte{good[0], b.resign(good[1], signer.ApprovalType, b.People["approver2"].Signer(), change)}
	}
	set := func(name string, v any) [][]byte { return changed(func(m map[string]any) { m[name] = v }) }
	zeros := strings.Repeat("0", 64)
	tests := []struct {
		name      string
		approvals [][]byte
		want      error
		cls       fault.Class
	}{
		{"none", nil, signer.ErrApprovals, fault.Quorum},
		{"one", good[:1], signer.ErrApprovals, fault.Quorum},
		{"one twice", [][]byte{good[0], good[0]}, signer.ErrTwice, fault.Quorum},
		{"two of one person", [][]byte{good[0], b.approve(req, "approver1")[0]}, signer.ErrTwice, fault.Quorum},
		{"for another request", [][]byte{good[0], b.approve(otherReq, "approver2")[0]}, signer.ErrBinding, fault.Policy},
		{"another image", set("sha256", zeros), signer.ErrBinding, fault.Policy},
		{"another key", set("key", zeros), signer.ErrBinding, fault.Policy},
		{"another purpose", set("purpose", "fit"), signer.ErrBinding, fault.Policy},
		{"another text shown", set("shown", zeros), signer.ErrBinding, fault.Policy},
		{"another version", set("version", "9"), signer.ErrBinding, fault.Policy},
		{"without nonce", set("nonce", ""), nil, fault.Verify},
		{"for a year", set("expires", "2027-11-22T03:00:00Z"), signer.ErrTime, fault.Policy},
		{"expired", changed(func(m map[string]any) { m["time"], m["expires"] = "2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z" }), signer.ErrTime, fault.Policy},
		{"unknown member", set("also", "x"), nil, fault.Verify},
		{"by a key master", [][]byte{good[0], b.resign(good[1], signer.ApprovalType, b.People["master1"].Signer(), func(m map[string]any) { m["approver"] = "master1" })}, signer.ErrApprover, fault.Policy},
		{"by nobody known", [][]byte{good[0], b.resign(good[1], signer.ApprovalType, stranger.Signer(), func(m map[string]any) { m["approver"] = "stranger" })}, signer.ErrApprover, fault.Policy},
		{"by another key under a known name", [][]byte{good[0], b.resign(good[1], signer.ApprovalType, stranger.Signer(), nil)}, signer.ErrApprover, fault.Policy},
		{"by the pipeline under a person's name", [][]byte{good[0], b.resign(good[1], signer.ApprovalType, b.Keys["pipeline1"], nil)}, signer.ErrApprover, fault.Policy},
		{"altered", [][]byte{good[0], bytes.Replace(good[1], []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1)}, nil, fault.Verify},
		{"the request itself", [][]byte{good[0], req}, envelope.ErrType, fault.Verify},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := b.release(req, tt.approvals, "out")
			if fault.ClassOf(err) != tt.cls || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("got %v (%s)", err, fault.ClassOf(err))
			}
			b.empty("out")
		})
	}
	if _, err := signer.Approve(b.open(req), b.sum, b.size, b.People["master1"], b.now); !errors.Is(err, signer.ErrApprover) {
		t.Errorf("key master approves: %v", err)
	}
	if _, err := signer.Approve(b.open(req), b.sum, b.size, stranger, b.now); !errors.Is(err, signer.ErrApprover) {
		t.Errorf("namesake approves: %v", err)
	}
	if _, err := signer.Approve(b.open(req), zeros, b.size, b.People["approver1"], b.now); !errors.Is(err, signer.ErrImage) {
		t.Errorf("other image approved: %v", err)
	}
	if _, err := b.release(req, good, "out"); err != nil {
		t.Errorf("after all refusals the good ones no longer work: %v", err)
	}
}

// The requester never counts, even if the charter has his key as a pipeline too.
func TestRequesterNeverApproves(t *testing.T) {
	b := newBench(t)
	b.Keys["approver1"] = b.People["approver1"].Signer()
	b.Approve(charter.TypePipeline, charter.Pipeline{ID: "laptop", Key: b.SPKI("approver1"), Products: []string{"gw100"}})
	req, err := signer.NewRequest(b.State, b.wish(3), b.sum, b.size, b.Keys["approver1"], b.now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signer.Approve(b.open(req), b.sum, b.size, b.People["approver1"], b.now); !errors.Is(err, signer.ErrApprover) {
		t.Errorf("got %v", err)
	}
}

// TestFloorOutlivesTheLedger: a signer that begins anew, with an empty ledger, is held by
// the charter to what the one before had reached.
func TestFloorOutlivesTheLedger(t *testing.T) {
	b := newBench(t)
	for i, v := range []int64{5, 7, 7} {
		req := b.request(b.wish(v))
		if _, err := b.release(req, b.approve(req, "approver1", "approver2"), []string{"a", "b", "c"}[i]); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(b.dir, "state", signer.LedgerFile)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	reached, err := signer.Highest(data, b.State)
	if err != nil || len(reached) != 1 || reached["gw100"] != 7 {
		t.Fatalf("reached %v, %v", reached, err)
	}
	other := newBench(t)
	if _, err := signer.Highest(data, other.State); fault.ClassOf(err) != fault.Policy {
		t.Errorf("the ledger of another vault: %v", err)
	}
	for name, bad := range map[string][]byte{
		"empty": {}, "cut off": data[:len(data)-1], "without its first line": data[bytes.IndexByte(data, '\n')+1:],
		"a lower version": bytes.ReplaceAll(data, []byte(`"security_version":7`), []byte(`"security_version":1`)),
	} {
		if _, err := signer.Highest(bad, b.State); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.Approve(charter.TypeFloor, charter.Floor{Product: "gw100", Record: "keyrite/record/2", SecurityVersion: reached["gw100"]})
	if err := os.RemoveAll(filepath.Join(b.dir, "state")); err != nil {
		t.Fatal(err)
	}
	lower := b.request(b.wish(6))
	if _, err := b.release(lower, b.approve(lower, "approver1", "approver2"), "lower"); !errors.Is(err, signer.ErrRollback) {
		t.Errorf("a lower version by a new ledger: %v", err)
	}
	b.empty("lower")
	same := b.request(b.wish(7))
	if _, err := b.release(same, b.approve(same, "approver1", "approver2"), "same"); err != nil {
		t.Error(err)
	}
}

func TestHistoryIsKept(t *testing.T) {
	b := newBench(t)
	req := b.request(b.wish(5))
	approvals := b.approve(req, "approver1", "approver2")
	if _, err := b.release(req, approvals, "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.release(req, approvals, "b"); !errors.Is(err, signer.ErrReplay) {
		t.Errorf("the same again: %v", err)
	}
	lower := b.request(b.wish(4))
	if _, err := b.release(lower, b.approve(lower, "approver1", "approver2"), "b"); !errors.Is(err, signer.ErrRollback) {
		t.Errorf("lower security version: %v", err)
	}
	b.empty("b")
	same := b.request(b.wish(5))
	if _, err := b.release(same, b.approve(same, "approver1", "approver2"), "a"); fault.ClassOf(err) != fault.Exists {
		t.Errorf("outputs exist: %v", err)
	}
	if _, err := b.release(same, b.approve(same, "approver1", "approver2"), "c"); err != nil {
		t.Errorf("an equal security version is not lower, and a refusal spends nothing: %v", err)
	}
	ledger := filepath.Join(b.dir, "state", "ledger.jsonl")
	data, err := os.ReadFile(ledger)
	if err != nil {
		t.Fatal(err)
	}
	for name, changed := range map[string][]byte{
		"altered":   bytes.Replace(data, []byte(`"security_version":5`), []byte(`"security_version":1`), 1),
		"first cut": data[bytes.IndexByte(data, '\n')+1:],
		"emptied":   nil,
	} {
		if err := os.WriteFile(ledger, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := b.release(same, nil, "d"); !errors.Is(err, signer.ErrLedger) {
			t.Errorf("ledger %s: %v", name, err)
		}
	}
	// Cut after a whole line the chain holds, but the release log is ahead.
	lines := bytes.SplitAfter(data, []byte("\n"))
	if err := os.WriteFile(ledger, bytes.Join(lines[:5], nil), 0o600); err != nil {
		t.Fatal(err)
	}
	next := b.request(b.wish(5))
	if _, err := b.release(next, b.approve(next, "approver1", "approver2"), "d"); !errors.Is(err, releaselog.ErrForeign) {
		t.Errorf("ledger set back: %v", err)
	}
}
