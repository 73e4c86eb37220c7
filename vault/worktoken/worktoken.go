// Package worktoken is the open work token of a vault: keys by their names in the
// charter, over an hsm.Pool. vault/unseal makes one when a quorum has opened the
// token; engines are given it as engine.Token.
//
// It must never hand out a key that the charter does not know, that is retired, or
// whose public half in the token is another, and never one of an algorithm that the
// token is not admitted for.
package worktoken

import (
	"context"
	"encoding/hex"
	"slices"
	"strings"
	"sync"

	"keyrite/artifact/admission"
	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/hsm"
)

// Config says what is open. All are required.
type Config struct {
	Pool *hsm.Pool
	// Charter is the charter in force. It is not changed.
	Charter func() *charter.State
	// Report admits the token behind its module.
	Report *admission.Report
}

// Token is the open work token. It may be used by any number of goroutines.
type Token struct {
	c Config

	mu    sync.Mutex          // guards found
	found map[string]*hsm.Key // by id of the key record, compared with it once
}

// New is the token over an open pool.
func New(c Config) (*Token, error) {
	if c.Pool == nil || c.Charter == nil || c.Report == nil {
		return nil, fault.New(fault.Unexpected, "a work token needs its pool, the charter and the report that admits it")
	}
	return &Token{c: c, found: map[string]*hsm.Key{}}, nil
}

// name is the token as the charter names it.
func (t *Token) name() anchor.Token {
	id := t.c.Pool.Token()
	return anchor.Token{Label: id.Label, Serial: id.Serial}
}

// Signer gives the key in force under the id, and its record. A key that the
// charter does not know, that is retired or that lies elsewhere is of class policy;
// one that the token does not hold, or is not admitted for, of class token; one
// with another public half of class verify.
func (t *Token) Signer(ctx context.Context, id string) (*hsm.Key, *anchor.KeyRecord, error) {
	st := t.c.Charter()
	rec, err := st.Key(id, st.Keys[id].Domain)
	if err != nil {
		return nil, nil, err
	}
	k, err := t.key(ctx, rec)
	if err != nil {
		return nil, nil, err
	}
	return k, rec, nil
}

// Random returns 1 to 4,096 bytes of the token's generator.
func (t *Token) Random(ctx context.Context, n int) ([]byte, error) { return t.c.Pool.Random(ctx, n) }

// key is the key of a record, looked up and compared once. Which record counts is
// asked of the charter each time; a key in a token never changes.
func (t *Token) key(ctx context.Context, rec *anchor.KeyRecord) (*hsm.Key, error) {
	t.mu.Lock()
	k := t.found[rec.ID]
	t.mu.Unlock()
	if k != nil && string(k.State().SPKI) == string(rec.Public) && rec.Token == t.name() {
		return k, nil
	}
	k, err := t.look(ctx, rec)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.found[rec.ID] = k
	return k, nil
}

func (t *Token) look(ctx context.Context, rec *anchor.KeyRecord) (*hsm.Key, error) {
	if rec.Token != t.name() {
		return nil, fault.Errorf(fault.Policy, "key %s lies in token %s, not in %s", rec.ID, rec.Token.Label, t.name().Label)
	}
	if err := t.c.Report.CheckAlgorithm(rec.Algorithm); err != nil {
		return nil, err
	}
	objs, err := t.c.Pool.Objects(ctx)
	if err != nil {
		return nil, err
	}
	for _, o := range objs {
		raw, err := hex.DecodeString(o.ID)
		if o.Class != "CKO_PRIVATE_KEY" || o.Label != rec.ID || err != nil || len(raw) != len(hsm.KeyID{}) {
			continue
		}
		k, err := t.c.Pool.Signer(ctx, hsm.KeyID(raw))
		if err != nil {
			return nil, err
		}
		if string(k.State().SPKI) != string(rec.Public) {
			return nil, fault.Errorf(fault.Verify, "key %s in token %s is not the one in the charter", rec.ID, t.name().Label)
		}
		return k, nil
	}
	return nil, fault.Errorf(fault.Token, "token %s holds no key %s", t.name().Label, rec.ID)
}

// Check looks up every key in force that the charter says lies in this token. It is
// asked when the token is opened, so that a wrong token is found out then and not in
// the night.
func (t *Token) Check(ctx context.Context) error {
	st := t.c.Charter()
	var ids []string
	for id, rec := range st.Keys {
		if _, retired := st.Retired[id]; !retired && rec.Token == t.name() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	var wrong []string
	class := fault.Token
	for _, id := range ids {
		rec := st.Keys[id]
		if _, err := t.key(ctx, &rec); err != nil {
			wrong, class = append(wrong, err.Error()), fault.ClassOf(err)
		}
	}
	if len(wrong) > 0 {
		return fault.Errorf(class, "token %s is not as the charter says: %s", t.name().Label, strings.Join(wrong, "; "))
	}
	return nil
}
