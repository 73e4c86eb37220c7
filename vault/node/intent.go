package node

import (
	"context"

	"keyrite/artifact/jcs"
	"keyrite/vault/audit"
	"keyrite/vault/seal"
)

// bucketIntents keeps the calls whose effect in the token was about to come: request →
// what was intended. What stands there when the vault is opened was cut off.
const bucketIntents = "node/intents"

// intended is one of them.
type intended struct {
	Identity string `json:"identity"`
	Path     string `json:"path"`
	Time     string `json:"time"`
}

// intend writes the intent of a call; its entry becomes that of the result.
func (x *call) intend(ctx context.Context) error {
	e := *x.entry
	e.Kind = audit.Intent
	raw, err := jcs.Marshal(intended{Identity: e.Identity, Path: e.Path, Time: e.Time})
	if err != nil {
		return err
	}
	seq, err := x.journal.Do(ctx, seal.Durable, &e, func(tx *seal.Tx) error {
		return tx.Put(bucketIntents, e.Request, raw)
	})
	if err != nil {
		return unwritten(err)
	}
	x.entry.Kind, x.entry.Intent = audit.Result, &seq
	return nil
}

func closeIntent(tx *seal.Tx, request string) error { return tx.Delete(bucketIntents, request) }

// lookUpIntents writes what is known of intents that were cut off: that no answer left,
// and that the token may have done it nevertheless.
func (v *vault) lookUpIntents(ctx context.Context) error {
	open := map[string][]byte{}
	err := v.store.View(func(w *seal.View) error {
		for _, k := range w.Keys(bucketIntents, "") {
			raw, err := w.Get(bucketIntents, k)
			if err != nil {
				return err
			}
			open[k] = raw
		}
		return nil
	})
	if err != nil {
		return err
	}
	for request, raw := range open {
		var was intended
		if err := jcs.Unmarshal(raw, &was); err != nil {
			return err
		}
		e := v.life("intent-looked-up")
		e.Request, e.Identity, e.Path = request, was.Identity, was.Path
		e.Result = map[string]any{"answered": false, "effect": "unknown", "intended": was.Time}
		_, err := v.journal.Do(ctx, seal.Durable, e, func(tx *seal.Tx) error { return closeIntent(tx, request) })
		if err != nil {
			return err
		}
	}
	v.cutOff = len(open)
	return nil
}
