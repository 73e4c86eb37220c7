package paper

import (
	"crypto/ed25519"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/admission"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
)

// Names and reasons from outside are text in the page, never markup.
func TestReportEscapes(t *testing.T) {
	for _, state := range []string{"CLOSED", "VOID", "RUNNING"} {
		html, err := renderReport(sample(state, hostile, 3), nil, nil, fault.New(fault.Void, hostile))
		if err != nil {
			t.Fatal(err)
		}
		checkMarkup(t, state, html)
		if i, j := strings.Index(string(html), ">conductor<"), strings.Index(string(html), ">witness1<"); i < 0 || j < i {
			t.Error("people are not in the order of their roles")
		}
	}
}

// The first page says what became of the ceremony, and what to do then.
func TestReportSaysWhatHappened(t *testing.T) {
	quorum, void, broken := fault.New(fault.Quorum, "not cosigned"), fault.New(fault.Void, "void"), fault.New(fault.Verify, "entry 3 was altered")
	for _, c := range []struct {
		name, state string
		err         error
		want, lack  []string
	}{
		{"closed", "CLOSED", nil, []string{"REHEARSAL", "A new vault was founded", "1 key was born", "2 of 2 key masters", "keyrite-verify record", "sha256sum script.yaml", "it takes 2 of 2 approvers", "1 of 2 attributes differ", "1 passphrase or answer was given wrongly", "1 thing happened that the script foresees"}, []string{"What to do next"}},
		{"waiting", "CLOSED", quorum, []string{"not yet cosigned by witness1"}, nil},
		{"void", "VOID", void, []string{"Nothing that this attempt made may be used", "What voided it:", "never use this token again", "The shares of root/1 are burned", "unknown", "--after THIS_FOLDER", "Yes: 1 incident"}, []string{"What nobody can do alone", "was founded"}},
		{"not ended", "RUNNING", void, []string{"stopped in state RUNNING", "keyrite ceremony recover"}, []string{"was founded"}},
		{"broken", "CLOSED", broken, []string{"DOES NOT VERIFY", "entry 3 was altered", "Rely on nothing"}, []string{"was founded", "What nobody can do alone"}},
	} {
		html, err := renderReport(sample(c.state, "the cause", 1), nil, nil, c.err)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range c.want {
			if !strings.Contains(string(html), w) {
				t.Errorf("%s: the page lacks %q", c.name, w)
			}
		}
		for _, l := range c.lack {
			if strings.Contains(string(html), l) {
				t.Errorf("%s: the page has %q", c.name, l)
			}
		}
	}
}

// Shares in force that were given in a void attempt count as exposed.
func TestReportNamesExposedEpochs(t *testing.T) {
	v := sample("VOID", "x", 0)
	v.Timeline = append(v.Timeline, record.Line{Entry: record.Entry{Type: "opening", Data: []byte(`{"holder":"master1","safe":"root"}`)}})
	html, err := renderReport(v, nil, nil, fault.New(fault.Void, "void"))
	if err != nil || !strings.Contains(string(html), "the next live ceremony of that safe is a reshare") || !strings.Contains(string(html), ">Openings<") {
		t.Errorf("%v: the page does not name the exposed epoch", err)
	}
}

// What the continuing kinds leave behind is told too, and a type of a later
// version shows in the timeline with what it has.
func TestReportOfContinuingKinds(t *testing.T) {
	v := sample("CLOSED", "x", 0)
	v.Open.Kind = "transfer"
	v.Open.Base = &record.Base{Anchors: strings.Repeat("0a", 32), CharterHead: strings.Repeat("0b", 32), CharterSize: 32}
	place := record.Place{Safe: "work"}
	v.Moved = []record.Transferred{{From: place, To: record.Place{Safe: "work2"}, Key: v.Keys[0].Key, Arrived: v.Keys[0].Attributes, Object: "0c"}}
	v.Timeline = append(v.Timeline,
		record.Line{Entry: record.Entry{Type: "transferred", Data: []byte(`{"key":{"id":"traveller"},"from":{"safe":"work"},"to":{"safe":"work2"},"wrapped":"` + strings.Repeat("0d", 32) + `"}`)}},
		record.Line{Entry: record.Entry{Type: "removed", Data: []byte(`{"key":"traveller","safe":"work","left":0,"token":{"label":"tok","serial":"1"}}`)}},
		record.Line{Entry: record.Entry{Type: "intent", Data: []byte(`{"effect":"repin","safe":"root2","token":{"label":"tok2","serial":"2"}}`)}, Data: &record.Intent{Effect: "repin"}},
		record.Line{Entry: record.Entry{Type: "of-tomorrow", Data: []byte(`{"some_thing":"new here","count":3}`)}})
	html, err := renderReport(v, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"A key was moved from one token to another", "1 key was moved to another token", ">work2<", strings.Repeat("0d", 32), "Objects destroyed for good", ">tok/1<", "Tokens under new PINs", ">tok2/2<", "count 3, some thing new here", "charter before: 32 statements", "Keys moved, as specified"} {
		if !strings.Contains(string(html), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// A transcript of any length gives a page of bounded length that says what it
// leaves out.
func TestReportIsBounded(t *testing.T) {
	html, err := renderReport(sample("CLOSED", "x", 100_000), nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(html) > 2<<20 {
		t.Errorf("%d bytes", len(html))
	}
	for _, want := range []string{"98009 between them are in", "99700 more are in"} {
		if !strings.Contains(string(html), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

// A folder without a transcript gets no report.
func TestNoReportOfNothing(t *testing.T) {
	dir := t.TempDir()
	if err := WriteReport(dir); err == nil {
		t.Error("a report of nothing")
	}
	if _, err := os.Stat(filepath.Join(dir, record.ReportFile)); err == nil {
		t.Error("it left a file")
	}
}

func TestAnchorsSheet(t *testing.T) {
	words := strings.TrimSpace(strings.Repeat("Zulu liberty ", 16))
	html, err := AnchorsSheet("Genesis", "live", "0123456789abcdef", words, []string{"witness1", hostile})
	if err != nil {
		t.Fatal(err)
	}
	checkMarkup(t, "sheet", html)
	if n := strings.Count(string(html), ">liberty<"); n != 32 || !strings.Contains(string(html), ">LIVE<") || !strings.Contains(string(html), "witness1") {
		t.Errorf("%d words of two sheets", n)
	}
	if _, err := AnchorsSheet("Genesis", "live", "0123456789abcdef", "Zulu", nil); err == nil {
		t.Error("a sheet with one word")
	}
}

// The page says what bound the process of the module, or that it was not kept.
func TestReportShowsTheModuleProcess(t *testing.T) {
	p := &record.Process{Capabilities: "none", Landlock: "version 7", Network: "no interface", NoNewPrivileges: true, Seccomp: "filter", Sockets: "none", User: 1000}
	for text, d := range map[string]*record.Admission{
		"user 1000, capabilities none, seccomp filter, Landlock version 7, sockets none, network no interface": {Safe: "work", Process: p, Envelope: attacked(t)},
		"was not recorded": {Safe: "work", Envelope: attacked(t)},
	} {
		if got := admitted(d); !strings.Contains(got, text) || !strings.HasPrefix(got, "safe work: 0 attacks") {
			t.Errorf("got %q, want it to say %q", got, text)
		}
	}
}

// attacked is the envelope of an empty report.
func attacked(t *testing.T) envelope.Envelope {
	t.Helper()
	_, k, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &admission.Report{Format: admission.Format, World: "rehearsal:abcdefgh", Cases: []admission.Case{}, Capabilities: []string{}, Algorithms: []string{}, Templates: []string{}}
	env, err := envelope.SignJSON(admission.PayloadType, r, k)
	if err != nil {
		t.Fatal(err)
	}
	return *env
}
