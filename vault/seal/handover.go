package seal

import (
	"errors"
	"io"

	"keyrite/artifact/fault"
)

// Hand writes the key for the process that will use it, which reads it with
// TakeDataKey. w is the write end of a pipe between two hardened processes: the key
// goes from one locked page to another.
func (k *DataKey) Hand(w io.Writer) error {
	b := k.buf.Bytes()
	if len(b) != KeyBytes {
		return fault.New(fault.Sealed, "the data key is wiped")
	}
	if _, err := w.Write(b); err != nil {
		return fault.Errorf(fault.Unexpected, "hand over the data key: %w", err)
	}
	return nil
}

// TakeDataKey reads a key that Hand wrote, straight into a locked page, and wants the
// end after it. r must not buffer. The key must be wiped.
func TakeDataKey(r io.Reader) (*DataKey, error) {
	k, err := fillKey(func(page []byte) error {
		if _, err := io.ReadFull(r, page); err != nil {
			return err
		}
		var more [1]byte
		if n, err := r.Read(more[:]); n != 0 || !errors.Is(err, io.EOF) {
			return errors.New("there is more than a key")
		}
		return nil
	})
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "take the data key: %w", err)
	}
	return k, nil
}
