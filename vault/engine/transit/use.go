package transit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// verb is one thing that is done with a key.
type verb struct {
	params  []string // of the request alone
	item    []string // of the request, or of each item of a batch
	hashes  bool     // a hash may be the last segment of the path
	once    func(*call, engine.Params) (map[string]any, error)
	prepare func(*call) error
}

func verbs() map[string]verb {
	common := []string{"context", "nonce", "reference"}
	with := func(names ...string) []string { return append(names, common...) }
	hash := []string{"algorithm", "hash_algorithm"}
	signing := append([]string{"marshaling_algorithm", "prehashed", "salt_length", "signature_algorithm"}, hash...)
	return map[string]verb{
		"sign":    {params: append([]string{"key_version"}, signing...), item: with("input"), hashes: true, once: (*call).sign, prepare: (*call).scheme},
		"verify":  {params: signing, item: with("input", "signature", "hmac"), hashes: true, once: (*call).verify, prepare: (*call).scheme},
		"hmac":    {params: append([]string{"key_version"}, hash...), item: with("input"), hashes: true, once: (*call).hmac, prepare: (*call).macScheme},
		"encrypt": {item: with("plaintext", "key_version", "associated_data"), once: (*call).encrypt},
		"decrypt": {item: with("ciphertext", "associated_data"), once: (*call).decrypt},
		"rewrap":  {item: with("ciphertext", "key_version", "associated_data"), once: (*call).rewrap},
	}
}

// call is a request to use a key, while it is worked on.
type call struct {
	*keyUse
	ctx    context.Context //nolint:containedctx // it lives as long as Work
	params engine.Params   // of the request
	hash   string          // out of the path or the parameters
	how    scheme
	sealed map[int]int64 // how often each version encrypted
	last   int           // version used last
	sums   []string      // what the audit keeps of signatures
}

// planUse reads requests to use a key.
func (e *Engine) planUse(r *engine.Request, head string, rest []string) (*engine.Plan, error) {
	if head == "datakey" {
		return e.planDataKey(r, rest)
	}
	v, ok := verbs()[head]
	if !ok || len(rest) < 1 || len(rest) > 2 || len(rest) == 2 && !v.hashes || r.Method != engine.Write {
		return nil, engine.ErrNoPath
	}
	items, batch, err := readItems(r.Params, v)
	if err != nil {
		return nil, err
	}
	c := &call{params: r.Params, sealed: map[int]int64{}}
	if c.hash, err = hashName(r.Params, rest[1:], v.hashes); err != nil {
		return nil, err
	}
	shown := map[string]any{}
	if h, err := hashOf(c.hash); err == nil && v.hashes {
		shown["hash"] = h.String()
	}
	if batch {
		shown["items"] = len(items)
	}
	w := &work{engine: e, call: c, verb: v, name: rest[0], items: items, batch: batch}
	if k, err := e.key(w.name); err == nil && k.forReleases() && head == "sign" {
		return e.planRelease(r, w)
	}
	return w.plan(shown), nil
}

// readItems gives the pieces of work of a request: itself, or its batch.
func readItems(p engine.Params, v verb) (items []engine.Params, batch bool, err error) {
	if !p.Has("batch_input") {
		if err := p.Only(slices.Concat(v.params, v.item, []string{"batch_input"})...); err != nil {
			return nil, false, err
		}
		return []engine.Params{p}, false, nil
	}
	if err := p.Only(append(slices.Clone(v.params), "batch_input")...); err != nil {
		return nil, false, err
	}
	if err := json.Unmarshal(p["batch_input"], &items); err != nil {
		return nil, false, fault.New(fault.Usage, `parameter "batch_input" is not a list of objects`)
	}
	if len(items) == 0 || len(items) > MaxBatch {
		return nil, false, fault.Errorf(fault.Usage, "a batch of %d items: 1 to %d are taken", len(items), MaxBatch)
	}
	for _, i := range items {
		if err := i.Only(v.item...); err != nil {
			return nil, false, err
		}
	}
	return items, true, nil
}

// hashName is the hash that a request names, in the path or beside it; "" if none.
func hashName(p engine.Params, tail []string, has bool) (string, error) {
	if !has {
		return "", nil
	}
	name := ""
	for _, n := range []string{"algorithm", "hash_algorithm"} {
		s, err := p.String(n)
		if err != nil {
			return "", err
		}
		if s != "" {
			name = s
		}
	}
	if len(tail) == 1 {
		name = tail[0]
	}
	return name, nil
}

// work is a planned request.
type work struct {
	*call
	engine  *Engine
	verb    verb
	name    string
	items   []engine.Params
	batch   bool
	results []map[string]any
}

func (w *work) plan(shown map[string]any) *engine.Plan {
	// A key for general signatures changes nothing in the token, and what it signed
	// leaves with its entry only: it needs no intent.
	return &engine.Plan{Needs: access.Update, Shown: shown, Work: w.run, Apply: w.apply}
}

// run does all items. What is wrong with one item of a batch is said in its place;
// what stops the vault stops the request.
func (w *work) run(ctx context.Context) error {
	u, err := w.engine.use(w.name)
	if err != nil {
		return err
	}
	defer u.wipe()
	w.keyUse, w.ctx = u, ctx
	if w.verb.prepare != nil {
		if err := w.verb.prepare(w.call); err != nil {
			return err
		}
	}
	for _, item := range w.items {
		if err := ctx.Err(); err != nil {
			return fault.Errorf(fault.Interrupted, "stopped after %d of %d items: %w", len(w.results), len(w.items), err)
		}
		out, err := w.one(item)
		if err != nil && (!w.batch || !ofCaller(err)) {
			return err
		}
		if err != nil {
			out = map[string]any{"error": err.Error()}
		}
		if w.batch && item.Has("reference") {
			out["reference"] = item["reference"]
		}
		w.results = append(w.results, out)
	}
	return nil
}

// ofCaller says whether an error is about what the caller gave.
func ofCaller(err error) bool {
	return slices.Contains([]fault.Class{fault.Usage, fault.Verify, fault.Policy}, fault.ClassOf(err))
}

func (w *work) one(p engine.Params) (map[string]any, error) {
	for _, name := range []string{"context", "nonce"} {
		if s, err := p.String(name); err != nil || s != "" {
			return nil, fault.Errorf(fault.Usage, "parameter %q is for derived keys, which this vault does not make", name)
		}
	}
	if _, err := p.String("reference"); err != nil {
		return nil, err
	}
	return w.verb.once(w.call, p)
}

func (w *work) apply(tx *seal.Tx) (*engine.Answer, error) {
	// The charter may have ended or succeeded the key, or a version of it, since: what was
	// made with it does not leave then.
	now, err := w.engine.key(w.name)
	if err != nil {
		return nil, err
	}
	if !now.same(w.key) {
		return nil, fault.Errorf(fault.Usage, "%w: key %s", engine.ErrStale, w.name)
	}
	if err := w.count(tx); err != nil {
		return nil, err
	}
	a := &engine.Answer{Result: map[string]any{"key_version": w.last}}
	if len(w.sums) > 0 {
		a.Result["signature_sha256"] = w.sums
	}
	if w.batch {
		a.Data = map[string]any{"batch_results": w.results}
	} else {
		a.Data = w.results[0]
	}
	return a, nil
}

// maxUses is how often a key may encrypt under random nonces of 96 bits
// (NIST SP 800-38D, section 8.3).
const maxUses = 1 << 32

// count adds what was encrypted to the count of each version, and refuses the
// answer where that is too much.
func (c *call) count(tx *seal.Tx) error {
	for _, n := range slices.Sorted(maps.Keys(c.sealed)) {
		at := place(c.name, n)
		var had int64
		raw, err := tx.Get(c.engine.uses(), at)
		if err == nil {
			had, err = strconv.ParseInt(string(raw), 10, 64)
		}
		if err != nil && !errors.Is(err, seal.ErrNotFound) {
			return fmt.Errorf("count the uses of key %s: %w", at, err)
		}
		if had += c.sealed[n]; had > maxUses {
			return fault.Hint(ErrWorn, "the approvers rotate the key: keyrite charter propose transit-key with versions raised by one; then rewrap")
		}
		if err := tx.Put(c.engine.uses(), at, strconv.AppendInt(nil, had, 10)); err != nil {
			return err
		}
	}
	return nil
}
