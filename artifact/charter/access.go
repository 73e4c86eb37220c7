package charter

import (
	"slices"
	"strings"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
)

// Statement types about who asks the vault, and for what.
const (
	TypeMount       = "mount"        // an engine at a place
	TypePolicy      = "policy"       // rules under a name
	TypeIdentity    = "identity"     // a process that may ask
	TypeAccessEnded = "access-ended" // one of these, a host, a vendor root, an audit sink or a reminder, that is no more
)

// Mount puts an engine at the first segment of paths.
type Mount struct {
	Engine string `json:"engine"` // kv, transit, pki, token or password
	ID     string `json:"id"`     // the segment
}

func engines() []string { return []string{"kv", "password", "pki", "token", "transit"} }

// reserved are first segments that the vault's own API has.
func reserved() []string { return []string{"auth", "cubbyhole", "identity", "keyrite", "sys"} }

// Policy is a list of rules under a name. A later one of the same id replaces it.
type Policy struct {
	ID      string        `json:"id"`
	Rules   []access.Rule `json:"rules"`   // 1 to MaxRules
	Version int           `json:"version"` // 1, then one more each time
}

// MaxRules bounds a policy.
const MaxRules = 256

// AccessEnded ends a mount, policy, identity, host, unattended, vendor root, audit
// sink, reminder or transit key. Its id is not given again.
type AccessEnded struct {
	ID   string `json:"id"`
	Type string `json:"type"` // of TypeMount and the like
}

// Access is the part of the state that says who may ask for what.
type Access struct {
	Mounts     map[string]Mount
	Policies   map[string]Policy
	rules      map[string]access.Rules // of each policy, checked when it was stated
	Identities map[string]Identity
	Hosts      map[string]Host // on which the vault may run
	ended      map[string]bool // type and id
	hostKeys   map[string]bool // DER of every key that was ever a host's
	revoked    map[string]bool // hex SHA-256 of client certificates
	// Unmounted are the mounts that were ended, by id: what they keep is not used any
	// more, and what was to be destroyed at their end still has to be.
	Unmounted map[string]Mount
}

func newAccess() Access {
	return Access{
		Mounts: map[string]Mount{}, Policies: map[string]Policy{}, rules: map[string]access.Rules{}, Identities: map[string]Identity{}, Hosts: map[string]Host{},
		ended: map[string]bool{}, hostKeys: map[string]bool{}, revoked: map[string]bool{}, Unmounted: map[string]Mount{},
	}
}

// Rules are those of an identity's policies, together. An identity that is not in
// the charter has none, and an error of class policy.
func (s *State) Rules(identity string) (access.Rules, error) {
	x, ok := s.Access.Identities[identity]
	if !ok {
		return access.Rules{}, fault.Errorf(fault.Policy, "%w: identity %.40q", ErrUnknown, identity)
	}
	all := make([]access.Rules, len(x.Policies))
	for i, p := range x.Policies {
		if all[i], ok = s.Access.rules[p]; !ok { // no deny of it may be overlooked
			return access.Rules{}, fault.Errorf(fault.Policy, "%w: policy %.40q of identity %.40q", ErrUnknown, p, identity)
		}
	}
	return access.Join(all...), nil
}

// fresh refuses an id that is taken, was ended, or is none.
func (a *Access) fresh(typ, id string, taken bool) error {
	if taken || a.ended[typ+"/"+id] || !idRE.MatchString(id) {
		return badAccess(typ, id, "the id is taken, was ended or is not an id")
	}
	return nil
}

func badAccess(typ, id, why string) error {
	return fault.Errorf(fault.Verify, "%w: %s %.40q: %s", ErrStatement, typ, id, why)
}

func (s *State) addMount(m *Mount) error {
	_, taken := s.Access.Mounts[m.ID]
	if err := s.Access.fresh(TypeMount, m.ID, taken); err != nil {
		return err
	}
	if !slices.Contains(engines(), m.Engine) || slices.Contains(reserved(), m.ID) {
		return badAccess(TypeMount, m.ID, "no such engine, or a place of the vault's own")
	}
	s.Access.Mounts[m.ID] = *m
	return nil
}

// ownPlaces are those of the vault's own paths that a policy may give: secret ids
// of roles, tokens of others, leases of others, how the vault is and is configured, what
// has to be done next, its figures, its trail, to seal it, to ask key masters for proofs of
// their shares and hand these in, to propose statements, and to bring those that
// approvers signed. All else there needs no policy or is nobody's.
func ownPlaces() []string {
	return []string{
		"auth/approle/role/", "auth/token/lookup-accessor", "auth/token/revoke-accessor", "keyrite/charter", "keyrite/due", "keyrite/proposals",
		"keyrite/proposals/", "keyrite/shares", "keyrite/shares/challenges", "keyrite/status", "keyrite/trail",
		"sys/audit", "sys/auth", "sys/leases/lookup/", "sys/leases/revoke/", "sys/leases/revoke-prefix/", "sys/metrics", "sys/mounts",
		"sys/policies/acl", "sys/policies/acl/", "sys/seal",
	}
}

func ownPlace(pattern string) bool {
	return slices.ContainsFunc(ownPlaces(), func(own string) bool {
		return pattern == own || strings.HasSuffix(own, "/") && len(pattern) > len(own) && strings.HasPrefix(pattern, own)
	})
}

func (s *State) addPolicy(p *Policy) error {
	had := s.Access.Policies[p.ID] // version 0 if there is none
	if err := s.Access.fresh(TypePolicy, p.ID, false); err != nil {
		return err
	}
	if p.Version != had.Version+1 || p.Version < 1 {
		return badAccess(TypePolicy, p.ID, "the version does not follow")
	}
	if len(p.Rules) == 0 || len(p.Rules) > MaxRules {
		return badAccess(TypePolicy, p.ID, "no rules, or too many")
	}
	rules, err := access.Compile(p.Rules)
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: policy %.40q: %w", ErrStatement, p.ID, err)
	}
	for _, r := range p.Rules {
		mount, _, _ := strings.Cut(r.Path, "/")
		if _, ok := s.Access.Mounts[mount]; !ok && !ownPlace(r.Path) {
			return badAccess(TypePolicy, p.ID, "there is no engine at "+mount)
		}
	}
	s.Access.Policies[p.ID], s.Access.rules[p.ID] = *p, rules
	return nil
}

// sortedSet says whether a list is not empty, sorted and distinct, without an
// empty member.
func sortedSet(l []string) bool {
	return len(l) > 0 && l[0] != "" && slices.IsSorted(l) && len(slices.Compact(slices.Clone(l))) == len(l)
}

// endAccess ends one. A policy that an identity has, and a mount that a policy
// names or that has keys, stay until those are ended.
func (s *State) endAccess(e *AccessEnded) error {
	there := false
	switch e.Type {
	case TypeIdentity:
		_, there = s.Access.Identities[e.ID]
		delete(s.Access.Identities, e.ID)
		s.Grants.unfit(e.ID)
	case TypePolicy:
		_, there = s.Access.Policies[e.ID]
		for _, x := range s.Access.Identities {
			if slices.Contains(x.Policies, e.ID) {
				return badAccess(TypePolicy, e.ID, "identity "+x.ID+" has it")
			}
		}
		delete(s.Access.Policies, e.ID)
		delete(s.Access.rules, e.ID)
	case TypeMount:
		_, there = s.Access.Mounts[e.ID]
		for _, p := range s.Access.Policies {
			for _, r := range p.Rules {
				if first, _, _ := strings.Cut(r.Path, "/"); first == e.ID {
					return badAccess(TypeMount, e.ID, "policy "+p.ID+" names it")
				}
			}
		}
		if roles := s.PKIRolesAt(e.ID); len(roles) > 0 {
			return badAccess(TypeMount, e.ID, "it has the role "+roles[0])
		}
		if keys := s.TransitKeys(e.ID); len(keys) > 0 {
			return badAccess(TypeMount, e.ID, "it has the key "+keys[0])
		}
		if b, ok := s.Grants.names(e.ID); ok {
			return badAccess(TypeMount, e.ID, b+" names it")
		}
		if policies := s.PasswordPolicyNames(e.ID); len(policies) > 0 {
			return badAccess(TypeMount, e.ID, "it has the password policy "+policies[0])
		}
		if roles := s.TokenRoleNames(e.ID); len(roles) > 0 {
			return badAccess(TypeMount, e.ID, "it has the role "+roles[0])
		}
		if m, ok := s.Access.Mounts[e.ID]; ok {
			s.Access.Unmounted[e.ID] = m
		}
		delete(s.Access.Mounts, e.ID)
		s.unmount(e.ID)
	case TypePasswordPolicy:
		there = s.endPasswordPolicy(e.ID)
	case TypeTokenRole:
		there = s.endTokenRole(e.ID)
	case TypePKIRole:
		_, there = s.PKIRoles[e.ID]
		delete(s.PKIRoles, e.ID)
	case TypeTransitKey:
		there = s.endTransitKey(e.ID)
	case TypeHost:
		_, there = s.Access.Hosts[e.ID]
		delete(s.Access.Hosts, e.ID)
		delete(s.Grants.Unattended, e.ID)
	case TypeUnattended:
		there = s.endUnattended(e.ID)
	case TypeVendorRoot:
		_, there = s.VendorRoots[e.ID]
		delete(s.VendorRoots, e.ID)
	case TypeReminder:
		_, there = s.Reminders[e.ID]
		delete(s.Reminders, e.ID)
	case TypeAuditSink:
		_, there = s.Audit.Sinks[e.ID]
		delete(s.Audit.Sinks, e.ID)
	case TypeDelegation, TypeBreakGlass:
		there = s.Grants.end(e.Type, e.ID)
	}
	if !there {
		return badAccess(e.Type, e.ID, "there is none to end")
	}
	s.Access.ended[e.Type+"/"+e.ID] = true
	return nil
}
