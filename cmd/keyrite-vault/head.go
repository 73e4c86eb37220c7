package main

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"strings"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/tlog"
	"keyrite/internal/intake"
	"keyrite/vault/seal"
)

// cosignerTimeout bounds one request to the cosigner.
const cosignerTimeout = 10 * time.Second

// head is the keeper of the store's newest head.
func (v *vault) head() (seal.Keeper, error) {
	if v.bind.Head.File != "" {
		return seal.NewFileKeeper(v.bind.path(v.bind.Head.File), v.bind.World)
	}
	if v.bind.Head.TPM != "" {
		return v.tpmHead()
	}
	b := v.bind.Head.Cosigner
	key, err := loadKey(v.dir, logKeyFile)
	if err != nil {
		return nil, err
	}
	// Who signs the log and who cosigns it stands in the charter.
	log := v.charter.State().Audit.Log
	pub, ok := key.Public().(ed25519.PublicKey)
	if !ok || log.Version == 0 || !pub.Equal(ed25519.PublicKey(log.Log.Key)) {
		return nil, fault.Hint(fault.New(fault.Policy, "the charter does not know this host's key as that of the vault's log"), "propose an audit-log statement with the log_key that 'keyrite-vault create' printed, and the cosigner's")
	}
	var who *tlog.Signer
	for _, c := range log.Cosigners {
		if c.Name == b.Name {
			who = &tlog.Signer{Name: c.Name, Public: ed25519.PublicKey(c.Key)}
		}
	}
	if who == nil {
		return nil, fault.Errorf(fault.Policy, "the charter's audit-log knows no cosigner %.40q", b.Name)
	}
	client, err := v.cosignerClient()
	if err != nil {
		return nil, err
	}
	return seal.NewCosignerKeeper(seal.CosignerConfig{URL: b.URL, Client: client, Cosigner: *who, LogName: log.Log.Name, LogKey: key})
}

// cosignerClient trusts the one CA that the binding names, and no proxy.
func (v *vault) cosignerClient() (*http.Client, error) {
	t := &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: x509.NewCertPool()}}
	b := v.bind.Head.Cosigner
	if b.CA == "" && strings.HasPrefix(b.URL, "https:") {
		return nil, fault.New(fault.Usage, "head.cosigner.ca is missing: the CA that the cosigner's certificate follows from")
	}
	if b.CA != "" {
		data, err := intake.Read(v.bind.path(b.CA), 1<<20)
		if err != nil {
			return nil, err
		}
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(data) {
			return nil, fault.Errorf(fault.Usage, "%q has no certificate", b.CA)
		}
	}
	return &http.Client{Transport: t, Timeout: cosignerTimeout}, nil
}
