package secmem

import (
	"errors"
	"fmt"
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
	for i, c := range b.page[5:] {
		if c != 0 {
			t.Fatalf("byte %d of the former secret is left", i+5)
		}
	}
	for _, text := range []string{fmt.Sprint(b), fmt.Sprintf("%#v", b), fmt.Sprintf("%+v", b)} {
		if text != "[redacted]" {
			t.Errorf("formats as %q", text)
		}
	}
	if err := b.Fill(func(p []byte) (int, error) { return copy(p, "partial"), errors.New("no") }); err == nil || len(b.Bytes()) != 0 || b.page[0] != 0 {
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
