package script

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Passage is one thing that happens on a way through the script.
type Passage struct {
	Step    string            `json:"step"`
	Do      string            `json:"do"`
	Outcome string            `json:"outcome"` // done; contingency ID; fault
	Model   map[string]string `json:"model,omitempty"`
}

func (p Passage) String() string {
	out := p.Step + " " + p.Do + " " + p.Outcome
	for _, k := range slices.Sorted(maps.Keys(p.Model)) {
		out += ", " + k + " " + p.Model[k]
	}
	return out
}

// maxWorlds bounds the situations that the ways through a script may lead to
// before one step. Nobody could review a script with more.
const maxWorlds = 4096

// node is a world with the way that led to it.
type node struct {
	world world
	prev  *node
	by    Passage
}

// walker goes every way through a script at once: step by step, it keeps all
// worlds that some way leads to, each with the shortest way to it. A step ends
// done, in a planned contingency, or void; void needs no walk, for the engine
// takes it to VOID whatever the step is. Contingencies are bounded by tries, and
// a world is never walked twice, so it ends.
type walker struct {
	*scope
	verbs map[string]*Verb
}

func (s *Script) walk() error {
	c, start := newScope(s)
	w := &walker{c, verbTable()}
	layer := []*node{{world: start}}
	for _, ph := range s.Phases() {
		for i := range ph.Steps {
			var err error
			if layer, err = w.step(layer, &ph.Steps[i]); err != nil {
				return err
			}
		}
	}
	for _, n := range layer {
		if err := w.finish(n); err != nil {
			return err
		}
	}
	return nil
}

// step leads a layer of worlds through one step.
func (w *walker) step(layer []*node, st *Step) ([]*node, error) {
	var out []*node
	left, begun := map[world]bool{}, map[world]bool{}
	add := func(n *node) {
		if !left[n.world] {
			left[n.world] = true
			out = append(out, n)
		}
	}
	for range max(st.Tries, 0) + 1 { // the first time, and as often again as it may
		var again []*node
		for _, n := range layer {
			if begun[n.world] {
				continue
			}
			begun[n.world] = true
			done, err := w.do(n, st)
			if err != nil {
				return nil, err
			}
			add(done)
			for _, id := range st.Planned {
				c, ok := w.s.ContingencyByID(id)
				if !ok {
					continue
				}
				end, err := w.contingency(n, st, c)
				if err != nil {
					return nil, err
				}
				if c.Then == "next" {
					add(end)
				} else {
					again = append(again, end)
				}
			}
			if len(out)+len(begun) > maxWorlds {
				return nil, w.s.bad(st.path, "step "+st.ID, "can be reached in more than %d situations; plan fewer contingencies or give the model fewer states", maxWorlds)
			}
		}
		layer = again
	}
	return out, nil
}

// contingency goes through the steps of a planned contingency.
func (w *walker) contingency(n *node, st *Step, c *Contingency) (*node, error) {
	n = &node{n.world, n, w.passage(n.world, st, "contingency "+c.ID)}
	for i := range c.Steps {
		var err error
		if n, err = w.do(n, &c.Steps[i]); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (w *walker) passage(x world, st *Step, outcome string) Passage {
	return Passage{st.ID, st.Do, outcome, w.model(x)}
}

// do does a step: it checks what the step needs and makes what it makes.
func (w *walker) do(n *node, st *Step) (*node, error) {
	for _, thing := range slices.Sorted(maps.Keys(st.Requires)) {
		if got := w.state(n.world, "model "+thing); got != st.Requires[thing] {
			return nil, w.fault(n, st, join(st.path, "requires."+thing), "requires %s %s, but on this way it is %s", thing, st.Requires[thing], got)
		}
	}
	x := n.world
	for _, c := range w.verbs[st.Do].Cases {
		if !w.applies(&c, st) {
			continue
		}
		for _, need := range c.Needs {
			if unmet, ok := w.holds(n.world, need, st); !ok {
				return nil, w.fault(n, st, st.path, "%s%s%s", w.subject(st), need.Else, unmet)
			}
		}
		for _, m := range c.Makes {
			for _, slot := range w.of(m.Of, st) {
				x = w.set(x, slot, m.Is)
			}
		}
	}
	for _, thing := range slices.Sorted(maps.Keys(st.Sets)) {
		x = w.set(x, "model "+thing, st.Sets[thing])
	}
	return &node{x, n, w.passage(x, st, "done")}, nil
}

func (w *walker) applies(c *Case, st *Step) bool {
	x, ok := w.s.SafeByName(st.Safe)
	return c.Safe == "" || ok && (c.Safe == "existing") == w.s.IsExisting(x)
}

// holds says whether the slots that a need names are in one of its states, and
// if they are many, which is not.
func (w *walker) holds(x world, need Need, st *Step) (unmet string, ok bool) {
	slots := w.of(need.Of, st)
	if strings.HasPrefix(need.Of, "some ") {
		return "", slices.ContainsFunc(slots, func(slot string) bool { return slices.Contains(need.Is, w.state(x, slot)) })
	}
	for _, slot := range slots {
		if got := w.state(x, slot); !slices.Contains(need.Is, got) {
			if len(slots) > 1 {
				unmet = fmt.Sprintf(" (%s is %s)", slot, got)
			}
			return unmet, false
		}
	}
	return "", true
}

// subject says what a step is about, to begin a sentence with.
func (w *walker) subject(st *Step) string {
	for _, x := range []struct{ what, name string }{{"key", st.Key}, {"certificate", st.Cert}, {"CRL", st.CRL}, {"medium", st.Medium}, {"safe", st.Safe}} {
		if x.name != "" {
			return fmt.Sprintf("%s of %s %s: ", st.Do, x.what, x.name)
		}
	}
	return st.Do + ": "
}

// fault is an error with the way that leads to it.
func (w *walker) fault(n *node, st *Step, path, format string, args ...any) *Error {
	e := w.s.bad(path, "step "+st.ID, format, args...)
	e.Path = append(way(n), w.passage(n.world, st, "fault"))
	return e
}

// way is how a world came about, from the start.
func way(n *node) []Passage {
	var out []Passage
	for ; n.prev != nil; n = n.prev {
		out = append(out, n.by)
	}
	slices.Reverse(out)
	return out
}
