package main

import (
	"context"
	"encoding/hex"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/inspection"
	"keyrite/hsm"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
)

// sign writes what was read of a token, signed by the witness who read it.
func (o *inspectOptions) sign(ctx context.Context, std cli.IO, res *hsmInspectResult) error {
	if len(res.Tokens) != 1 || res.Keys == nil {
		return cli.Usagef("--out wants one token: --token with its --pin-fd, or --safe")
	}
	out, err := durable.Create(o.out, 0o644)
	if err != nil {
		return err
	}
	defer out.Abort()
	key, err := openKey(ctx, o.signer, o.signerFD, std)
	if err != nil {
		return err
	}
	defer key.Zero()
	t := res.Tokens[0]
	i := &inspection.Inspection{
		At: charter.FormatTime(time.Now()), Format: inspection.Format, Keys: []inspection.Key{}, ModuleSHA256: res.Module.SHA256,
		Others: others(res.Objects, res.Keys), Token: anchor.Token{Label: t.Label, Serial: t.Serial}, World: key.Public().World,
	}
	for n := range res.Keys {
		k, err := res.Keys[n].read()
		if err != nil {
			return err
		}
		i.Keys = append(i.Keys, *k)
	}
	file, err := inspection.Sign(i, key.Signer())
	if err != nil {
		return err
	}
	if _, err := out.Write(file); err != nil {
		return err
	}
	return out.Commit()
}

// others are the objects that are no half of one of the keys. A second object of the
// same kind and id is one, too.
func others(objs []hsm.Object, keys []inspectedKey) []inspection.Object {
	type half struct{ class, id string }
	ours := map[half]bool{}
	for i := range keys {
		if k := &keys[i]; len(k.Attributes.Secret) > 0 {
			ours[half{"CKO_SECRET_KEY", k.ID}] = true
		} else {
			ours[half{"CKO_PRIVATE_KEY", k.ID}], ours[half{"CKO_PUBLIC_KEY", k.ID}] = true, true
		}
	}
	out := []inspection.Object{}
	for _, o := range objs {
		if h := (half{o.Class, o.ID}); ours[h] {
			delete(ours, h)
			continue
		}
		out = append(out, inspection.Object{Class: o.Class, Label: o.Label, Object: o.ID})
	}
	return out
}

// read turns a key into what is signed of it.
func (k *inspectedKey) read() (*inspection.Key, error) {
	if k.Error != "" {
		return nil, fault.Errorf(fault.Verify, "key %q cannot be read, so nothing is signed: %s", k.Label, k.Error)
	}
	public, err := hex.DecodeString(k.PublicKey)
	if err != nil {
		return nil, err
	}
	out := &inspection.Key{Attributes: []inspection.Attribute{}, Label: k.Label, Object: k.ID, Public: public}
	for _, half := range []struct {
		name string
		as   []hsm.Attribute
	}{{"private", k.Attributes.Private}, {"public", k.Attributes.Public}, {"secret", k.Attributes.Secret}} {
		for _, a := range half.as {
			out.Attributes = append(out.Attributes, inspection.Attribute{Half: half.name, Name: a.Name, Value: a.Value})
		}
	}
	return out, nil
}
