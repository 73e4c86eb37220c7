// Package boulder reads the configuration files of the ceremony tool of Boulder,
// the software of a public certification authority, and turns them into scripts
// of ours, so that its users can move.
//
// Import gives the script and notes about everything that was not carried over:
// PINs, slots, module and file paths have no place in a script, lints that were
// skipped are other people's rules, and what Boulder fills in by itself is
// written out. Anything that cannot be said in a script is an error, never left
// out quietly. It touches no token; the only files that it opens are public
// certificates that a configuration names.
package boulder

import (
	"time"

	"go.yaml.in/yaml/v3"

	"keyrite/artifact/fault"
	"keyrite/internal/config"
)

// profile is a certificate-profile.
type profile struct {
	SignatureAlgorithm string `yaml:"signature-algorithm"`
	CommonName         string `yaml:"common-name"`
	Organization       string `yaml:"organization"`
	Country            string `yaml:"country"`
	NotBefore          string `yaml:"not-before"`
	NotAfter           string `yaml:"not-after"`
	OCSPURL            string `yaml:"ocsp-url"`
	CRLURL             string `yaml:"crl-url"`
	IssuerURL          string `yaml:"issuer-url"`
	Policies           []struct {
		OID string `yaml:"oid"`
	} `yaml:"policies"`
	KeyUsages []string `yaml:"key-usages"`
}

// making is pkcs11 where a key is generated, signing where one is used.
type making struct {
	Module string `yaml:"module"`
	PIN    string `yaml:"pin"`
	Slot   string `yaml:"store-key-in-slot"`
	Label  string `yaml:"store-key-with-label"`
}

type signing struct {
	Module string `yaml:"module"`
	PIN    string `yaml:"pin"`
	Slot   string `yaml:"signing-key-slot"`
	Label  string `yaml:"signing-key-label"`
}

type keyMaterial struct {
	Type         string `yaml:"type"`
	RSAModLength int    `yaml:"rsa-mod-length"`
	ECDSACurve   string `yaml:"ecdsa-curve"`
}

type rootFile struct {
	Type    string      `yaml:"ceremony-type"`
	PKCS11  making      `yaml:"pkcs11"`
	Key     keyMaterial `yaml:"key"`
	Outputs struct {
		PublicKey   string `yaml:"public-key-path"`
		Certificate string `yaml:"certificate-path"`
	} `yaml:"outputs"`
	Profile   profile  `yaml:"certificate-profile"`
	SkipLints []string `yaml:"skip-lints"`
}

type keyFile struct {
	Type    string      `yaml:"ceremony-type"`
	PKCS11  making      `yaml:"pkcs11"`
	Key     keyMaterial `yaml:"key"`
	Outputs struct {
		PublicKey string `yaml:"public-key-path"`
		Config    string `yaml:"pkcs11-config-path"`
	} `yaml:"outputs"`
}

// issueFile is an intermediate or, with Cross, a cross-certificate.
type issueFile struct {
	Type   string  `yaml:"ceremony-type"`
	PKCS11 signing `yaml:"pkcs11"`
	Inputs struct {
		PublicKey string `yaml:"public-key-path"`
		Issuer    string `yaml:"issuer-certificate-path"`
		Cross     string `yaml:"certificate-to-cross-sign-path"`
	} `yaml:"inputs"`
	Outputs struct {
		Certificate string `yaml:"certificate-path"`
	} `yaml:"outputs"`
	Profile   profile  `yaml:"certificate-profile"`
	SkipLints []string `yaml:"skip-lints"`
}

type crlFile struct {
	Type   string  `yaml:"ceremony-type"`
	PKCS11 signing `yaml:"pkcs11"`
	Inputs struct {
		Issuer string `yaml:"issuer-certificate-path"`
	} `yaml:"inputs"`
	Outputs struct {
		CRL string `yaml:"crl-path"`
	} `yaml:"outputs"`
	Profile struct {
		ThisUpdate string `yaml:"this-update"`
		NextUpdate string `yaml:"next-update"`
		Number     int64  `yaml:"number"`
		Revoked    []struct {
			Certificate string `yaml:"certificate-path"`
			Date        string `yaml:"revocation-date"`
			Reason      int    `yaml:"revocation-reason"`
		} `yaml:"revoked-certificates"`
	} `yaml:"crl-profile"`
}

// dropped are the kinds that have no place here, each with the reason.
func dropped() map[string]string {
	return map[string]string{
		"cross-csr":     "a certificate request for somebody else's root is not made here: ask for a cross-certificate with ceremony-type cross-certificate, or hand out the public key that the record of the key's ceremony holds",
		"ocsp-response": "OCSP responses are not made here: publish a revocation list (ceremony-type crl)",
		"ocsp-signer":   "delegated OCSP responders are not certified here: publish a revocation list (ceremony-type crl)",
		"crl-signer":    "delegated issuers of revocation lists are not certified here: the authority signs its own (ceremony-type crl)",
	}
}

// MaxBytes bounds a configuration file.
const MaxBytes = 1 << 20

// kindOf reads ceremony-type alone.
func kindOf(path string, data []byte) (string, error) {
	if len(data) > MaxBytes {
		return "", fault.Errorf(fault.Usage, "%s is larger than %d bytes", path, MaxBytes)
	}
	var head struct {
		Type string `yaml:"ceremony-type"`
	}
	if err := yaml.Unmarshal(data, &head); err != nil {
		return "", fault.Errorf(fault.Usage, "%s: %w", path, err)
	}
	if head.Type == "" {
		return "", fault.Errorf(fault.Usage, "%s has no ceremony-type: it is no configuration of Boulder's ceremony", path)
	}
	if why, ok := dropped()[head.Type]; ok {
		return "", fault.Hint(fault.Errorf(fault.Usage, "%s: ceremony-type %s is not carried over", path, head.Type), why)
	}
	return head.Type, nil
}

func parse[T any](path string, data []byte) (*T, error) {
	var v T
	if err := config.Parse(path, data, &v); err != nil {
		return nil, err
	}
	return &v, nil
}

// utc reads a time as Boulder writes it, 2026-01-02 15:04:05.
func utc(path, member, s string) (time.Time, error) {
	t, err := time.Parse(time.DateTime, s)
	if err != nil {
		return t, fault.Errorf(fault.Usage, "%s: %s %.40q is not like 2026-01-02 15:04:05", path, member, s)
	}
	return t, nil
}
