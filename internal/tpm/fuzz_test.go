package tpm

import (
	"bytes"
	"io"
	"testing"
)

// FuzzAnswer feeds answers of a broken or hostile TPM to the framing: it gives
// exactly the bytes that the header announces, or an error.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{0x80, 1, 0, 0, 0, 10, 0, 0, 0, 0})
	f.Add([]byte{0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 1, 2})
	f.Add([]byte{0x80, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := roundTrip(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(in), io.Discard}, nil)
		if err == nil && !bytes.Equal(out, in) {
			t.Errorf("answer %x of %x", out, in)
		}
	})
}
