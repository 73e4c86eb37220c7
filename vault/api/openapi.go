package api

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"
)

// The document is made from the table in operations.go and the Go types named there.
// No router stands between the wire and node, which takes the path as it came: a
// framework that matches and decodes paths by itself would be a second reader of them.

// document is an OpenAPI 3.1 document.
type document struct {
	OpenAPI    string                          `json:"openapi"`
	Info       map[string]string               `json:"info"`
	Servers    []map[string]string             `json:"servers"`
	Paths      map[string]map[string]*describe `json:"paths"`
	Components components                      `json:"components"`
}

type components struct {
	Schemas         map[string]*schema           `json:"schemas"`
	SecuritySchemes map[string]map[string]string `json:"securitySchemes"`
}

// describe is one operation in the document.
type describe struct {
	Summary     string                `json:"summary"`
	OperationID string                `json:"operationId"`
	Tags        []string              `json:"tags"`
	Security    []map[string][]string `json:"security"`
	Parameters  []parameter           `json:"parameters,omitempty"`
	RequestBody *content              `json:"requestBody,omitempty"`
	Responses   map[string]*content   `json:"responses"`
}

type parameter struct {
	Name     string  `json:"name"`
	In       string  `json:"in"`
	Required bool    `json:"required,omitempty"`
	Schema   *schema `json:"schema"`
}

type content struct {
	Description string               `json:"description,omitempty"`
	Content     map[string]mediaType `json:"content,omitempty"`
}

type mediaType struct {
	Schema *schema `json:"schema"`
}

// schema is as much of JSON Schema as our types need.
type schema struct {
	Type                 string             `json:"type,omitempty"`
	Description          string             `json:"description,omitempty"`
	Format               string             `json:"format,omitempty"`
	Items                *schema            `json:"items,omitempty"`
	Properties           map[string]*schema `json:"properties,omitempty"`
	Required             []string           `json:"required,omitempty"`
	AdditionalProperties *schema            `json:"additionalProperties,omitempty"`
}

// schemaOf is the schema of a Go type. A field's "doc" tag says what it is.
func schemaOf(t reflect.Type) *schema {
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.Bool:
		return &schema{Type: "boolean"}
	case reflect.String:
		return &schema{Type: "string"}
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return &schema{Type: "integer"}
	case reflect.Map:
		return &schema{Type: "object", AdditionalProperties: schemaOf(t.Elem())}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return &schema{Type: "string", Format: "byte"}
		}
		return &schema{Type: "array", Items: schemaOf(t.Elem())}
	case reflect.Struct:
		return structSchema(t)
	}
	return &schema{} // anything
}

func structSchema(t reflect.Type) *schema {
	s := &schema{Type: "object", Properties: map[string]*schema{}}
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		p := schemaOf(f.Type)
		p.Description = f.Tag.Get("doc")
		s.Properties[name] = p
		if !strings.Contains(options, "omitempty") {
			s.Required = append(s.Required, name)
		}
	}
	return s
}

// wrapped is the shape of an answer around its data.
func wrapped(data *schema) *schema {
	s := schemaOf(reflect.TypeFor[body]())
	s.Properties["data"] = data
	return s
}

const jsonType = "application/json"

// openAPI answers the document.
func (s *Server) openAPI(*http.Request, url.Values) told {
	return told{status: http.StatusOK, body: openAPIDocument(s.cfg.Version)}
}

func openAPIDocument(version string) *document {
	d := &document{
		OpenAPI: "3.1.0",
		Info:    map[string]string{"title": "keyrite-vault", "version": version, "description": "The subset of HashiCorp Vault's HTTP interface that keyrite-vault speaks, and its own paths."},
		Servers: []map[string]string{{"url": strings.TrimSuffix(prefix, "/")}},
		Paths:   map[string]map[string]*describe{},
		Components: components{
			Schemas: map[string]*schema{"Errors": schemaOf(reflect.TypeFor[Errors]())},
			SecuritySchemes: map[string]map[string]string{
				"token":       {"type": "apiKey", "in": "header", "name": "X-Vault-Token"},
				"certificate": {"type": "mutualTLS"},
			},
		},
	}
	for _, o := range operations() {
		path := "/" + o.Path
		if d.Paths[path] == nil {
			d.Paths[path] = map[string]*describe{}
		}
		d.Paths[path][strings.ToLower(o.Method)] = o.describe()
	}
	return d
}

func (o *operation) describe() *describe {
	x := &describe{
		Summary: o.Summary, OperationID: o.id(), Tags: []string{strings.SplitN(o.Path, "/", 2)[0]},
		Security:  []map[string][]string{{"token": {}}, {"certificate": {}}},
		Responses: map[string]*content{"default": {Description: "refused", Content: map[string]mediaType{jsonType: {schemaOf(reflect.TypeFor[Errors]())}}}},
	}
	if o.Public {
		x.Security = []map[string][]string{}
	}
	for seg := range strings.SplitSeq(o.Path, "/") {
		if name, ok := strings.CutPrefix(seg, "{"); ok {
			x.Parameters = append(x.Parameters, parameter{strings.TrimSuffix(name, "}"), "path", true, &schema{Type: "string"}})
		}
	}
	if o.Request != nil {
		o.request(x)
	}
	o.response(x)
	return x
}

// request says what is sent: in the query where the method has no body.
func (o *operation) request(x *describe) {
	s := schemaOf(reflect.TypeOf(o.Request))
	if o.Method != http.MethodGet && o.Method != http.MethodDelete {
		x.RequestBody = &content{Content: map[string]mediaType{jsonType: {s}}}
		return
	}
	for f := range reflect.TypeOf(o.Request).Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		x.Parameters = append(x.Parameters, parameter{name, "query", false, s.Properties[name]})
	}
}

func (o *operation) response(x *describe) {
	switch {
	case o.Raw != "":
		x.Responses["200"] = &content{Description: "as it is", Content: map[string]mediaType{o.Raw: {&schema{Type: "string"}}}}
	case o.Response == nil:
		x.Responses["204"] = &content{Description: "done"}
	case o.Public:
		x.Responses["200"] = &content{Description: "good", Content: map[string]mediaType{jsonType: {schemaOf(reflect.TypeOf(o.Response))}}}
	default:
		x.Responses["200"] = &content{Description: "good", Content: map[string]mediaType{jsonType: {wrapped(schemaOf(reflect.TypeOf(o.Response)))}}}
	}
}

// id names an operation by method and path.
func (o *operation) id() string {
	r := strings.NewReplacer("{", "", "}", "", "/", "-", "_", "-")
	return strings.ToLower(o.Method) + "-" + r.Replace(o.Path)
}
