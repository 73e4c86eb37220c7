// Package paper renders what people read: the report of a ceremony.
//
// The report is made from the record alone and is not evidence: keyrite-verify
// reads the record, never the report. It needs no script, font or picture from
// outside. It must never show anything that is not in the record.
package paper

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"html/template"
	"os"
	"path/filepath"

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
	Names  []string // of keys
	Lines  []line
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
	p := page{Verified: v, Good: err == nil || fault.ClassOf(err) == fault.Quorum}
	if err != nil {
		p.Failed = err.Error()
	}
	for _, l := range v.Timeline {
		p.Lines = append(p.Lines, line{l.Seq, l.Time, l.Step, l.Type, summary(l.Data)})
		if w, ok := l.Data.(*record.Words); ok {
			p.Words = w.Words
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
