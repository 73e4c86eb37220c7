// Package access says what a process may ask of a vault: paths in their one
// spelling, rules over them, and the decision. It is a pure function of rules that
// stand in the charter, so that an auditor comes to the same answer as the vault.
//
// The vault parses the path of a request once, with ParsePath, and uses the same
// value to decide and to act. This package must never repair a path: a spelling
// that is not the one is refused, so that there is nothing that two parts of a
// program could read in two ways (CWE-41, CWE-180).
//
// Compatibility: the rules are part of docs/formats/charter.md.
package access

import (
	"slices"
	"strings"

	"keyrite/artifact/fault"
)

// Limits of a path.
const (
	MaxPathBytes    = 1024
	MaxSegments     = 32
	MaxSegmentBytes = 128
)

// Classes of refusal.
var (
	// ErrPath says that a path is not in its one spelling.
	ErrPath = fault.New(fault.Usage, "the path is not in its one spelling")
	// ErrRule says that a rule means nothing, or could mean two things.
	ErrRule = fault.New(fault.Verify, "access rule is not valid")
	// ErrDenied says that no rule allows it, or that one denies it.
	ErrDenied = fault.New(fault.Policy, "not allowed")
)

// Path is a path in its one spelling: segments joined by single slashes, none at
// either end. The zero value is no path and is never allowed anything.
type Path struct{ s string }

// String is the path as it came.
func (p Path) String() string { return p.s }

// ParsePath reads the path of a request as it came over the wire, before anything
// decoded it, without the slash it begins with. Segments have 1 to 128 of the
// characters A-Z a-z 0-9 - _ . ~ @ : = , and are not made of dots alone. So there
// is no percent sign, no second slash, and the result is the very string that was
// given.
func ParsePath(raw string) (Path, error) {
	if raw == "" || len(raw) > MaxPathBytes {
		return Path{}, fault.Errorf(fault.Usage, "%w: it has %d bytes, 1 to %d are allowed", ErrPath, len(raw), MaxPathBytes)
	}
	segments := strings.Split(raw, "/")
	if len(segments) > MaxSegments {
		return Path{}, fault.Errorf(fault.Usage, "%w: it has %d segments, at most %d are allowed", ErrPath, len(segments), MaxSegments)
	}
	for i, s := range segments {
		if err := checkSegment(s); err != nil {
			return Path{}, fault.Errorf(fault.Usage, "%w: segment %d: %w", ErrPath, i+1, err)
		}
	}
	return Path{raw}, nil
}

const segmentChars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~@:=,"

func checkSegment(s string) error {
	switch {
	case s == "":
		return fault.New(fault.Usage, "it is empty: a slash too many")
	case len(s) > MaxSegmentBytes:
		return fault.Errorf(fault.Usage, "it has %d bytes, at most %d are allowed", len(s), MaxSegmentBytes)
	case strings.Trim(s, ".") == "":
		return fault.New(fault.Usage, "it is made of dots")
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune(segmentChars, r) }); i >= 0 {
		return fault.Errorf(fault.Usage, "character %q is not allowed; nothing is decoded", []rune(s[i:])[0])
	}
	return nil
}

// Capability is what is done with a path, in the words that users of HashiCorp
// Vault know.
type Capability string

// The capabilities. Deny takes away what other rules give.
const (
	Create Capability = "create"
	Read   Capability = "read"
	Update Capability = "update" // also to use a key: sign, encrypt, issue
	Delete Capability = "delete"
	List   Capability = "list"
	Deny   Capability = "deny"
)

func capabilities() []Capability { return []Capability{Create, Delete, Deny, List, Read, Update} }

// Rule gives capabilities on the paths that a pattern matches. A pattern is a
// path in which a segment "+" stands for any one segment, and a last segment "*"
// for one or more.
type Rule struct {
	Can  []Capability `json:"can"` // sorted, distinct; deny stands alone
	Path string       `json:"path"`
}

// Check validates a rule. One that matches everything is refused.
func (r *Rule) Check() error {
	if len(r.Can) == 0 || !slices.IsSorted(r.Can) || len(slices.Compact(slices.Clone(r.Can))) != len(r.Can) {
		return fault.Errorf(fault.Verify, "%w: %.80q has no sorted list of distinct capabilities", ErrRule, r.Path)
	}
	for _, c := range r.Can {
		if !slices.Contains(capabilities(), c) || c == Deny && len(r.Can) > 1 {
			return fault.Errorf(fault.Verify, "%w: %.80q: capability %.20q", ErrRule, r.Path, c)
		}
	}
	segments := strings.Split(r.Path, "/")
	for i, s := range segments {
		if s == "+" || s == "*" && i == len(segments)-1 {
			segments[i] = "x"
		}
	}
	if _, err := ParsePath(strings.Join(segments, "/")); err != nil {
		return fault.Errorf(fault.Verify, "%w: pattern %.80q: %w", ErrRule, r.Path, err)
	}
	if first, _, _ := strings.Cut(r.Path, "/"); first == "+" || first == "*" {
		return fault.Errorf(fault.Verify, "%w: pattern %.80q does not say which engine it is about", ErrRule, r.Path)
	}
	return nil
}

// Rules are rules that were checked: only Compile makes them, so what decides has not to
// look again. They are never changed. The zero value allows nothing.
type Rules struct{ list []compiled }

// compiled is a valid rule.
type compiled struct {
	rule    Rule
	pattern []string // its segments
	deny    bool
}

// Compile checks rules. One that is not valid makes an error of all.
func Compile(rules []Rule) (Rules, error) {
	out := Rules{list: make([]compiled, 0, len(rules))}
	for _, r := range rules {
		if err := r.Check(); err != nil {
			return Rules{}, err
		}
		r.Can = slices.Clone(r.Can)
		out.list = append(out.list, compiled{r, strings.Split(r.Path, "/"), r.Can[0] == Deny})
	}
	return out, nil
}

// Join is the rules of all.
func Join(all ...Rules) Rules {
	if len(all) == 1 {
		return all[0]
	}
	var out Rules
	for _, r := range all {
		out.list = append(out.list, r.list...)
	}
	return out
}

// Gives says whether any rule gives something on paths that begin with the segment.
func (r Rules) Gives(first string) bool {
	return slices.ContainsFunc(r.list, func(c compiled) bool { return !c.deny && c.pattern[0] == first })
}

// matches says whether the pattern is about a path of these segments.
func (c *compiled) matches(have []string) bool {
	for i, w := range c.pattern {
		switch {
		case i >= len(have):
			return false
		case w == "*" && i == len(c.pattern)-1:
			return true
		case w != "+" && w != have[i]:
			return false
		}
	}
	return len(c.pattern) == len(have)
}

// Decide allows or refuses: a rule that denies the path wins, else one that gives
// the capability allows, else it is refused. A path that was not parsed and a
// capability that nobody knows are allowed nothing.
func (r Rules) Decide(p Path, c Capability) error {
	if p.s == "" || c == Deny || !slices.Contains(capabilities(), c) {
		return fault.Errorf(fault.Policy, "%w: %.20q on no path", ErrDenied, c)
	}
	have := strings.Split(p.s, "/")
	allowed := false
	for i := range r.list {
		x := &r.list[i]
		if !x.matches(have) {
			continue
		}
		if x.deny {
			return fault.Errorf(fault.Policy, "%w: %q is denied by the rule for %q", ErrDenied, p.s, x.rule.Path)
		}
		allowed = allowed || slices.Contains(x.rule.Can, c)
	}
	if !allowed {
		return fault.Errorf(fault.Policy, "%w: no rule gives %s on %q", ErrDenied, c, p.s)
	}
	return nil
}

// Decide is Rules.Decide by rules that nobody checked: one that is not valid allows
// nothing, nor do those beside it.
func Decide(rules []Rule, p Path, c Capability) error {
	checked, err := Compile(rules)
	if err != nil {
		return fault.Errorf(fault.Policy, "%w: %w", ErrDenied, err)
	}
	return checked.Decide(p, c)
}
