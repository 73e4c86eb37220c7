package page

import (
	"fmt"

	"keyrite/vault/duty"
)

const duePath = "keyrite/due"

// duePage is what has to be done next, by level.
type duePage struct {
	Items      []duty.Item
	Soon, Late int
}

// Verdict says in words how urgent it is.
func (p *duePage) Verdict() string {
	switch {
	case p.Late > 0:
		return fmt.Sprintf("Late: %d; soon: %d.", p.Late, p.Soon)
	case p.Soon > 0:
		return fmt.Sprintf("Nothing is late; soon: %d.", p.Soon)
	}
	return "Nothing has to be done now."
}

// Class is the style of the verdict.
func (p *duePage) Class() string {
	switch {
	case p.Late > 0:
		return "bad"
	case p.Soon > 0:
		return "wait"
	}
	return "good"
}

// dueGroup are the items of one level.
type dueGroup struct {
	Title, Means, Class string
	Items               []duty.Item
}

// Groups are the items by level, what is most urgent first.
func (p *duePage) Groups() []dueGroup {
	out := []dueGroup{
		{Title: "Late", Means: "It has ended, or nobody can say.", Class: "bad"},
		{Title: "Soon", Means: "It is time to do it.", Class: "wait"},
		{Title: "Fine", Means: "Nothing has to be done yet.", Class: "good"},
	}
	at := map[duty.Level]int{duty.Late: 0, duty.Soon: 1, duty.Fine: 2}
	for _, x := range p.Items {
		g := &out[at[x.Level]]
		g.Items = append(g.Items, x)
	}
	return out
}

func showDue(x *look) (any, error) {
	if err := x.only(); err != nil {
		return nil, err
	}
	var p duePage
	return &p, x.read(duePath, nil, &p)
}
