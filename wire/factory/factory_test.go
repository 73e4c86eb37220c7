package factory

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

const vectorDir = "../../testdata/vectors/factory"

var update = flag.Bool("update", false, "write the vectors anew")

func messages() map[string]Message {
	n := bytes.Repeat([]byte{7}, NonceBytes)
	return map[string]Message{
		"hello":       &Hello{ChipID: strings.Repeat("0a", 16), Firmware: "20191023", Kind: "tpm2", Maker: "IBM"},
		"offer":       &Offer{Anchors: []byte("{}"), Bundle: strings.Repeat("0b", 16), Nonce: n, Serial: "gw100-00000001", World: "rehearsal:abcdefgh"},
		"request":     &Request{CSR: []byte{0x30, 0}, Proof: []byte{0x30, 0}},
		"certificate": &Certificate{CA: []byte{0x30, 0}, Certificate: []byte{0x30, 0}, Challenge: n},
		"confirm":     &Confirm{Signature: []byte{0x30, 0}},
		"confirmed":   &Confirmed{Serial: "gw100-00000001"},
		"refused":     &Refused{Class: "quota", Message: "the quota is spent"},
	}
}

func blank(t Type) Message {
	return map[Type]Message{
		TypeHello: &Hello{}, TypeOffer: &Offer{}, TypeRequest: &Request{}, TypeCertificate: &Certificate{},
		TypeConfirm: &Confirm{}, TypeConfirmed: &Confirmed{}, TypeRefused: &Refused{},
	}[t]
}

func TestRoundTrip(t *testing.T) {
	for name, m := range messages() {
		frame, err := Append(nil, m)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got := blank(m.frameType())
		err = Read(bytes.NewReader(frame), got)
		if r, ok := m.(*Refused); ok {
			var back *Refused
			err = Read(bytes.NewReader(frame), &Offer{})
			if !errors.As(err, &back) || *back != *r || back.FaultClass() != "quota" {
				t.Errorf("refusal came back as %v", err)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		for i := range frame {
			if Read(bytes.NewReader(frame[:i]), blank(m.frameType())) == nil {
				t.Errorf("%s cut at %d", name, i)
			}
		}
	}
}

func TestUnusableMessagesAreNotSent(t *testing.T) {
	for name, m := range map[string]Message{
		"chip id upper case": &Hello{ChipID: strings.Repeat("0A", 16), Kind: "tpm2"},
		"maker with newline": &Hello{ChipID: strings.Repeat("0a", 16), Kind: "tpm2", Maker: "a\nb"},
		"offer empty":        &Offer{},
		"request empty":      &Request{},
		"request long":       &Request{CSR: make([]byte, maxDER+1), Proof: []byte{1}},
		"short challenge":    &Certificate{CA: []byte{1}, Certificate: []byte{1}, Challenge: []byte{1}},
		"refusal, two lines": &Refused{Class: "quota", Message: "a\nb"},
	} {
		if _, err := Append(nil, m); err == nil {
			t.Error(name)
		}
	}
	if r := Refusal("no class!", "two\nlines"); r.check() != nil {
		t.Errorf("refusal %+v", r)
	}
}

func TestMessagesSigned(t *testing.T) {
	o := messages()["offer"].(*Offer)
	if got := string(ProofMessage(o, "ab")); got != "keyrite birth proof v1\nrehearsal:abcdefgh\ngw100-00000001\n"+hex.EncodeToString(o.Nonce)+"\nab\n" {
		t.Errorf("%q", got)
	}
	if got := string(ConfirmMessage("live", "gw100-00000001", []byte{1}, "cd")); got != "keyrite birth confirm v1\nlive\ngw100-00000001\n01\ncd\n" {
		t.Errorf("%q", got)
	}
}

// Vectors: the body is the frame in hex.
func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	files, err := filepath.Glob(vectorDir + "/*.txt")
	if err != nil || len(files) < 12 {
		t.Fatal("vectors are missing", err)
	}
	for _, f := range files {
		want, frame := readVector(t, f)
		got := "ok"
		if len(frame) == 0 || blank(Type(frame[0])) == nil {
			got = "verify"
		} else {
			m := blank(Type(frame[0]))
			err := Read(bytes.NewReader(frame), m)
			if r := (*Refused)(nil); err != nil && !errors.As(err, &r) {
				got = "verify"
			}
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", filepath.Base(f), got, want)
		}
	}
}

func readVector(t testing.TB, path string) (string, []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := bytes.Cut(b, []byte("\n\n"))
	_, want, _ := strings.Cut(string(head), "expect: ")
	frame, err := hex.DecodeString(string(bytes.TrimSpace(body)))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(want), frame
}

func writeVectors(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(vectorDir, 0o755); err != nil {
		t.Fatal(err)
	}
	put := func(name, expect, comment string, frame []byte) {
		text := fmt.Sprintf("comment: %s\nexpect: %s\n\n%x\n", comment, expect, frame)
		if err := os.WriteFile(filepath.Join(vectorDir, name+".txt"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, m := range messages() {
		frame, err := Append(nil, m)
		if err != nil {
			t.Fatal(err)
		}
		put(name, "ok", "well formed", frame)
	}
	raw := func(typ Type, body string) []byte {
		return append([]byte{byte(typ), 0, 0, byte(len(body) >> 8), byte(len(body))}, body...)
	}
	hello := `{"chip_id":"0a0a0a0a0a0a0a0a","firmware":"","kind":"tpm2","maker":""}`
	put("unknown-member", "verify", "a member that version 1 does not have", raw(TypeHello, strings.Replace(hello, `"maker"`, `"ca":true,"maker"`, 1)))
	put("repeated-member", "verify", "the chip id twice", raw(TypeHello, strings.Replace(hello, `{`, `{"chip_id":"0b0b0b0b0b0b0b0b",`, 1)))
	put("white-space", "verify", "not the one form", raw(TypeHello, hello+" "))
	put("trailing", "verify", "a second value", raw(TypeHello, hello+"{}"))
	put("null", "verify", "no object", raw(TypeHello, "null"))
	put("empty", "verify", "no body", raw(TypeHello, ""))
	put("chip-path", "verify", "a path as chip id", raw(TypeHello, strings.Replace(hello, "0a0a0a0a0a0a0a0a", "../../etc/passwd", 1)))
	put("type-unknown", "verify", "no such message", raw(Type(9), "{}"))
	put("length", "verify", "4 GiB announced", []byte{byte(TypeHello), 0xff, 0xff, 0xff, 0xff})
	put("nonce-short", "verify", "a nonce of one byte", raw(TypeOffer, `{"anchors":"e30=","bundle":"0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b","firmware":"","nonce":"Bw==","serial":"gw100-00000001","world":"live"}`))
}

func FuzzRead(f *testing.F) {
	files, err := filepath.Glob(vectorDir + "/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		_, frame := readVector(f, name)
		f.Add(frame)
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) == 0 {
			return
		}
		m := blank(Type(frame[0]))
		if m == nil {
			return
		}
		r := bytes.NewReader(frame)
		if Read(r, m) != nil {
			return
		}
		again, err := Append(nil, m)
		if err != nil || !bytes.Equal(again, frame[:len(frame)-r.Len()]) {
			t.Errorf("%x read and written as %x, %v", frame, again, err)
		}
	})
}
