package admission_test

import (
	"crypto/ed25519"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/world"
)

const testWorld world.World = "rehearsal:abcdefgh"

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// good is a report as an honest run makes it.
func good() *admission.Report {
	r := &admission.Report{
		Algorithms: []string{"p256", "rsa3072"}, Capabilities: []string{"CKM_ECDSA"}, Templates: []string{"sign"},
		Format: admission.Format, World: testWorld, Made: "2026-11-22T12:00:00Z", Expires: "2027-02-20T12:00:00Z",
		Module: admission.Module{
			Path: "/m.so", SHA256: strings.Repeat("a", 64), Libraries: []admission.File{{Path: "/libc.so", SHA256: strings.Repeat("b", 64)}},
			Configuration: []admission.File{{Path: "softhsm2.conf", SHA256: strings.Repeat("c", 64)}},
		},
		Token: admission.Token{Label: "work", Serial: "1", Model: "m", Firmware: "2.6", Hardware: "2.6", Manufacturer: "x"},
	}
	for i := range admission.MinCases {
		r.Cases = append(r.Cases, admission.Case{ID: "case-" + strconv.Itoa(i), Title: "t", Expected: "refused", Got: "refused", Pass: true})
	}
	return r
}

func TestReportChecks(t *testing.T) {
	here := good()
	for _, tc := range []struct {
		name  string
		edit  func(*admission.Report)
		world world.World
		now   time.Time
		class fault.Class
	}{
		{"good", func(*admission.Report) {}, testWorld, noon, ""},
		{"last second", func(*admission.Report) {}, testWorld, noon.Add(admission.Validity - time.Second), ""},
		{"expired", func(*admission.Report) {}, testWorld, noon.Add(admission.Validity), fault.Token},
		{"from the future", func(*admission.Report) {}, testWorld, noon.Add(-time.Second), fault.Token},
		{"longer validity", func(r *admission.Report) { r.Expires = "2027-11-22T12:00:00Z" }, testWorld, noon, fault.Token},
		{"time with a zone", func(r *admission.Report) { r.Made = "2026-11-22T13:00:00+01:00" }, testWorld, noon, fault.Token},
		{"no times", func(r *admission.Report) { r.Made, r.Expires = "", "" }, testWorld, noon, fault.Token},
		{"other world", func(*admission.Report) {}, "live", noon, fault.Policy},
		{"other format", func(r *admission.Report) { r.Format = "keyrite/admission/v2" }, testWorld, noon, fault.Token},
		{"failed case", func(r *admission.Report) { r.Cases[3].Pass = false }, testWorld, noon, fault.Token},
		{"case repeated", func(r *admission.Report) { r.Cases[3] = r.Cases[4] }, testWorld, noon, fault.Token},
		{"case without a name", func(r *admission.Report) { r.Cases[3].ID = "" }, testWorld, noon, fault.Token},
		{"cases missing", func(r *admission.Report) { r.Cases = r.Cases[1:] }, testWorld, noon, fault.Token},
		{"no algorithm", func(r *admission.Report) { r.Algorithms = nil }, testWorld, noon, fault.Token},
		{"other module", func(r *admission.Report) { r.Module.SHA256 = strings.Repeat("d", 64) }, testWorld, noon, fault.Token},
		{"other library", func(r *admission.Report) { r.Module.Libraries[0].SHA256 = strings.Repeat("d", 64) }, testWorld, noon, fault.Token},
		{"library gone", func(r *admission.Report) { r.Module.Libraries = nil }, testWorld, noon, fault.Token},
		{"other configuration", func(r *admission.Report) { r.Module.Configuration[0].SHA256 = strings.Repeat("d", 64) }, testWorld, noon, fault.Token},
		{"no configuration", func(r *admission.Report) { r.Module.Configuration = nil }, testWorld, noon, fault.Token},
		{"other serial", func(r *admission.Report) { r.Token.Serial = "2" }, testWorld, noon, fault.Token},
		{"other label", func(r *admission.Report) { r.Token.Label = "root" }, testWorld, noon, fault.Token},
		{"other model", func(r *admission.Report) { r.Token.Model = "n" }, testWorld, noon, fault.Token},
		{"other firmware", func(r *admission.Report) { r.Token.Firmware = "9.9" }, testWorld, noon, fault.Token},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := good()
			tc.edit(r)
			err := r.Check(&here.Module, &here.Token, tc.world, tc.now)
			if tc.class == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || fault.ClassOf(err) != tc.class {
				t.Errorf("got %v, want class %s", err, tc.class)
			}
		})
	}
	// A module that does not say what it is fits no report, not even one that says
	// as little.
	r := good()
	r.Module.SHA256 = ""
	if err := r.Check(&admission.Module{Libraries: r.Module.Libraries, Configuration: r.Module.Configuration}, &here.Token, testWorld, noon); err == nil {
		t.Error("a module without a hash was admitted")
	}
}

// The token is admitted for the algorithms that the report lists, and for no other.
func TestOtherAlgorithmRefused(t *testing.T) {
	r := good()
	if err := errors.Join(r.CheckAlgorithm("p256"), r.CheckTemplate("sign")); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"p384", "rsa3072-pss", "", "P256"} {
		if err := r.CheckAlgorithm(bad); fault.ClassOf(err) != fault.Token {
			t.Errorf("algorithm %q: %v", bad, err)
		}
	}
	for _, bad := range []string{"root-sign", "movable", ""} {
		if err := r.CheckTemplate(bad); fault.ClassOf(err) != fault.Token {
			t.Errorf("template %q: %v", bad, err)
		}
	}
}

// A report counts if one of the people signed it, as it stands.
func TestSignerOfReport(t *testing.T) {
	member := func(name string) *person.Key {
		k, err := person.New(name, testWorld)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	ours, stranger := member("conductor"), member("stranger")
	people := &charter.People{Roster: []charter.Member{{Person: *ours.Public(), Role: charter.RoleConductor}}}
	file, err := admission.Sign(good(), ours.Signer())
	if err != nil {
		t.Fatal(err)
	}
	x, err := admission.Open(file, people)
	if err != nil || !slices.Equal(x.By, []string{"conductor"}) || !slices.Equal(x.Report.Algorithms, good().Algorithms) {
		t.Fatalf("got %+v, %v", x, err)
	}
	altered := func(edit func(*envelope.Envelope)) []byte {
		env, err := envelope.Parse(file)
		if err != nil {
			t.Fatal(err)
		}
		edit(env)
		out, err := env.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	foreign, err := admission.Sign(good(), stranger.Signer())
	if err != nil {
		t.Fatal(err)
	}
	_, loose, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := envelope.Sign("application/vnd.keyrite.charter.v1+json", []byte(`{}`), ours.Signer())
	if err != nil {
		t.Fatal(err)
	}
	wrongType, err := other.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"unsigned": altered(func(e *envelope.Envelope) { e.Signatures = nil }),
		"altered": altered(func(e *envelope.Envelope) {
			e.Payload = []byte(strings.Replace(string(e.Payload), `"p256"`, `"p384"`, 1))
		}),
		"by a stranger": foreign,
		"also by a stranger": altered(func(e *envelope.Envelope) {
			if err := e.Add(loose); err != nil {
				t.Fatal(err)
			}
		}),
		"another statement": wrongType,
		"empty":             {},
		"no envelope":       []byte(`{"format":"keyrite/admission/v1"}`),
		"too long":          make([]byte, admission.MaxBytes+1),
	} {
		if _, err := admission.Open(data, people); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
