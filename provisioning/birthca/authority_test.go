package birthca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func mustOID(t *testing.T, s string) x509.OID {
	t.Helper()
	oid, err := x509.ParseOID(s)
	if err != nil {
		t.Fatal(err)
	}
	return oid
}

func authority(t *testing.T, alg x509.SignatureAlgorithm) (Authority, crypto.Signer) {
	t.Helper()
	k, err := throwAwayFor(alg)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	return Authority{
		CommonName: "Example Root R1", Organization: "Example Machines", Country: "AT", Signature: alg,
		NotBefore: from, NotAfter: from.AddDate(20, 0, 0), PathLength: -1, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, SPKI: spki,
	}, k
}

// TestAuthority issues a root and an authority below it with each way of signing,
// and has openssl and certtool verify the chain.
func TestAuthority(t *testing.T) {
	for _, alg := range []x509.SignatureAlgorithm{x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.SHA256WithRSA} {
		t.Run(alg.String(), func(t *testing.T) {
			a, rootKey := authority(t, alg)
			if err := PreviewAuthority(a); err != nil {
				t.Fatal(err)
			}
			root := mustIssue(t, a, rootKey)
			b, subKey := authority(t, x509.ECDSAWithSHA384)
			b.Issuer, b.CommonName, b.PathLength, b.Signature = root, "Example Issuing I1", 0, alg
			b.NotAfter = b.NotBefore.AddDate(5, 0, 0)
			b.KeyUsage |= x509.KeyUsageDigitalSignature
			b.ExtKeyUsage, b.Policies = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, []x509.OID{mustOID(t, "2.23.140.1.2.1")}
			b.CRLURL, b.IssuerURL = "http://r1.crl.example/", "http://r1.ca.example/"
			sub := mustIssue(t, b, rootKey)
			foreign(t, root, sub)
			if l, err := LintAuthority(b); err != nil {
				t.Error(err)
			} else if _, err := IssueAuthority(t.Context(), l, subKey); !errors.Is(err, ErrOtherKey) {
				t.Errorf("signed by another key: %v", err)
			}
		})
	}
}

func mustIssue(t *testing.T, a Authority, k crypto.Signer) *x509.Certificate {
	t.Helper()
	l, err := LintAuthority(a)
	if err != nil {
		t.Fatal(err)
	}
	der, err := IssueAuthority(t.Context(), l, k)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// foreign has other programs verify the chain.
func foreign(t *testing.T, root, sub *x509.Certificate) {
	t.Helper()
	dir := t.TempDir()
	for name, c := range map[string]*x509.Certificate{"root.pem": root, "sub.pem": sub} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"openssl", "verify", "-x509_strict", "-check_ss_sig", "-CAfile", "root.pem", "sub.pem"},
		{"certtool", "--verify", "--load-ca-certificate", "root.pem", "--infile", "sub.pem"},
	} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestAuthorityRefused asks for what must not be issued.
func TestAuthorityRefused(t *testing.T) {
	good, _ := authority(t, x509.ECDSAWithSHA256)
	root, rootKey := authority(t, x509.ECDSAWithSHA256)
	short := root
	short.NotAfter = short.NotBefore.AddDate(1, 0, 0)
	issuer := mustIssue(t, short, rootKey)
	for name, edit := range map[string]func(*Authority){
		"ends before it begins": func(a *Authority) { a.NotAfter = a.NotBefore.Add(-time.Hour) },
		"outlives its issuer":   func(a *Authority) { a.Issuer = issuer },
		"may not sign":          func(a *Authority) { a.KeyUsage = x509.KeyUsageCRLSign },
		"signed with SHA-1":     func(a *Authority) { a.Signature = x509.ECDSAWithSHA1 },
		"signed with SHA-512":   func(a *Authority) { a.Signature = x509.SHA512WithRSA },
		"key that is no key":    func(a *Authority) { a.SPKI = bytes.Repeat([]byte{1}, 91) },
		"country of one letter": func(a *Authority) { a.Country = "A" },
		"common name of 65":     func(a *Authority) { a.CommonName = strings.Repeat("a", 65) },
	} {
		a := good
		edit(&a)
		if _, err := LintAuthority(a); err == nil {
			t.Errorf("%s: it passed", name)
		}
	}
	if _, err := IssueAuthority(t.Context(), nil, rootKey); err == nil {
		t.Error("issued without an examination")
	}
}
