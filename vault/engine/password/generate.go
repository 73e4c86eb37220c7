package password

import (
	"crypto/rand"
	"io"
	"strings"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

// maxDraws bounds how often a string is drawn. The charter has no policy that fewer
// than one in a thousand fits: to miss this often has a chance below 2^-140.
const maxDraws = 100_000

// generate draws strings of the whole alphabet until one fits: so each that fits is
// as likely as any other.
func generate(p *charter.PasswordPolicy) ([]byte, error) { return draw(p, rand.Reader) }

func draw(p *charter.PasswordPolicy, random io.Reader) ([]byte, error) {
	sets := p.Sets()
	all := strings.Join(sets, "")
	if all == "" || p.Length < 1 {
		return nil, fault.New(fault.Unexpected, "a password policy without characters or length")
	}
	d := &drawer{random: random, limit: 256 - 256%len(all)}
	out := make([]byte, p.Length)
	for range maxDraws {
		for i := range out {
			n, err := d.below(len(all))
			if err != nil {
				clear(out)
				return nil, err
			}
			out[i] = all[n]
		}
		if fits(p, sets, out) {
			return out, nil
		}
	}
	clear(out)
	return nil, fault.New(fault.Unexpected, "no password was found that fits its policy")
}

// drawer turns random bytes into numbers below one that divides limit.
type drawer struct {
	random io.Reader
	limit  int
	buf    [64]byte
	left   []byte
}

// below is 0 to n-1, each as likely: a byte at or above the greatest multiple of n is
// thrown away, since its remainders would come more often.
func (d *drawer) below(n int) (int, error) {
	for {
		if len(d.left) == 0 {
			if _, err := io.ReadFull(d.random, d.buf[:]); err != nil {
				return 0, fault.Errorf(fault.Unexpected, "read random bytes: %w", err)
			}
			d.left = d.buf[:]
		}
		b := int(d.left[0])
		d.left = d.left[1:]
		if b < d.limit {
			return b % n, nil
		}
	}
}

// fits says whether a string has of each alphabet as many as it should.
func fits(p *charter.PasswordPolicy, sets []string, s []byte) bool {
	for i, set := range sets {
		have := 0
		for _, c := range s {
			if strings.IndexByte(set, c) >= 0 {
				have++
			}
		}
		if have < p.Alphabets[i].Min {
			return false
		}
	}
	return true
}
