package main

import (
	"context"
	"fmt"
	"strings"

	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/hsm"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
	"keyrite/vault/card"
)

// openKey opens a person's key: a key file with its passphrase, or the card that a
// card file names with its PIN.
func openKey(ctx context.Context, path string, fd int, std cli.IO) (*person.Key, error) {
	return openKeyWith(ctx, path, cli.NewSecrets(std, fd))
}

// openKeyWith takes the passphrase or PIN from secrets, which may hold those of
// others after it. A wrong one is an error: nothing is tried twice.
func openKeyWith(ctx context.Context, path string, secrets *cli.Secrets) (*person.Key, error) {
	data, err := intake.Read(path, maxKeyFileBytes)
	if err != nil {
		return nil, err
	}
	if !person.IsCardFile(data) {
		pass, err := secrets.Next("passphrase of " + path)
		if err != nil {
			return nil, err
		}
		defer pass.Zero()
		key, err := person.Open(data, pass.Bytes())
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", path, err)
		}
		return key, nil
	}
	f, err := person.ParseCard(data)
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "card file %q: %w", path, err)
	}
	pin, err := secrets.Next("PIN of " + f.Person.Name + "'s card " + f.Token.Label)
	if err != nil {
		return nil, err
	}
	defer pin.Zero()
	key, err := card.Open(ctx, f, "", pin)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return key, nil
}

// tokenID reads LABEL/SERIAL; the label may hold a slash, the serial not.
func tokenID(s string) (hsm.TokenID, error) {
	i := strings.LastIndex(s, "/")
	if i < 1 || i == len(s)-1 {
		return hsm.TokenID{}, cli.Usagef("--token %q is not LABEL/SERIAL", s)
	}
	return hsm.TokenID{Label: s[:i], Serial: s[i+1:]}, nil
}
