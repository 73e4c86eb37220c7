package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/hsm"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

type healthOptions struct {
	tokenOptions
	expect string
}

func newHSMHealth() *cobra.Command {
	var o healthOptions
	c := &cobra.Command{
		Use:   "health --module PATH --token LABEL --pin-fd N [--expect FILE]",
		Short: "Examine a token from a fresh process",
		Long: `Examine a token while other programs may go on using it: a program that is
running may sign from memory with a key whose file is damaged or gone. Every
object is listed, the files of a file token are read, and every key is read whole
and used once, on random bytes that nobody sees.

  keyrite hsm inspect --json --module PATH --token work --pin-fd 3 >work.json
  keyrite hsm health --module PATH --token work --pin-fd 3 --expect work.json

With --expect, the keys of that file must be in the token with the same label,
public key and attributes; without it, a key that is gone altogether is not
missed.

Exit codes: 0 sound; 14 not sound, with each finding in error.cases; 12 token
absent or login refused; 2 unusable input.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runHSMHealth(c.Context(), c, &o) },
	}
	o.addFlags(c)
	c.Flags().StringVar(&o.expect, "expect", "", "what keyrite hsm inspect --json printed of the same token")
	for _, name := range []string{"module", "token", "pin-fd"} {
		_ = c.MarkFlagRequired(name) // all three are added above
	}
	return c
}

type hsmHealthResult struct {
	Schema   string         `json:"schema"`
	Token    hsm.TokenID    `json:"token"`
	Objects  int            `json:"objects"`
	Expected int            `json:"expected"` // keys that were looked for
	Keys     []hsmHealthKey `json:"keys"`
}

type hsmHealthKey struct {
	ID        string `json:"id"`
	Label     string `json:"label"`
	Algorithm string `json:"algorithm"`
	PublicKey string `json:"public_key"` // SubjectPublicKeyInfo, hex
}

func runHSMHealth(ctx context.Context, c *cobra.Command, o *healthOptions) (err error) {
	expected, err := o.expected()
	if err != nil {
		return err
	}
	sup, err := hsm.Start(ctx, o.config())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sup.Close()) }()
	id, err := o.take(ctx, sup)
	if err != nil {
		return err
	}
	h, err := sup.Health(ctx, id, expected...)
	if err != nil {
		return err
	}
	res := hsmHealthResult{Schema: "keyrite/hsm-health/v1", Token: id, Objects: h.Objects, Expected: len(expected), Keys: []hsmHealthKey{}}
	for _, k := range h.Keys {
		res.Keys = append(res.Keys, hsmHealthKey{k.ID, k.Label, string(k.Algorithm), hex.EncodeToString(k.PublicKey)})
	}
	return cli.Print(c, res, func(w io.Writer) { printHealth(w, &res) })
}

// expected reads what the token held when it was inspected.
func (o *healthOptions) expected() ([]hsm.HealthKey, error) {
	if o.expect == "" {
		return nil, nil
	}
	data, err := intake.Read(o.expect, maxCharterBytes)
	if err != nil {
		return nil, err
	}
	var was hsmInspectResult
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&was); err != nil || was.Schema != "keyrite/hsm-inspect/v1" || d.More() {
		return nil, cli.Usagef("--expect %q is not what keyrite hsm inspect --json prints", o.expect)
	}
	if len(was.Keys) == 0 {
		return nil, cli.Usagef("--expect %q names no key: it was printed without --token, or the token was empty", o.expect)
	}
	var out []hsm.HealthKey
	for i := range was.Keys {
		k := &was.Keys[i]
		x := hsm.HealthKey{Label: k.Label, Attributes: &k.Attributes}
		err := x.ID.UnmarshalText([]byte(k.ID))
		if err == nil {
			x.PublicKey, err = hex.DecodeString(k.PublicKey)
		}
		if err != nil || k.Error != "" || len(x.PublicKey) == 0 && len(k.Attributes.Secret) == 0 {
			return nil, cli.Usagef("--expect %q: key %q could not be read when that was printed", o.expect, k.Label)
		}
		out = append(out, x)
	}
	return out, nil
}

func printHealth(w io.Writer, r *hsmHealthResult) {
	for _, k := range r.Keys {
		fmt.Fprintf(w, "works   %-32s %s %s\n", cli.Escape(k.Label), k.ID, k.Algorithm)
	}
	fmt.Fprintf(w, "token %q, serial %s: %d objects, %d keys in use, %d of them expected\n", cli.Escape(r.Token.Label), cli.Escape(r.Token.Serial), r.Objects, len(r.Keys), r.Expected)
}
