package paper

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/ceremony/script"
)

// Person is a participant as the binding names him.
type Person struct {
	Name        string
	Role        string // as in the charter
	Group       string // of key masters, "" without one
	Fingerprint string // hex SHA-256 of the person file
}

// Input is what script and kit are made from. World, People and BindHash are
// empty where there is no binding yet; the paper then has places to fill in.
type Input struct {
	Script   *script.Script
	World    string
	People   []Person
	BindHash string
}

// seat is a place at the table: a person, or a place for one.
type seat struct {
	Person
	Label string // "key master 3"
}

// Known says whether somebody is named for the seat.
func (s seat) Known() bool { return s.Name != "" }

// Who is the name, or the place.
func (s seat) Who() string {
	if s.Known() {
		return s.Name
	}
	return s.Label
}

// roleWord is a role for people.
func roleWord(role string) string { return strings.ReplaceAll(role, "-", " ") }

// demand is how many of a role, of a group, take part.
type demand struct {
	role, group string
	n           int
}

// demands lists who must be there, in the order in which they are called.
func demands(s *script.Script) []demand {
	r := s.Roles
	out := []demand{{charter.RoleConductor, "", r.Conductor}, {charter.RoleOperator, "", r.Operator}, {charter.RoleKeyMaster, "", r.KeyMasters.Of}}
	seen := map[string]bool{"": true}
	for _, x := range s.Safes {
		if seen[x.Group] {
			continue
		}
		seen[x.Group] = true
		n := x.Of
		if n == 0 {
			n = r.KeyMasters.Of
		}
		out = append(out, demand{charter.RoleKeyMaster, x.Group, n})
	}
	return append(out, demand{charter.RoleWitness, "", r.Witnesses}, demand{charter.RoleApprover, "", r.Approvers.Of}, demand{"auditor", "", r.Auditors})
}

// seats puts the people of the binding on the seats of the script: first those
// whose group is named, then the others in the order of the binding.
func (in *Input) seats() []seat {
	var out []seat
	for _, d := range demands(in.Script) {
		for i := range d.n {
			label := roleWord(d.role)
			if d.n > 1 {
				label = fmt.Sprintf("%s %d", label, i+1)
			}
			if d.group != "" {
				label += " (" + d.group + ")"
			}
			out = append(out, seat{Person: Person{Role: d.role, Group: d.group}, Label: label})
		}
	}
	for _, p := range in.People {
		if i := in.place(out, p); i >= 0 {
			out[i].Name, out[i].Fingerprint = p.Name, p.Fingerprint
		}
	}
	return out
}

// place finds a free seat, -1 if there is none.
func (in *Input) place(seats []seat, p Person) int {
	free := func(group bool) int {
		return slices.IndexFunc(seats, func(s seat) bool {
			return !s.Known() && s.Role == p.Role && (s.Group == p.Group || !group && p.Group == "")
		})
	}
	if i := free(true); i >= 0 {
		return i
	}
	return free(false)
}

// Check says whether everybody whom the binding names has a seat in the script.
// Seats may be empty: paper is printed before everybody is found.
func (in *Input) Check() error {
	seated := map[string]bool{}
	for _, s := range in.seats() {
		seated[s.Name] = true
	}
	for _, p := range in.People {
		if !seated[p.Name] {
			return fault.Hint(fault.Errorf(fault.Quorum, "%.40q is named as %.40s, and the script has no place left for one", p.Name, roleWord(p.Role)),
				"compare the people of the binding with the roles of the script")
		}
	}
	return nil
}

// row is one step on paper.
type row struct {
	*script.Step
	Who, Does, See string
	Minutes        int  // estimate, or the limit where the script has none
	AtMost         bool // Minutes is the limit
	Total          int  // running, in minutes
	Requires, Sets []string
	Signers        []string // who confirms, by name or seat
}

// phase is a part of the day.
type phase struct {
	Name, Text string
	Rows       []row
}

// sheet is a contingency on a page of its own.
type sheet struct {
	No    int
	ID    string
	When  string
	Then  string
	Steps []row
	Used  []string // steps at which it is planned
}

// plan is the day as the paper shows it.
type plan struct {
	Phases []phase
	Sheets []sheet
	Seats  []seat
	Steps  int
	Total  int
	AtMost bool // some step has no estimate
}

var phaseTexts = map[string][2]string{
	"summon": {"Summon", "Before ARMED. Nothing here is an incident: test everything, and put right what does not work."},
	"run":    {"Run", "From here on the ceremony is ARMED. Whatever is not in this script voids it. Anybody may say INCIDENT at any time."},
	"seal":   {"Seal", "What was made is stored, proven and written out. An incident still voids everything."},
}

func (in *Input) plan() *plan {
	s := in.Script
	p := &plan{Seats: in.seats()}
	for _, ph := range s.Phases() {
		t := phaseTexts[ph.Name]
		part := phase{Name: t[0], Text: t[1]}
		for i := range ph.Steps {
			r := p.row(s, &ph.Steps[i])
			p.Total += r.Minutes
			p.AtMost = p.AtMost || r.AtMost
			p.Steps++
			r.Total = p.Total
			part.Rows = append(part.Rows, r)
		}
		p.Phases = append(p.Phases, part)
	}
	for i, c := range s.Contingencies {
		sh := sheet{No: i + 1, ID: c.ID, When: causeText(c.On), Then: "the step is left out and the ceremony goes on with the next"}
		if c.Then == "again" {
			sh.Then = "the step is begun again, from its first line"
		}
		total := 0
		for j := range c.Steps {
			r := p.row(s, &c.Steps[j])
			total += r.Minutes
			r.Total = total
			sh.Steps = append(sh.Steps, r)
		}
		for _, ph := range p.Phases {
			for _, r := range ph.Rows {
				for _, id := range r.Planned {
					if id == c.ID {
						sh.Used = append(sh.Used, r.ID)
					}
				}
			}
		}
		p.Sheets = append(p.Sheets, sh)
	}
	return p
}

func (p *plan) row(s *script.Script, st *script.Step) row {
	t := textOf(s, st)
	r := row{Step: st, Who: t.who, Does: t.does, See: t.see, Minutes: st.Minutes}
	if r.Minutes == 0 {
		r.Minutes, r.AtMost = int(st.Limit/time.Minute), true
	}
	for thing, state := range st.Requires {
		r.Requires = append(r.Requires, thing+" "+state)
	}
	for thing, state := range st.Sets {
		r.Sets = append(r.Sets, thing+" "+state)
	}
	slices.Sort(r.Requires)
	slices.Sort(r.Sets)
	for _, role := range st.Confirm {
		for _, seat := range p.Seats {
			if seat.Role == role {
				r.Signers = append(r.Signers, seat.Who())
			}
		}
	}
	return r
}

// Sheet returns the number of the sheet of a planned contingency.
func (p *plan) Sheet(id string) int {
	for _, s := range p.Sheets {
		if s.ID == id {
			return s.No
		}
	}
	return 0
}

// clock writes minutes as hours and minutes.
func clock(minutes int) string { return fmt.Sprintf("%d:%02d", minutes/60, minutes%60) }

// limit writes a time limit as people say it.
func limit(d time.Duration) string {
	if d%time.Minute != 0 {
		return d.String()
	}
	return fmt.Sprintf("%d min", d/time.Minute)
}
