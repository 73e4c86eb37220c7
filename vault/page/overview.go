package page

import (
	"fmt"
	"slices"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/vault/duty"
	"keyrite/vault/engine"
	"keyrite/vault/node"
	"keyrite/vault/unseal"
)

// status is what keyrite/status answers.
type status struct {
	Opened  string
	Charter struct {
		Size int
		Head string
	}
	CharterRefused string `json:"charter_refused"`
	Store          struct {
		Size, Advanced int64
		BehindMS       int64 `json:"behind_ms"`
		Keeper         string
		Stopped        string
		Vouched        string
	}
	LeftOut uint64 `json:"refusals_left_out"`
	Owed    int    `json:"results_owed"`
	CutOff  int    `json:"intents_cut_off"`
	Sinks   []struct {
		ID, Kind, Error, Since, Deleted string
		Behind, Lost                    uint64
	}
	Opening *unseal.Status
}

// overview is how the vault is.
type overview struct {
	*status
	Vault string
	// Acts are what needs somebody, in words; most urgent first.
	Acts []string
	// Due is what has to be done; nil for whom that is not shown.
	Due *duePage
	// Hidden are the pages that who asks may not see.
	Hidden []hidden
}

// hidden is a page that somebody may not see.
type hidden struct {
	Title string
	refusal
}

func showOverview(x *look) (any, error) {
	if err := x.only(); err != nil {
		return nil, err
	}
	o := overview{status: &status{}, Vault: x.state.Vault}
	if err := x.read(statusPath, nil, o.status); err != nil {
		return nil, err
	}
	o.Acts = o.acts()
	can, err := x.capabilities(x.s.rulePaths()...)
	if err != nil {
		return nil, err
	}
	if slices.Contains(can[duePath], access.Read) {
		o.Due = &duePage{}
		if err := x.read(duePath, nil, o.Due); err != nil {
			return nil, err
		}
	}
	for _, v := range x.s.views {
		if v.rule.Path != "" && v.menu && !slices.Contains(can[v.rule.Path], v.rule.Can[0]) {
			o.Hidden = append(o.Hidden, hidden{v.title, refusal{Identity: x.identity, Can: v.rule.Can[0], Path: v.rule.Path}})
		}
	}
	return &o, nil
}

// capabilities are what who asks may on paths, by his policies alone. It is free for
// whoever is known.
func (x *look) capabilities(paths ...string) (map[string][]access.Capability, error) {
	out := map[string][]access.Capability{}
	return out, x.call(engine.Write, capabilitiesPath, map[string]any{"paths": paths}, &out)
}

// rulePaths are the paths that the pages are about.
func (s *Server) rulePaths() []string {
	var paths []string
	for _, v := range s.views {
		if v.rule.Path != "" {
			paths = append(paths, v.rule.Path)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// acts are what the state asks of people.
func (s *status) acts() []string {
	var out []string
	add := func(is bool, what string) {
		if is {
			out = append(out, what)
		}
	}
	add(s.Store.Stopped != "", "Nothing is served after a write that failed. Look at the disk, then start the vault anew: "+s.Store.Stopped)
	add(s.CharterRefused != "", "The charter file has changed and is not in force: "+s.CharterRefused)
	add(s.Store.Keeper != "", "The cosigner of the store's head cannot be reached: "+s.Store.Keeper)
	for _, k := range s.Sinks {
		add(k.Error != "", "Sink "+k.ID+" gets no copies of the trail since "+when(k.Since)+": "+k.Error)
		add(k.Deleted != "", fmt.Sprintf("The file of sink %s was deleted, which was noticed %s. It goes on in a new one; what the old one had of the first %d entries is gone.", k.ID, when(k.Deleted), k.Lost))
	}
	add(s.CutOff > 0, "Uses of a key were cut off, and nobody knows what came of them: look into the trail for what is interrupted.")
	add(s.Owed > 0, "Results of uses of a key wait to be written: look why the store does not take them.")
	return out
}

// force is the charter in force for whom a call to keyrite/charter was answered.
func (x *look) force() (*charter.State, error) {
	if err := x.read(charterPath, map[string]any{"limit": 0}, nil); err != nil {
		return nil, err
	}
	if st := x.s.cfg.Vault.Charter(); st != nil {
		return st, nil
	}
	return nil, node.ErrSealed
}

// Urgent are the groups of what is late or soon.
func (p *duePage) Urgent() []dueGroup {
	return slices.DeleteFunc(p.Groups(), func(g dueGroup) bool { return len(g.Items) == 0 || g.Items[0].Level == duty.Fine })
}
