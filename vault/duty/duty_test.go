package duty_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/share"
	"keyrite/vault/duty"
	"keyrite/vault/proof"
)

const day = 24 * time.Hour

var now = artifacttest.Now()

func after(d time.Duration) time.Time { return now.Add(d) }

// TestLevels: each kind is soon from its lead on and late from its end on; what lives
// shortly is soon in the last third of its life; what nobody can read is late.
func TestLevels(t *testing.T) {
	for name, c := range map[string]struct {
		thing duty.Thing
		want  duty.Level // "" for nothing to do
	}{
		"far away":                {duty.Thing{Kind: duty.Admission, Ends: after(15 * day)}, duty.Fine},
		"a second before soon":    {duty.Thing{Kind: duty.Admission, Ends: after(14*day + time.Second)}, duty.Fine},
		"soon":                    {duty.Thing{Kind: duty.Admission, Ends: after(14 * day)}, duty.Soon},
		"a second before its end": {duty.Thing{Kind: duty.Admission, Ends: after(time.Second)}, duty.Soon},
		"its end":                 {duty.Thing{Kind: duty.Admission, Ends: now}, duty.Late},
		"long after":              {duty.Thing{Kind: duty.Admission, Ends: after(-1000 * day)}, duty.Late},
		"a day's life, early":     {duty.Thing{Kind: duty.ServerCert, From: after(-12 * time.Hour), Ends: after(12 * time.Hour)}, duty.Fine},
		"a day's life, last":      {duty.Thing{Kind: duty.ServerCert, From: after(-18 * time.Hour), Ends: after(6 * time.Hour)}, duty.Soon},
		"begins at its end":       {duty.Thing{Kind: duty.ServerCert, From: after(day), Ends: after(day)}, duty.Soon},
		"no time at all":          {duty.Thing{Kind: duty.TUFRoot}, duty.Late},
		"not readable":            {duty.Thing{Kind: duty.Bundle, Ends: after(1000 * day), Fault: "cut off"}, duty.Late},
		"delegation before":       {duty.Thing{Kind: duty.Delegation, Ends: after(day)}, duty.Soon},
		"delegation that ended":   {duty.Thing{Kind: duty.Delegation, Ends: now}, ""},
		"break-glass that ended":  {duty.Thing{Kind: duty.BreakGlass, Ends: after(-day)}, ""},
		"ended, and with a fault": {duty.Thing{Kind: duty.Unvouched, Ends: now, Fault: "never"}, ""},
		"break-glass not known":   {duty.Thing{Kind: duty.BreakGlass, Fault: "nobody knows"}, duty.Late},
	} {
		got := duty.Due(duty.Input{Things: []duty.Thing{c.thing}}, now)
		switch {
		case c.want == "" && len(got) == 0:
		case len(got) != 1 || got[0].Level != c.want:
			t.Errorf("%s: %+v, want %q", name, got, c.want)
		}
	}
}

// TestOrder: what is most urgent comes first, and the order does not hang on that of the
// input.
func TestOrder(t *testing.T) {
	things := []duty.Thing{
		{Kind: duty.Bundle, Name: "d", Ends: after(400 * day)},
		{Kind: duty.Bundle, Name: "c", Ends: after(2 * day)},
		{Kind: duty.Bundle, Name: "b", Ends: after(day)},
		{Kind: duty.Bundle, Name: "a2", Ends: after(-day)},
		{Kind: duty.Bundle, Name: "a1", Ends: after(-day)},
		{Kind: duty.Bundle, Name: "0", Fault: "cut off"},
	}
	want := "bundle/0 bundle/a1 bundle/a2 bundle/b bundle/c bundle/d"
	for range 2 {
		var got []string
		items := duty.Due(duty.Input{Things: things}, now)
		for _, x := range items {
			got = append(got, x.ID)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s, want %s", s, want)
		}
		if soon, late := duty.Count(items); soon != 2 || late != 3 {
			t.Errorf("%d soon, %d late", soon, late)
		}
		slices.Reverse(things)
	}
}

// safe is one of need of 5 shares of which these were proven so many days ago; negative
// for never.
func safe(need int, days ...int) proof.Safe {
	s := proof.Safe{Safe: "work", Epoch: 1, Need: need, Of: len(days)}
	a := share.Alive{Need: need, Of: len(days)}
	for i, d := range days {
		h := proof.Holder{Name: fmt.Sprintf("master%d", i+1), Index: i + 1}
		if d >= 0 {
			h.Last = charter.FormatTime(after(-time.Duration(d) * day))
			h.Alive = time.Duration(d)*day <= proof.AliveFor
		}
		if h.Alive {
			a.Proven = append(a.Proven, h.Name)
		}
		s.Holders = append(s.Holders, h)
	}
	s.Alive, s.Level = len(a.Proven), a.Level()
	return s
}

// TestShares: it is late at the threshold and soon one above it, before that by the day
// on which enough proofs lapse; nobody is asked for more shares than there are.
func TestShares(t *testing.T) {
	for name, c := range map[string]struct {
		safe  proof.Safe
		level duty.Level
		due   time.Time
		about string
	}{
		"all of 5":            {safe(3, 1, 1, 1, 1, 1), duty.Fine, after(91 * day), "5 of 5 shares alive, 3 open it"},
		"one of 5 old":        {safe(3, 80, 1, 1, 1, 1), duty.Soon, after(12 * day), ""},
		"4 of 5":              {safe(3, 1, 1, 1, 1, -1), duty.Soon, time.Time{}, "not proven: master5"},
		"3 of 5":              {safe(3, 1, 1, 1, 93, 200), duty.Late, time.Time{}, "not proven: master4, master5"},
		"none of 5":           {safe(3, -1, -1, -1, -1, -1), duty.Late, time.Time{}, ""},
		"6 of 7, 3 open it":   {safe(3, 90, 1, 2, 3, 4, 5, -1), duty.Fine, after(87 * day), ""},
		"all of 3, 2 open it": {safe(2, 1, 2, 3), duty.Fine, after(89 * day), "3 of 3"},
		"2 of 3, 2 open it":   {safe(2, 1, 2, -1), duty.Late, time.Time{}, ""},
		"all of 2, 2 open it": {safe(2, 1, 2), duty.Soon, time.Time{}, ""},
		"nobody holds any":    {safe(2), duty.Soon, time.Time{}, ""},
	} {
		got := duty.Due(duty.Input{Shares: []proof.Safe{c.safe}}, now)
		if len(got) != 1 || got[0].Level != c.level || !got[0].Due.Equal(c.due) || !strings.Contains(got[0].About, c.about) {
			t.Errorf("%s: %+v, want %s, %s", name, got, c.level, c.due)
		}
	}
}

// TestCharter: the charter itself says of certificates, delegations and vendor roots
// when they end.
func TestCharter(t *testing.T) {
	w := artifacttest.New(t)
	w.FoundFactory()
	ca := w.SelfSigned("birth-root")
	w.Approve(charter.TypeMount, charter.Mount{ID: "kv", Engine: "kv"})
	w.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: 1, Rules: []access.Rule{{Path: "kv/data/line1/*", Can: []access.Capability{access.Read}}}})
	w.Approve(charter.TypeIdentity, charter.Identity{ID: "mes", Policies: []string{"line1"}, TTL: 60, Certificate: &charter.Certificate{CA: ca, URI: "spiffe://example.com/mes"}})
	w.Approve(charter.TypeDelegation, charter.Delegation{ID: "night", Identity: "mes", Can: access.Update, Path: "kv/data/line1/x", Uses: 1, Expires: charter.FormatTime(after(5 * day))})
	w.AddHost("vault1")
	w.Approve(charter.TypeUnattended, charter.Unattended{ID: "weekend", Host: "vault1", PCRs: []int{0, 7}, Expires: charter.FormatTime(after(5 * day))})
	got := map[string]duty.Item{}
	for _, x := range duty.Due(duty.Input{Charter: w.State}, now) {
		got[x.ID] = x
	}
	c := w.Parsed(ca)
	if x := got["client-ca/mes"]; !x.Due.Equal(c.NotAfter) || !strings.Contains(x.About, "identity mes") {
		t.Errorf("%+v", x)
	}
	if x := got["delegation/night"]; x.Level != duty.Soon || !strings.Contains(x.About, "mes may update kv/data/line1/x") {
		t.Errorf("%+v", x)
	}
	if x := got["unattended/vault1"]; x.Level != duty.Soon || !strings.Contains(x.About, "host vault1") {
		t.Errorf("%+v", x)
	}
	if x := got["factory-ca/factory1"]; x.Due.IsZero() || x.Level == "" {
		t.Errorf("%+v in %v", x, got)
	}
}

// TestUnvouched: a delegation in force and a break-glass that this vault can never use are
// late, and nothing is said of them where somebody vouches for a time.
func TestUnvouched(t *testing.T) {
	w := artifacttest.New(t)
	w.Approve(charter.TypeMount, charter.Mount{ID: "kv", Engine: "kv"})
	rules := []access.Rule{{Path: "kv/data/line1/*", Can: []access.Capability{access.Read}}}
	w.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: 1, Rules: rules})
	w.Approve(charter.TypeIdentity, charter.Identity{ID: "mes", Policies: []string{"line1"}, TTL: 60, Unix: &charter.Unix{UID: 1001}})
	w.Approve(charter.TypeDelegation, charter.Delegation{ID: "night", Identity: "mes", Can: access.Update, Path: "kv/data/line1/x", Uses: 1, Expires: charter.FormatTime(after(5 * day))})
	w.Approve(charter.TypeBreakGlass, charter.BreakGlass{
		ID: "emergency", Identity: "mes", Delay: 3600, Duration: 600, Rules: rules, People: charter.Set{Need: 2, Members: []string{"master1", "witness1"}},
	})
	told := func(unvouched bool, at time.Time) (ids []string) {
		for _, x := range duty.Due(duty.Input{Charter: w.State, Unvouched: unvouched}, at) {
			if x.Kind == duty.Unvouched {
				ids = append(ids, x.ID)
				if x.Level != duty.Late || !strings.Contains(x.About, "never used") {
					t.Errorf("%+v", x)
				}
			}
		}
		return ids
	}
	for name, c := range map[string]struct {
		got  []string
		want string
	}{
		"vouched":    {told(false, now), ""},
		"unvouched":  {told(true, now), "unvouched/break-glass/emergency unvouched/delegation/night"},
		"it is over": {told(true, after(5*day)), "unvouched/break-glass/emergency"},
	} {
		if got := strings.Join(c.got, " "); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// TestActs: what an act names is there: pages of docs, and commands that some page
// describes.
func TestActs(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*/*.md")
	if err != nil || len(pages) < 20 {
		t.Fatal(pages, err)
	}
	var all strings.Builder
	for _, p := range pages {
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(data)
	}
	page, command := regexp.MustCompile(`docs/[a-z-]+/[a-z-]+\.md`), regexp.MustCompile(`'(keyrite(?:-vault)? [a-z]+ [a-z]+)`)
	for _, k := range []string{
		duty.Issuer, duty.Issued, duty.ClientCA, duty.ServerCert, duty.RelayCert, duty.FactoryCA, duty.VendorRoot, duty.Certificate, duty.Admission, duty.CRL,
		duty.WatchedCRL, duty.Delegation, duty.BreakGlass, duty.Unvouched, duty.Unattended, duty.Password, duty.Rehearsal, duty.TUFRoot, duty.TUFTargets, duty.TUFSnapshot, duty.TUFTimestamp, duty.Bundle,
	} {
		got := duty.Due(duty.Input{Things: []duty.Thing{{Kind: k, Ends: after(day)}}}, now)
		if len(got) != 1 || !page.MatchString(got[0].Act) {
			t.Errorf("%s: %+v", k, got)
			continue
		}
		for _, p := range page.FindAllString(got[0].Act, -1) {
			if _, err := os.Stat(filepath.Join("../..", p)); err != nil {
				t.Errorf("%s: %v", k, err)
			}
		}
		for _, c := range command.FindAllStringSubmatch(got[0].Act, -1) {
			if !strings.Contains(all.String(), c[1]) {
				t.Errorf("%s: no page has %q", k, c[1])
			}
		}
	}
}
