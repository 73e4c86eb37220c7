package seal

import (
	"bytes"
	"os"
	"testing"

	"keyrite/artifact/fault"
)

// A key goes through a pipe whole, or not at all.
func TestDataKeyGoesThroughAPipe(t *testing.T) {
	k, err := NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	send := func(write func(w *os.File)) (*DataKey, error) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		write(w)
		w.Close()
		return TakeDataKey(r)
	}
	got, err := send(func(w *os.File) {
		if err := k.Hand(w); err != nil {
			t.Error(err)
		}
	})
	if err != nil || !bytes.Equal(got.buf.Bytes(), k.buf.Bytes()) {
		t.Fatalf("%v", err)
	}
	got.Wipe()
	for name, n := range map[string]int{"nothing": 0, "a part": KeyBytes - 1, "more": KeyBytes + 1} {
		if _, err := send(func(w *os.File) { _, _ = w.Write(make([]byte, n)) }); err == nil {
			t.Errorf("%s was taken for a key", name)
		}
	}
	k.Wipe()
	wantClass(t, k.Hand(&bytes.Buffer{}), fault.Sealed)
}
