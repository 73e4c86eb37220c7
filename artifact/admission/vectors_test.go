package admission_test

import (
	"bytes"
	"flag"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/admission"
	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/artifact/world"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectorDir = "../../testdata/vectors/admission"

// maker makes reports of one world, and what ceremonies hand on of them.
type maker struct {
	t testing.TB
	w *artifacttest.World
}

// of is an honest report of a token, edited.
func (m maker) of(label, serial string, edit func(*admission.Report)) *admission.Report {
	r := good()
	r.World, r.Token.Label, r.Token.Serial = m.w.World, label, serial
	edit(r)
	return r
}

func (m maker) sign(r *admission.Report, by ...*person.Key) *envelope.Envelope {
	m.t.Helper()
	env, err := envelope.SignJSON(admission.PayloadType, r)
	for _, k := range by {
		if err == nil {
			err = env.Add(k.Signer())
		}
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return env
}

func (m maker) json(v any) []byte {
	m.t.Helper()
	data, err := jcs.Marshal(v)
	if err != nil {
		m.t.Fatal(err)
	}
	return data
}

func same(*admission.Report) {}

// writeVectors makes valid and hostile reports, and files of them.
func writeVectors(t *testing.T) {
	t.Helper()
	m := maker{t, artifacttest.New(t)}
	m.w.Save(vectorDir)
	stranger, err := person.New("stranger", m.w.World)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name, expect, comment string, body []byte) {
		artifacttest.WriteVector(t, vectorDir, artifacttest.Vector{Name: name, Expect: expect, Body: body}, comment)
	}
	conductor, witness := m.w.People["conductor"], m.w.People["witness1"]
	report := func(name, expect, comment string, edit func(*admission.Report), by ...*person.Key) {
		put(name, expect, comment, m.json(m.sign(m.of("work", "1", edit), by...)))
	}
	report("valid", "ok", "signed by the conductor", same, conductor)
	report("valid-two", "ok", "signed by two people", same, conductor, witness)
	report("stranger", "verify", "signed by nobody of the charter", same, stranger)
	report("stranger-too", "verify", "signed by the conductor and by a stranger", same, conductor, stranger)
	report("failed", "token", "a case failed", func(r *admission.Report) { r.Cases[3].Pass = false }, conductor)
	report("repeated", "token", "a case stands twice", func(r *admission.Report) { r.Cases[3] = r.Cases[4] }, conductor)
	report("few", "token", "24 cases", func(r *admission.Report) { r.Cases = r.Cases[1:] }, conductor)
	report("no-algorithm", "token", "admitted for nothing", func(r *admission.Report) { r.Algorithms = []string{} }, conductor)
	report("years", "token", "good for more than 90 days", func(r *admission.Report) { r.Expires = "2028-02-20T12:00:00Z" }, conductor)
	report("format", "token", "another format", func(r *admission.Report) { r.Format = "keyrite/admission/v2" }, conductor)
	report("world", "policy", "of another world", func(r *admission.Report) { r.World = world.Live }, conductor)
	env := m.sign(m.of("work", "1", same), conductor)
	env.PayloadType = charter.PayloadType
	put("type", "verify", "another payload type", m.json(env))
	env = m.sign(m.of("work", "1", same), conductor)
	env.Payload = bytes.Replace(env.Payload, []byte(`"pass":true`), []byte(`"pass":false`), 1)
	put("altered", "verify", "a byte was altered after it was signed", m.json(env))
	payload := append(m.json(m.of("work", "1", same)), ' ')
	env, err = envelope.Sign(admission.PayloadType, payload, conductor.Signer())
	if err != nil {
		t.Fatal(err)
	}
	put("tail", "verify", "a space after the report, which is signed", m.json(env))
	m.keptVectors(put, stranger)
}

// keptVectors are files of what a ceremony hands on.
func (m maker) keptVectors(put func(name, expect, comment string, body []byte), stranger *person.Key) {
	conductor, witness := m.w.People["conductor"], m.w.People["witness1"]
	root, work := m.sign(m.of("root", "2", same), witness), m.sign(m.of("work", "1", same), conductor)
	kept := func(name, expect, comment string, list ...*envelope.Envelope) {
		k := admission.Kept{Envelopes: []envelope.Envelope{}, Format: admission.KeptFormat, World: m.w.World}
		for _, e := range list {
			k.Envelopes = append(k.Envelopes, *e)
		}
		put("kept-"+name, expect, comment, m.json(k))
	}
	kept("valid", "ok", "two tokens, by two people", root, work)
	kept("none", "ok", "no token")
	kept("order", "verify", "not by label", work, root)
	kept("twice", "verify", "one token twice", work, m.sign(m.of("work", "1", func(r *admission.Report) { r.Algorithms = []string{"p256"} }), conductor))
	kept("stranger", "verify", "one of them by nobody of the charter", root, m.sign(m.of("work", "1", same), stranger))
	unsigned := *work
	unsigned.Signatures = []envelope.Signature{}
	kept("unsigned", "quorum", "one of them by nobody at all", root, &unsigned)
	kept("failed", "token", "one of them failed", root, m.sign(m.of("work", "1", func(r *admission.Report) { r.Cases[0].Pass = false }), conductor))
	kept("other-world", "policy", "one of them of another world", root, m.sign(m.of("work", "1", func(r *admission.Report) { r.World = world.Live }), conductor))
	good := m.json(admission.Kept{Envelopes: []envelope.Envelope{*root, *work}, Format: admission.KeptFormat, World: m.w.World})
	replace := func(from, to string) []byte { return bytes.Replace(good, []byte(from), []byte(to), 1) }
	put("kept-world", "policy", "of another world", replace(string(m.w.World), "live"))
	put("kept-format", "verify", "another format", replace("admissions/v1", "admissions/v2"))
	put("kept-member", "verify", "a member that is not of the format", replace(`"format"`, `"foo":1,"format"`))
	put("kept-reports", "verify", "reports that nobody signed", m.json(map[string]any{"format": admission.KeptFormat, "reports": []any{m.of("work", "1", same)}, "world": m.w.World}))
	put("kept-tail", "verify", "a newline after the object", append(good, '\n', ' '))
}

// open reads a vector as those do who rely on it, on the day that it was made.
func open(v artifacttest.Vector, a *anchor.Anchors, people *charter.People) error {
	if strings.HasPrefix(v.Name, "kept-") {
		_, err := admission.ParseKept(v.Body, a.World, people)
		return err
	}
	x, err := admission.Open(v.Body, people)
	if err != nil {
		return err
	}
	return x.Report.CheckTime(a.World, noon)
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	a, s := artifacttest.Load(t, vectorDir)
	for _, v := range artifacttest.Vectors(t, vectorDir) {
		err := open(v, a, &s.People)
		got := "ok"
		if err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != v.Expect {
			t.Errorf("%s: %s (%v), want %s", v.Name, got, err, v.Expect)
		}
	}
}

// A flipped bit anywhere in what a ceremony hands on is refused.
func TestEveryFlippedBitOfKeptIsRefused(t *testing.T) {
	a, s := artifacttest.Load(t, vectorDir)
	all := artifacttest.Vectors(t, vectorDir)
	v := all[slices.IndexFunc(all, func(v artifacttest.Vector) bool { return v.Name == "kept-valid" })]
	for i := range v.Body {
		bad := bytes.Clone(v.Body)
		bad[i] ^= 1 << (i % 8)
		if _, err := admission.ParseKept(bad, a.World, &s.People); err == nil {
			t.Errorf("byte %d", i)
		}
	}
}

// What is read is what a writer would have written, and is signed.
func FuzzOpen(f *testing.F) {
	a, s := artifacttest.Load(f, vectorDir)
	for _, v := range artifacttest.Vectors(f, vectorDir) {
		f.Add(v.Body)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if x, err := admission.Open(data, &s.People); err == nil {
			again, err := x.Envelope.Marshal()
			if err != nil || !bytes.Equal(again, data) || len(x.By) == 0 {
				t.Errorf("%q was taken, %v", data, err)
			}
		}
		if kept, err := admission.ParseKept(data, a.World, &s.People); err == nil {
			k := admission.Kept{Envelopes: []envelope.Envelope{}, Format: admission.KeptFormat, World: a.World}
			for _, x := range kept {
				k.Envelopes = append(k.Envelopes, *x.Envelope)
			}
			again, err := jcs.Marshal(k)
			if err != nil || !bytes.Equal(again, data) {
				t.Errorf("%q was taken, %v", data, err)
			}
		}
	})
}
