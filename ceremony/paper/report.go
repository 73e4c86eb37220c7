package paper

import (
	"bufio"
	"cmp"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

//go:embed report.html
var reportHTML string

// Bounds of the page: a transcript may have a million entries.
const (
	maxLines = 1000 // of the timeline, at its beginning and again at its end
	maxRows  = 300  // of every other table
)

// report is what the template shows.
type report struct {
	*record.Verified
	Verdict   string // "good", "wait", "void", "open", "bad"
	Failed    string // why the record does not verify
	Words     []string
	WordsOf   string // the file whose hash they are
	WordsHex  string
	Began     string
	Took      string
	Purpose   string
	Made      []string
	Nobody    []string
	Wrong     []string
	Next      []string
	Left      []string // by a void attempt, and not in the charter
	Roll      []person
	Keys      []keyRow
	Moves     []keyRow
	Tables    []table
	Tokens    []record.Cleanup
	Lines     []line
	LeftOut   int
	Watched   []string
	Masters   []string
	Conductor string
	Approvers []string
}

// person is one row of the people's table.
type person struct {
	Name, Role, Signed, Document, Fingerprint string
	Missing                                   bool
}

// keyRow is a key with its specification and what the token says.
type keyRow struct {
	record.KeyMade
	Purpose string
	Differs int    // attributes that are not as specified
	Device  string // that attested it, or ""
}

// table is a part of the report that is made from entries of one kind.
type table struct {
	ID, Title, Text string
	Head            []string
	Rows            [][]string
	LeftOut         int
}

type line struct {
	Seq                    int64
	Time, Step, Type, Text string
	Bad                    bool
}

// WriteReport renders report.html in the record folder dir, replacing an older
// one. A record that does not verify gets a report that says so.
func WriteReport(dir string) error {
	v, err := record.VerifyOwn(os.DirFS(dir))
	if v == nil {
		// A void ceremony has no anchors; read it for what it is.
		v, err = record.Read(os.DirFS(dir))
	}
	if v == nil {
		return err
	}
	var left []string
	if st, stErr := ceremony.ReadState(dir); stErr == nil {
		left = st.TellLeft(dir)
	}
	html, err := renderReport(v, loadScript(dir, v), left, err)
	if err != nil {
		return err
	}
	return durable.Replace(filepath.Join(dir, record.ReportFile), html, 0o644)
}

// loadScript reads the script in the record, nil if it is not the one that ran
// or is of a version that this program does not read.
func loadScript(dir string, v *record.Verified) *script.Script {
	data, err := intake.Read(filepath.Join(dir, record.ScriptFile), script.MaxBytes)
	if err != nil {
		return nil
	}
	s, err := script.Parse(record.ScriptFile, data)
	if err != nil || s.Hash() != v.Open.ScriptHash {
		return nil
	}
	return s
}

func renderReport(v *record.Verified, s *script.Script, left []string, verr error) ([]byte, error) {
	r := &report{Verified: v, Verdict: verdict(v, verr), Left: left}
	if verr != nil {
		r.Failed = verr.Error()
	}
	r.gather(s)
	r.tell()
	var b strings.Builder
	w := bufio.NewWriter(&b)
	h := head{Title: v.Open.Title + " – " + v.State, World: string(v.Open.World), Footer: "record " + v.Open.Record + " script " + short(v.Open.ScriptHash, 40)}
	if err := writePage(w, "report", page{h, r}, reportHTML); err != nil {
		return nil, err
	}
	if err := w.Flush(); err != nil {
		return nil, fault.Errorf(fault.Unexpected, "render report: %w", err)
	}
	return []byte(b.String()), nil
}

// verdict is the one word that the first page begins with.
func verdict(v *record.Verified, err error) string {
	switch {
	case err == nil && len(v.Missing) == 0:
		return "good"
	case err == nil, fault.ClassOf(err) == fault.Quorum:
		return "wait"
	case fault.ClassOf(err) != fault.Void:
		return "bad"
	case v.State == "VOID":
		return "void"
	}
	return "open"
}

// gather takes what the page shows out of the timeline, each list bounded.
func (r *report) gather(s *script.Script) {
	purposes := map[string]string{}
	if s != nil {
		r.Purpose = s.Purpose
		for _, k := range s.Keys {
			purposes[k.ID] = k.Purpose
		}
	}
	for _, k := range r.Verified.Keys[:min(len(r.Verified.Keys), maxRows)] {
		row := rowOf(k, purposes[k.Key.ID])
		if a, ok := r.Attested[k.Key.ID]; ok {
			row.Device = fmt.Sprintf("%s, serial %s, firmware %s, vendor root %s", a.Model, a.Device, a.Firmware, a.Root)
		}
		r.Keys = append(r.Keys, row)
	}
	for _, m := range r.Moved[:min(len(r.Moved), maxRows)] {
		key := m.Key
		key.Token = m.To.Token
		r.Moves = append(r.Moves, rowOf(record.KeyMade{Attributes: m.Arrived, Key: key, Object: m.Object}, "moved from token "+m.From.Token.Label+", as a fresh process read it after it arrived"))
	}
	documents, prints := map[string]string{}, map[string]string{}
	t := newTables()
	for i := range r.Timeline {
		l := &r.Timeline[i]
		switch d := l.Data.(type) {
		case *record.Words:
			r.Words, r.WordsOf = strings.Fields(d.Words), d.What
		case *record.Cleanup:
			r.Tokens = append(r.Tokens, *d)
		case *record.Documents:
			r.documents(d, documents)
		case *record.Identified:
			prints[d.Name] = d.Fingerprint
		case *record.Output:
			if d.Path == record.OutputsDir+"/anchors.json" {
				r.WordsHex = d.SHA256
			}
		}
		t.add(l)
		if i < maxLines || i >= len(r.Timeline)-maxLines {
			r.Lines = append(r.Lines, line{l.Seq, l.Time, l.Step, l.Type, summary(l), l.Type == "incident" || l.Type == "miss"})
		}
	}
	r.Tables = t.filled()
	r.LeftOut = max(0, len(r.Timeline)-2*maxLines)
	r.Roll = roll(r.Verified)
	for i := range r.Roll {
		p := &r.Roll[i]
		p.Document, p.Fingerprint = documents[p.Name], prints[p.Name]
		switch p.Role {
		case charter.RoleConductor:
			r.Conductor = p.Name
		case charter.RoleKeyMaster:
			r.Masters = append(r.Masters, p.Name)
		case charter.RoleWitness:
			r.Watched = append(r.Watched, p.Name)
		case charter.RoleApprover:
			r.Approvers = append(r.Approvers, p.Name)
		}
	}
	r.times()
}

// rowOf counts what is not as specified.
func rowOf(k record.KeyMade, purpose string) keyRow {
	row := keyRow{KeyMade: k, Purpose: purpose}
	for _, a := range k.Attributes {
		if a.Got != a.Wanted {
			row.Differs++
		}
	}
	return row
}

func (r *report) times() {
	if len(r.Timeline) == 0 {
		return
	}
	last := r.Timeline[len(r.Timeline)-1]
	r.Began = r.Timeline[0].Time
	r.Took = (time.Duration(last.Mono) * time.Millisecond).Round(time.Second).String()
}

func (r *report) documents(d *record.Documents, seen map[string]string) {
	var body record.DocumentsSeen
	if json.Unmarshal(d.Envelope.Payload, &body) == nil {
		maps.Copy(seen, body.Seen)
	}
}

// roll lists who was there and what each signed of the end.
func roll(v *record.Verified) []person {
	var out []person
	for name, role := range v.Roles {
		p := person{Name: name, Role: role, Missing: slices.Contains(v.Missing, name)}
		switch {
		case v.State != "CLOSED":
			p.Signed = "nothing to sign"
		case role == charter.RoleConductor:
			p.Signed = "signed as conductor"
		case slices.Contains(v.Cosigners, name):
			p.Signed = "cosigned"
		case p.Missing:
			p.Signed = "not yet"
		default:
			p.Signed = "not needed"
		}
		out = append(out, p)
	}
	order := []string{charter.RoleConductor, charter.RoleOperator, charter.RoleKeyMaster, charter.RoleWitness, charter.RoleApprover}
	slices.SortFunc(out, func(a, b person) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Role), slices.Index(order, b.Role)), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// short cuts hex for a table.
func short(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return s[:n] + "…"
}

// admitted says what admits a token in one line.
func admitted(d *record.Admission) string {
	rep, err := admission.Unverified(&d.Envelope) // whoever renders a page has verified the record, or says that it does not hold
	if err != nil {
		return "safe " + d.Safe
	}
	text := "safe " + d.Safe + ": " + strconv.Itoa(len(rep.Cases)) + " attacks refused on " + rep.Made + "; admitted for " + strings.Join(rep.Algorithms, ", ")
	return text + "; " + bounds(d.Process)
}

// bounds says what the kernel held the module's process to.
func bounds(p *record.Process) string {
	if p == nil {
		return "what bound the module's process was not recorded"
	}
	return "module process: user " + strconv.Itoa(p.User) + ", capabilities " + p.Capabilities + ", seccomp " + p.Seccomp + ", Landlock " + p.Landlock +
		", sockets " + p.Sockets + ", network " + p.Network + ", no new privileges, no core files"
}

// summary is one entry in one line.
func summary(l *record.Line) string {
	switch d := l.Data.(type) {
	case *record.Begin:
		return d.Title
	case *record.State:
		return join(d.State, d.Cause)
	case *record.Confirm:
		return d.Who + ": " + d.Prompt + " " + d.Answer
	case *record.Miss:
		return d.Who + ": wrong " + d.What + ", try " + strconv.Itoa(d.Try) + " of " + strconv.Itoa(d.Of)
	case *record.KeyMade:
		return d.Key.ID + " " + d.Stage + ", object " + d.Object
	case *record.Admission:
		return admitted(d)
	case *record.Dealt:
		return "safe " + d.Epoch.Safe + ", epoch " + strconv.Itoa(d.Epoch.Epoch) + ": " + strconv.Itoa(len(d.Epoch.Shares)) + " shares, " + strconv.Itoa(d.Epoch.Need) + " open it"
	case *record.Incident:
		return d.By + ": " + d.Reason
	case *record.End:
		return join(d.State, d.Cause)
	}
	return facts(l.Entry.Data)
}

func join(a, b string) string {
	if b == "" {
		return a
	}
	return a + ": " + b
}

// facts writes any entry in one line: its short members by name. It serves the
// types that have no line of their own, also those of a later version.
func facts(raw json.RawMessage) string {
	var m map[string]any
	if json.Unmarshal(raw, &m) != nil {
		return ""
	}
	var out []string
	for _, k := range slices.Sorted(keysOf(m)) {
		if text := fact(m[k]); text != "" {
			out = append(out, strings.ReplaceAll(k, "_", " ")+" "+text)
		}
	}
	return short(strings.Join(out, ", "), 300)
}

func fact(v any) string {
	switch x := v.(type) {
	case string:
		if _, err := hex.DecodeString(x); err == nil && len(x) > 16 {
			return short(x, 16)
		}
		if !strings.Contains(x, " ") { // a signature, or another thing for programs
			return short(x, 48)
		}
		return short(x, 120)
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(x)
	case []any:
		var out []string
		for _, e := range x {
			if s, ok := e.(string); ok {
				out = append(out, s)
			}
		}
		return strings.Join(out, " ")
	case map[string]any:
		if _, signed := x["payloadType"]; signed {
			return "signed"
		}
		if label, ok := x["label"].(string); ok { // a token
			serial, _ := x["serial"].(string)
			return strings.TrimSuffix(label+"/"+serial, "/")
		}
		for _, name := range []string{"id", "safe"} { // a key, a place
			if s, ok := x[name].(string); ok {
				return s
			}
		}
	}
	return ""
}

func keysOf(m map[string]any) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
