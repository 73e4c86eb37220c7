package page

import (
	"keyrite/artifact/charter"
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
	CutOff  int    `json:"intents_cut_off"`
	Sinks   []struct {
		ID, Kind, Error, Since string
		Behind                 uint64
	}
	Opening *unseal.Status
}

// overview is how the vault is.
type overview struct {
	*status
	Vault string
	// Acts are what needs somebody, in words; most urgent first.
	Acts []string
}

func showOverview(x *look) (any, error) {
	if err := x.only(); err != nil {
		return nil, err
	}
	o := overview{status: &status{}, Vault: x.state.Vault}
	if err := x.read(statusPath, nil, o.status); err != nil {
		return nil, err
	}
	o.Acts = o.status.acts()
	return &o, nil
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
	}
	add(s.CutOff > 0, "Uses of a key were cut off, and nobody knows what came of them: look into the trail for what is interrupted.")
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
