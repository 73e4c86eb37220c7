package actions

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"slices"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/attestation"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/hsm"
	"keyrite/internal/intake"
)

// BindRoot is a vendor root for a genesis, which has no charter to name one yet. It
// becomes a statement of the charter.
type BindRoot struct {
	ID          string   `yaml:"id"`          // as the charter will call it. Required.
	Kind        string   `yaml:"kind"`        // hsm or ek. Required.
	Certificate string   `yaml:"certificate"` // PEM or DER file. Required.
	Models      []string `yaml:"models"`      // for no other model
}

// certifier is what shows the certificates among which a token's attestations are: a
// session of hsm, and in tests a device that cannot be had here.
type certifier interface {
	Certificates(ctx context.Context) ([][]byte, error)
}

// origins is what a ceremony knows of makers and of who vouches for their devices.
type origins struct {
	roots  []attestation.Root
	chain  [][]byte                     // certificates between device and root
	device func(*hsm.Session) certifier // replaced by tests
}

// wants says whether a key of the script needs an attestation, and whether one is
// welcome.
func wants(k *script.Key) (required, welcome bool) {
	required = k.Attestation == script.AttestationRequired
	return required, required || k.Attestation == script.AttestationQuorum && !k.Movable
}

// loadOrigins reads vendor roots and the certificates below them, and refuses a
// script that no attestation can satisfy while that costs nothing.
func (a *Actions) loadOrigins() error {
	o := &a.origins
	o.device = func(s *hsm.Session) certifier { return s }
	if a.vault != nil {
		if len(a.bind.AttestationRoots) > 0 {
			return fault.Hint(fault.New(fault.Usage, "the binding names vendor roots, and only a genesis takes them from there"), "roots of a vault stand in its charter: 'keyrite charter propose vendor-root'")
		}
		o.roots = a.state.AttestationRoots()
	}
	for _, x := range a.bind.AttestationRoots {
		der, err := a.certificates(x.Certificate)
		if err != nil {
			return err
		}
		if len(der) != 1 {
			return fault.Errorf(fault.Usage, "vendor root %.40q of the binding is not one certificate", x.ID)
		}
		o.roots = append(o.roots, attestation.Root{ID: x.ID, Kind: x.Kind, Certificate: der[0], Models: sorted(x.Models)})
	}
	if err := charter.CheckVendorRoots(o.roots); err != nil && a.vault == nil {
		return fault.Errorf(fault.Usage, "attestation_roots of the binding: %w", err)
	}
	for _, path := range a.bind.AttestationChain {
		der, err := a.certificates(path)
		if err != nil {
			return err
		}
		o.chain = append(o.chain, der...)
	}
	for i := range a.script.Keys {
		k := &a.script.Keys[i]
		if required, _ := wants(k); required && !o.knows(attestation.RootHSM) {
			return fault.Hint(fault.Errorf(fault.Policy, "key %s must be attested by its HSM, and no vendor root is named: nothing would be accepted", k.ID),
				"a genesis takes attestation_roots from the binding, a later ceremony from the charter: 'keyrite charter propose vendor-root'")
		}
	}
	return nil
}

func (o *origins) knows(kind string) bool {
	return slices.ContainsFunc(o.roots, func(r attestation.Root) bool { return r.Kind == kind })
}

// certificates reads a file of certificates, in PEM or one in DER.
func (a *Actions) certificates(path string) ([][]byte, error) {
	data, err := intake.Read(a.bind.Path(path), maxInputBytes)
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(data, []byte("-----BEGIN")) {
		return [][]byte{data}, nil
	}
	var out [][]byte
	for {
		var b *pem.Block
		if b, data = pem.Decode(data); b == nil {
			break
		}
		if b.Type != "CERTIFICATE" {
			return nil, fault.Errorf(fault.Usage, "%q holds a %q, not only certificates", path, b.Type)
		}
		out = append(out, b.Bytes)
	}
	if len(out) == 0 {
		return nil, fault.Errorf(fault.Usage, "%q holds no certificate", path)
	}
	return out, nil
}

// attest asks the device for its word about a key that was just born. It returns
// nil where there is none; one that does not hold is an error, whatever the script
// wants, for something is wrong with the device.
func (a *Actions) attest(ctx context.Context, r *ceremony.Run, s *hsm.Session, rec *anchor.KeyRecord) (*attestation.Evidence, error) {
	if !a.origins.knows(attestation.RootHSM) {
		return nil, nil //nolint:nilnil // no maker is trusted, so nobody is asked
	}
	shown, err := a.origins.device(s).Certificates(ctx)
	if err != nil {
		return nil, err
	}
	chain := chainOf(rec.Public, append(shown, a.origins.chain...))
	if chain == nil {
		return nil, nil //nolint:nilnil // the device says nothing of this key
	}
	e := &attestation.Evidence{Chain: chain, Format: attestation.Format, Key: rec.ID, Kind: attestation.KindYubiHSM, Record: rec.Record, World: r.World}
	got, err := attestation.Verify(e, a.origins.roots, attestation.About{Key: rec.ID, Public: rec.Public, Record: rec.Record, World: r.World, Time: r.Clock.Now()})
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "attestation of key %s: %w", rec.ID, err)
	}
	if err := got.CheckSigning(); err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "attestation of key %s: %w", rec.ID, err)
	}
	return e, nil
}

// chainOf finds the attestation certificate of a key and follows its issuers, as far
// as there are any. Nothing of it is verified here.
func chainOf(spki []byte, ders [][]byte) [][]byte {
	var certs []*x509.Certificate
	for _, der := range ders {
		if c, err := x509.ParseCertificate(der); err == nil {
			certs = append(certs, c)
		}
	}
	i := slices.IndexFunc(certs, func(c *x509.Certificate) bool {
		return bytes.Equal(c.RawSubjectPublicKeyInfo, spki) && strings.HasPrefix(c.Subject.CommonName, "YubiHSM Attestation id:")
	})
	if i < 0 {
		return nil
	}
	var out [][]byte
	for at := certs[i]; at != nil && len(out) < len(certs); {
		out = append(out, at.Raw)
		issuer := at.RawIssuer
		if bytes.Equal(issuer, at.RawSubject) {
			break
		}
		j := slices.IndexFunc(certs, func(c *x509.Certificate) bool {
			return bytes.Equal(c.RawSubject, issuer) && !bytes.Equal(c.Raw, at.Raw)
		})
		if at = nil; j >= 0 {
			at = certs[j]
		}
	}
	return out
}

// originate settles what stands for the birth of a key, and writes the evidence out
// before the key is used for anything.
func (a *Actions) originate(ctx context.Context, r *ceremony.Run, s *hsm.Session, k *script.Key, rec *anchor.KeyRecord) error {
	required, welcome := wants(k)
	if k.Attestation == script.AttestationQuorum {
		rec.Attestation = anchor.Watched
	}
	if !welcome {
		return nil
	}
	e, err := a.attest(ctx, r, s, rec)
	if err != nil {
		return err
	}
	if e == nil {
		if required {
			return notOffered(k.Safe)
		}
		return nil
	}
	data, err := e.Marshal()
	if err != nil {
		return err
	}
	rec.Attestation = anchor.Attested
	return r.Output(record.AttestationPath(rec.ID), data)
}

func notOffered(safe string) error {
	return fault.Hint(fault.Errorf(fault.Token, "the token of safe %s does not attest its keys, and the script requires it", safe),
		"write attestation: quorum for keys whose birth people watch, or use a token whose maker attests")
}

// probe makes a throw-away key and wants it attested, where a key to be born in the
// safe must be: before the first key, when nothing is lost yet. The key dies with its
// session.
func (a *Actions) probe(ctx context.Context, r *ceremony.Run, sf *safe) error {
	i := slices.IndexFunc(a.script.Keys, func(k script.Key) bool { required, _ := wants(&k); return required && k.Safe == sf.name })
	if i < 0 {
		return nil
	}
	k := a.script.Keys[i]
	sp := a.spec(&k, probeNumber)
	sp.Label = "probe"
	return a.withSession(ctx, sf.token, func(s *hsm.Session) error {
		st, err := s.Generate(ctx, sp)
		if err != nil {
			return err
		}
		e, err := a.attest(ctx, r, s, &anchor.KeyRecord{ID: sp.Label, Public: st.SPKI, Record: record.Origin(r.ID)})
		if err == nil && e == nil {
			err = notOffered(sf.name)
		}
		if err == nil {
			r.Console.Say("good", "token "+sf.token.Label+" attests the keys that are born in it")
		}
		return err
	})
}

// probeNumber is the number of a throw-away key in its attempt, higher than that of
// any key of a script.
const probeNumber = 1 << 30

// watch is the verb births.sign: those who watched sign for every key that no HSM
// attested.
func (a *Actions) watch(ctx context.Context, r *ceremony.Run, _ *script.Step) error {
	w := record.BirthsWatched{Format: record.BirthsFormat, Record: r.ID, World: r.World}
	safes := map[string]bool{}
	for _, id := range sorted(a.order) {
		rec := &a.keys[id].rec
		if rec.Attestation != anchor.Watched {
			continue
		}
		sum := sha256.Sum256(rec.Public)
		w.Keys = append(w.Keys, record.WatchedBirth{ID: id, SHA256: hex.EncodeToString(sum[:]), Token: rec.Token})
		k, _ := a.script.KeyByID(id)
		safes[k.Safe] = true
	}
	if len(w.Keys) == 0 {
		r.Console.Say("good", "every key is attested by its HSM; there is nothing to sign")
		return nil
	}
	names, err := a.watchers(r, safes)
	if err != nil {
		return err
	}
	w.Size, w.Root = r.Size(), r.Root()
	payload, err := jcs.Marshal(w)
	if err != nil {
		return err
	}
	env, err := signAll(ctx, r, "the birth of "+itoa(len(w.Keys))+" keys, which you watched", record.WatchedType, payload, names)
	if err != nil {
		return err
	}
	return r.Record(&record.Watched{Envelope: *env})
}

// watchers are all witnesses and, of each safe, as many of its openers as open it.
func (a *Actions) watchers(r *ceremony.Run, safes map[string]bool) ([]string, error) {
	names := r.Names(charter.RoleWitness)
	for _, s := range a.state.People.Safes {
		if !safes[s.Name] {
			continue
		}
		openers, err := present(r, s.Openers)
		if err != nil {
			return nil, err
		}
		for _, n := range openers {
			if !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names, nil
}

// rootStatements are the vendor roots that a genesis takes from its binding.
func (a *Actions) rootStatements() []statement {
	var out []statement
	if a.vault == nil {
		for _, r := range a.origins.roots {
			out = append(out, statement{charter.TypeVendorRoot, r})
		}
	}
	return out
}
