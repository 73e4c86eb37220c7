package actions

import (
	"slices"

	"keyrite/artifact/fault"
	"keyrite/ceremony/script"
	"keyrite/hsm"
	"keyrite/hsm/admit"
)

// supported refuses, before anything is touched, what the language has and these
// actions have not: a verb without an action would void the ceremony later, and
// a key of another kind would not be the one that was specified.
func supported(s *script.Script) error {
	for _, k := range s.Keys {
		alg, known := admit.Algorithms()[k.Algorithm]
		if !known || !k.Usage.Sign || k.Movable && (alg == hsm.Ed25519 || k.Usage.AlwaysAuthenticate) {
			return fault.Errorf(fault.Usage, "key %s: signing keys are made, those that move without a login for each signature and not of ed25519", k.ID)
		}
	}
	for i := range s.Safes {
		if x := &s.Safes[i]; s.Kind != "genesis" && !s.IsExisting(x) {
			return fault.Hint(fault.Errorf(fault.Usage, "safe %s is fresh: this version lints and explains new tokens in a ceremony of kind %s, and makes them only in a genesis", x.Name, s.Kind),
				"make the token in a genesis of its own, or use one of the vault's tokens (state: existing)")
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
