// Package paper renders what people read: the report of a ceremony.
//
// The report is made from the record alone and is not evidence: keyrite-verify
// reads the record, never the report. It needs no script, font or picture from
// outside. It must never show anything that is not in the record.
package paper

import (
	"bytes"
	"cmp"
	_ "embed"
	"encoding/json"
	"html/template"
	"os"
	"path/filepath"
	"slices"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/internal/durable"
)

//go:embed report.html
var reportHTML string

// page is what the template shows.
type page struct {
	*record.Verified
	Words  string
	Failed string // why the record does not verify, "" if it does
	Good   bool
	Roll   []person
	Clean  []record.Cleanup
	Lines  []line
}

// person is one row of the people's table.
type person struct {
	Name, Role, Signed string
	Missing            bool
}

// roll lists who was there and what each signed of the end.
func roll(v *record.Verified) []person {
	var out []person
	for name, role := range v.Roles {
		p := person{Name: name, Role: role, Missing: slices.Contains(v.Missing, name)}
		switch {
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
	order := []string{charter.RoleConductor, charter.RoleKeyMaster, charter.RoleWitness, charter.RoleApprover}
	slices.SortFunc(out, func(a, b person) int {
		return cmp.Or(cmp.Compare(slices.Index(order, a.Role), slices.Index(order, b.Role)), cmp.Compare(a.Name, b.Name))
	})
	return out
}

type line struct {
	Seq                    int64
	Time, Step, Type, Text string
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
	p := page{Verified: v, Good: err == nil || fault.ClassOf(err) == fault.Quorum, Roll: roll(v)}
	if err != nil {
		p.Failed = err.Error()
	}
	for _, l := range v.Timeline {
		p.Lines = append(p.Lines, line{l.Seq, l.Time, l.Step, l.Type, summary(l.Data)})
		switch d := l.Data.(type) {
		case *record.Words:
			p.Words = d.Words
		case *record.Cleanup:
			p.Clean = append(p.Clean, *d)
		}
	}
	html, err := render(p)
	if err != nil {
		return err
	}
	return durable.Replace(filepath.Join(dir, record.ReportFile), html, 0o644)
}

func render(p page) ([]byte, error) {
	t, err := template.New("report").Parse(reportHTML)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "report template: %w", err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, p); err != nil {
		return nil, fault.Errorf(fault.Unexpected, "render report: %w", err)
	}
	return b.Bytes(), nil
}

// summary is one entry in one line.
func summary(d record.Data) string {
	switch d := d.(type) {
	case *record.Begin:
		return d.Title
	case *record.State:
		return join(d.State, d.Cause)
	case *record.Confirm:
		return d.Who + ": " + d.Prompt + " " + d.Answer
	case *record.Miss:
		return d.Who + ": wrong " + d.What
	case *record.Identified:
		return d.Name + ", " + d.Role
	case *record.KeyMade:
		return d.Key.ID + " " + d.Stage
	case *record.Certificate:
		return d.ID + " for " + d.Subject
	case *record.Statement:
		return d.Type
	case *record.Incident:
		return d.By + ": " + d.Reason
	case *record.Output:
		return d.Path
	case *record.Possession:
		return d.Key
	case *record.Receipt:
		return d.Holder + ", safe " + d.Safe
	case *record.End:
		return join(d.State, d.Cause)
	}
	b, err := json.Marshal(d)
	if err != nil || len(b) > 160 {
		return ""
	}
	return string(b)
}

func join(a, b string) string {
	if b == "" {
		return a
	}
	return a + ": " + b
}
