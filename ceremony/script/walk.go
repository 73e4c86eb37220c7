package script

import (
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
	out := []string{p.Step + " " + p.Do + " " + p.Outcome}
	for _, k := range slices.Sorted(maps.Keys(p.Model)) {
		out = append(out, k+" "+p.Model[k])
	}
	return strings.Join(out, ", ")
}

// maxActs bounds the steps that are walked over all ways together: nobody could
// review a script with more, and a check must not take for ever.
const maxActs = 200_000

// node is a world with the way that led to it.
type node struct {
	world world
	prev  *node
	act   *act
	by    string // how the act ended: done, or the contingency that it met
}

// walker goes every way through a script at once: step by step, it keeps all
// worlds that some way leads to, each with the shortest way to it. A step ends
// done, in a planned contingency, or void; void needs no walk, for the engine
// takes it to VOID whatever the step is. Contingencies are bounded by tries, and
// a step is never begun twice in one world, so it ends.
type walker struct {
	*scope
	acts  map[*Step]*act
	count int
}

// walk returns a way to the end, or the fault that it met.
func (s *Script) walk() ([]Passage, error) {
	c, start := newScope(s)
	w := &walker{scope: c, acts: c.compile()}
	layer := []*node{{world: start}}
	for _, ph := range s.Phases() {
		for i := range ph.Steps {
			var err error
			if layer, err = w.step(layer, &ph.Steps[i]); err != nil {
				return nil, err
			}
		}
	}
	for _, n := range layer {
		if err := w.finish(n); err != nil {
			return nil, err
		}
	}
	return w.way(layer[0]), nil
}

// step leads a layer of worlds through one step, the first time and as often
// again as it may.
func (w *walker) step(layer []*node, st *Step) ([]*node, error) {
	var out []*node
	left, begun := map[world]bool{}, map[world]bool{}
	for again := range max(st.Tries, 0) + 1 {
		var more []*node
		for _, n := range layer {
			if begun[n.world] {
				continue
			}
			begun[n.world] = true
			ends, from, err := w.begin(n, st, again < st.Tries)
			if err != nil {
				return nil, err
			}
			more = append(more, from...)
			for _, end := range ends {
				if !left[end.world] {
					left[end.world] = true
					out = append(out, end)
				}
			}
		}
		layer = more
	}
	return out, nil
}

// begin does a step once and says where it ends, and from where it is begun
// again, if it may be.
func (w *walker) begin(n *node, st *Step, mayAgain bool) (ends, again []*node, err error) {
	done, err := w.do(n, st)
	if err != nil {
		return nil, nil, err
	}
	ends = []*node{done}
	for _, c := range w.acts[st].planned {
		if c.Then == "again" && !mayAgain {
			continue // an incident by now
		}
		end, err := w.contingency(n, st, c)
		if err != nil {
			return nil, nil, err
		}
		if c.Then == "next" {
			ends = append(ends, end)
		} else {
			again = append(again, end)
		}
	}
	return ends, again, nil
}

// contingency goes through the steps of a planned contingency.
func (w *walker) contingency(n *node, st *Step, c *Contingency) (*node, error) {
	n = &node{n.world, n, w.acts[st], "contingency " + c.ID}
	for i := range c.Steps {
		var err error
		if n, err = w.do(n, &c.Steps[i]); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// do does a step: it checks what the step needs and makes what it makes.
func (w *walker) do(n *node, st *Step) (*node, error) {
	if w.count++; w.count > maxActs {
		return nil, w.s.bad(st.path, "step "+st.ID, "there are too many ways to get here (%d steps over all of them); plan fewer contingencies, or give the model fewer states", maxActs)
	}
	a := w.acts[st]
	for i := range a.needs {
		if slot := a.needs[i].unmet(n.world); slot >= 0 {
			return nil, w.fault(n, a, &a.needs[i], slot)
		}
	}
	if len(a.makes) == 0 {
		return &node{n.world, n, a, "done"}, nil
	}
	x := []byte(n.world)
	for _, m := range a.makes {
		x[m.slot] = m.state
	}
	return &node{world(x), n, a, "done"}, nil
}

// fault is an error with the way that leads to it.
func (w *walker) fault(n *node, a *act, need *check, slot int) *Error {
	text := need.text
	if len(need.of) > 1 && !need.some {
		text += " (" + w.names[slot] + " is " + w.states[slot][n.world[slot]] + ")"
	}
	e := w.s.bad(need.path, "step "+a.st.ID, "%s", strings.ReplaceAll(text, gotWord, w.states[slot][n.world[slot]]))
	e.Path = append(w.way(n), w.passage(n.world, a, "fault"))
	return e
}

// way is how a world came about, from the start.
func (w *walker) way(n *node) []Passage {
	var out []Passage
	for ; n.prev != nil; n = n.prev {
		out = append(out, w.passage(n.world, n.act, n.by))
	}
	slices.Reverse(out)
	return out
}

func (w *walker) passage(x world, a *act, outcome string) Passage {
	return Passage{a.st.ID, a.st.Do, outcome, w.model(x)}
}
