package signrequest_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/fault"
	"keyrite/artifact/lines"
	"keyrite/artifact/signrequest"
)

// asked is a request to witness1, and his answer.
func asked(t *testing.T, w *artifacttest.World, name string) (*signrequest.Request, *signrequest.Answer) {
	t.Helper()
	r, err := signrequest.New(w.People[name].Public(), "vectors", messages(t, w)[signrequest.Incident], now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	a, err := signrequest.Sign(r, w.People[name], now)
	if err != nil {
		t.Fatal(err)
	}
	return r, a
}

// An answer is typed in four lines, or scanned; it is good for its own request and
// person, and for no other.
func TestAnswerInLines(t *testing.T) {
	w := artifacttest.New(t)
	r, a := asked(t, w, "witness1")
	p := w.People["witness1"].Public()
	typed, err := a.Lines()
	if err != nil || len(typed) != 4 {
		t.Fatalf("%d lines, %v", len(typed), err)
	}
	code, err := a.Code()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{strings.Join(typed, "\n"), strings.ToLower(strings.Join(typed, "\r\n") + "\n"), code, code + "\n"} {
		sig, err := signrequest.Verify([]byte(text), r, p)
		if err != nil || !bytes.Equal(sig, a.Signature) {
			t.Errorf("%q: %v", text, err)
		}
	}
	again, _ := asked(t, w, "witness1")
	if _, err := signrequest.Verify([]byte(code), again, p); !errors.Is(err, signrequest.ErrAnswer) {
		t.Errorf("an answer to another request: %v", err)
	}
	// His signature of one message does not pass for his answer to another.
	other, err := signrequest.New(p, "vectors", messages(t, w)[signrequest.Documents], now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	moved := *a
	if moved.Request, err = other.ID(); err != nil {
		t.Fatal(err)
	}
	if code, err = moved.Code(); err != nil {
		t.Fatal(err)
	}
	if _, err := signrequest.Verify([]byte(code), other, p); fault.ClassOf(err) != fault.Verify || errors.Is(err, signrequest.ErrAnswer) {
		t.Errorf("a signature of another message: %v", err)
	}
	eve := *a
	eve.Signature = bytes.Clone(a.Signature)
	eve.Signature[3] ^= 1
	if code, err = eve.Code(); err != nil {
		t.Fatal(err)
	}
	if _, err := signrequest.Verify([]byte(code), r, p); fault.ClassOf(err) != fault.Verify || errors.Is(err, signrequest.ErrAnswer) {
		t.Errorf("another signature: %v", err)
	}
	for name, text := range map[string]string{"nothing": "", "a line misread": strings.Replace(strings.Join(typed, "\n"), " ", " B", 1), "one missing": strings.Join(typed[:3], "\n"), "no signature": mustLines(t, make([]byte, 8)), "too short": mustLines(t, []byte("abc"))} {
		if _, err := signrequest.Verify([]byte(text), r, p); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func mustLines(t *testing.T, data []byte) string {
	t.Helper()
	l, err := lines.Of(data)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(l, "\n")
}

// A request is read from its lines as from its file.
func TestRequestInLines(t *testing.T) {
	w := artifacttest.New(t)
	r, _ := asked(t, w, "witness1")
	file, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	want, err := r.ID()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{string(file), mustLines(t, file)} {
		got, err := signrequest.Read([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if id, err := got.ID(); err != nil || id != want {
			t.Errorf("another request: %v", err)
		}
	}
	for _, text := range []string{"", "{}", "hello", mustLines(t, []byte("{}")), mustLines(t, file)[:200]} {
		if _, err := signrequest.Read([]byte(text)); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%.20q: %v", text, err)
		}
	}
}
