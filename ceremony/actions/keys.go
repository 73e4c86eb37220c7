package actions

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/artifact/world"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/hsm"
	"keyrite/internal/intake"
	"keyrite/provisioning/birthca"
)

func itoa(n int) string { return strconv.Itoa(n) }

func sorted(list []string) []string {
	out := slices.Clone(list)
	slices.Sort(out)
	return out
}

func pemBlock(typ string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
}

// spec turns the script's key into what hsm makes.
func (g *Genesis) spec(k *script.Key, n int) hsm.GenerateSpec {
	sp := hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.ECDSAP256, KeyID: hsm.NewKeyID(g.tag, uint64(n)), Label: k.ID, SessionObject: true}
	if k.Usage.AlwaysAuthenticate {
		sp.Template = hsm.RootSign
	}
	if k.Algorithm == "ed25519" {
		sp.Algorithm = hsm.Ed25519
	}
	return sp
}

// generate makes a key as a session object in the safe's one birth session, and
// reads every attribute back.
func (g *Genesis) generate(ctx context.Context, r *ceremony.Run, id string) error {
	k, _ := g.script.KeyByID(id)
	sf := g.safes[k.Safe]
	if sf.birth == nil {
		// The session lives until SEALING ends, not only as long as this step.
		s, err := g.sup.Open(context.WithoutCancel(ctx), sf.token)
		if err != nil {
			return err
		}
		sf.birth = s
		if err := openedModule(g.script, s.Module().SHA256); err != nil {
			return err
		}
	}
	sp := g.spec(k, len(g.order)+1)
	if err := r.Record(&record.Intent{Effect: "generate", Key: id, Object: hexID(sp.KeyID), Safe: k.Safe, Token: token(sf.token)}); err != nil {
		return err
	}
	st, err := sf.birth.Generate(ctx, sp)
	if err != nil {
		return err
	}
	signer, err := sf.birth.Signer(ctx, sp.KeyID)
	if err != nil {
		return err
	}
	rec := anchor.KeyRecord{
		Algorithm: k.Algorithm, Domain: k.Domain, ID: id, Public: st.SPKI, Record: record.Origin(r.ID), SpecHash: k.SpecHash(), Token: token(sf.token),
	}
	g.keys[id] = &key{spec: sp, rec: rec, signer: signer}
	g.order = append(g.order, id)
	r.Console.Say("good", id+" is born in token "+sf.token.Label)
	return r.Record(made(sp, hsm.Born, st, rec))
}

// made shows specification and actual attributes side by side.
func made(sp hsm.GenerateSpec, stage hsm.Stage, st *hsm.KeyState, rec anchor.KeyRecord) *record.KeyMade {
	e := &record.KeyMade{Attributes: []record.Attribute{}, Key: rec, Object: hexID(sp.KeyID), Stage: string(stage)}
	want := sp.Expect(stage)
	for _, half := range []struct {
		name      string
		want, got []hsm.Attribute
	}{{"private", want.Private, st.Attributes.Private}, {"public", want.Public, st.Attributes.Public}} {
		got := map[string]string{}
		for _, a := range half.got {
			got[a.Name] = a.Value
		}
		for _, a := range half.want {
			e.Attributes = append(e.Attributes, record.Attribute{Got: got[a.Name], Half: half.name, Name: a.Name, Wanted: a.Value})
		}
	}
	return e
}

// store copies the safe's keys into the token, makes that durable, and reads
// them back through a fresh process.
func (g *Genesis) store(ctx context.Context, r *ceremony.Run, name string) error {
	sf := g.safes[name]
	for _, id := range g.keysOf(name) {
		k := g.keys[id]
		if err := r.Record(&record.Intent{Effect: "store", Key: id, Object: hexID(k.spec.KeyID), Safe: name, Token: token(sf.token)}); err != nil {
			return err
		}
		if _, err := sf.birth.CopyToToken(ctx, k.spec); err != nil {
			return err
		}
	}
	if err := sf.birth.SyncToken(ctx); err != nil {
		return err
	}
	fresh, err := g.sup.Open(context.WithoutCancel(ctx), sf.token)
	if err != nil {
		return err
	}
	sf.fresh = fresh
	for _, id := range g.keysOf(name) {
		k := g.keys[id]
		st, err := fresh.Attributes(ctx, k.spec.KeyID)
		if err != nil {
			return err
		}
		if err := st.Check(k.spec, hsm.Stored); err != nil {
			return err
		}
		if string(st.SPKI) != string(k.rec.Public) {
			return fault.Errorf(fault.Verify, "key %s in the token is not the one that was born", id)
		}
		if err := r.Record(made(k.spec, hsm.Stored, st, k.rec)); err != nil {
			return err
		}
	}
	r.Console.Say("good", itoa(len(g.keysOf(name)))+" keys are in token "+sf.token.Label+", read back by a fresh process")
	return nil
}

func (g *Genesis) keysOf(name string) []string {
	var out []string
	for _, id := range g.order {
		if k, _ := g.script.KeyByID(id); k.Safe == name {
			out = append(out, id)
		}
	}
	return out
}

// prove makes every stored key sign its proof of possession, in the fresh
// process, over the transcript so far.
func (g *Genesis) prove(ctx context.Context, r *ceremony.Run, name string) error {
	sf := g.safes[name]
	for _, id := range g.keysOf(name) {
		k := g.keys[id]
		size, root := r.Size(), r.Root()
		msg, err := record.PossessionMessage(r.ID, id, k.rec.SpecHash, size, root)
		if err != nil {
			return err
		}
		signer, err := sf.fresh.Signer(ctx, k.spec.KeyID)
		if err != nil {
			return err
		}
		sig, err := envelope.SignBytes(signer, msg)
		if err != nil {
			return err
		}
		if err := r.Record(&record.Possession{Key: id, Root: root, Signature: sig, Size: size}); err != nil {
			return err
		}
	}
	birth, fresh := sf.birth, sf.fresh
	sf.birth, sf.fresh = nil, nil
	if err := birth.Close(); err != nil {
		return err
	}
	return fresh.Close()
}

// request reads the public key of a certificate request of the binding.
func (g *Genesis) request(name string) ([]byte, error) {
	path, ok := g.bind.Requests[name]
	if !ok {
		return nil, fault.Errorf(fault.Usage, "the binding names no request %q", name)
	}
	data, err := intake.Read(g.bind.Path(path), maxInputBytes)
	if err != nil {
		return nil, err
	}
	return birthca.CheckRequest(data)
}

func (g *Genesis) publicKey(name string) ([]byte, error) {
	path, ok := g.bind.Keys[name]
	if !ok {
		return nil, fault.Errorf(fault.Usage, "the binding names no key %q", name)
	}
	data, err := intake.Read(g.bind.Path(path), maxInputBytes)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PUBLIC KEY" || len(rest) > 0 {
		return nil, fault.Errorf(fault.Usage, "key %q is not one PEM block PUBLIC KEY", path)
	}
	if _, err := birthcert.ParseSPKI(block.Bytes); err != nil {
		return nil, err
	}
	return block.Bytes, nil
}

// template is the certificate as the script and the charter want it; nothing of
// a request but its key enters.
func (g *Genesis) template(r *ceremony.Run, c *script.Certificate) birthcert.Template {
	from := r.Clock.Now().UTC().Truncate(time.Second)
	t := birthcert.Template{
		Profile: birthcert.ProfileName(c.Profile), World: r.World, Serial: birthcert.NewCertSerial(),
		NotBefore: from,
	}
	if c.Days > 0 {
		t.NotAfter = from.Add(time.Duration(c.Days) * 24 * time.Hour)
	}
	switch t.Profile {
	case birthcert.FactoryCA:
		for _, f := range g.script.Factories {
			if f.ID == c.Factory {
				t.Grant = birthcert.Grant{Factory: f.ID, Product: f.Product, SerialFrom: f.SerialFrom, SerialTo: f.SerialTo}
			}
		}
	case birthcert.Relay:
		t.Role = c.Role
		t.DNSNames, t.IPs = splitNames(c.Names)
	}
	return t
}

// previewCertificates examines every certificate before the first key is made,
// with throw-away keys in the places of those to come.
func (g *Genesis) previewCertificates(r *ceremony.Run) error {
	for i := range g.script.Certificates {
		c := &g.script.Certificates[i]
		t := g.template(r, c)
		if c.CSR != "" {
			if _, err := g.request(c.CSR); err != nil {
				return fault.Errorf(fault.ClassOf(err), "certificate %s: %w", c.ID, err)
			}
			var err error
			if t.Issuer, err = previewIssuer(r.World); err != nil {
				return err
			}
		}
		if err := birthca.Preview(t); err != nil {
			return fault.Errorf(fault.ClassOf(err), "certificate %s: %w", c.ID, err)
		}
	}
	for _, s := range g.script.Stations {
		if _, err := g.request(s.ReportKey); err != nil {
			return err
		}
	}
	for _, p := range g.script.Pipelines {
		if _, err := g.publicKey(p.Key); err != nil {
			return err
		}
	}
	r.Console.Say("good", itoa(len(g.script.Certificates))+" certificates pass their lints, before any key exists")
	return nil
}

// issue makes one certificate: linted, signed by the born key, linted again.
func (g *Genesis) issue(ctx context.Context, r *ceremony.Run, id string) error {
	c, _ := g.script.CertByID(id)
	t := g.template(r, c)
	var err error
	if c.CSR != "" {
		if t.SPKI, err = g.request(c.CSR); err != nil {
			return err
		}
		issuer, err := parseCert(g.certs[c.Issuer])
		if err != nil {
			return err
		}
		t.Issuer = birthcert.IssuerOf(issuer)
	} else {
		t.SPKI = g.keys[c.Key].rec.Public
	}
	linted, err := birthca.Lint(t)
	if err != nil {
		return err
	}
	der, err := birthca.Issue(ctx, linted, g.keys[c.Issuer].signer)
	if err != nil {
		return err
	}
	g.certs[id] = der
	x, err := parseCert(der)
	if err != nil {
		return err
	}
	r.Console.Say("good", "certificate "+id+" for "+x.Subject.String())
	return r.Record(&record.Certificate{ID: id, Issuer: c.Issuer, Linted: "before and after", SHA256: birthcert.Hash(der), Subject: x.Subject.String()})
}

// splitNames sorts a relay's names into DNS names and IP addresses.
func splitNames(names []string) (dns, ips []string) {
	for _, n := range names {
		if _, err := netip.ParseAddr(n); err == nil {
			ips = append(ips, n)
		} else {
			dns = append(dns, n)
		}
	}
	return dns, ips
}

// previewIssuer stands for an issuer that does not exist yet.
func previewIssuer(w world.World) (*birthcert.Issuer, error) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "make throw-away key: %w", err)
	}
	name := pkix.Name{Organization: []string{string(w)}, CommonName: "preview"}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: name, IsCA: true, BasicConstraintsValid: true, SubjectKeyId: []byte("preview of an issuer")}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, k.Public(), k)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "make throw-away certificate: %w", err)
	}
	c, err := parseCert(der)
	if err != nil {
		return nil, err
	}
	return birthcert.IssuerOf(c), nil
}
