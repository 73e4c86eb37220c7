package actions

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/attestation"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/paper"
	"keyrite/hsm"
)

// attesting writes another word for the birth of each key into a shipped script, which
// says quorum, and takes the step out in which people sign for that.
func attesting(word string) func(string) string {
	return func(text string) string {
		var out []string
		for line := range strings.SplitSeq(text, "\n") {
			if !strings.Contains(line, "do: births.sign") {
				out = append(out, strings.ReplaceAll(line, "attestation: quorum", "attestation: "+word))
			}
		}
		return strings.Join(out, "\n")
	}
}

// device stands in for a token whose maker attests: it shows a certificate of each
// key that the session has, in the shape of a YubiHSM 2.
type device struct {
	*hsm.Session
	maker *artifacttest.Maker
	claim func(*artifacttest.Claims)
	none  string // label of a key of which it says nothing
}

func (d *device) Certificates(ctx context.Context) ([][]byte, error) {
	objs, err := d.Objects(ctx)
	if err != nil {
		return nil, err
	}
	out := [][]byte{d.maker.DeviceDER}
	for _, o := range objs {
		id, err := parseKeyID(o.ID)
		if err != nil || o.Class != "CKO_PUBLIC_KEY" || o.Label == d.none {
			continue
		}
		k, err := d.Attributes(ctx, id)
		if err != nil {
			return nil, err
		}
		out = append(out, d.maker.Attest(k.PublicKey, d.claim)[0])
	}
	return out, nil
}

func parseKeyID(s string) (id hsm.KeyID, err error) { return id, id.UnmarshalText([]byte(s)) }

// withMaker has a plan bind the maker's root, and its device in the place of a session.
func (h *house) withMaker(t testing.TB, p plan, m *artifacttest.Maker, d device) plan {
	t.Helper()
	h.write(t, "maker.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.RootDER}))
	h.write(t, "sub.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.SubDER}))
	p.bind = func(b *Bind) {
		b.AttestationRoots = []BindRoot{{ID: "maker", Kind: "hsm", Certificate: h.path("maker.pem")}}
		b.AttestationChain = []string{h.path("sub.pem")}
	}
	p.around = func(x ceremony.Actions) ceremony.Actions {
		a, _ := x.(*Actions)
		a.origins.device = func(s *hsm.Session) certifier {
			mine := d
			mine.Session, mine.maker = s, m
			return &mine
		}
		return a
	}
	return p
}

func verified(t testing.TB, dir string) *record.Verified {
	t.Helper()
	v, err := record.VerifyOwn(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// A genesis in SoftHSM, which attests nothing: those who watched sign, and the record
// says that it was they.
func TestGenesisThatPeopleWatched(t *testing.T) {
	h := newHouse(t)
	dir, err := h.hold(t, plan{label: "one"})
	if err != nil {
		t.Fatal(err)
	}
	h.cosign(t, dir, "witness2")
	v := verified(t, dir)
	for _, k := range v.Anchors.Keys {
		if k.Attestation != anchor.Watched {
			t.Errorf("key %s is %q", k.ID, k.Attestation)
		}
	}
	if len(v.Attested) != 0 {
		t.Errorf("%d keys attested by SoftHSM", len(v.Attested))
	}
	if err := paper.WriteReport(dir); err != nil {
		t.Fatal(err)
	}
	if page, err := os.ReadFile(filepath.Join(dir, record.ReportFile)); err != nil || !strings.Contains(string(page), "watched by a quorum of people") {
		t.Errorf("the report does not say that people watched: %v", err)
	}
	h.hostileWatched(t, dir)
}

// hostileWatched forges what people signed, each time with a correct chain and every
// cosignature, so that only this rule can refuse it.
func (h *house) hostileWatched(t *testing.T, dir string) {
	good := slurp(t, dir)
	m := &twoRecords{house: h, closed: dir}
	resign := func(list []entry, edit func(*record.BirthsWatched), names ...string) {
		i := findEntry(t, list, "watched", func(entry) bool { return true })
		raw, err := json.Marshal(list[i].Data["envelope"])
		if err != nil {
			t.Fatal(err)
		}
		list[i].Data["envelope"] = h.resignBirths(t, raw, edit, names)
	}
	people := []string{"witness1", "witness2", "master1", "master2", "master3"}
	same := func(*record.BirthsWatched) {}
	for name, edit := range map[string]func([]entry) []entry{
		"no signature at all": func(l []entry) []entry {
			i := findEntry(t, l, "watched", func(entry) bool { return true })
			return slices.Delete(l, i, i+1)
		},
		"a witness did not sign": func(l []entry) []entry { resign(l, same, "witness1", "master1", "master2", "master3"); return l },
		"too few key masters":    func(l []entry) []entry { resign(l, same, people[:4]...); return l },
		"an approver for a key master": func(l []entry) []entry {
			resign(l, same, "witness1", "witness2", "master1", "master2", "approver1")
			return l
		},
		"a key left out": func(l []entry) []entry {
			resign(l, func(w *record.BirthsWatched) { w.Keys = w.Keys[1:] }, people...)
			return l
		},
		"another public key": func(l []entry) []entry {
			resign(l, func(w *record.BirthsWatched) { w.Keys[0].SHA256 = strings.Repeat("ab", 32) }, people...)
			return l
		},
		"another token": func(l []entry) []entry {
			resign(l, func(w *record.BirthsWatched) { w.Keys[0].Token.Serial = "1" }, people...)
			return l
		},
		"another record": func(l []entry) []entry {
			resign(l, func(w *record.BirthsWatched) { w.Record = "0123456789abcdef" }, people...)
			return l
		},
		"another world": func(l []entry) []entry {
			resign(l, func(w *record.BirthsWatched) { w.World = "rehearsal:hgfedcba" }, people...)
			return l
		},
		"over another transcript": func(l []entry) []entry {
			resign(l, func(w *record.BirthsWatched) { w.Root = strings.Repeat("ab", 32) }, people...)
			return l
		},
		"signed before the births": func(l []entry) []entry {
			resign(l, func(w *record.BirthsWatched) { w.Size = 3 }, people...)
			return l
		},
	} {
		restore(t, dir, good)
		m.forge(t, dir, edit(entries(t, dir)))
		if _, err := record.VerifyOwn(os.DirFS(dir)); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
	restore(t, dir, good)
	m.forge(t, dir, entries(t, dir))
	verified(t, dir) // what the forger left alone holds
}

func restore(t testing.TB, dir string, files map[string][]byte) {
	t.Helper()
	for p, data := range files {
		if err := os.WriteFile(filepath.Join(dir, p), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A genesis in a token whose maker attests: the evidence of every key lies in the
// record and is verified with it, under the root that the charter names.
func TestGenesisAttested(t *testing.T) {
	h, m := newHouse(t), artifacttest.NewMaker(t)
	dir, err := h.hold(t, h.withMaker(t, plan{label: "one", edit: attesting("required")}, m, device{}))
	if err != nil {
		t.Fatal(err)
	}
	h.cosign(t, dir, "witness2")
	v := verified(t, dir)
	if len(v.Attested) != 22 || v.Attested["firmware"].Device != "12345678" || v.Attested["firmware"].Root != "maker" {
		t.Errorf("%d keys attested, firmware %+v", len(v.Attested), v.Attested["firmware"])
	}
	if roots := v.Charter.AttestationRoots(); len(roots) != 1 || roots[0].ID != "maker" {
		t.Errorf("roots of the charter: %+v", roots)
	}
	if err := paper.WriteReport(dir); err != nil {
		t.Fatal(err)
	}
	if page, err := os.ReadFile(filepath.Join(dir, record.ReportFile)); err != nil || !strings.Contains(string(page), "attested by its HSM") {
		t.Errorf("the report does not say that the HSM attests: %v", err)
	}
	h.hostileEvidence(t, dir, m)
}

// hostileEvidence exchanges evidence in a record whose people sign whatever it says.
func (h *house) hostileEvidence(t *testing.T, dir string, m *artifacttest.Maker) {
	good := slurp(t, dir)
	two := &twoRecords{house: h, closed: dir}
	firmware, log := record.AttestationPath("firmware"), record.AttestationPath("acceptance")
	evidence := func(edit func(*attestation.Evidence)) []byte {
		e, err := attestation.Parse(good[firmware])
		if err != nil {
			t.Fatal(err)
		}
		edit(e)
		b, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	pub := pemOf(t, dir, record.OutputsDir+"/firmware.pub.pem")
	claim := func(f func(*artifacttest.Claims)) []byte {
		return evidence(func(e *attestation.Evidence) { e.Chain = m.Attest(parsedKey(t, pub), f) })
	}
	stranger := artifacttest.NewMaker(t)
	for name, file := range map[string][]byte{
		"of another key":         good[log],
		"under its own name":     evidence(func(e *attestation.Evidence) { e.Key = "acceptance" }),
		"of another record":      evidence(func(e *attestation.Evidence) { e.Record = "keyrite/record/0123456789abcdef" }),
		"by another maker":       evidence(func(e *attestation.Evidence) { e.Chain = stranger.Attest(parsedKey(t, pub), nil) }),
		"of an imported key":     claim(func(c *artifacttest.Claims) { c.Origin = 2 }),
		"of an exportable key":   claim(func(c *artifacttest.Claims) { c.Caps |= 1 << 16 }),
		"of a key that decrypts": claim(func(c *artifacttest.Claims) { c.Caps |= 1 << 10 }),
		"with a byte behind":     append(slices.Clone(good[firmware]), '\n'),
	} {
		restore(t, dir, good)
		if err := os.WriteFile(filepath.Join(dir, firmware), file, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := record.VerifyOwn(os.DirFS(dir))
		if fault.ClassOf(err) != fault.Verify || !strings.Contains(err.Error(), "firmware.attestation.json") {
			t.Errorf("evidence %s: %v", name, err)
		}
		// Whoever writes the transcript anew too lacks the keys, which signed over it.
		list := entries(t, dir)
		two.put(t, dir, list, firmware, file)
		two.forge(t, dir, list)
		if _, err := record.VerifyOwn(os.DirFS(dir)); fault.ClassOf(err) != fault.Verify {
			t.Errorf("evidence %s, with a transcript to it: %v", name, err)
		}
	}
	// The evidence left out, together with what lists it.
	restore(t, dir, good)
	list := entries(t, dir)
	i := findEntry(t, list, "output", func(e entry) bool { return e.Data["path"] == firmware })
	two.forge(t, dir, slices.Delete(list, i, i+1))
	if err := os.Remove(filepath.Join(dir, firmware)); err != nil {
		t.Fatal(err)
	}
	if _, err := record.VerifyOwn(os.DirFS(dir)); fault.ClassOf(err) != fault.Verify {
		t.Errorf("no evidence: %v", err)
	}
	restore(t, dir, good)
}

// A script that requires attestations is refused where nobody's would count, and void
// before its first key where the token gives none, or one that does not hold.
func TestRequiredIsRefusedBeforeTheFirstKey(t *testing.T) {
	h, m := newHouse(t), artifacttest.NewMaker(t)
	if _, err := h.hold(t, plan{label: "none", edit: attesting("required")}); fault.ClassOf(err) != fault.Policy {
		t.Errorf("without a vendor root: %v", err)
	}
	for label, p := range map[string]plan{
		"softhsm": func() plan {
			p := h.withMaker(t, plan{label: "softhsm", edit: attesting("required")}, m, device{})
			p.around = nil
			return p
		}(),
		"silent":   h.withMaker(t, plan{label: "silent", edit: attesting("required")}, m, device{none: "probe"}),
		"stranger": h.withMaker(t, plan{label: "stranger", edit: attesting("required")}, m, device{claim: func(c *artifacttest.Claims) { c.Origin = 2 }}),
	} {
		dir, err := h.hold(t, p)
		if fault.ClassOf(err) != fault.Void {
			t.Fatalf("%s: %v", label, err)
		}
		for _, e := range entries(t, dir) {
			if e.Type == "key" || e.Type == "intent" && e.Data["effect"] == "generate" {
				t.Errorf("%s: %s of %v before it was refused", label, e.Type, e.Data["key"])
			}
		}
	}
}

// Where people's signatures are enough, a device that attests is still believed, key
// by key; what it says wrongly voids the ceremony.
func TestQuorumWhereOneKeyIsNotAttested(t *testing.T) {
	h, m := newHouse(t), artifacttest.NewMaker(t)
	dir, err := h.hold(t, h.withMaker(t, plan{label: "one"}, m, device{none: "log"}))
	if err != nil {
		t.Fatal(err)
	}
	h.cosign(t, dir, "witness2")
	v := verified(t, dir)
	if len(v.Attested) != 21 || v.Charter.Keys["log"].Attestation != anchor.Watched || v.Charter.Keys["firmware"].Attestation != anchor.Attested {
		t.Errorf("%d attested, log %q", len(v.Attested), v.Charter.Keys["log"].Attestation)
	}
	_, err = h.hold(t, h.withMaker(t, plan{label: "two"}, m, device{claim: func(c *artifacttest.Claims) { c.Caps |= 1 << 16 }}))
	if fault.ClassOf(err) != fault.Void || !errors.Is(err, attestation.ErrExportable) && !strings.Contains(err.Error(), "let the key out") {
		t.Errorf("a key that may leave: %v", err)
	}
}

// resignBirths signs an edited payload anew.
func (h *house) resignBirths(t *testing.T, raw []byte, edit func(*record.BirthsWatched), names []string) map[string]any {
	t.Helper()
	var env envelope.Envelope
	if err := json.Unmarshal(raw, &env); err != nil {
		t.Fatal(err)
	}
	var w record.BirthsWatched
	if err := jcs.Unmarshal(env.Payload, &w); err != nil {
		t.Fatal(err)
	}
	edit(&w)
	var signers []crypto.Signer
	for _, n := range names {
		signers = append(signers, h.people[n].Signer())
	}
	out, err := envelope.SignJSON(record.WatchedType, w, signers...)
	if err != nil {
		t.Fatal(err)
	}
	b, err := out.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func parsedKey(t *testing.T, spki []byte) crypto.PublicKey {
	t.Helper()
	k, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// findEntry is the place of the first entry of a type that is as wanted.
func findEntry(t *testing.T, list []entry, typ string, is func(entry) bool) int {
	t.Helper()
	i := slices.IndexFunc(list, func(e entry) bool { return e.Type == typ && is(e) })
	if i < 0 {
		t.Fatalf("no entry %s", typ)
	}
	return i
}

// What a binding says of makers is looked at before anything is done.
func TestVendorRootsOfTheBinding(t *testing.T) {
	h, m := newHouse(t), artifacttest.NewMaker(t)
	p := h.withMaker(t, plan{label: "one"}, m, device{})
	h.write(t, "both.pem", slices.Concat(pemBlock("CERTIFICATE", m.RootDER), pemBlock("CERTIFICATE", m.SubDER)))
	h.write(t, "leaf.pem", pemBlock("CERTIFICATE", m.AK(m.Key().Public(), nil)[0]))
	h.write(t, "key.pem", pemBlock("PRIVATE KEY", []byte{1}))
	h.write(t, "empty.pem", []byte("-----BEGIN\n"))
	root := func(id, kind, file string) BindRoot { return BindRoot{ID: id, Kind: kind, Certificate: h.path(file)} }
	for name, roots := range map[string][]BindRoot{
		"no id":            {root("", "hsm", "maker.pem")},
		"an id as a path":  {root("../maker", "hsm", "maker.pem")},
		"an id twice":      {root("maker", "hsm", "maker.pem"), root("maker", "hsm", "sub.pem")},
		"one twice":        {root("maker", "hsm", "maker.pem"), root("other", "ek", "maker.pem")},
		"no kind":          {root("maker", "", "maker.pem")},
		"two certificates": {root("maker", "hsm", "both.pem")},
		"no CA":            {root("maker", "hsm", "leaf.pem")},
		"a private key":    {root("maker", "hsm", "key.pem")},
		"no certificate":   {root("maker", "hsm", "empty.pem")},
		"no file":          {root("maker", "hsm", "absent.pem")},
	} {
		p.bind = func(b *Bind) { b.AttestationRoots = roots }
		if _, err := h.hold(t, p); fault.ClassOf(err) != fault.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
}
