package proof_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/artifact/share"
	"keyrite/vault/duty"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
	"keyrite/vault/node"
	"keyrite/vault/proof"
	"keyrite/vault/unseal"
	"keyrite/vault/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

const keeperUID = 1001

// rig is a vault that a quorum opened, with a node in front and a clock that is set.
type rig struct {
	*vaulttest.Vault
	t        *testing.T
	attempts *unseal.Attempts
	node     *node.Node
	file     string       // the charter
	ahead    atomic.Int64 // of the clock, in nanoseconds
	more     int          // who asks: 0 is the keeper, others have user ids after his
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{Vault: vaulttest.NewWith(t, nil), t: t, file: filepath.Join(t.TempDir(), "charter.jsonl")}
	r.Approve(charter.TypePolicy, charter.Policy{ID: "keeper", Version: 1, Rules: []access.Rule{
		{Path: "keyrite/shares", Can: []access.Capability{access.Read, access.Update}},
		{Path: "keyrite/due", Can: []access.Capability{access.Read}},
		{Path: "keyrite/shares/challenges", Can: []access.Capability{access.Read, access.Update}},
	}})
	r.Approve(charter.TypeIdentity, charter.Identity{ID: "keeper", Policies: []string{"keeper"}, TTL: 60, Unix: &charter.Unix{UID: keeperUID}})
	for i := 1; i <= proof.MaxOpen/proof.MaxPerIdentity; i++ {
		r.Approve(charter.TypeIdentity, charter.Identity{ID: fmt.Sprintf("keeper%d", i), Policies: []string{"keeper"}, TTL: 60, Unix: &charter.Unix{UID: keeperUID + i}})
	}
	r.write()
	var err error
	r.node, err = node.New(node.Config{World: r.World.World, Vault: r.State.Vault, Charter: r.file, Engines: map[string]func(*engine.Host) (engine.Engine, error){}, Now: r.now})
	r.ok(err)
	r.attempts, err = unseal.NewAttempts(r.Unsealing(func(ctx context.Context, o *unseal.Opened) (io.Closer, error) {
		return r.node.Open(ctx, node.Opened{Store: o.Store, Token: o.Token, By: node.By{Safe: vaulttest.Safe, Epoch: o.Epoch, Holders: o.Holders, At: r.now()}})
	}))
	r.ok(err)
	t.Cleanup(func() { _ = r.attempts.Seal(); r.attempts.Wait() })
	r.Open3(t, r.attempts, openrequest.Create)
	return r
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// now begins an hour after the shares were dealt, whenever the test runs.
func (r *rig) now() time.Time {
	return artifacttest.Now().Add(time.Hour + time.Duration(r.ahead.Load()))
}

func (r *rig) write() {
	r.t.Helper()
	r.ok(os.WriteFile(r.file, r.Charter, 0o600))
}

// ask is a call of the keeper of shares; the answer is decoded into out.
func (r *rig) ask(m engine.Method, path string, body, out any) error {
	r.t.Helper()
	p := engine.Params{}
	if body != nil {
		raw, err := json.Marshal(body)
		r.ok(err)
		r.ok(json.Unmarshal(raw, &p))
	}
	a, err := r.node.Do(r.t.Context(), node.Call{Method: m, RawPath: path, Params: p, Peer: identity.Peer{UID: keeperUID + r.more, Remote: netip.MustParseAddr("192.0.2.7")}})
	if err != nil || out == nil {
		return err
	}
	raw, err := json.Marshal(a.Answer.Data)
	r.ok(err)
	r.ok(json.Unmarshal(raw, out))
	return nil
}

// shows is the safe in one line: who is alive, how, and the level.
func (r *rig) shows() string {
	r.t.Helper()
	var got struct{ Safes []proof.Safe }
	r.ok(r.ask(engine.Read, "keyrite/shares", nil, &got))
	i := slices.IndexFunc(got.Safes, func(s proof.Safe) bool { return s.Safe == vaulttest.Safe })
	if i < 0 {
		r.t.Fatalf("no safe: %+v", got)
	}
	s := got.Safes[i]
	var b strings.Builder
	fmt.Fprintf(&b, "%d: %d of %d/%d %s", s.Epoch, s.Alive, s.Of, s.Need, s.Level)
	for _, h := range s.Holders {
		if h.Alive {
			fmt.Fprintf(&b, " %s:%s", strings.TrimPrefix(h.Name, "master"), h.How)
		}
	}
	return b.String()
}

func (r *rig) challenge(purpose string) *share.Challenge {
	r.t.Helper()
	var got struct{ Challenge string }
	r.ok(r.ask(engine.Write, "keyrite/shares/challenges", map[string]any{"safe": vaulttest.Safe, "purpose": purpose}, &got))
	c, err := share.ParseChallenge([]byte(got.Challenge))
	r.ok(err)
	return c
}

func (r *rig) answer(c *share.Challenge, name string) error {
	return r.ask(engine.Write, "keyrite/shares", map[string]any{"proof": string(r.Prove(r.t, c, name))}, nil)
}

func (r *rig) want(when, want string) {
	r.t.Helper()
	if got := r.shows(); got != want {
		r.t.Errorf("%s: %s, want %s", when, got, want)
	}
}

// TestShares: who opened the vault is alive, who signed for a share when it was dealt is,
// too, and all of it for a quarter; answers to a challenge of this vault count once, are
// there after a restart, and are void with the epoch.
func TestShares(t *testing.T) {
	r := newRig(t)
	r.want("opened", "1: 5 of 5/3 good 1:opening 2:opening 3:opening 4:dealing 5:dealing")
	r.ahead.Store(int64(proof.AliveFor + 24*time.Hour))
	r.want("a quarter later", "1: 0 of 5/3 red")
	var due struct{ Items []duty.Item }
	r.ok(r.ask(engine.Read, "keyrite/due", nil, &due))
	if i := slices.IndexFunc(due.Items, func(x duty.Item) bool { return x.ID == "shares/"+vaulttest.Safe }); i < 0 || due.Items[i].Level != duty.Late {
		t.Errorf("what is due: %+v", due)
	}
	c := r.challenge("spring")
	for i, want := range []string{
		"1: 1 of 5/3 red 1:challenge", "1: 2 of 5/3 red 1:challenge 2:challenge", "1: 3 of 5/3 red 1:challenge 2:challenge 3:challenge",
		"1: 4 of 5/3 warning 1:challenge 2:challenge 3:challenge 4:challenge",
	} {
		r.ok(r.answer(c, fmt.Sprintf("master%d", i+1)))
		r.want("answered", want)
	}
	if err := r.answer(c, "master2"); !errors.Is(err, share.ErrReplay) {
		t.Errorf("twice: %v", err)
	}
	var open struct{ Challenges []proof.Open }
	r.ok(r.ask(engine.Read, "keyrite/shares/challenges", nil, &open))
	if len(open.Challenges) != 1 || strings.Join(open.Challenges[0].Answered, " ") != "master1 master2 master3 master4" || open.Challenges[0].Purpose != "spring" {
		t.Errorf("waiting: %+v", open)
	}
	r.ok(r.attempts.Seal())
	r.Open3(t, r.attempts, openrequest.Unseal)
	r.want("after a restart", "1: 4 of 5/3 warning 1:opening 2:opening 3:opening 4:challenge")
	r.ok(r.answer(c, "master5"))
	r.want("all", "1: 5 of 5/3 good 1:opening 2:opening 3:opening 4:challenge 5:challenge")
	if err := r.answer(c, "master5"); !errors.Is(err, share.ErrNotOurs) {
		t.Errorf("of a challenge that all have answered: %v", err)
	}
	late := r.challenge("before the new epoch")
	before := r.Prove(t, late, "master1")
	r.Deal(2)
	r.write()
	for range 200 { // the charter file is followed
		if r.node.Charter().Epochs[vaulttest.Safe].Epoch == 2 {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	r.want("dealt anew, long ago by this clock", "2: 0 of 5/3 red")
	if err := r.ask(engine.Write, "keyrite/shares", map[string]any{"proof": string(before)}, nil); !errors.Is(err, share.ErrChallenge) {
		t.Errorf("of the epoch before: %v", err)
	}
	r.ok(r.answer(r.challenge("after"), "master4"))
	r.want("of the new epoch", "2: 1 of 5/3 red 4:challenge")
}

// TestForeignProofs: a proof counts for a challenge of this vault alone, before that
// expires, as it was signed.
func TestForeignProofs(t *testing.T) {
	r := newRig(t)
	r.ahead.Store(int64(proof.AliveFor + 24*time.Hour))
	foreign, err := share.NewChallenge(r.State, vaulttest.Safe, "made elsewhere", r.now(), time.Hour)
	r.ok(err)
	if err := r.answer(foreign, "master1"); !errors.Is(err, share.ErrNotOurs) {
		t.Errorf("not ours: %v", err)
	}
	ours := r.challenge("spring")
	good := r.Prove(t, ours, "master1")
	for name, x := range map[string]struct {
		proof []byte
		class fault.Class
	}{
		"altered":      {bytes.Replace(good, []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1), fault.Verify},
		"no proof":     {[]byte("{}"), fault.Verify},
		"too long":     {bytes.Repeat([]byte("x"), share.MaxProofBytes+1), fault.Usage},
		"empty":        {nil, fault.Usage},
		"another body": {bytes.Replace(good, []byte(`"payload":"`), []byte(`"payload":"e30=`), 1), fault.Verify},
	} {
		if err := r.ask(engine.Write, "keyrite/shares", map[string]any{"proof": string(x.proof)}, nil); fault.ClassOf(err) != x.class {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.ahead.Add(int64(share.MaxChallenge + time.Hour))
	if err := r.ask(engine.Write, "keyrite/shares", map[string]any{"proof": string(good)}, nil); !errors.Is(err, share.ErrChallenge) {
		t.Errorf("expired: %v", err)
	}
	r.want("nothing of it counts", "1: 0 of 5/3 red")
	tooMany := func(whose string) {
		t.Helper()
		err := r.ask(engine.Write, "keyrite/shares/challenges", map[string]any{"safe": vaulttest.Safe, "purpose": "one too many"}, nil)
		if !errors.Is(err, proof.ErrBusy) {
			t.Errorf("too many of %s: %v", whose, err)
		}
	}
	for r.more = range proof.MaxOpen / proof.MaxPerIdentity {
		for range proof.MaxPerIdentity {
			r.challenge("one of many")
		}
		tooMany("his own")
	}
	r.more = proof.MaxOpen / proof.MaxPerIdentity
	tooMany("others")
	r.more = 0
	r.ahead.Add(int64(share.MaxChallenge + time.Hour))
	r.challenge("room again, once they have expired")
	for name, body := range map[string]map[string]any{
		"no purpose": {"safe": vaulttest.Safe}, "no safe": {"purpose": "x"}, "eight days": {"safe": vaulttest.Safe, "purpose": "x", "valid": "192h"},
		"another safe": {"safe": "attic", "purpose": "x"}, "a line in it": {"safe": vaulttest.Safe, "purpose": "x\ny"}, "more": {"safe": vaulttest.Safe, "purpose": "x", "by": "me"},
	} {
		if err := r.ask(engine.Write, "keyrite/shares/challenges", body, nil); fault.ClassOf(err) != fault.Usage && fault.ClassOf(err) != fault.Policy {
			t.Errorf("%s: %v", name, err)
		}
	}
}
