package client

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"

	"filippo.io/age"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/policy"
	"keyrite/artifact/world"
)

// formatPolicyKey is the content of a policy key file, under its passphrase.
const formatPolicyKey = "keyrite/policy-key/v1"

const (
	maxPolicyKeyBytes   = 8 << 10
	minPassphraseBytes  = 12 // of a live account; a policy key opens machines
	workLive, workTrial = 18, 12
)

// ErrPassphrase says that the passphrase does not open the key file.
var ErrPassphrase = fault.New(fault.Token, "wrong passphrase for the policy key")

type policyKeyFile struct {
	Account string      `json:"account"`
	Format  string      `json:"format"`
	Key     []byte      `json:"key"` // PKCS #8
	World   world.World `json:"world"`
}

// NewPolicyKey makes an account's policy key and returns its file, an age file
// under the passphrase, and the public half as PEM.
func NewPolicyKey(account string, w world.World, passphrase []byte) (file, public []byte, err error) {
	if !nameRE.MatchString(account) {
		return nil, nil, fault.New(fault.Usage, "an account is a name of a-z, 0-9 and dashes")
	}
	if err := w.Check(); err != nil {
		return nil, nil, err
	}
	if w.IsLive() && len(passphrase) < minPassphraseBytes {
		return nil, nil, fault.Errorf(fault.Usage, "a live account's passphrase needs at least %d characters", minPassphraseBytes)
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fault.Errorf(fault.Unexpected, "make policy key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, nil, fault.Errorf(fault.Unexpected, "encode policy key: %w", err)
	}
	plain, err := jcs.Marshal(policyKeyFile{Account: account, Format: formatPolicyKey, Key: der, World: w})
	if err != nil {
		return nil, nil, err
	}
	defer clear(plain)
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return nil, nil, fault.Errorf(fault.Unexpected, "encode policy key: %w", err)
	}
	file, err = sealFile(plain, passphrase, w)
	return file, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), err
}

func sealFile(plain, passphrase []byte, w world.World) ([]byte, error) {
	rcpt, err := age.NewScryptRecipient(string(passphrase))
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "passphrase: %w", err)
	}
	rcpt.SetWorkFactor(workTrial)
	if w.IsLive() {
		rcpt.SetWorkFactor(workLive)
	}
	var out bytes.Buffer
	wr, err := age.Encrypt(&out, rcpt)
	if err == nil {
		_, err = wr.Write(plain)
	}
	if err == nil {
		err = wr.Close()
	}
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "encrypt policy key: %w", err)
	}
	return out.Bytes(), nil
}

// SignPolicy signs the payload of a policy with the key in file. The key signs
// only for its own account and world.
func SignPolicy(payload, file, passphrase []byte) ([]byte, *policy.Policy, error) {
	p, err := policy.Parse(payload)
	if err != nil {
		return nil, nil, err
	}
	f, key, err := openPolicyKey(file, passphrase)
	if err != nil {
		return nil, nil, err
	}
	if err := world.Match(f.World, p.World); err != nil {
		return nil, nil, err
	}
	if p.Account != f.Account {
		return nil, nil, fault.Errorf(fault.Policy, "the policy is of account %.64q, the key of %q", p.Account, f.Account)
	}
	out, err := policy.Sign(p, key)
	return out, p, err
}

func openPolicyKey(data, passphrase []byte) (*policyKeyFile, crypto.Signer, error) {
	id, err := age.NewScryptIdentity(string(passphrase))
	if err != nil {
		return nil, nil, ErrPassphrase
	}
	id.SetMaxWorkFactor(workLive)
	r, err := age.Decrypt(bytes.NewReader(data), id)
	if err != nil {
		var none *age.NoIdentityMatchError
		if errors.As(err, &none) || errors.Is(err, age.ErrIncorrectIdentity) {
			return nil, nil, ErrPassphrase
		}
		return nil, nil, fault.Errorf(fault.Verify, "policy key file is damaged: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxPolicyKeyBytes))
	if err != nil {
		return nil, nil, fault.Errorf(fault.Verify, "policy key file is damaged: %w", err)
	}
	defer clear(plain)
	var f policyKeyFile
	if err := jcs.Unmarshal(plain, &f); err != nil {
		return nil, nil, err
	}
	defer clear(f.Key)
	k, err := x509.ParsePKCS8PrivateKey(f.Key)
	s, ok := k.(crypto.Signer)
	if err != nil || !ok || f.Format != formatPolicyKey {
		return nil, nil, fault.New(fault.Verify, "policy key file is of another format")
	}
	return &f, s, nil
}
