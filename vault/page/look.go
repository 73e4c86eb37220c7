package page

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/identity"
	"keyrite/vault/node"
)

// capabilitiesPath tells what the caller may on paths. It is free for whoever is known.
const capabilitiesPath = "sys/capabilities-self"

// look is one request for a page.
type look struct {
	s     *Server
	w     http.ResponseWriter
	r     *http.Request
	view  *view // nil if there is no such page
	peer  identity.Peer
	query url.Values
	state node.Status // when the request came
	// identity is who asks, as the first answer told; "" before.
	identity string
	asked    bool // a call was made, which has its entry
}

// refusal says what somebody may not see, and which statement would let him.
type refusal struct {
	Identity string
	Can      access.Capability
	Path     string
	Why      string // as a program would be told
	Request  string // id in the trail
}

// Error implements error.
func (r *refusal) Error() string { return r.Why }

// FaultClass implements fault's.
func (r *refusal) FaultClass() string { return string(fault.Policy) }

// Rule is what a policy would have to say, as it stands in the body of a statement.
func (r *refusal) Rule() (string, error) {
	b, err := json.Marshal(access.Rule{Can: []access.Capability{r.Can}, Path: r.Path})
	return string(b), err
}

// read asks for what is at a path, as a program would with GET, and puts the answer's
// data into out.
func (x *look) read(path string, params map[string]any, out any) error {
	return x.call(engine.Read, path, params, out)
}

// call makes one call as whoever asks. What the charter does not let him do is a *refusal.
func (x *look) call(m engine.Method, path string, params map[string]any, out any) error {
	p := engine.Params{}
	for k, v := range params {
		raw, err := json.Marshal(v)
		if err != nil {
			return fault.Errorf(fault.Unexpected, "parameter %s: %w", k, err)
		}
		p[k] = raw
	}
	reply, err := x.do(node.Call{Method: m, RawPath: path, Params: p})
	if errors.Is(err, access.ErrDenied) && x.identity != "" && reply != nil && reply.Needs != "" {
		return &refusal{x.identity, reply.Needs, path, err.Error(), reply.Request}
	}
	if err != nil || out == nil {
		return err
	}
	if reply.Answer == nil {
		return fault.Errorf(fault.Unexpected, "%s has no answer", path)
	}
	return decode(reply.Answer, out)
}

// do makes a call as whoever asks, and keeps who that is.
func (x *look) do(c node.Call) (*node.Reply, error) {
	c.Peer, x.asked = x.peer, true
	reply, err := x.s.cfg.Vault.Do(x.r.Context(), c)
	if reply != nil && reply.Identity != "" {
		x.identity = reply.Identity
	}
	return reply, err
}

// pagesPath is the path in the trail of what the pages refuse by themselves, with the
// page's own behind it.
const pagesPath = "keyrite/page"

// entryPath is where the trail has what was asked.
func (x *look) entryPath() string {
	if x.view == nil || x.view.path == "/" {
		return pagesPath
	}
	return pagesPath + x.view.path
}

// refused has a refusal for which no call was made written, with who asks, and returns it.
// Another error is of who is not known, or of a vault that cannot write it. One that a web
// page of another origin caused is rationed like those of strangers.
func (x *look) refused(why error, foreign bool) error {
	m := engine.Write
	if x.r.Method == http.MethodGet || x.r.Method == http.MethodHead {
		m = engine.Read
	}
	_, err := x.do(node.Call{Method: m, RawPath: x.entryPath(), Fault: why, Foreign: foreign})
	return err
}

// decode puts the data of an answer into out, in the shape in which programs get it.
func decode(a *engine.Answer, out any) error {
	raw, err := json.Marshal(a.Data)
	if err == nil {
		err = json.Unmarshal(raw, out)
	}
	if err != nil {
		return fmt.Errorf("read the vault's answer: %w", err)
	}
	return nil
}
