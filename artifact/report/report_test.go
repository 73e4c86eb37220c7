package report_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/report"
)

const vectorDir = "../../testdata/vectors/report"

var update = flag.Bool("update", false, "write the vectors anew")

func newWorld(t testing.TB) (*artifacttest.World, *bundle.Bundle) {
	w := artifacttest.New(t)
	w.FoundFactory()
	return w, w.Bundle()
}

func TestVerify(t *testing.T) {
	w, b := newWorld(t)
	data, err := report.Sign(w.Report(b, w.Birth(1, b.BundleID), w.Birth(2, b.BundleID)), w.Keys["report"])
	if err != nil {
		t.Fatal(err)
	}
	r, err := report.Verify(data, w.Anchors, w.State)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.CheckBundle(b); err != nil {
		t.Error(err)
	}
	for i := 0; i < len(data); i += 11 {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if _, err := report.Verify(bad, w.Anchors, w.State); err == nil {
			t.Errorf("byte %d", i)
		}
	}
}

type vector struct {
	name, expect, comment string
	edit                  func(*artifacttest.World, *bundle.Bundle, *report.Report)
}

// rebuilt makes chain and totals of changed rows fit again: what a station that
// lies would do.
func rebuilt(r *report.Report) {
	r.Root, _ = report.RootOf(r.Units)
	r.Counts = report.Counts{}
	for _, u := range r.Units {
		if u.State == report.Confirmed {
			r.Counts.Confirmed++
		} else {
			r.Counts.Scrapped++
		}
		if len(u.Certificate) > 0 {
			r.Counts.Signed++
		}
	}
}

func hostile() []vector {
	return []vector{
		{"valid", "ok", "two devices", func(*artifacttest.World, *bundle.Bundle, *report.Report) {}},
		{"scrapped", "ok", "one of two scrapped after it was signed", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) {
			r.Units[1].State, r.Units[1].Reason = report.Scrapped, "case cracked"
			rebuilt(r)
		}},
		{"scrapped-without-reason", "verify", "a serial that vanishes without a word", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) {
			r.Units[1].State = report.Scrapped
			rebuilt(r)
		}},
		{"row-altered", "verify", "a row changed, the root not", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) { r.Units[0].Element.Maker = "other" }},
		{"row-dropped", "verify", "a row left out", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) { r.Units = r.Units[:1] }},
		{"rows-swapped", "verify", "two rows exchanged", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) {
			r.Units[0], r.Units[1] = r.Units[1], r.Units[0]
		}},
		{"count", "verify", "totals that are not those of the rows", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) { r.Counts.Confirmed = 1 }},
		{"highest", "verify", "highest serial is not that of the rows", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) { r.Highest = "gw100-00000009" }},
		{"twice", "verify", "the same device twice", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) {
			r.Units[1] = r.Units[0]
			r.Highest = r.Lowest
			rebuilt(r)
		}},
		{"element-twice", "verify", "one element born twice", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) {
			r.Units[1].Element = r.Units[0].Element
			rebuilt(r)
		}},
		{"over-quota", "policy", "four devices on a quota of three", func(w *artifacttest.World, b *bundle.Bundle, r *report.Report) {
			*r = *w.Report(b, w.Birth(1, b.BundleID), w.Birth(2, b.BundleID), w.Birth(3, b.BundleID), w.Birth(4, b.BundleID))
		}},
		{"quota-raised", "policy", "a quota that the bundle does not have", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) { r.Quota = 10 }},
		{"serial-outside", "policy", "a serial of the factory that is not in the bundle", func(w *artifacttest.World, b *bundle.Bundle, r *report.Report) {
			*r = *w.Report(b, w.Birth(11, b.BundleID))
		}},
		{"other-bundle", "policy", "a report of another bundle", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) { r.Bundle.Hash = bundle.FirstPrev() }},
		{"certificate-other-bundle", "policy", "a certificate that names another bundle", func(w *artifacttest.World, b *bundle.Bundle, r *report.Report) {
			*r = *w.Report(b, w.Birth(1, bundle.NewID()))
		}},
		{"certificate-foreign-ca", "verify", "a certificate by another key", func(w *artifacttest.World, b *bundle.Bundle, r *report.Report) {
			k := w.Keys["factory-ca"]
			w.Keys["factory-ca"] = w.Keys["pipeline1"]
			*r = *w.Report(b, w.Birth(1, b.BundleID))
			w.Keys["factory-ca"] = k
		}},
		{"certificate-hash", "verify", "a certificate hash that is not its certificate's", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) {
			r.Units[0].CertHash = bundle.FirstPrev()
			rebuilt(r)
		}},
		{"certificate-missing", "verify", "confirmed, but no certificate", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) {
			r.Units[0].Certificate = nil
			rebuilt(r)
		}},
		{"certificate-of-other", "verify", "the row names another serial than its certificate", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) {
			r.Units[1].DeviceSerial, r.Highest = "gw100-00000003", "gw100-00000003"
			rebuilt(r)
		}},
		{"assurance-raised", "verify", "the row claims an attestation that the certificate does not have", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) {
			r.Units[0].Assurance = birthcert.EKAttested
			rebuilt(r)
		}},
		{"unknown-station", "policy", "a station that the charter does not have", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) { r.Station = "station2" }},
		{"other-world", "policy", "the live world", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) { r.World = "live" }},
		{"other-vault", "policy", "another vault", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) { r.Vault = bundle.FirstPrev() }},
		{"layers-missing", "verify", "nothing is said on how the quota was kept", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) { r.QuotaLayers = nil }},
		{"time-backwards", "verify", "a unit that ended before it began", func(_ *artifacttest.World, _ *bundle.Bundle, r *report.Report) {
			r.Units[0].Reserved = "2026-11-23T00:00:00Z"
			rebuilt(r)
		}},
	}
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	anchors, state := artifacttest.Load(t, vectorDir)
	data, err := os.ReadFile(filepath.Join(vectorDir, "bundle.json"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bundle.Verify(data, anchors)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range artifacttest.Vectors(t, vectorDir) {
		got := "ok"
		r, err := report.Verify(v.Body, anchors, state)
		if err == nil {
			err = r.CheckBundle(b)
		}
		if err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != v.Expect {
			t.Errorf("%s: got %s (%v), want %s", v.Name, got, err, v.Expect)
		}
	}
}

func writeVectors(t *testing.T) {
	w, b := newWorld(t)
	w.Save(vectorDir)
	if err := os.WriteFile(filepath.Join(vectorDir, "bundle.json"), w.SignBundle(b), 0o644); err != nil {
		t.Fatal(err)
	}
	one, two := w.Birth(1, b.BundleID), w.Birth(2, b.BundleID)
	put := func(name, expect, comment string, r *report.Report, key string) {
		payload, err := jcs.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		e, err := envelope.Sign(report.PayloadType, payload, w.Keys[key])
		if err != nil {
			t.Fatal(err)
		}
		body, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		artifacttest.WriteVector(t, vectorDir, artifacttest.Vector{Name: name, Expect: expect, Body: body}, comment)
	}
	for _, v := range hostile() {
		r := w.Report(b, one, two)
		v.edit(w, b, r)
		put(v.name, v.expect, v.comment, r, "report")
	}
	put("other-key", "verify", "signed by the factory CA's key", w.Report(b, one), "factory-ca")
	put("headquarters-key", "verify", "signed by the acceptance key", w.Report(b, one), "acceptance")
}

func FuzzVerify(f *testing.F) {
	anchors, state := artifacttest.Load(f, vectorDir)
	for _, v := range artifacttest.Vectors(f, vectorDir) {
		f.Add(v.Body)
		if e, err := envelope.Parse(v.Body); err == nil {
			f.Add(e.Payload)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = report.Verify(data, anchors, state)
		var r report.Report
		if jcs.Unmarshal(data, &r) != nil || r.Check() != nil {
			return
		}
		again, err := r.Marshal()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%q read as %q, %v", data, again, err)
		}
	})
}
