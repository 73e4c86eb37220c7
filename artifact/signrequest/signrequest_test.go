package signrequest_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/record"
	"keyrite/artifact/share"
	"keyrite/artifact/signrequest"
	"keyrite/artifact/tlog"
	"keyrite/artifact/world"
)

var now = artifacttest.Now()

func must(t testing.TB, v any) []byte {
	t.Helper()
	b, err := jcs.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// messages are one of each purpose.
func messages(t testing.TB, w *artifacttest.World) map[string][]byte {
	t.Helper()
	st, err := w.State.Propose(charter.TypePipeline, charter.Pipeline{ID: "pipeline2", Key: w.SPKI("report"), Products: []string{"gw200"}}, now)
	if err != nil {
		t.Fatal(err)
	}
	text := tlog.Checkpoint{Origin: record.Origin("0123456789abcdef"), World: w.World, Size: 7, Root: tlog.LeafHash([]byte("x"))}.Text()
	return map[string][]byte{
		signrequest.Charter:    envelope.PAE(charter.PayloadType, st),
		signrequest.Admission:  envelope.PAE(admission.PayloadType, must(t, admission.Report{Format: admission.Format, Token: admission.Token{Label: "work", Serial: "4f1c"}, World: w.World})),
		signrequest.Documents:  envelope.PAE(record.DocumentsType, must(t, record.DocumentsSeen{Format: "keyrite/documents-seen/v1", Record: "0123456789abcdef", Seen: map[string]string{"master1": "passport 42"}, World: w.World})),
		signrequest.Incident:   envelope.PAE(record.IncidentType, must(t, record.IncidentCall{Format: "keyrite/incident/v1", Reason: "the bag was open", Record: "0123456789abcdef", World: w.World})),
		signrequest.Checkpoint: text,
		signrequest.Cosign:     append([]byte("cosignature/v1\ntime 1800000000\n"), text...),
		signrequest.UpdateRoot: []byte(`{"_type":"root","expires":"2028-01-01T00:00:00Z","keys":{"a":{"keyval":{"public":"-----BEGIN` + "\n" + `x"}}},"roles":{"root":{"keyids":["a"],"threshold":2}},"version":1,"x-keyrite-world":"` + string(w.World) + `"}`),
	}
}

func TestSign(t *testing.T) {
	w := artifacttest.New(t, "witness2")
	wants := map[string]string{
		signrequest.Charter: "gw200", signrequest.Admission: `token "work" with serial "4f1c"`, signrequest.Documents: "master1: passport 42", signrequest.Incident: "the bag was open",
		signrequest.Checkpoint: "as its conductor", signrequest.Cosign: "2027-01-15T08:00:00Z", signrequest.UpdateRoot: "root 1 of the update repository",
	}
	for purpose, msg := range messages(t, w) {
		for _, name := range []string{"witness1", "witness2"} {
			k := w.People[name]
			r, err := signrequest.New(k.Public(), "test", msg, now, time.Hour)
			if err != nil {
				t.Fatalf("%s: %v", purpose, err)
			}
			b, err := r.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if r, err = signrequest.Parse(b); err != nil {
				t.Fatalf("%s: %v", purpose, err)
			}
			s, err := r.Show()
			if err != nil || s.Purpose != purpose || s.World != w.World || !strings.Contains(strings.Join(s.Lines, "\n"), wants[purpose]) {
				t.Errorf("%s: %+v, %v", purpose, s, err)
			}
			a, err := signrequest.Sign(r, k, now)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := a.Marshal()
			if err != nil || len(answer) > 2331 {
				t.Errorf("an answer of %d bytes, %v", len(answer), err)
			}
			sig, err := signrequest.Verify(answer, r, k.Public())
			if err != nil || envelope.CheckBytes(k.Public().PublicKey(), msg, sig) != nil {
				t.Errorf("%s: %v", purpose, err)
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	w, other := artifacttest.New(t), artifacttest.New(t)
	all := messages(t, w)
	good := all[signrequest.Incident]
	p := w.People["witness1"].Public()
	for name, msg := range map[string][]byte{
		"opening of a share":      envelope.PAE(share.OpeningType, []byte("{}")),
		"admission of no format":  envelope.PAE(admission.PayloadType, must(t, admission.Report{World: w.World})),
		"unknown payload type":    envelope.PAE("application/x", []byte("{}")),
		"PAE with a tail":         append(bytes.Clone(good), ' '),
		"PAE with a leading zero": bytes.Replace(bytes.Clone(good), []byte("DSSEv1 "), []byte("DSSEv1 0"), 1),
		"payload not canonical":   envelope.PAE(record.IncidentType, []byte(`{ "format":"keyrite/incident/v1"}`)),
		"other world":             messages(t, other)[signrequest.Incident],
		"statement of another":    messages(t, other)[signrequest.Charter],
		"checkpoint with a tail":  append(bytes.Clone(all[signrequest.Checkpoint]), 'x'),
		"cosignature, time +1":    bytes.Replace(all[signrequest.Cosign], []byte("time 18"), []byte("time +18"), 1),
		"root of another type":    bytes.Replace(all[signrequest.UpdateRoot], []byte(`"root","exp`), []byte(`"targets","exp`), 1),
		"root with a repetition":  bytes.Replace(all[signrequest.UpdateRoot], []byte(`"version":1`), []byte(`"version":1,"version":2`), 1),
		"a raw digest":            bytes.Repeat([]byte{7}, 32),
		"nothing":                 nil,
	} {
		if _, err := signrequest.New(p, "test", msg, now, time.Hour); err == nil {
			t.Errorf("%s may be signed", name)
		}
	}
	r, err := signrequest.New(p, "test", good, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signrequest.Sign(r, w.People["witness2"], now); fault.ClassOf(err) != fault.Policy {
		t.Errorf("somebody else signed: %v", err)
	}
	if _, err := signrequest.Sign(r, w.People["witness1"], now.Add(2*time.Hour)); fault.ClassOf(err) != fault.Policy {
		t.Errorf("expired: %v", err)
	}
	if _, err := signrequest.Sign(r, other.People["witness1"], now); fault.ClassOf(err) != fault.Policy {
		t.Errorf("key of another world: %v", err)
	}
	for name, edit := range map[string]func(r *signrequest.Request){
		"asks with an escape":  func(r *signrequest.Request) { r.Asks = "a\x1b[2J" },
		"good for a month":     func(r *signrequest.Request) { r.Expires = charter.FormatTime(now.Add(30 * 24 * time.Hour)) },
		"expires before":       func(r *signrequest.Request) { r.Expires = r.Issued },
		"short nonce":          func(r *signrequest.Request) { r.Nonce = r.Nonce[:15] },
		"live":                 func(r *signrequest.Request) { r.World = world.Live },
		"format of the answer": func(r *signrequest.Request) { r.Format = signrequest.AnswerFormat },
	} {
		x := *r
		edit(&x)
		b, _ := x.Marshal()
		if _, err := signrequest.Parse(b); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	a, err := signrequest.Sign(r, w.People["witness1"], now)
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := a.Marshal()
	again, err := signrequest.New(p, "test", good, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := signrequest.Verify(answer, again, p); fault.ClassOf(err) != fault.Verify {
		t.Errorf("answer to another request: %v", err)
	}
	for i := range answer {
		bad := bytes.Clone(answer)
		bad[i] ^= 1
		if _, err := signrequest.Verify(bad, r, p); err == nil {
			t.Errorf("byte %d of the answer", i)
		}
	}
	// A holder's key signs no digest that comes from elsewhere.
	k, err := signrequest.Elsewhere(p, func([]byte) ([]byte, error) { return nil, nil }, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Signer().Sign(nil, make([]byte, 32), nil); err == nil {
		t.Error("a digest was signed")
	}
}

func FuzzParse(f *testing.F) {
	w := artifacttest.New(f)
	for _, m := range messages(f, w) {
		r, err := signrequest.New(w.People["witness1"].Public(), "test", m, now, time.Hour)
		if err != nil {
			f.Fatal(err)
		}
		b, _ := r.Marshal()
		f.Add(b)
		a, _ := signrequest.Sign(r, w.People["witness1"], now)
		b, _ = a.Marshal()
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := signrequest.Parse(data); err == nil {
			if again, err := r.Marshal(); err != nil || !bytes.Equal(again, data) {
				t.Errorf("accepted %q, writes %q", data, again)
			}
		}
		if a, err := signrequest.ParseAnswer(data); err == nil {
			if again, err := a.Marshal(); err != nil || !bytes.Equal(again, data) {
				t.Errorf("accepted %q, writes %q", data, again)
			}
		}
	})
}

// What TUF reads is what is shown: members are told apart to the letter, and no
// role's key, nor anything empty, is signed unseen.
func TestRootIsShownAsItIsRead(t *testing.T) {
	w := artifacttest.New(t)
	p := w.People["witness1"].Public()
	root := messages(t, w)[signrequest.UpdateRoot]
	lines := func(old, now_ string) string {
		t.Helper()
		r, err := signrequest.New(p, "test", bytes.Replace(bytes.Clone(root), []byte(old), []byte(now_), 1), now, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		s, err := r.Show()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(s.Lines, "\n")
	}
	if got := lines(`"version":1`, `"version":9,"verſion":1`); !strings.Contains(got, "root 9 of") || strings.Contains(got, "root 1 of") {
		t.Errorf("another version is shown than TUF reads:\n%s", got)
	}
	if got := lines(`"threshold":2}`, `"threshold":2},"targets":{"keyids":["evil"],"threshold":1}`); !strings.Contains(got, "roles.targets.keyids[1] = evil") {
		t.Errorf("a key of the targets role is not shown:\n%s", got)
	}
	if got := lines(`"threshold":2}`, `"threshold":2},"targets":{"keyids":[],"threshold":1}`); !strings.Contains(got, "roles.targets.keyids = []") {
		t.Errorf("an empty list is not shown:\n%s", got)
	}
	if got := lines(`"version":1`, `"roles.root":{"threshold":9},"version":1`); !strings.Contains(got, `"roles.root".threshold = 9`) {
		t.Errorf("a name with a dot looks like two members:\n%s", got)
	}
	if _, err := signrequest.New(p, "test", bytes.Replace(root, []byte(`"roles"`), []byte(`"roleſ"`), 1), now, time.Hour); err == nil {
		t.Error("metadata without roles may be signed")
	}
}
