package script

import (
	_ "embed"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/anchor"
)

// types.go is read for its comments: what stands in the editor is what stands in
// the code.
//
//go:embed types.go
var typesSource string

// object is a JSON object of a schema.
type object = map[string]any

// Schema is the language as JSON Schema (draft 2020-12), for editors. It says
// what a script may look like; only Lint says whether it is a good one.
func Schema() ([]byte, error) {
	docs, err := comments()
	if err != nil {
		return nil, err
	}
	b := &schemaBuilder{docs: docs, defs: object{}}
	root := b.object(reflect.TypeFor[Script]())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "keyrite ceremony script, version 1"
	root["$defs"] = b.defs
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		return nil, &Error{File: "schema", Text: err.Error()}
	}
	return append(out, '\n'), nil
}

// comments are those of the types ("Step") and their members ("Step.Limit").
func comments() (map[string]string, error) {
	f, err := parser.ParseFile(token.NewFileSet(), "types.go", typesSource, parser.ParseComments)
	if err != nil {
		return nil, &Error{File: "types.go", Text: err.Error()}
	}
	out := map[string]string{}
	flat := func(g *ast.CommentGroup) string { return strings.Join(strings.Fields(g.Text()), " ") }
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		for _, spec := range g.Specs {
			t := spec.(*ast.TypeSpec)
			out[t.Name.Name] = flat(g.Doc)
			s, ok := t.Type.(*ast.StructType)
			if !ok {
				continue
			}
			for _, field := range s.Fields.List {
				for _, name := range field.Names {
					out[t.Name.Name+"."+name.Name] = flat(field.Comment)
				}
			}
		}
	}
	return out, nil
}

type schemaBuilder struct {
	docs map[string]string
	defs object
}

// object is the schema of a struct.
func (b *schemaBuilder) object(t reflect.Type) object {
	props, need := object{}, []string{}
	names, fields := membersOf(t)
	for i, name := range names {
		p := b.value(fields[i].Type)
		maps.Copy(p, words(t.Name()+"."+fields[i].Name))
		if doc := b.docs[t.Name()+"."+fields[i].Name]; doc != "" {
			p["description"] = doc
		}
		if props[name] = p; required(fields[i]) {
			need = append(need, name)
		}
	}
	out := object{"type": "object", "additionalProperties": false, "properties": props, "description": b.docs[t.Name()]}
	if len(need) > 0 {
		out["required"] = need
	}
	if t == reflect.TypeFor[Step]() {
		out["allOf"] = arguments()
	}
	return out
}

func (b *schemaBuilder) value(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return object{"type": "string", "pattern": `^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`}
	case t.Kind() == reflect.Struct:
		if b.defs[t.Name()] == nil {
			b.defs[t.Name()] = object{} // a struct that holds itself would not end
			b.defs[t.Name()] = b.object(t)
		}
		return object{"$ref": "#/$defs/" + t.Name()}
	case t.Kind() == reflect.Slice:
		return object{"type": "array", "items": b.value(t.Elem())}
	case t.Kind() == reflect.Map:
		return object{"type": "object", "additionalProperties": b.value(t.Elem()), "propertyNames": object{"pattern": nameRE.String()}}
	case t.Kind() == reflect.Bool:
		return object{"type": "boolean"}
	case t.Kind() == reflect.String:
		return object{"type": "string"}
	}
	return object{"type": "integer"}
}

// words are what a member may say, where that is a closed list or has a form.
func words(member string) object {
	var kinds, causes, algorithmsOf []string
	for _, k := range Kinds() {
		kinds = append(kinds, k.Name)
	}
	for _, c := range Causes() {
		causes = append(causes, c.Name)
	}
	for _, d := range anchor.Domains() {
		algorithmsOf = append(algorithmsOf, algorithms(d)...)
	}
	slices.Sort(algorithmsOf)
	name, hash := object{"pattern": nameRE.String()}, object{"pattern": hashRE.String()}
	return map[string]object{
		"Script.Format": {"const": Format}, "Script.Kind": {"enum": kinds},
		"Pins.Keyrite": hash, "Pins.HSMD": hash, "Pins.Module": hash,
		"Environment.Network": {"enum": []string{"down", "any"}}, "Environment.Swap": {"enum": []string{"off", "any"}},
		"Safe.Name": name, "Safe.Token": name, "Safe.Group": name, "Safe.State": {"enum": []string{StateFresh, StateExisting}},
		"Key.ID": name, "Key.Domain": {"enum": anchor.Domains()}, "Key.Algorithm": {"enum": slices.Compact(algorithmsOf)},
		"Contingency.On": {"enum": causes}, "Contingency.Then": {"enum": []string{"again", "next"}},
		"CRL.Days": {"minimum": 1, "maximum": maxCRLDays}, "CRL.Number": {"minimum": 1}, "Revoked.Reason": {"enum": crlReasons()}, "Revoked.Serial": {"pattern": serialRE.String()},
		"Succession.Reason": {"enum": successionReasons()},
		"Step.ID":           {"anyOf": []object{{"pattern": stepRE.String()}, {"pattern": plannedRE.String()}}},
		"Step.Do":           {"enum": slices.Sorted(maps.Keys(verbTable()))}, "Step.Tries": {"minimum": 1, "maximum": maxTries}, "Step.Minutes": {"minimum": 0},
		"Step.Confirm": {"items": object{"type": "string", "enum": roleNames()}},
	}[member]
}

// arguments say which verb needs which members, and that it takes no others.
func arguments() []object {
	var all []string
	for _, v := range Verbs() {
		all = append(all, v.Args...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	var out []object
	for _, v := range Verbs() {
		none := object{}
		for _, a := range all {
			if !slices.Contains(v.Args, a) {
				none[a] = false
			}
		}
		then := object{"properties": none}
		if len(v.Args) > 0 {
			then["required"] = v.Args
		}
		out = append(out, object{"if": object{"properties": object{"do": object{"const": v.Name}}}, "then": then})
	}
	return out
}
