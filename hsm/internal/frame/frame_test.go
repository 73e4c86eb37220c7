package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"keyrite/internal/secmem"
)

func TestRoundTrip(t *testing.T) {
	var b bytes.Buffer
	want := []Request{{ID: 1, Op: OpSign, Input: []byte("digest")}, {ID: 2, Op: OpObjects}}
	for i := range want {
		if err := Write(&b, &want[i]); err != nil {
			t.Fatal(err)
		}
	}
	r := iotest.OneByteReader(&b)
	for i := range want {
		var got Request
		if err := Read(r, &got); err != nil || !reflect.DeepEqual(got, want[i]) {
			t.Errorf("got %+v, %v", got, err)
		}
	}
	if err := Read(r, &Request{}); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

func framed(text string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
}

func TestReadRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []byte
	}{
		{"short head", []byte{0, 0}},
		{"empty frame", []byte{0, 0, 0, 0}},
		{"giant", []byte{0xff, 0xff, 0xff, 0xff, 1}},
		{"cut", framed(`{"id":1,"op":"random"}`)[:10]},
		{"not JSON", framed("xx")},
		{"unknown field", framed(`{"id":1,"op":"random","pin":"1234"}`)},
		{"trailing", framed(`{"id":1,"op":"random"}{}`)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := Read(bytes.NewReader(tc.in), &Request{}); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := Append(nil, Response{Data: make([]byte, MaxData)}); err == nil {
		t.Error("a frame that nobody reads was made")
	}
}

func pinFile(t *testing.T, b []byte) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return r
}

func TestPINFrames(t *testing.T) {
	var b bytes.Buffer
	if err := errors.Join(WritePIN(&b, SOPIN, []byte("officer")), WritePIN(&b, UserPIN, []byte("user"))); err != nil {
		t.Fatal(err)
	}
	pins, err := ReadPINs(pinFile(t, b.Bytes()), SOPIN, UserPIN)
	if err != nil {
		t.Fatal(err)
	}
	if string(pins[SOPIN].Bytes()) != "officer" || string(pins[UserPIN].Bytes()) != "user" {
		t.Error("PINs changed on the way")
	}
	held := pins[UserPIN]
	pins.Wipe()
	if len(pins) != 0 || held.Bytes() != nil {
		t.Error("PINs stay after Wipe")
	}
	for name, in := range map[string]string{
		"cut head": "u", "cut PIN": "u\x05abc", "empty PIN": "u\x00", "role of another epoch": "U\x01a",
		"unknown role": "x\x01a", "twice": "u\x01au\x01b", "too much": strings.Repeat("u\x01a", secmem.Size),
	} {
		if _, err := ReadPINs(pinFile(t, []byte(in)), SOPIN, UserPIN); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	for _, pin := range []string{"", strings.Repeat("1", 256)} {
		if WritePIN(io.Discard, UserPIN, []byte(pin)) == nil {
			t.Errorf("a PIN of %d bytes was written", len(pin))
		}
	}
}

// TestNextRoles takes PINs of the next epoch under either name.
func TestNextRoles(t *testing.T) {
	all := []Role{SOPIN, UserPIN, NextSOPIN, NextUserPIN}
	pins, err := ReadPINs(pinFile(t, []byte("S\x01aU\x01b")), all...)
	if err != nil {
		t.Fatal(err)
	}
	if err := pins.Current(); err != nil || string(pins[SOPIN].Bytes()) != "a" || string(pins[UserPIN].Bytes()) != "b" || len(pins) != 2 {
		t.Errorf("roles %v, %v", pins, err)
	}
	mixed, err := ReadPINs(pinFile(t, []byte("s\x01aS\x01b")), all...)
	if err != nil {
		t.Fatal(err)
	}
	if mixed.Current() == nil {
		t.Error("two SO PINs of one epoch were accepted")
	}
}

// TestUserPINLine leaves what follows the line to the next reader.
func TestUserPINLine(t *testing.T) {
	f := pinFile(t, []byte("1234\r\nsecond\n"))
	pins, err := ReadUserPIN(f, false)
	if err != nil || string(pins[UserPIN].Bytes()) != "1234" {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(f); err != nil || string(rest) != "second\n" {
		t.Errorf("%d bytes are left, %v", len(rest), err)
	}
	for name, in := range map[string]string{"empty": "", "blank line": "\n", "control": "12\x1b34\n", "long": strings.Repeat("1", 256)} {
		if _, err := ReadUserPIN(pinFile(t, []byte(in)), false); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := ReadUserPIN(pinFile(t, []byte("1234\nsecond")), true); err == nil {
		t.Error("a second line in a whole file was accepted")
	}
}

// TestControlPassesDescriptor sends a descriptor and reads through it.
func TestControlPassesDescriptor(t *testing.T) {
	mine, far, err := ControlPair()
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	theirs, err := NewControl(far)
	if err != nil {
		t.Fatal(err)
	}
	if err := mine.Send(Command{ID: 7, Verb: VerbTake}, pinFile(t, []byte("hello"))); err != nil {
		t.Fatal(err)
	}
	var c Command
	f, err := theirs.Receive(&c)
	if err != nil || f == nil || c.ID != 7 {
		t.Fatal(c, err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	if err := theirs.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := mine.Receive(&c); !errors.Is(err, io.EOF) {
		t.Errorf("after close: %v", err)
	}
}

// FuzzRead feeds a data socket: no panic, and what is accepted is written as
// something that reads back equal.
func FuzzRead(f *testing.F) {
	f.Add(framed(`{"id":1,"op":"sign","key":"ab000000000000cd0000000000000102","input":"AAAA"}`))
	f.Add(framed(`{"id":2,"op":"generate","body":{"template":"sign"}}`))
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		var a, b Request
		if Read(bytes.NewReader(in), &a) != nil {
			return
		}
		out, err := Append(nil, &a)
		if err != nil {
			t.Fatal(err)
		}
		if err := Read(bytes.NewReader(out), &b); err != nil {
			t.Fatal(err)
		}
		again, err := Append(nil, &b)
		if err != nil || !bytes.Equal(out, again) {
			t.Errorf("%s, then %s, %v", out, again, err)
		}
	})
}
