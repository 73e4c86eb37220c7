package actions

import (
	"slices"

	"keyrite/artifact/fault"
	"keyrite/ceremony/script"
)

// supported refuses, before anything is touched, what the language has and these
// actions have not: a verb without an action would void the ceremony later, and
// a key of another algorithm would not be the one that was specified.
func supported(s *script.Script) error {
	for _, k := range s.Keys {
		if !slices.Contains([]string{"p256", "ed25519"}, k.Algorithm) || k.Movable || !k.Usage.Sign {
			return fault.Errorf(fault.Usage, "key %s: this version makes signing keys p256 and ed25519 that never move", k.ID)
		}
	}
	steps := slices.Concat(s.Summon, s.Run, s.Seal)
	for _, c := range s.Contingencies {
		steps = append(steps, c.Steps...)
	}
	for _, st := range steps {
		if verbs()[st.Do] == nil {
			return fault.Errorf(fault.Usage, "step %s: this version lints and explains %s, but cannot do it", st.ID, st.Do)
		}
	}
	return nil
}
