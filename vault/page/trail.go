package page

import (
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"keyrite/artifact/trail"
)

// trailPath is where the trail is searched.
const trailPath = "keyrite/trail"

// search is a look into the trail, newest first.
type search struct {
	Fields  []field
	Kinds   []option
	Entries []entryOf
	Scanned uint64
	// Complete says that nothing older is left; else Older is where to go on.
	Complete bool
	Older    string
	Asked    bool // for something in particular
}

// field is one line of the form.
type field struct{ Name, Label, Hint, Value string }

// option is one of a list.
type option struct {
	Value string
	Here  bool
}

// entryOf is one entry of the trail with its number.
type entryOf struct {
	Number uint64
	Entry  trail.Entry
}

// fields are what can be searched for, beside the kind.
func fields() []field {
	return []field{
		{Name: "identity", Label: "Identity", Hint: "who asked"},
		{Name: "path", Label: "Path", Hint: "it, and all below: kv/data/line1"},
		{Name: "operation", Label: "Operation", Hint: "such as read, update, login, seal"},
		{Name: "class", Label: "Class of refusal", Hint: "such as policy, peer, interrupted"},
		{Name: "peer", Label: "Address", Hint: "192.0.2.7 or 192.0.2.0/24"},
		{Name: "from", Label: "From", Hint: "2026-11-22T16:00:00Z"},
		{Name: "to", Label: "To", Hint: "2026-11-22T17:00:00Z"},
	}
}

func showTrail(x *look) (any, error) {
	s := &search{Fields: fields()}
	names := []string{"kind", "before"}
	for _, f := range s.Fields {
		names = append(names, f.Name)
	}
	if err := x.only(names...); err != nil {
		return nil, err
	}
	ask, again := map[string]any{}, url.Values{}
	for _, n := range names {
		if v := x.query.Get(n); v != "" { // a form sends what was left empty, too
			ask[n] = v
			again.Set(n, v)
			s.Asked = s.Asked || n != "before"
		}
	}
	for i := range s.Fields {
		s.Fields[i].Value = x.query.Get(s.Fields[i].Name)
	}
	for _, k := range trail.Kinds() {
		s.Kinds = append(s.Kinds, option{string(k), x.query.Get("kind") == string(k)})
	}
	var a struct {
		Entries  []entryOf
		Scanned  uint64
		Complete bool
		Before   uint64
	}
	if err := x.read(trailPath, ask, &a); err != nil {
		return nil, err
	}
	s.Entries, s.Scanned, s.Complete = a.Entries, a.Scanned, a.Complete
	if !a.Complete {
		again.Set("before", strconv.FormatUint(a.Before, 10))
		s.Older = "/trail?" + again.Encode()
	}
	return s, nil
}

// Who says who asked.
func (e entryOf) Who() string {
	switch {
	case e.Entry.Identity != "":
		return e.Entry.Identity
	case e.Entry.Kind == trail.Life:
		return "the vault itself"
	}
	return "somebody who is not known"
}

// More are the members of the entry that are not shown in a line, each as JSON.
func (e entryOf) More() []string {
	var out []string
	for name, m := range map[string]map[string]any{"params": e.Entry.Params, "result": e.Entry.Result} {
		for k, v := range m {
			out = append(out, name+"."+k+" = "+plain(v))
		}
	}
	if e.Entry.Intent != nil {
		out = append(out, "result of entry "+strconv.FormatUint(*e.Entry.Intent, 10))
	}
	if e.Entry.Accessor != "" {
		out = append(out, "accessor = "+e.Entry.Accessor)
	}
	slices.Sort(out)
	return out
}

// plain is a value as JSON for people: templates escape it, so the encoder need not.
func plain(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "…"
	}
	return strings.TrimSuffix(b.String(), "\n")
}
