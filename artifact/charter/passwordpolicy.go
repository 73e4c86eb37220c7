package charter

import (
	"math/big"
	"strings"

	"keyrite/artifact/fault"
)

// TypePasswordPolicy is the statement of how a password engine makes passwords.
const TypePasswordPolicy = "password-policy"

// PasswordPolicy says which passwords a password engine makes: every one that fits is
// as likely as any other. A later statement of the same mount and name replaces it;
// what was made before stays until it is rotated.
type PasswordPolicy struct {
	Alphabets []Alphabet `json:"alphabets"` // 1 to MaxAlphabets, none with a character of another
	Excluded  string     `json:"excluded"`  // characters that none shall have; may be empty
	History   int        `json:"history"`   // versions kept beside the newest: 0 to MaxPasswordHistory
	Length    int        `json:"length"`    // 8 to MaxPasswordLength
	Mount     string     `json:"mount"`
	Name      string     `json:"name"`
	// RotateAfter is when a password is changed by itself, in seconds: 0 for never, or
	// MinRotation to MaxRotation.
	RotateAfter int64 `json:"rotate_after"`
	Version     int   `json:"version"` // 1, then one more each time
}

// Alphabet is a set of characters, of which a password has at least Min.
type Alphabet struct {
	Characters string `json:"characters"` // visible ASCII, rising
	Min        int    `json:"min"`
}

// Limits of password policies.
const (
	MinPasswordLength  = 8
	MaxPasswordLength  = 128
	MaxAlphabets       = 6
	MaxPasswordHistory = 50
	// MinPasswordBits is the least that a password must be worth: whoever guesses has
	// 2^64 before him.
	MinPasswordBits = 64
	MinRotation     = 60 * 60              // an hour
	MaxRotation     = 10 * 366 * 24 * 3600 // ten years
	// maxMisses is how many random strings may miss for each that fits: passwords are
	// drawn until one does.
	maxMisses = 1000
)

// Sets are the characters of each alphabet, without the excluded ones.
func (p *PasswordPolicy) Sets() []string {
	out := make([]string, 0, len(p.Alphabets))
	for _, a := range p.Alphabets {
		out = append(out, strings.Map(func(r rune) rune {
			if strings.ContainsRune(p.Excluded, r) {
				return -1
			}
			return r
		}, a.Characters))
	}
	return out
}

// Count is how many passwords fit. Those of the first i alphabets that fill j places are
// counted from those of one alphabet less: which of the j places the i-th has, and what
// stands there.
func (p *PasswordPolicy) Count() *big.Int {
	ways, choose := []*big.Int{big.NewInt(1)}, pascal(p.Length)
	for i, set := range p.Sets() {
		power := []*big.Int{big.NewInt(1)} // of the size of the alphabet
		for c := range p.Length {
			power = append(power, new(big.Int).Mul(power[c], big.NewInt(int64(len(set)))))
		}
		next := make([]*big.Int, p.Length+1)
		for j := range next {
			next[j] = new(big.Int)
			for c := max(0, p.Alphabets[i].Min); c <= j; c++ {
				if j-c < len(ways) && ways[j-c].Sign() > 0 {
					n := new(big.Int).Mul(choose[j][c], power[c])
					next[j].Add(next[j], n.Mul(n, ways[j-c]))
				}
			}
		}
		ways = next
	}
	return ways[len(ways)-1]
}

// pascal are the binomial coefficients of 0 to n.
func pascal(n int) [][]*big.Int {
	rows := [][]*big.Int{{big.NewInt(1)}}
	for i := 1; i <= n; i++ {
		row := make([]*big.Int, i+1)
		row[0], row[i] = big.NewInt(1), big.NewInt(1)
		for j := 1; j < i; j++ {
			row[j] = new(big.Int).Add(rows[i-1][j-1], rows[i-1][j])
		}
		rows = append(rows, row)
	}
	return rows
}

// Bits is how much a password is worth: the whole part of the binary logarithm of
// Count.
func (p *PasswordPolicy) Bits() int { return p.Count().BitLen() - 1 }

// visible says whether a string is of visible ASCII, rising, so that none repeats.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' || i > 0 && s[i] <= s[i-1] {
			return false
		}
	}
	return true
}

func (s *State) addPasswordPolicy(p *PasswordPolicy) error {
	id := At(p.Mount, p.Name)
	if err := s.checkMount(TypePasswordPolicy, p.Mount, "password"); err != nil {
		return err
	}
	switch {
	case !idRE.MatchString(p.Name) || s.Access.ended[TypePasswordPolicy+"/"+id]:
		return badAccess(TypePasswordPolicy, id, "the name is no id, or was ended")
	case p.Version != s.Passwords[id].Version+1 || p.Version < 1: // version 0 if there is none
		return badAccess(TypePasswordPolicy, id, "the version does not follow")
	case p.History < 0 || p.History > MaxPasswordHistory:
		return badAccess(TypePasswordPolicy, id, "it keeps 0 to 50 earlier versions")
	case p.RotateAfter != 0 && (p.RotateAfter < MinRotation || p.RotateAfter > MaxRotation):
		return badAccess(TypePasswordPolicy, id, "passwords are changed never (0), or after an hour to ten years, in seconds")
	}
	if err := p.check(id); err != nil {
		return err
	}
	s.Passwords[id] = *p
	return nil
}

// check wants passwords that are worth enough and not too rare to be found.
func (p *PasswordPolicy) check(id string) error {
	if p.Length < MinPasswordLength || p.Length > MaxPasswordLength || len(p.Alphabets) == 0 || len(p.Alphabets) > MaxAlphabets {
		return badAccess(TypePasswordPolicy, id, "it has a length of 8 to 128 and 1 to 6 alphabets")
	}
	if !visible(p.Excluded) {
		return badAccess(TypePasswordPolicy, id, "excluded characters are not visible ASCII, rising")
	}
	seen, mins := "", 0
	for i, set := range p.Sets() {
		a := p.Alphabets[i]
		if !visible(a.Characters) || set == "" || strings.ContainsAny(a.Characters, seen) {
			return badAccess(TypePasswordPolicy, id, "an alphabet is not visible ASCII, rising, or is empty, or has a character of another")
		}
		if a.Min < 0 || a.Min > p.Length {
			return badAccess(TypePasswordPolicy, id, "the least number of an alphabet is none that fits")
		}
		seen, mins = seen+a.Characters, mins+a.Min
	}
	if mins > p.Length {
		return badAccess(TypePasswordPolicy, id, "more characters are required than there are places")
	}
	return p.checkCount(id)
}

func (p *PasswordPolicy) checkCount(id string) error {
	n := p.Count()
	if bits := n.BitLen() - 1; bits < MinPasswordBits {
		return fault.Errorf(fault.Verify, "%w: %s %s: its passwords are worth %d bits, %d are the least", ErrStatement, TypePasswordPolicy, id, bits, MinPasswordBits)
	}
	all := int64(len(strings.Join(p.Sets(), "")))
	strs := new(big.Int).Exp(big.NewInt(all), big.NewInt(int64(p.Length)), nil)
	if strs.Cmp(n.Mul(n, big.NewInt(maxMisses))) > 0 {
		return badAccess(TypePasswordPolicy, id, "fewer than one random string in a thousand would fit")
	}
	return nil
}

// endPasswordPolicy ends a policy. Passwords made with it stay, and are not rotated
// any more.
func (s *State) endPasswordPolicy(id string) bool {
	_, there := s.Passwords[id]
	delete(s.Passwords, id)
	return there
}

// PasswordPolicyNames are the names of a mount's policies, in order.
func (s *State) PasswordPolicyNames(mount string) []string { return namesAt(s.Passwords, mount) }
