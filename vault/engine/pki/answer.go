package pki

import (
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"

	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// apply records the certificate and gives it out, with its key if that is ours.
func (x *issue) apply(tx *seal.Tx) (*engine.Answer, error) {
	if len(x.der) == 0 {
		return nil, fault.New(fault.Unexpected, "a certificate was to be given out that was not signed")
	}
	if err := x.e.given(tx, x.serial.String(), x.der); err != nil {
		return nil, err
	}
	data := map[string]any{
		"ca_chain": x.upwards(func(der []byte) string { return pemOf(der) }), "expiration": x.now.Add(x.ttl).Unix(), "issuing_ca": pemOf(x.issuer.Raw),
		"serial_number": shownSerial(x.serial.String()),
	}
	if err := x.fill(data); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(x.der)
	return &engine.Answer{
		Data: data, Lease: &engine.Lease{TTL: x.ttl, Lasting: true, Object: x.serial.String()},
		Result: map[string]any{"certificate_sha256": hex.EncodeToString(sum[:]), "serial": x.serial.String()},
	}, nil
}

// upwards is the chain, each certificate in a form.
func (x *issue) upwards(form func(der []byte) string) []string {
	var out []string
	for _, der := range x.chain {
		out = append(out, form(der))
	}
	return out
}

// fill puts certificate and key into the answer, in the form that is asked for.
func (x *issue) fill(data map[string]any) error {
	cert, key := pemOf(x.der), ""
	if x.private != nil {
		der, block, err := x.encodeKey()
		if err != nil {
			return err
		}
		defer clear(der)
		key = string(pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der}))
		data["private_key"], data["private_key_type"] = key, map[string]string{"ecdsa-p256": "ec", "ecdsa-p384": "ec", "ed25519": "ed25519", "rsa-3072": "rsa"}[x.keyType]
		if x.form == "der" {
			data["private_key"] = der64(der)
		}
	}
	switch x.form {
	case "der":
		data["certificate"], data["issuing_ca"], data["ca_chain"] = der64(x.der), der64(x.issuer.Raw), x.upwards(der64)
	case "pem_bundle":
		data["certificate"] = key + cert + pemOf(x.chain...)
	default:
		data["certificate"] = cert
	}
	return nil
}

func (x *issue) encodeKey() (der []byte, block string, err error) {
	switch k := x.private.(type) {
	case *ecdsa.PrivateKey:
		if !x.pkcs8 {
			der, err = x509.MarshalECPrivateKey(k)
			return der, "EC PRIVATE KEY", err
		}
	case *rsa.PrivateKey:
		if !x.pkcs8 {
			return x509.MarshalPKCS1PrivateKey(k), "RSA PRIVATE KEY", nil
		}
	}
	der, err = x509.MarshalPKCS8PrivateKey(x.private)
	return der, "PRIVATE KEY", err
}
