package secmem

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestBuffer(t *testing.T) {
	b, err := New()
	if err != nil {
		t.Fatal(err)
	}
	fill := func(s string) error {
		return b.Fill(func(p []byte) (int, error) { return copy(p, s), nil })
	}
	if err := fill("a longer secret"); err != nil {
		t.Fatal(err)
	}
	if err := fill("short"); err != nil {
		t.Fatal(err)
	}
	if got := b.Bytes(); string(got) != "short" || cap(got) != len(got) {
		t.Errorf("%q of capacity %d", got, cap(got))
	}
	for i, c := range b.mem.page[5:] {
		if c != 0 {
			t.Fatalf("byte %d of the former secret is left", i+5)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		if text := fmt.Sprintf(verb, b); text != "[redacted]" {
			t.Errorf("%s formats as %q", verb, text)
		}
		// Where it is an unexported field, no method of it is asked.
		type holder struct{ b *Buffer }
		for _, h := range []any{holder{b}, &holder{b}, []holder{{b}}, map[string]holder{"h": {b}}} {
			text := fmt.Sprintf(verb, h)
			for _, shown := range []string{"short", fmt.Sprintf("%x", "short"), "115 104 111", "0x73, 0x68"} {
				if strings.Contains(text, shown) {
					t.Errorf("%s of %T shows the secret: %.200q", verb, h, text)
				}
			}
		}
	}
	if err := b.Fill(func(p []byte) (int, error) { return copy(p, "partial"), errors.New("no") }); err == nil || len(b.Bytes()) != 0 || b.mem.page[0] != 0 {
		t.Error("a failed fill leaves something")
	}
	if b.Fill(func([]byte) (int, error) { return Size + 1, nil }) == nil {
		t.Error("a length beyond the page was accepted")
	}
	b.Wipe()
	b.Wipe()
	if b.Bytes() != nil || fill("x") == nil {
		t.Error("usable after Wipe")
	}
	(*Buffer)(nil).Wipe()
	if (*Buffer)(nil).Bytes() != nil {
		t.Error("a nil buffer has bytes")
	}
}
