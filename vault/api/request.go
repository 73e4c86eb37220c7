package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"keyrite/artifact/fault"
	"keyrite/internal/redact"
	"keyrite/vault/engine"
	"keyrite/vault/node"
)

// prefix begins the path of everything.
const prefix = "/v1/"

// maxDepth bounds the nesting of JSON in a body.
const maxDepth = 64

// errBusy says that too much is being read for others at the moment.
var errBusy = fault.New(fault.Sealed, "too many requests are being read: ask again in a moment")

// call is a node's Call, and what its body takes of the budget.
type call struct {
	node.Call
	size int64
}

// target splits the request's target as it came: nothing of the path is decoded.
func target(r *http.Request) (path string, query url.Values, err error) {
	raw, tail, _ := strings.Cut(r.RequestURI, "?")
	path, ok := strings.CutPrefix(raw, prefix)
	if !ok {
		return "", nil, fault.Errorf(fault.Usage, "%w: everything is under %s", engine.ErrNoPath, prefix)
	}
	query, err = url.ParseQuery(tail)
	if err != nil {
		return "", nil, fault.New(fault.Usage, "the query is not in the usual spelling")
	}
	return path, query, nil
}

// read makes the call of a request. What is wrong with it stands in the call.
func (s *Server) read(w http.ResponseWriter, r *http.Request, raw string, query url.Values) *call {
	c := &call{Call: node.Call{RawPath: raw, Peer: Peer(r)}}
	if err := c.header(r, query); err != nil {
		c.Fault = err
		return c
	}
	var body []byte
	var err error
	body, c.size, err = s.body(w, r, c.bodyLimit())
	if err == nil {
		c.Params, err = params(asked(r.Header, body), query)
	}
	c.Fault = err
	c.unrepeat()
	return c
}

// asked makes the parameter "request" of a body that is no JSON: a question about a
// certificate (RFC 6960, appendix A.1).
func asked(h http.Header, body []byte) []byte {
	if kind, _, _ := mime.ParseMediaType(h.Get("Content-Type")); kind != "application/ocsp-request" {
		return body
	}
	return fmt.Appendf(nil, `{"request":%q}`, base64.StdEncoding.EncodeToString(body))
}

// unrepeat drops what clients say twice: the name that stands in the path. Another one
// than there is left, for the engine to refuse.
func (c *call) unrepeat() {
	name, err := c.Params.String("name")
	if err != nil || !c.Params.Has("name") {
		return
	}
	if _, rest, _ := strings.Cut(c.RawPath, "/"); slices.Contains(strings.Split(rest, "/"), name) {
		delete(c.Params, "name")
	}
}

// header reads the method and the headers that mean something.
func (c *call) header(r *http.Request, query url.Values) error {
	secret, err := token(r.Header)
	if err != nil {
		return err
	}
	c.Token = *redact.New([]byte(secret))
	if c.Method, err = method(r, query); err != nil {
		return err
	}
	return unheard(r.Header)
}

// token is the one token of a request.
func token(h http.Header) (string, error) {
	all := slices.Clone(h["X-Vault-Token"])
	for _, a := range h["Authorization"] {
		kind, t, _ := strings.Cut(a, " ")
		if !strings.EqualFold(kind, "Bearer") {
			return "", fault.New(fault.Usage, "the Authorization header is of a kind that is not used here")
		}
		all = append(all, t)
	}
	all = slices.Compact(all)
	switch len(all) {
	case 0:
		return "", nil
	case 1:
		return all[0], nil
	}
	return "", fault.New(fault.Usage, "the request shows more than one token")
}

func method(r *http.Request, query url.Values) (engine.Method, error) {
	list := query.Has("list")
	if list && (r.Method != http.MethodGet || query.Get("list") != "true" || len(query["list"]) != 1) {
		return 0, fault.New(fault.Usage, `"list" is true, once, and for GET`)
	}
	switch r.Method {
	case http.MethodGet:
		if list {
			query.Del("list")
			return engine.List, nil
		}
		return engine.Read, nil
	case "LIST":
		return engine.List, nil
	case http.MethodPost, http.MethodPut:
		return engine.Write, nil
	case http.MethodPatch:
		if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/merge-patch+json" {
			return 0, fault.New(fault.Usage, "PATCH takes application/merge-patch+json")
		}
		return engine.Patch, nil
	case http.MethodDelete:
		return engine.Delete, nil
	}
	return 0, fault.Errorf(fault.Usage, "%w: method %.10q", engine.ErrNoPath, r.Method)
}

// unheard refuses headers that would change what happens and are not obeyed here.
func unheard(h http.Header) error {
	for _, n := range h["X-Vault-Namespace"] {
		if n == "" || n == "root" || n == "/" || n == "root/" {
			continue
		}
		return fault.New(fault.Usage, "there are no namespaces here (X-Vault-Namespace)")
	}
	if said(h, "X-Vault-Wrap-Ttl") {
		return fault.Hint(fault.New(fault.Policy, "answers are not wrapped here (X-Vault-Wrap-TTL)"), "give the process an identity of its own and let it ask itself")
	}
	if said(h, "X-Vault-Mfa") {
		return fault.New(fault.Usage, "there is no second factor here (X-Vault-MFA)")
	}
	if said(h, "Content-Encoding") {
		return fault.New(fault.Usage, "the body is compressed (Content-Encoding)")
	}
	return nil
}

// said says whether a header has a value, in whichever of its lines.
func said(h http.Header, name string) bool {
	return slices.ContainsFunc(h[name], func(v string) bool { return v != "" })
}

// bodyLimit is how long the body of a call may be. Who shows nothing can only log in.
func (c *call) bodyLimit() int64 {
	if c.Token.Len() == 0 && len(c.Peer.Certificates) == 0 && c.Peer.UID == noUID {
		return maxBlindBody
	}
	_, rest, _ := strings.Cut(c.RawPath, "/")
	op, _, _ := strings.Cut(rest, "/")
	switch op {
	case "decrypt", "encrypt", "hmac", "rewrap", "sign", "verify":
		return maxBatchBody
	}
	return maxBody
}

// params joins the members of the body and of the query. One that is given twice is
// refused.
func params(body []byte, query url.Values) (engine.Params, error) {
	p := engine.Params{}
	if len(bytes.TrimSpace(body)) > 0 {
		var err error
		if p, err = Object(body); err != nil {
			return nil, err
		}
	}
	for k, v := range query {
		if _, twice := p[k]; twice || len(v) != 1 {
			return nil, fault.Errorf(fault.Usage, "parameter %.60q is given twice", k)
		}
		raw, err := json.Marshal(v[0])
		if err != nil {
			return nil, fault.Errorf(fault.Usage, "parameter %.60q: %w", k, err)
		}
		p[k] = raw
	}
	return p, nil
}

// Object reads one JSON object, as the body of a request: no member twice at any depth,
// nothing after it, valid UTF-8, at most maxDepth deep.
func Object(data []byte) (engine.Params, error) {
	if !utf8.Valid(data) {
		return nil, fault.New(fault.Usage, "the body is not UTF-8")
	}
	if err := strict(data); err != nil {
		return nil, err
	}
	var p engine.Params
	if err := json.Unmarshal(data, &p); err != nil || p == nil {
		return nil, fault.New(fault.Usage, "the body is no JSON object")
	}
	return p, nil
}

// strict walks through a document once, without building it.
func strict(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var open []map[string]bool // members of the objects we are in; nil for a list
	name := false              // a name comes next
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) && len(open) == 0 {
			return nil
		}
		if err != nil {
			return fault.New(fault.Usage, "the body is no JSON")
		}
		top := len(open) - 1
		switch v := t.(type) {
		case json.Delim:
			switch v {
			case '{':
				open = append(open, map[string]bool{})
			case '[':
				open = append(open, nil)
			default:
				open = open[:top]
			}
			if len(open) > maxDepth {
				return fault.Errorf(fault.Usage, "the body is nested more than %d deep", maxDepth)
			}
			name = len(open) > 0 && open[len(open)-1] != nil
			continue
		case string:
			if name {
				if open[top][v] {
					return fault.Errorf(fault.Usage, "member %.60q stands twice in the body", v)
				}
				open[top][v] = true
				name = false
				continue
			}
		}
		name = top >= 0 && open[top] != nil
	}
}
