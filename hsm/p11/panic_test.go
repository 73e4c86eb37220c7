package p11

import (
	"net"
	"testing"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
)

// TestBindingPanicsOnAnEmptyBlob is why receive looks at a blob first. If this
// fails, the binding was mended.
func TestBindingPanicsOnAnEmptyBlob(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("pkcs11.UnwrapKey takes an empty blob by now")
		}
	}()
	_, _ = (&pkcs11.Ctx{}).UnwrapKey(0, wrapPad(), 0, nil, nil)
}

// TestPanicOfTheBindingIsContained lets a request panic: it is answered as lost,
// what is said of it shows nothing of the process, and the session ends.
func TestPanicOfTheBindingIsContained(t *testing.T) {
	near, far := net.Pipe()
	ended := make(chan error, 1)
	s := &session{} // without a module every call panics
	pool := &Pool{anchor: s, all: []*session{s}}
	go func() { ended <- pool.serve(far) }()
	if err := frame.Write(near, frame.Request{ID: 7, Op: frame.OpRandom, Body: []byte("8")}); err != nil {
		t.Fatal(err)
	}
	var a frame.Response
	if err := frame.Read(near, &a); err != nil {
		t.Fatal(err)
	}
	if a.ID != 7 || a.Fault == nil || a.Fault.Kind != frame.KindLost || a.Fault.Class != "token" || len(a.Data)+len(a.Body) != 0 {
		t.Errorf("answered %+v, fault %+v", a, a.Fault)
	}
	if err := <-ended; err == nil {
		t.Error("the session goes on")
	}
}

// TestParseObject refuses what is no whole object file.
func TestParseObject(t *testing.T) {
	word := func(n byte) []byte { return []byte{0, 0, 0, 0, 0, 0, 0, n} }
	cat := func(parts ...[]byte) (out []byte) {
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	good := cat(word(9), word(1), word(boolKind), []byte{1}, word(2), word(ulongKind), word(5), word(3), word(bytesKind), word(3), []byte("abc"), word(4), word(mechsKind), word(1), word(7), word(5), word(arrayKind), word(0))
	if types, ok := parseObject(good); !ok || len(types) != 5 {
		t.Fatalf("a good file: %v %v", types, ok)
	}
	if !wholeLike(good, good) {
		t.Error("a file is not like itself")
	}
	for n := range good {
		if cut := good[:n]; wholeLike(cut, good) {
			t.Errorf("the first %d bytes pass for the file", n)
		}
	}
	huge := []byte{255, 255, 255, 255, 255, 255, 255, 255}
	for name, b := range map[string][]byte{
		"nothing": nil, "a kind that is not known": cat(word(1), word(1), word(9), []byte{1}), "no kind": cat(word(1), word(1)),
		"a length beyond all": cat(word(1), word(1), word(bytesKind), huge, []byte("x")), "a count beyond all": cat(word(1), word(1), word(mechsKind), huge, word(1)),
		"trailing bytes": append(cat(good), 0),
	} {
		if _, ok := parseObject(b); ok {
			t.Errorf("%s: it parses", name)
		}
	}
	if wholeLike(nil, nil) || wholeLike(word(1), nil) {
		t.Error("an empty file is whole")
	}
}
