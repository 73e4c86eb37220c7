package script

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// act is a step with everything looked up, since it is walked over many times.
type act struct {
	st      *Step
	needs   []check
	makes   []change
	planned []*Contingency
}

// check wants the slots of in states that are allowed: all of them, or some one.
type check struct {
	of      []int
	allowed []uint64 // for each slot, a bit for each state
	some    bool
	text    string
	path    string // place of the fault
}

type change struct {
	slot  int
	state byte
}

// gotWord stands in a text for the state that was found.
const gotWord = "\x00"

// unmet is a slot in a wrong state, or -1.
func (c *check) unmet(w world) int {
	for i, slot := range c.of {
		good := c.allowed[i]&(1<<w[slot]) != 0
		if good && c.some {
			return -1
		}
		if !good && !c.some {
			return slot
		}
	}
	if c.some {
		return c.of[0]
	}
	return -1
}

// compile looks up every step of the script.
func (c *scope) compile() map[*Step]*act {
	verbs, out := verbTable(), map[*Step]*act{}
	for _, st := range c.s.allSteps() {
		a := &act{st: st}
		for _, thing := range slices.Sorted(maps.Keys(st.Requires)) {
			text := fmt.Sprintf("requires %s %s, but on this way it is %s", thing, st.Requires[thing], gotWord)
			a.needs = append(a.needs, c.check(Need{"model " + thing, is(st.Requires[thing]), text}, st, join(st.path, "requires."+thing)))
		}
		for _, x := range verbs[st.Do].Cases {
			if !c.applies(&x, st) {
				continue
			}
			for _, need := range x.Needs {
				need.Else = subject(st) + need.Else
				a.needs = append(a.needs, c.check(need, st, st.path))
			}
			for _, m := range x.Makes {
				a.makes = append(a.makes, c.changes(m, st)...)
			}
		}
		for _, thing := range slices.Sorted(maps.Keys(st.Sets)) {
			a.makes = append(a.makes, c.changes(Make{"model " + thing, st.Sets[thing]}, st)...)
		}
		for _, id := range st.Planned {
			if k, ok := c.s.ContingencyByID(id); ok {
				a.planned = append(a.planned, k)
			}
		}
		out[st] = a
	}
	return out
}

func (c *scope) applies(x *Case, st *Step) bool {
	safe, ok := c.s.SafeByName(st.Safe)
	return x.Safe == "" || ok && (x.Safe == StateExisting) == c.s.IsExisting(safe)
}

func (c *scope) check(need Need, st *Step, path string) check {
	out := check{text: need.Else, path: path, some: strings.HasPrefix(need.Of, "some ")}
	for _, name := range c.of(need.Of, st) {
		var allowed uint64
		slot, ok := c.slots[name]
		if !ok { // nothing of that name: never met
			out.of, out.allowed = append(out.of, 0), append(out.allowed, 0)
			continue
		}
		for i, state := range c.states[slot] {
			if slices.Contains(need.Is, state) {
				allowed |= 1 << i
			}
		}
		out.of, out.allowed = append(out.of, slot), append(out.allowed, allowed)
	}
	if out.some && len(out.of) == 0 { // there is none at all: never met
		out.of, out.allowed = []int{0}, []uint64{0}
	}
	return out
}

func (c *scope) changes(m Make, st *Step) []change {
	var out []change
	for _, name := range c.of(m.Of, st) {
		if slot, ok := c.slots[name]; ok {
			out = append(out, change{slot, byte(slices.Index(c.states[slot], m.Is))})
		}
	}
	return out
}

// subject says what a step is about, to begin a sentence with.
func subject(st *Step) string {
	for _, x := range []struct{ what, name string }{{"key", st.Key}, {"certificate", st.Cert}, {"CRL", st.CRL}, {"medium", st.Medium}, {"safe", st.Safe}} {
		if x.name != "" {
			return fmt.Sprintf("%s of %s %s: ", st.Do, x.what, x.name)
		}
	}
	return st.Do + ": "
}
