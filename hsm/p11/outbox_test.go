package p11

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"keyrite/hsm/internal/frame"
)

// An answer that has left stands neither in the buffer nor where it came from.
func TestOutboxWipes(t *testing.T) {
	var w bytes.Buffer
	o := newOutbox(&w)
	secret := bytes.Repeat([]byte{0x77}, 64)
	for id := range uint64(100) {
		if err := o.put(&frame.Response{ID: id, Data: secret}, time.Now(), id == 99); err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(secret, []byte{0x77}) {
			t.Fatal("the answer is still where it came from")
		}
		copy(secret, bytes.Repeat([]byte{0x77}, 64))
	}
	if n := bytes.Count(w.Bytes(), secret); n != 100 {
		t.Errorf("%d answers left, want 100", n)
	}
	if bytes.Contains(o.buf[:cap(o.buf)], []byte{0x77}) {
		t.Error("an answer is still in the buffer")
	}
}

type deaf struct{ calls int }

func (d *deaf) Write([]byte) (int, error) {
	d.calls++
	return 0, errors.New("nobody reads")
}

// What waits too long leaves without a further answer, and a write that failed is told
// to whoever comes next.
func TestOutboxTimer(t *testing.T) {
	d := &deaf{}
	o := newOutbox(d)
	for o.put(&frame.Response{ID: 1, Data: []byte{1}}, time.Now(), false) == nil {
		<-time.After(held)
	}
	if err := o.leave(); err == nil || d.calls != 1 {
		t.Errorf("got %v after %d writes", err, d.calls)
	}
}
