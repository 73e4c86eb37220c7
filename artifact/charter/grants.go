package charter

import (
	"slices"
	"strings"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
)

// Statement types that give somebody more for a while.
const (
	TypeDelegation       = "delegation"         // so many uses of one path until a day
	TypeBreakGlass       = "break-glass"        // what a few people may let happen in an emergency, after a delay
	TypeBreakGlassPulled = "break-glass-pulled" // they did: the delay begins
	TypeBreakGlassEnded  = "break-glass-ended"  // the approvers stop it, before or while it holds
)

// Limits of what is given for a while.
const (
	MaxDelegation    = 92 * 24 * time.Hour // from the statement to its end
	MaxUses          = 1_000_000
	MinBreakDelay    = 60 * 60           // 1 hour, in seconds
	MaxBreakDelay    = 14 * 24 * 60 * 60 // 14 days
	MaxBreakDuration = 24 * 60 * 60      // 24 hours
)

// Delegation lets an identity do one thing so many times, until a day, beside what
// its policies say.
type Delegation struct {
	Can      access.Capability `json:"can"`
	Expires  string            `json:"expires"` // as the statement's time; at most MaxDelegation after it
	ID       string            `json:"id"`
	Identity string            `json:"identity"`
	Path     string            `json:"path"` // one path, no pattern
	Uses     int               `json:"uses"` // 1 to MaxUses
}

// BreakGlass says what happens in an emergency when the approvers cannot be had:
// People of their own, fewer, may give an identity rules beside its own, Delay after
// they said so and for Duration. Until then, and while it holds, the approvers can
// stop it. The delay counts from the moment at which others than the vault's host
// know of it.
type BreakGlass struct {
	Delay    int           `json:"delay"`    // seconds, MinBreakDelay to MaxBreakDelay
	Duration int           `json:"duration"` // seconds, 1 to MaxBreakDuration
	ID       string        `json:"id"`
	Identity string        `json:"identity"`
	People   Set           `json:"people"` // of the roster; at least 2 of them
	Rules    []access.Rule `json:"rules"`  // 1 to MaxRules
}

// BreakGlassPulled is signed by the people of the break-glass.
type BreakGlassPulled struct {
	ID     string `json:"id"`
	Reason string `json:"reason"` // 1 to 200 characters, for everybody to read
	Times  int    `json:"times"`  // 1, then one more each time
}

// BreakGlassEnded ends the pull that is in force. The break-glass stays and can be
// pulled again; access-ended ends it for good.
type BreakGlassEnded struct {
	ID    string `json:"id"`
	Times int    `json:"times"` // of the pull that ends
}

// Pulled is a break-glass that was pulled and not ended.
type Pulled struct {
	BreakGlass
	Reason string
	Times  int
	Seq    int       // of the statement that pulled it
	At     time.Time // as that says; the vault counts from when it was known outside
}

// Grants is the part of the state that gives more for a while.
type Grants struct {
	Delegations   map[string]Delegation
	BreakGlass    map[string]BreakGlass
	Pulled        map[string]Pulled     // by id of the break-glass
	Unattended    map[string]Unattended // by host: the last one
	times         map[string]int        // pulls so far
	unattendedIDs map[string]bool       // that were ever given
}

func newGrants() Grants {
	return Grants{
		Delegations: map[string]Delegation{}, BreakGlass: map[string]BreakGlass{}, Pulled: map[string]Pulled{}, times: map[string]int{},
		Unattended: map[string]Unattended{}, unattendedIDs: map[string]bool{},
	}
}

// Ends is when a delegation ends.
func (d *Delegation) Ends() time.Time {
	at, err := ParseTime(d.Expires)
	if err != nil {
		return time.Time{} // it was checked when it was folded in
	}
	return at
}

func (s *State) delegate(d *Delegation) error {
	_, taken := s.Grants.Delegations[d.ID]
	if err := s.Access.fresh(TypeDelegation, d.ID, taken); err != nil {
		return err
	}
	if _, ok := s.Access.Identities[d.Identity]; !ok {
		return badAccess(TypeDelegation, d.ID, "there is no identity "+d.Identity)
	}
	ends, err := ParseTime(d.Expires)
	if err != nil {
		return err
	}
	if !ends.After(s.now) || ends.Sub(s.now) > MaxDelegation {
		return badAccess(TypeDelegation, d.ID, "it ends after it begins, within 92 days")
	}
	if d.Uses < 1 || d.Uses > MaxUses {
		return badAccess(TypeDelegation, d.ID, "it has 1 to 1,000,000 uses")
	}
	p, err := access.ParsePath(d.Path)
	if err != nil || strings.ContainsAny(d.Path, "*+") {
		return badAccess(TypeDelegation, d.ID, "it is for one path, in its one spelling")
	}
	r := access.Rule{Can: []access.Capability{d.Can}, Path: p.String()}
	if err := r.Check(); err != nil || d.Can == access.Deny {
		return badAccess(TypeDelegation, d.ID, "it gives no capability")
	}
	if err := s.checkPlaceOf(TypeDelegation, d.ID, d.Path); err != nil {
		return err
	}
	s.Grants.Delegations[d.ID] = *d
	return nil
}

// checkPlaceOf wants an engine at the first segment of a path: what is the vault's own
// is not given for a while.
func (s *State) checkPlaceOf(typ, id, path string) error {
	mount, _, _ := strings.Cut(path, "/")
	if _, ok := s.Access.Mounts[mount]; !ok {
		return badAccess(typ, id, "there is no engine at "+mount)
	}
	return nil
}

func (s *State) addBreakGlass(b *BreakGlass) error {
	_, taken := s.Grants.BreakGlass[b.ID]
	if err := s.Access.fresh(TypeBreakGlass, b.ID, taken); err != nil {
		return err
	}
	if _, ok := s.Access.Identities[b.Identity]; !ok {
		return badAccess(TypeBreakGlass, b.ID, "there is no identity "+b.Identity)
	}
	if b.Delay < MinBreakDelay || b.Delay > MaxBreakDelay || b.Duration < 1 || b.Duration > MaxBreakDuration {
		return badAccess(TypeBreakGlass, b.ID, "the delay is 1 hour to 14 days, the duration 1 second to 24 hours")
	}
	if !sortedSet(b.People.Members) || b.People.Need < 2 || b.People.Need > len(b.People.Members) {
		return badAccess(TypeBreakGlass, b.ID, "two people of a sorted list or more are needed, and not more than there are")
	}
	for _, n := range b.People.Members {
		if _, ok := s.People.Person(n); !ok {
			return badAccess(TypeBreakGlass, b.ID, n+" is not in the roster")
		}
	}
	if len(b.Rules) == 0 || len(b.Rules) > MaxRules {
		return badAccess(TypeBreakGlass, b.ID, "no rules, or too many")
	}
	for i := range b.Rules {
		if err := b.Rules[i].Check(); err != nil {
			return fault.Errorf(fault.Verify, "%w: break-glass %.40q: %w", ErrStatement, b.ID, err)
		}
		if err := s.checkPlaceOf(TypeBreakGlass, b.ID, b.Rules[i].Path); err != nil {
			return err
		}
	}
	s.Grants.BreakGlass[b.ID] = *b
	return nil
}

// pullers are the people who may pull the break-glass that a statement names, as far
// as they are in the roster still.
func (s *State) pullers(st *Statement) (Set, error) {
	var set Set
	err := decode(st, func(p *BreakGlassPulled) error {
		b, ok := s.Grants.BreakGlass[p.ID]
		if !ok {
			return badAccess(TypeBreakGlassPulled, p.ID, "there is no such break-glass")
		}
		set = Set{Need: b.People.Need, Members: slices.DeleteFunc(slices.Clone(b.People.Members), func(n string) bool {
			_, there := s.People.Person(n)
			return !there
		})}
		return nil
	})
	return set, err
}

func (s *State) pull(p *BreakGlassPulled) error {
	b, ok := s.Grants.BreakGlass[p.ID]
	if _, pulled := s.Grants.Pulled[p.ID]; !ok || pulled {
		return badAccess(TypeBreakGlassPulled, p.ID, "there is no such break-glass, or it is pulled already")
	}
	if p.Times != s.Grants.times[p.ID]+1 {
		return badAccess(TypeBreakGlassPulled, p.ID, "it was pulled another number of times")
	}
	if p.Reason == "" || len([]rune(p.Reason)) > 200 || strings.ContainsFunc(p.Reason, func(r rune) bool { return r < ' ' }) {
		return badAccess(TypeBreakGlassPulled, p.ID, "the reason is 1 to 200 characters in one line")
	}
	s.Grants.times[p.ID] = p.Times
	s.Grants.Pulled[p.ID] = Pulled{BreakGlass: b, Reason: p.Reason, Times: p.Times, Seq: s.Size(), At: s.now}
	return nil
}

func (s *State) endPull(e *BreakGlassEnded) error {
	p, ok := s.Grants.Pulled[e.ID]
	if !ok || p.Times != e.Times {
		return badAccess(TypeBreakGlassEnded, e.ID, "it is not pulled, or that pull has ended")
	}
	delete(s.Grants.Pulled, e.ID)
	return nil
}

// unfit forgets what was given to an identity that ends.
func (g *Grants) unfit(identity string) {
	for id, d := range g.Delegations {
		if d.Identity == identity {
			delete(g.Delegations, id)
		}
	}
	for id, b := range g.BreakGlass {
		if b.Identity == identity {
			delete(g.BreakGlass, id)
			delete(g.Pulled, id)
		}
	}
}

// names returns a grant that is about the engine at a mount.
func (g *Grants) names(mount string) (string, bool) {
	for id, d := range g.Delegations {
		if first, _, _ := strings.Cut(d.Path, "/"); first == mount {
			return TypeDelegation + " " + id, true
		}
	}
	for id, b := range g.BreakGlass {
		for _, r := range b.Rules {
			if first, _, _ := strings.Cut(r.Path, "/"); first == mount {
				return TypeBreakGlass + " " + id, true
			}
		}
	}
	return "", false
}

// end takes a grant away, and says whether it was there.
func (g *Grants) end(typ, id string) bool {
	if typ == TypeDelegation {
		_, there := g.Delegations[id]
		delete(g.Delegations, id)
		return there
	}
	_, there := g.BreakGlass[id]
	delete(g.BreakGlass, id)
	delete(g.Pulled, id)
	return there
}

// Window is when the rules of a pulled break-glass hold. known is when others than
// the vault's host first knew that it was pulled; the zero time gives no window.
func (p *Pulled) Window(known time.Time) (from, to time.Time) {
	if known.IsZero() {
		return time.Time{}, time.Time{}
	}
	if known.Before(p.At) {
		known = p.At
	}
	from = known.Add(time.Duration(p.Delay) * time.Second)
	return from, from.Add(time.Duration(p.Duration) * time.Second)
}
