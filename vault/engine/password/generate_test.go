package password

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"math/big"
	"strings"
	"testing"

	"keyrite/artifact/charter"
)

// Of all bytes there are, each number comes of as many: no remainder is favoured.
func TestNoRemainderIsFavoured(t *testing.T) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for n := 1; n <= 94; n++ {
		d := &drawer{random: bytes.NewReader(every), limit: 256 - 256%n}
		count := make([]int, n)
		for {
			x, err := d.below(n)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			count[x]++
		}
		for x, c := range count {
			if c != 256/n {
				t.Errorf("%d of %d comes of %d bytes, not of %d", x, n, c, 256/n)
			}
		}
	}
}

// Of all pairs of bytes, each password that fits comes of as many, and no other.
func TestEachPasswordIsAsLikely(t *testing.T) {
	p := &charter.PasswordPolicy{Alphabets: []charter.Alphabet{{Characters: "ab"}, {Characters: "12x", Min: 1}}, Excluded: "x", Length: 2}
	count := map[string]int{}
	for a := range 256 {
		for b := range 256 {
			one := bytes.Repeat([]byte{byte(a), byte(b)}, 32) // what follows is the same: a pair that does not fit is seen once only
			out, err := draw(p, bytes.NewReader(one))
			if err == nil {
				count[string(out)]++
			}
		}
	}
	want := []string{"11", "12", "1a", "1b", "21", "22", "2a", "2b", "a1", "a2", "b1", "b2"}
	if p.Count().Cmp(big.NewInt(int64(len(want)))) != 0 || len(count) != len(want) {
		t.Errorf("%d passwords, counted %v, want %d", len(count), p.Count(), len(want))
	}
	for _, s := range want {
		if count[s] != 64*64 {
			t.Errorf("%s comes of %d pairs", s, count[s])
		}
	}
}

// What is made fits, whatever the policy.
func TestPasswordsFit(t *testing.T) {
	pool := []string{"!#$%&+-./:=?@_", "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"}
	seen := map[string]bool{}
	for range 300 {
		var r [8]byte
		rand.Read(r[:])
		p := &charter.PasswordPolicy{Excluded: "01IOl", Length: 12 + int(r[0]%40)}
		for i, chars := range pool[:1+r[1]%4] {
			p.Alphabets = append(p.Alphabets, charter.Alphabet{Characters: chars, Min: int(r[2+i] % 2)})
		}
		got, err := generate(p)
		if err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
		s := string(got)
		if len(s) != p.Length || strings.ContainsAny(s, p.Excluded) || strings.Trim(s, strings.Join(p.Sets(), "")) != "" || !fits(p, p.Sets(), got) {
			t.Errorf("%+v: %q", p, s)
		}
		for _, a := range p.Alphabets {
			if a.Min > 0 && !strings.ContainsAny(s, a.Characters) {
				t.Errorf("%+v: %q", p, s)
			}
		}
		if seen[s] {
			t.Errorf("%q was made twice", s)
		}
		seen[s] = true
	}
}

// Without random bytes, without characters, or where nothing fits there is no password.
func TestNoPasswordWithoutRandomness(t *testing.T) {
	p := &charter.PasswordPolicy{Alphabets: []charter.Alphabet{{Characters: "abc"}}, Length: 8}
	if out, err := draw(p, strings.NewReader("short")); err == nil {
		t.Errorf("made %q of five bytes", out)
	}
	for _, bad := range []*charter.PasswordPolicy{
		{}, {Length: 8}, {Alphabets: p.Alphabets}, {Alphabets: p.Alphabets, Length: 8, Excluded: "abc"}, {Alphabets: []charter.Alphabet{{Characters: "abc", Min: 9}}, Length: 8},
	} {
		if out, err := generate(bad); err == nil {
			t.Errorf("%+v: made %q", bad, out)
		}
	}
}
