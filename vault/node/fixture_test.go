package node

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/artifact/world"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
	"keyrite/vault/seal"
)

// TestMain is also the guarded process, and those that are killed at what they do.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == seal.CheckCommand {
		if err := seal.CheckMain(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			syscall.Exit(1)
		}
		syscall.Exit(0)
	}
	killed := map[string]func(dir, which string) error{"append-until-killed": appendUntilKilled, "propose-until-killed": proposeUntilKilled}
	if len(os.Args) == 4 && killed[os.Args[1]] != nil {
		if err := killed[os.Args[1]](os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stdout, "failed", err)
		}
		syscall.Exit(1)
	}
	os.Exit(m.Run())
}

// bench is a vault's state folder, with its people.
type bench struct {
	*artifacttest.World
	t    testing.TB
	dir  string
	node *Node
	shut func() // closes node and store
}

// newBench founds a vault whose charter mounts kv with the identity "mes", that may do
// everything under kv/data/line1, and creates its store.
func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{World: artifacttest.New(t), t: t, dir: t.TempDir()}
	b.Approve(charter.TypeMount, charter.Mount{ID: "kv", Engine: "kv"})
	b.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: 1, Rules: []access.Rule{{Path: "kv/data/line1/*", Can: []access.Capability{access.Create, access.Read, access.Update}}}})
	b.Approve(charter.TypeIdentity, process("mes", 1001))
	b.writeCharter()
	b.ok(seal.Create(t.Context(), b.store(), b.dataKey(), audit.Entry{Format: trail.Format, Kind: trail.Life, Operation: trail.OpCreate, Time: trail.FormatTime(time.Now())}))
	return b
}

func process(id string, uid int) charter.Identity {
	return charter.Identity{ID: id, Policies: []string{"line1"}, TTL: 60, Unix: &charter.Unix{UID: uid}}
}

func (b *bench) ok(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) charterFile() string { return filepath.Join(b.dir, "charter.jsonl") }

func (b *bench) writeCharter() {
	b.t.Helper()
	b.ok(os.WriteFile(b.charterFile(), b.Charter, 0o600))
}

// state is what a process needs to open the vault of a folder.
type state struct {
	dir, vault string
	world      world.World
}

func (b *bench) state() state { return state{b.dir, b.State.Vault, b.World.World} }

// dataKey is the store's key: the same each time, wrapped under a constant.
func (s state) dataKey() (*seal.DataKey, error) {
	path := filepath.Join(s.dir, "wrapped")
	secret := []byte("a secret of a safe that is NOT SECRET")
	p, err := s.place()
	if err != nil {
		return nil, err
	}
	if raw, err := os.ReadFile(path); err == nil {
		return seal.Unwrap(raw, secret, p)
	}
	k, err := seal.NewDataKey()
	if err != nil {
		return nil, err
	}
	raw, err := k.Wrap(secret, p)
	if err != nil {
		return nil, err
	}
	return k, os.WriteFile(path, raw, 0o600)
}

func (s state) place() (seal.Place, error) {
	p := seal.Place{World: s.world, Epoch: 1}
	raw, err := hex.DecodeString(s.vault)
	copy(p.Vault[:], raw)
	return p, err
}

func (s state) store() (seal.Config, error) {
	k, err := seal.NewFileKeeper(filepath.Join(s.dir, "head"), s.world)
	if err != nil {
		return seal.Config{}, err
	}
	exe, err := os.Executable()
	if err != nil {
		return seal.Config{}, err
	}
	p, err := s.place()
	return seal.Config{Dir: s.dir, Place: p, Head: k, Check: seal.Guard(exe)}, err
}

func (s state) config() Config {
	return Config{
		World: s.world, Vault: s.vault, Charter: filepath.Join(s.dir, "charter.jsonl"),
		Engines: map[string]func(*engine.Host) (engine.Engine, error){"kv": newNotes},
	}
}

func (b *bench) dataKey() *seal.DataKey {
	k, err := b.state().dataKey()
	b.ok(err)
	return k
}

func (b *bench) store() seal.Config {
	c, err := b.state().store()
	b.ok(err)
	return c
}

// open opens the vault as a quorum did, and closes it when the test ends.
func (b *bench) open() *Node {
	b.t.Helper()
	n, shut, err := b.state().open(b.t.Context())
	b.ok(err)
	b.shut = sync.OnceFunc(func() { b.ok(shut()) })
	b.t.Cleanup(b.shut)
	b.node = n
	return n
}

// open opens the store of a folder, and a node over it.
func (s state) open(ctx context.Context) (*Node, func() error, error) {
	c, err := s.store()
	if err != nil {
		return nil, nil, err
	}
	return s.openWith(ctx, s.config(), c)
}

func (s state) openWith(ctx context.Context, cfg Config, c seal.Config) (*Node, func() error, error) {
	n, err := New(cfg)
	if err != nil {
		return nil, nil, err
	}
	k, err := s.dataKey()
	if err != nil {
		return nil, nil, err
	}
	defer k.Wipe()
	st, err := seal.Open(ctx, c, k)
	if err != nil {
		return nil, nil, err
	}
	closer, err := n.Open(ctx, Opened{Store: st, Head: c.Head})
	if err != nil {
		return nil, nil, errors.Join(err, st.Close())
	}
	return n, func() error { return errors.Join(closer.Close(), st.Close()) }, nil
}

// call is a request of the user uid.
func (b *bench) call(uid int, m engine.Method, path string, body string) (*Reply, error) {
	p := engine.Params{}
	if body != "" {
		b.ok(json.Unmarshal([]byte(body), &p))
	}
	return b.node.Do(b.t.Context(), Call{Method: m, RawPath: path, Params: p, Peer: identity.Peer{UID: uid, Remote: netip.MustParseAddr("192.0.2.7")}})
}

// entries are the entries of the log from number from on.
func (b *bench) entries(from int64) []audit.Entry {
	b.t.Helper()
	s := b.node.open.store
	var out []audit.Entry
	for n := from; n < s.Health().Size; n++ {
		raw, err := s.Entry(uint64(n))
		b.ok(err)
		var leaf struct {
			Entry audit.Entry `json:"entry"`
		}
		b.ok(json.Unmarshal(raw, &leaf))
		out = append(out, leaf.Entry)
	}
	return out
}

func (b *bench) size() int64 { return b.node.Status().Store.Size }

// notes is the least engine: it keeps one text at each path, and fails where it is told
// to.
type notes struct {
	host   *engine.Host
	worked *atomic.Int64 // how often work was done
}

// undo gives back what was taken.
func (n *notes) undo(key string) func(*seal.Tx) (map[string]any, error) {
	return func(tx *seal.Tx) (map[string]any, error) {
		if n.worked.Load() > 0 {
			return nil, nil //nolint:nilnil // as engines do that may have done it
		}
		return map[string]any{"undone": key}, tx.Delete(n.host.Bucket("taken"), key)
	}
}

func newNotes(h *engine.Host) (engine.Engine, error) { return &notes{h, new(atomic.Int64)}, nil }

func (n *notes) Plan(r *engine.Request) (*engine.Plan, error) {
	text, err := r.Params.String("text")
	if err != nil {
		return nil, err
	}
	key := r.Path.String()
	switch r.Method {
	case engine.Read:
		return &engine.Plan{Needs: access.Read, Apply: func(tx *seal.Tx) (*engine.Answer, error) {
			v, err := tx.Get(n.host.Bucket("notes"), key)
			if err != nil {
				return nil, engine.ErrNotThere
			}
			return &engine.Answer{Data: map[string]string{"text": string(v)}}, nil
		}}, nil
	case engine.Write:
		var reserve func(tx *seal.Tx) error
		var work func(context.Context) error
		if text == "worked" || text == "broken" {
			work = func(context.Context) error {
				n.worked.Add(1)
				if text == "broken" {
					return fault.New(fault.Token, "the token broke")
				}
				return nil
			}
		}
		if text == "reserve" || work != nil {
			reserve = func(tx *seal.Tx) error {
				if _, err := tx.Get(n.host.Bucket("taken"), key); err == nil {
					return fault.New(fault.Quota, "taken")
				}
				return tx.Put(n.host.Bucket("taken"), key, nil)
			}
		}
		return &engine.Plan{
			Needs: access.Update, Intent: text == "intend" || reserve != nil, Reserve: reserve, Undo: n.undo(key), Work: work, Shown: map[string]any{"bytes": len(text)},
			Apply: func(tx *seal.Tx) (*engine.Answer, error) {
				return &engine.Answer{Result: map[string]any{"kept": true}}, tx.Put(n.host.Bucket("notes"), key, []byte(text))
			},
		}, nil
	}
	return nil, engine.ErrNoPath
}

// Found counts the statements that it was brought to, and refuses a charter with a
// pipeline called "refused".
func (n *notes) Found(tx *seal.Tx, c *charter.State, _ time.Time) error {
	if _, bad := c.Pipelines["refused"]; bad {
		return fault.New(fault.Policy, "this engine cannot do that")
	}
	return tx.Put(n.host.Bucket("found"), "size", fmt.Append(nil, c.Size()))
}
