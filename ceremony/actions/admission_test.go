package actions

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/hsm"
)

// A safe is opened only under a report that holds now, for this token behind this
// module, from a record of the vault or signed by somebody in its charter; the
// ceremony is refused before it is armed, so nothing is void (R-CER-9).
func TestAdmissionOfOpening(t *testing.T) {
	t.Parallel()
	f := found(t)
	b, state, module, work := f.workToken(t)
	now := time.Now()
	made, err := b.Reports(state).Admit(module, work, now)
	if err != nil {
		t.Fatalf("the record of the genesis admits nothing: %v", err)
	}
	report := func(name, by string, edit func(*admission.Report)) func(*Bind) {
		r := *made.Report
		r.Algorithms = slices.Clone(r.Algorithms)
		edit(&r)
		file, err := admission.Sign(&r, f.people[by].Signer())
		if err != nil {
			t.Fatal(err)
		}
		f.write(t, name, file)
		return func(b *Bind) { b.Records, b.Admissions = nil, []string{f.path(name)} }
	}
	f.person(t, "stranger")
	same := func(*admission.Report) {}
	old := now.Add(-admission.Validity - time.Second)
	altered := func(b *Bind) {
		report("altered", "conductor", same)(b)
		data, err := os.ReadFile(f.path("altered"))
		if err != nil {
			t.Fatal(err)
		}
		env, err := envelope.Parse(data)
		if err != nil {
			t.Fatal(err)
		}
		env.Payload = []byte(strings.Replace(string(env.Payload), `"pass":true`, `"pass":false`, 1))
		if data, err = env.Marshal(); err != nil {
			t.Fatal(err)
		}
		f.write(t, "altered", data)
	}
	for _, tt := range []struct {
		name  string
		bind  func(*Bind)
		m     func(*hsm.ModuleInfo)
		t     func(*hsm.TokenInfo)
		now   time.Time
		class fault.Class // "" is admitted
	}{
		{name: "its record", bind: func(*Bind) {}},
		{name: "its record on the last day", bind: func(*Bind) {}, now: now.Add(admission.Validity - 24*time.Hour)},
		{name: "its record after 90 days", bind: func(*Bind) {}, now: now.Add(admission.Validity), class: fault.Token},
		{name: "a report of the conductor", bind: report("signed", "conductor", same)},
		{name: "no record and no report", bind: func(b *Bind) { b.Records = nil }, class: fault.Token},
		{name: "no such file", bind: func(b *Bind) { b.Records, b.Admissions = nil, []string{f.path("nothing")} }, class: fault.Token},
		{name: "by a stranger", bind: report("strange", "stranger", same), class: fault.Token},
		{name: "altered", bind: altered, class: fault.Token},
		{name: "expired", bind: report("expired", "conductor", func(r *admission.Report) {
			r.Made, r.Expires = charter.FormatTime(old), charter.FormatTime(old.Add(admission.Validity))
		}), class: fault.Token},
		{name: "of another world", bind: report("world", "conductor", func(r *admission.Report) { r.World = "rehearsal:bbbbbbbb" }), class: fault.Token},
		{name: "of another serial", bind: report("serial", "conductor", func(r *admission.Report) { r.Token.Serial = "1" }), class: fault.Token},
		{name: "another module", bind: func(*Bind) {}, m: func(m *hsm.ModuleInfo) { m.SHA256 = strings.Repeat("0", 64) }, class: fault.Token},
		{name: "another library", bind: func(*Bind) {}, m: func(m *hsm.ModuleInfo) { m.Libraries = m.Libraries[1:] }, class: fault.Token},
		{name: "another configuration", bind: func(*Bind) {}, m: func(m *hsm.ModuleInfo) {
			m.Configuration = []hsm.Library{{Path: "softhsm2.conf", SHA256: strings.Repeat("0", 64)}}
		}, class: fault.Token},
		{name: "another firmware", bind: func(*Bind) {}, t: func(x *hsm.TokenInfo) { x.Firmware = "9.9" }, class: fault.Token},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x, m, tok := *b, module, work
			tt.bind(&x)
			if tt.m != nil {
				tt.m(&m)
			}
			if tt.t != nil {
				tt.t(&tok)
			}
			if tt.now.IsZero() {
				tt.now = now
			}
			if _, err := x.Reports(state).Admit(m, tok, tt.now); fault.ClassOf(err) != tt.class {
				t.Errorf("got %v (%s), want class %q", err, fault.ClassOf(err), tt.class)
			}
		})
	}

	// The ceremony itself: refused before it is armed, and it says which report it
	// went by.
	for name, tt := range map[string]struct {
		bind func(*Bind)
		text string
	}{
		"unadmitted": {func(b *Bind) { b.Records = nil }, "is not admitted"},
		"rsa-only":   {report("rsa", "conductor", func(r *admission.Report) { r.Algorithms = []string{"rsa3072"} }), "not admitted for keys of algorithm"},
	} {
		dir, err := f.try(t, plan{kind: "new-key", record: name, bind: tt.bind})
		if fault.ClassOf(err) != fault.Token || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got %v (%s)", name, err, fault.ClassOf(err))
		}
		if data, err := os.ReadFile(filepath.Join(dir, record.TranscriptFile)); err == nil && strings.Contains(string(data), `"ARMED"`) {
			t.Errorf("%s: it was armed", name)
		}
	}
	v := f.later(t, plan{kind: "new-key", bind: report("good", "witness1", same)})
	var by []string
	for _, x := range v.Admissions {
		by = append(by, x.Report.Token.Label+" by "+strings.Join(x.By, "+"))
	}
	// The one that it went by, and what it hands on: with no other record, that one.
	if !slices.Equal(by, []string{"founded-work by witness1", "founded-work by witness1"}) {
		t.Errorf("reports %v", by)
	}
	// What bound the process of the module is the kernel's word there, and here.
	i := slices.IndexFunc(v.Timeline, func(l record.Line) bool { return l.Type == "admission" })
	if i < 0 {
		t.Fatal("no admission in the record")
	}
	h := module.Hardening
	want := &record.Process{
		Capabilities: "none", Landlock: h.Landlock, Network: h.Network, NoNewPrivileges: true, Seccomp: "filter", Sockets: "none", User: h.User,
	}
	if d, ok := v.Timeline[i].Data.(*record.Admission); !ok || !reflect.DeepEqual(d.Process, want) {
		t.Errorf("the module process is %+v, want %+v", d.Process, want)
	}
}

// workToken is the work token and its module as they are, with the binding and the
// charter of the next ceremony.
func (f *founded) workToken(t *testing.T) (*Bind, *charter.State, hsm.ModuleInfo, hsm.TokenInfo) {
	t.Helper()
	b := f.bind(t, "bind.yaml")
	f.continued(b)
	lines, err := os.ReadFile(b.Charter)
	if err != nil {
		t.Fatal(err)
	}
	state, err := charter.Fold(lines, f.anchors.World, f.anchors.Vault)
	if err != nil {
		t.Fatal(err)
	}
	tokens, module, err := f.env.Start(t).Tokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(tokens, func(x hsm.TokenInfo) bool { return token(x.Token) == state.Epochs["work"].Token })
	if at < 0 {
		t.Fatal("no work token")
	}
	return b, state, module, tokens[at]
}
