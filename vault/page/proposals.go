package page

import (
	"encoding/json"
	"errors"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/api"
	"keyrite/vault/engine"
)

// proposalsPath is where proposals wait for approvals.
const proposalsPath = "keyrite/proposals"

// pending is one that waits, as the vault tells of it.
type pending struct {
	ID, Type, About, State, Next, Brought, Ends string
	Statement, Need                             int
	Approvers                                   []string
	By                                          string `json:"brought_by"`
	Approvals                                   []struct {
		Approver, Brought string
		By                string `json:"brought_by"`
	}
	// Of one that is asked for alone.
	Proposal, Sentence string
	Says               []string
	Words              string
	// Of an approval that was refused: what was given, why, and what to do.
	Given, Problem, Message string
}

// Link is where it is shown.
func (p *pending) Link() string { return "/proposals/one?" + url.Values{"id": {p.ID}}.Encode() }

func showProposals(x *look) (any, error) {
	if err := x.only(); err != nil {
		return nil, err
	}
	var a struct {
		Info map[string]*pending `json:"key_info"`
	}
	if err := x.call(engine.List, proposalsPath, nil, &a); err != nil {
		return nil, err
	}
	all := slices.Collect(maps.Values(a.Info))
	slices.SortFunc(all, func(p, q *pending) int { return strings.Compare(q.Brought+q.ID, p.Brought+p.ID) })
	return all, nil
}

// digestRE is the id of a proposal.
var digestRE = regexp.MustCompile(`^[0-9a-f]{64}$`)

// proposal reads the proposal that the address names.
func (x *look) proposal() (*pending, error) {
	if err := x.only("id"); err != nil {
		return nil, err
	}
	id := x.query.Get("id")
	if !digestRE.MatchString(id) {
		return nil, fault.New(fault.Usage, "the id of a proposal is needed, 64 digits of hex")
	}
	p := &pending{}
	return p, x.read(proposalsPath+"/"+id, nil, p)
}

func showProposal(x *look) (any, error) {
	p, err := x.proposal()
	if err != nil {
		return nil, err
	}
	p.Says = p.Says[min(1, len(p.Says)):] // the first is for whoever approves
	return p, nil
}

// showProposalFile gives the file that approvers sign, as it was brought.
func showProposalFile(x *look) (any, error) {
	p, err := x.proposal()
	if err != nil {
		return nil, err
	}
	x.write(http.StatusOK, "text/plain; charset=utf-8", p.Proposal)
	return nil, nil //nolint:nilnil // the answer is written
}

// bringApproval hands an approval in that somebody signed on his own machine: its text,
// and the id of the proposal, which the form carries. Whoever brings it decides nothing;
// the vault verifies it.
func bringApproval(x *look) (any, error) {
	form, err := x.form("id", "approval")
	if err != nil {
		return nil, err
	}
	id, text := form.Get("id"), strings.TrimSpace(form.Get("approval"))
	if !digestRE.MatchString(id) {
		return nil, fault.New(fault.Usage, "the id of a proposal is needed, 64 digits of hex")
	}
	err = x.call(engine.Write, proposalsPath+"/"+id+"/approvals", map[string]any{"approval": text}, nil)
	if err == nil {
		x.w.Header().Set("Location", (&pending{ID: id}).Link())
		x.write(http.StatusSeeOther, "text/plain; charset=utf-8", "It is there.\n")
		return nil, errAnswered
	}
	var r *refusal
	switch class := fault.ClassOf(err); {
	case errors.As(err, &r), errors.Is(err, engine.ErrNotThere):
		return nil, err
	case class == fault.Usage, class == fault.Verify, class == fault.Policy, class == fault.Exists:
		p := &pending{Given: text, Problem: err.Error(), Message: fault.HintOf(err)}
		if err := x.read(proposalsPath+"/"+id, nil, p); err != nil {
			return nil, err
		}
		x.render(http.StatusBadRequest, x.view.title, x.view.template, p)
		return nil, errAnswered
	}
	return nil, err
}

// draft is what somebody proposes.
type draft struct {
	Types            []option
	Body, File       string
	Message, Problem string
}

// maxForm bounds a form: a proposal, encoded as forms are, which may make three bytes of
// one.
const maxForm = 3*128<<10 + 4<<10

func showDraft(x *look) (any, error) {
	if err := x.only("type"); err != nil {
		return nil, err
	}
	if err := x.mayPropose(); err != nil {
		return nil, err
	}
	return newDraft(x.query.Get("type")), nil
}

// mayPropose says who asks, and refuses whom his policies do not let propose: he learns it
// before he writes, and nothing that he sends is read. The vault decides again when it is
// asked.
func (x *look) mayPropose() error {
	can, err := x.capabilities(proposalsPath)
	if err != nil {
		return err
	}
	if !slices.Contains(can[proposalsPath], access.Create) {
		return &refusal{Identity: x.identity, Can: access.Create, Path: proposalsPath, Why: "no rule gives create on " + proposalsPath}
	}
	return nil
}

func newDraft(typ string) *draft {
	d := &draft{}
	for _, t := range charter.Proposable() {
		d.Types = append(d.Types, option{t, t == typ})
	}
	return d
}

// propose takes the form: a type with its body, or a file that was made elsewhere. It
// proposes; nothing is decided by that.
func propose(x *look) (any, error) {
	if err := x.mayPropose(); err != nil {
		return nil, err
	}
	form, err := x.form("type", "body", "file")
	if err != nil {
		return nil, err
	}
	params := map[string]any{}
	body, file := strings.TrimSpace(form.Get("body")), strings.TrimSpace(form.Get("file"))
	switch {
	case body != "" && file != "":
		err = fault.New(fault.Usage, "either a body with its type is proposed, or a file")
	case body != "" && form.Get("type") == "":
		err = fault.New(fault.Usage, "a body is proposed with its type")
	case body != "":
		if _, err = api.Object([]byte(body)); err == nil {
			params["type"], params["body"] = form.Get("type"), json.RawMessage(body)
		}
	case file != "":
		params["proposal"] = file
	default:
		err = fault.New(fault.Usage, "there is nothing to propose: give a body, or a file")
	}
	var p pending
	if err == nil {
		err = x.call(engine.Write, proposalsPath, params, &p)
	}
	if err == nil {
		x.w.Header().Set("Location", p.Link())
		x.write(http.StatusSeeOther, "text/plain; charset=utf-8", "It is proposed.\n")
		return nil, errAnswered
	}
	switch fault.ClassOf(err) {
	case fault.Usage, fault.Verify, fault.Exists, fault.Quota:
		d := newDraft(form.Get("type"))
		d.Body, d.File, d.Problem, d.Message = form.Get("body"), form.Get("file"), err.Error(), fault.HintOf(err)
		x.render(http.StatusBadRequest, x.view.title, x.view.template, d)
		return nil, errAnswered
	}
	return nil, err
}

// form reads the fields of a form: each once, and no other.
func (x *look) form(names ...string) (url.Values, error) {
	if len(x.query) > 0 {
		return nil, fault.New(fault.Usage, "a form has no parameters in its address")
	}
	kind, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return nil, fault.New(fault.Usage, "a form is application/x-www-form-urlencoded")
	}
	raw, done, err := x.s.Body(x.w, x.r, maxForm)
	defer done()
	if err != nil {
		return nil, err
	}
	if x.query, err = query(string(raw)); err != nil {
		return nil, err
	}
	return x.query, x.only(names...)
}
