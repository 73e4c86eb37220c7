package script

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxNodes bounds what one script may say: aliases may make a small file large.
const maxNodes = 200_000

// decoder compares a YAML tree with the Go types before it is decoded, since
// only the tree knows lines and columns.
type decoder struct {
	file  string
	marks map[string]Pos
	nodes int
}

// decode reads data into s, strictly.
func (s *Script) decode(data []byte) error {
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return &Error{File: s.file, Text: "the file is empty"}
		}
		return syntaxError(s.file, err)
	}
	var more yaml.Node
	if err := dec.Decode(&more); err == nil {
		return &Error{File: s.file, Pos: Pos{more.Line, max(more.Column, 1)}, Text: "a second document follows the first"}
	} else if !errors.Is(err, io.EOF) {
		return syntaxError(s.file, err)
	}
	d := &decoder{file: s.file, marks: map[string]Pos{}}
	if len(doc.Content) != 1 {
		return &Error{File: s.file, Text: "the file is empty"}
	}
	if err := d.check(doc.Content[0], reflect.TypeFor[Script](), ""); err != nil {
		return err
	}
	if err := doc.Decode(s); err != nil { // what check lets pass decodes
		return syntaxError(s.file, err)
	}
	s.marks = d.marks
	return nil
}

var yamlLineRE = regexp.MustCompile(`line ([0-9]+): ?`)

// syntaxError takes the line out of what the YAML library says; it knows no
// column there.
func syntaxError(file string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	e := &Error{File: file, Text: text}
	if m := yamlLineRE.FindStringSubmatch(text); m != nil {
		e.Line, _ = strconv.Atoi(m[1])
		e.Col = 1
		e.Text = "no good YAML: " + yamlLineRE.ReplaceAllString(text, "")
	}
	return e
}

func (d *decoder) bad(n *yaml.Node, path, format string, args ...any) *Error {
	return &Error{File: d.file, Pos: Pos{n.Line, n.Column}, Where: path, Text: fmt.Sprintf(format, args...)}
}

func (d *decoder) check(n *yaml.Node, t reflect.Type, path string) error {
	d.marks[path] = Pos{n.Line, n.Column}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if d.nodes++; d.nodes > maxNodes {
		return d.bad(n, path, "the script says more than %d things", maxNodes)
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return d.bad(n, path, "has no value; leave the member out")
	}
	switch t.Kind() {
	case reflect.Struct:
		return d.members(n, t, path)
	case reflect.Map:
		return d.entries(n, t, path)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			return d.bad(n, path, "wants a list")
		}
		for i, x := range n.Content {
			if err := d.check(x, t.Elem(), join(path, strconv.Itoa(i))); err != nil {
				return err
			}
		}
		return nil
	}
	return d.scalar(n, t, path)
}

// members checks a mapping against a struct.
func (d *decoder) members(n *yaml.Node, t reflect.Type, path string) error {
	if n.Kind != yaml.MappingNode {
		return d.bad(n, path, "wants members, as in name: value")
	}
	known, fields := membersOf(t)
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := slices.Index(known, key.Value)
		switch {
		case key.Kind != yaml.ScalarNode || key.Value == "<<":
			return d.bad(key, path, "a member has a plain name; merging is not in the language")
		case at < 0:
			err := d.bad(key, path, "unknown member %.40q", key.Value)
			err.Hint = meant(key.Value, known)
			return err
		case seen[key.Value]:
			return d.bad(key, path, "member %s stands twice", key.Value)
		}
		seen[key.Value] = true
		if err := d.check(value, fields[at].Type, join(path, key.Value)); err != nil {
			return err
		}
	}
	return nil
}

// entries checks a mapping with names of the writer's own.
func (d *decoder) entries(n *yaml.Node, t reflect.Type, path string) error {
	if n.Kind != yaml.MappingNode {
		return d.bad(n, path, "wants names with values, as in name: value")
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || !nameRE.MatchString(key.Value) || seen[key.Value] {
			return d.bad(key, path, "%.40q needs a name of its own: a-z, 0-9 and -, at most 32", key.Value)
		}
		seen[key.Value] = true
		if err := d.check(value, t.Elem(), join(path, key.Value)); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) scalar(n *yaml.Node, t reflect.Type, path string) error {
	if n.Kind != yaml.ScalarNode {
		return d.bad(n, path, "wants one value")
	}
	switch {
	case t == reflect.TypeFor[time.Duration]():
		if _, err := time.ParseDuration(n.Value); err != nil {
			return d.bad(n, path, "%.40q is no length of time; write 90s, 10m or 2h", n.Value)
		}
	case t.Kind() == reflect.Bool:
		if n.ShortTag() != "!!bool" || n.Value != "true" && n.Value != "false" {
			return d.bad(n, path, "is true or false, not %.40q", n.Value)
		}
	case t.Kind() == reflect.Int || t.Kind() == reflect.Int64:
		if _, err := strconv.ParseInt(n.Value, 10, 64); err != nil || n.ShortTag() != "!!int" {
			return d.bad(n, path, "wants a whole number, not %.40q", n.Value)
		}
	}
	return nil
}

// membersOf lists the members of a struct by the names they have in a file.
func membersOf(t reflect.Type) ([]string, []reflect.StructField) {
	var names []string
	var fields []reflect.StructField
	for f := range t.Fields() {
		if f.IsExported() {
			names, fields = append(names, f.Tag.Get("yaml")), append(fields, f)
		}
	}
	return names, fields
}

// required says whether a script must state a member.
func required(f reflect.StructField) bool {
	return !strings.Contains(f.Tag.Get("json"), ",omit")
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}
