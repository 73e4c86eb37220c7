package script

import (
	"errors"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	stepRE    = regexp.MustCompile(`^[1-9][0-9]{0,2}(\.[1-9][0-9]{0,2})?$`)
	plannedRE = regexp.MustCompile(`^[A-Z](\.[1-9][0-9]{0,2})?$`) // steps of a contingency
	nameRE    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	hashRE    = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// maxLimit bounds a step's time limit, maxTries how often it may be begun.
const (
	maxLimit = 24 * time.Hour
	maxTries = 10
)

// Roles of people, as steps and bindings name them.
func roleNames() []string {
	return []string{"conductor", "operator", "key-master", "witness", "approver", "auditor"}
}

// Lint checks the script and walks every way through it. Each fault is an
// *Error with its place and, where a way leads to it, that way.
func (s *Script) Lint() error {
	for _, check := range []func() error{s.lintHead, s.lintRoles, s.lintThings, s.lintStatements, s.lintRoom, s.lintSteps, s.lintContingencies} {
		if err := check(); err != nil {
			return err
		}
	}
	way, err := s.walk()
	// What is missing is better said of the thing than of the step that misses it;
	// the way shows what comes of it.
	if missing := s.lintUse(); missing != nil {
		missing.Path = way
		if on, ok := errors.AsType[*Error](err); ok {
			missing.Path = on.Path
		}
		return missing
	}
	return err
}

func (s *Script) lintHead() error {
	kind, known := KindByName(s.Kind)
	var names []string
	for _, k := range Kinds() {
		names = append(names, k.Name)
	}
	switch {
	case s.Format != Format:
		return s.bad("format", "format", "is %q, not %q", s.Format, Format)
	case !known:
		err := s.bad("kind", "kind", "%.40q is not known to this version; it knows %s", s.Kind, strings.Join(names, ", "))
		err.Hint = meant(s.Kind, names)
		return err
	case s.Title == "" || s.Purpose == "":
		return s.bad("title", "title", "title and purpose are required")
	case !hashRE.MatchString(s.Pins.Keyrite) || !hashRE.MatchString(s.Pins.HSMD) || !hashRE.MatchString(s.Pins.Module):
		return s.bad("pins", "pins", "keyrite, hsmd and module each need a SHA-256 in hex; 'keyrite ceremony new' fills them in")
	case !slices.Contains([]string{"down", "any"}, s.Environment.Network) || !slices.Contains([]string{"off", "any"}, s.Environment.Swap):
		return s.bad("environment", "environment", "network is down or any, swap is off or any")
	case !slices.Contains([]string{"off", "any", ""}, s.Environment.CoreDumps) || !slices.Contains([]string{"utc", "any", ""}, s.Environment.Clock):
		return s.bad("environment", "environment", "core_dumps is off or any, clock is utc or any")
	case s.Pins.Boot != "" && !hashRE.MatchString(s.Pins.Boot):
		return s.bad("pins.boot", "pins", "boot is the SHA-256 of the boot image in hex")
	}
	for _, x := range []struct {
		name string
		n    int
	}{
		{"keys", len(s.Keys)},
		{"existing", len(s.Existing)},
		{"certificates", len(s.Certificates)},
		{"crls", len(s.CRLs)},
		{"successions", len(s.Successions)},
		{"factories", len(s.Factories)},
		{"stations", len(s.Stations)},
		{"pipelines", len(s.Pipelines)},
		{"relays", len(s.Relays)},
	} {
		if x.n > 0 && !slices.Contains(kind.Things, x.name) {
			return s.bad(x.name, x.name, "a ceremony of kind %s has no %s", kind.Name, x.name)
		}
	}
	return nil
}

func (s *Script) lintRoles() error {
	r := s.Roles
	operators := 1
	if r.ConductorOperates {
		operators = 0
	}
	decides := slices.ContainsFunc(s.allSteps(), func(st *Step) bool {
		return slices.Contains([]string{"genesis.sign", "people.change", "charter.append", "update.root"}, st.Do)
	})
	switch {
	case r.Conductor != 1:
		return s.bad("roles.conductor", "roles", "there is one conductor")
	case r.Operator != operators:
		return s.bad("roles.operator", "roles", "conductor_operates: true and operator: 0, or conductor_operates: false and operator: 1")
	case r.Witnesses < 2:
		return s.bad("roles.witnesses", "roles", "at least 2 witnesses")
	case r.Auditors < 0:
		return s.bad("roles.auditors", "roles", "auditors cannot be fewer than none")
	case (len(s.Safes) > 0 || r.KeyMasters != Quorum{}) && !r.KeyMasters.good() && !s.allGrouped():
		return s.bad("roles.key_masters", "roles", "key masters: need at least 2, at most as many as there are (255)")
	case (decides || r.Approvers != Quorum{}) && !r.Approvers.good():
		return s.bad("roles.approvers", "roles", "approvers: need at least 2, at most as many as there are")
	}
	return nil
}

// maxHolders is how many shares a split may have (vault/shamir: x is one byte,
// not 0).
const maxHolders = 255

func (q Quorum) good() bool { return q.Need >= 2 && q.Need <= q.Of && q.Of <= maxHolders }

// allGrouped says whether every safe has key masters of its own, so that the
// role needs none.
func (s *Script) allGrouped() bool {
	return s.Roles.KeyMasters == Quorum{} && !slices.ContainsFunc(s.Safes, func(x Safe) bool { return x.Group == "" })
}

func (s *Script) lintSteps() error {
	verbs, seen := verbTable(), map[string]bool{}
	for _, ph := range s.Phases() {
		if len(ph.Steps) == 0 {
			return s.bad(ph.Name, ph.Name, "has no step")
		}
		for i := range ph.Steps {
			st := &ph.Steps[i]
			if !stepRE.MatchString(st.ID) || seen[st.ID] {
				return s.bad(join(st.path, "id"), "step "+st.ID, "needs a number of its own like 2.1")
			}
			seen[st.ID] = true
			if err := s.lintStep(st, verbs, ph.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// lintStep checks one step of a phase by itself.
func (s *Script) lintStep(st *Step, verbs map[string]*Verb, phase string) error {
	where := "step " + st.ID
	v, ok := verbs[st.Do]
	if !ok {
		err := s.bad(join(st.path, "do"), where, "verb %.40q is not in the language", st.Do)
		err.Hint = meant(st.Do, slices.Sorted(maps.Keys(verbs)))
		return err
	}
	kind, _ := KindByName(s.Kind)
	switch {
	case !kind.has(st.Do):
		return s.bad(join(st.path, "do"), where, "a ceremony of kind %s has no %s", s.Kind, st.Do)
	case !slices.Contains(v.Phases, phase):
		return s.bad(join(st.path, "do"), where, "%s belongs under %s, not %s", st.Do, strings.Join(v.Phases, " or "), phase)
	case st.Title == "":
		return s.bad(st.path, where, "title is required")
	case st.Limit <= 0 || st.Limit > maxLimit:
		return s.bad(join(st.path, "limit"), where, "a limit of at most 24h is required")
	case st.Tries < 1 || st.Tries > maxTries:
		return s.bad(join(st.path, "tries"), where, "tries is 1 to %d", maxTries)
	case st.Minutes < 0 || time.Duration(st.Minutes)*time.Minute > st.Limit:
		return s.bad(join(st.path, "minutes"), where, "minutes is at most the limit")
	}
	for _, r := range st.Confirm {
		if !slices.Contains(roleNames(), r) {
			err := s.bad(join(st.path, "confirm"), where, "confirm names the role %.40q, which is none of %s", r, strings.Join(roleNames(), ", "))
			err.Hint = meant(r, roleNames())
			return err
		}
	}
	if err := s.lintArgs(st, v); err != nil {
		return err
	}
	return s.lintModelOf(st)
}

// lintArgs checks that a step has the arguments of its verb, no others, and that
// each names something.
func (s *Script) lintArgs(st *Step, v *Verb) error {
	where := "step " + st.ID
	for _, a := range s.args(st) {
		wanted := slices.Contains(v.Args, a.name)
		if wanted != (a.value != "") {
			return s.bad(join(st.path, a.name), where, "%s takes %s and nothing else", st.Do, orNothing(v.Args))
		}
		if wanted && !slices.Contains(a.known, a.value) {
			err := s.bad(join(st.path, a.name), where, "%s %.40q is not in the script", a.what, a.value)
			err.Hint = meant(a.value, a.known)
			return err
		}
	}
	if len(v.Cases) > 0 && v.Cases[0].Safe != "" { // for fresh or for existing safes
		x, _ := s.SafeByName(st.Safe)
		if !slices.ContainsFunc(v.Cases, func(c Case) bool { return (c.Safe == StateExisting) == s.IsExisting(x) }) {
			return s.bad(join(st.path, "safe"), where, "%s is for a safe that is %s; %s is %s", st.Do, v.Cases[0].Safe, x.Name, x.State)
		}
	}
	if st.Do == "key.transfer" || st.Do == "key.find" {
		if k, ok := s.ExistingByID(st.Key); !ok || k.Safe != st.Safe || st.To == st.Safe {
			return s.bad(st.path, where, "%s is about a key of existing, the safe that it lies in by the charter, and another one", st.Do)
		}
	}
	return nil
}

type arg struct {
	name, value, what string
	known             []string
}

func (s *Script) args(st *Step) []arg {
	safes := each(s.Safes, "", func(x *Safe) (string, bool) { return x.Name, true })
	keys := each(s.Existing, "", func(k *ExistingKey) (string, bool) { return k.ID, true })
	if st.Do == "key.generate" {
		keys = each(s.Keys, "", func(k *Key) (string, bool) { return k.ID, true })
	}
	return []arg{
		{"safe", st.Safe, "safe", safes},
		{"key", st.Key, "key", keys},
		{"cert", st.Cert, "certificate", each(s.Certificates, "", func(c *Certificate) (string, bool) { return c.ID, true })},
		{"crl", st.CRL, "CRL", each(s.CRLs, "", func(c *CRL) (string, bool) { return c.ID, true })},
		{"to", st.To, "safe", safes},
		{"medium", st.Medium, "medium", each(s.Media, "", func(x *Medium) (string, bool) { return x.Name, true })},
	}
}

func orNothing(args []string) string {
	if len(args) == 0 {
		return "no object"
	}
	return "a " + strings.Join(args, " and a ")
}
