package tunnel

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// vector is a file of testdata/vectors: header lines, an empty line, the body.
func vector(t testing.TB, path string) (expect string, body []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	head, body, ok := bytes.Cut(b, []byte("\n\n"))
	_, expect, found := strings.Cut(string(head), "expect: ")
	if !ok || !found {
		t.Fatalf("%s: no expect: line", path)
	}
	return expect, bytes.TrimSuffix(body, []byte("\n"))
}

func vectors(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("../../testdata/vectors/tunnel/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no vectors", err)
	}
	return files
}

func classOf(err error) string {
	if err == nil {
		return "ok"
	}
	var e interface{ FaultClass() string }
	if errors.As(err, &e) {
		return e.FaultClass()
	}
	return "none"
}

func TestOpenVectors(t *testing.T) {
	for _, f := range vectors(t) {
		want, body := vector(t, f)
		_, err := ParseOpen(body)
		if got := classOf(err); got != want {
			t.Errorf("%s: got %s (%v), want %s", filepath.Base(f), got, err, want)
		}
	}
}

// A flow at its longest must fit the limit with room to spare.
func TestLongestOpenFits(t *testing.T) {
	o := Open{
		Addr: "fd00:1111:2222:3333:4444:5555:6666:7777", Flow: strings.Repeat("f", 32), Format: FormatOpen, Gateway: strings.Repeat("g", 63),
		PolicyVersion: maxVersion, Port: 65535, Proto: "tcp", User: strings.Repeat("u", 63), World: "rehearsal:" + strings.Repeat("w", 32),
	}
	b, err := o.Marshal()
	if err != nil || len(b) > 500 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestFraming(t *testing.T) {
	for name, in := range map[string]string{"zero": "\x00\x00", "long": "\x10\x01" + strings.Repeat("a", 4097), "short": "\x00\x05abc", "half a head": "\x00"} {
		if _, err := ReadMessage(strings.NewReader(in)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	var buf bytes.Buffer
	if err := WriteMessage(&buf, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	buf.WriteString("rest")
	b, err := ReadMessage(&buf)
	if err != nil || string(b) != "{}" || buf.String() != "rest" {
		t.Errorf("%q, %v, left %q", b, err, buf.String())
	}
	if err := WriteMessage(&buf, make([]byte, MaxMessageBytes+1)); err == nil {
		t.Error("long message written")
	}
}

// What a refusal says must not carry control characters to the other side.
func TestRefuseIsPrintable(t *testing.T) {
	for class, text := range map[string]string{"policy": "no\x1b[2J\nway é", "Not A Class": strings.Repeat("x", 500), "": ""} {
		a := Refuse(class, text)
		if err := a.Check(); err != nil {
			t.Errorf("%q: %v: %+v", text, err, a)
		}
	}
	if err := Accepted().Check(); err != nil {
		t.Error(err)
	}
	bad := &Answer{Format: FormatAnswer, OK: true, Class: "policy", Message: "no"}
	if bad.Check() == nil {
		t.Error("an answer that accepts and refuses was taken")
	}
}

func FuzzOpen(f *testing.F) {
	for _, v := range vectors(f) {
		_, body := vector(f, v)
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseOpen(b)
		if err != nil {
			return
		}
		again, err := o.Marshal()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q read as %q, %v", b, again, err)
		}
		if o.AddrPort().Addr().IsLoopback() || o.AddrPort().Port() == 0 {
			t.Errorf("%q: destination %v", b, o.AddrPort())
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"class":"","format":"keyrite/flow-answer/v1","message":"","ok":true}`))
	f.Add([]byte(`{"class":"policy","format":"keyrite/flow-answer/v1","message":"no","ok":false}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseAnswer(b)
		if err != nil {
			return
		}
		var buf bytes.Buffer
		if err := WriteAnswer(&buf, a); err != nil || !bytes.Equal(buf.Bytes()[2:], b) {
			t.Errorf("%q written as %q, %v", b, buf.Bytes(), err)
		}
	})
}
