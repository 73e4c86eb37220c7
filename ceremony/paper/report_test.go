package paper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/record"
)

// Names and reasons from outside are text in the page, never markup.
func TestReportEscapes(t *testing.T) {
	v := &record.Verified{State: "VOID", Cause: "<script>x</script>", Roles: map[string]string{"witness1": charter.RoleWitness, "conductor": charter.RoleConductor}}
	v.Open.Title = `"><img src=x>`
	v.Incidents = []record.Incident{{By: "<b>", Reason: "<i>"}}
	html, err := render(page{Verified: v, Roll: roll(v), Failed: "<u>", Clean: []record.Cleanup{{Safe: "root", Left: -1, Tainted: "never use this token again"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"<script", "<img", "<b>&lt;", "<i>", "<u>", "http:", "https:", "src="} {
		if strings.Contains(strings.ReplaceAll(string(html), "&#34;&gt;&lt;img src=x&gt;", ""), bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	for _, want := range []string{"never use this token again", "unknown", "REHEARSAL"} {
		if !strings.Contains(string(html), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if i, j := strings.Index(string(html), ">conductor<"), strings.Index(string(html), ">witness1<"); i < 0 || j < i {
		t.Error("people are not in the order of their roles")
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
