package trail

import (
	"bufio"
	"encoding/json"
	"io"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/tlog"
)

// Source is where the leaves of an extract come from, and their proofs.
type Source interface {
	// Entry returns leaf n as it was hashed.
	Entry(n uint64) ([]byte, error)
	// Prove proves that leaf n is in the log of size leaves.
	Prove(n uint64, size int64) ([]tlog.Hash, error)
}

// WriteWhole writes all leaves of the log that h's checkpoint states, size of them.
func WriteWhole(w io.Writer, h Header, size int64, s Source) error {
	h.Whole, h.Entries = true, size
	return write(w, h, func(yield func(uint64, []tlog.Hash) error) error {
		for n := range uint64(size) {
			if err := yield(n, nil); err != nil {
				return err
			}
		}
		return nil
	}, s)
}

// WriteSome writes the leaves of those numbers, which ascend, each with its proof.
func WriteSome(w io.Writer, h Header, size int64, s Source, numbers []uint64) error {
	h.Whole, h.Entries = false, int64(len(numbers))
	return write(w, h, func(yield func(uint64, []tlog.Hash) error) error {
		for _, n := range numbers {
			proof, err := s.Prove(n, size)
			if err != nil {
				return err
			}
			if err := yield(n, proof); err != nil {
				return err
			}
		}
		return nil
	}, s)
}

func write(w io.Writer, h Header, leaves func(func(uint64, []tlog.Hash) error) error, s Source) error {
	if h.Entries < 1 {
		return fault.New(fault.Usage, "an extract without entries proves nothing")
	}
	h.Format = ExtractFormat
	out := bufio.NewWriter(w)
	if err := writeLine(out, h); err != nil {
		return err
	}
	err := leaves(func(n uint64, proof []tlog.Hash) error {
		leaf, err := s.Entry(n)
		if err != nil {
			return err
		}
		l := Line{Leaf: json.RawMessage(leaf)}
		for _, p := range proof {
			l.Proof = append(l.Proof, p[:])
		}
		return writeLine(out, l)
	})
	if err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return fault.Errorf(fault.Storage, "write the extract: %w", err)
	}
	return nil
}

func writeLine(w io.Writer, v any) error {
	data, err := jcs.Marshal(v)
	if err != nil {
		return err
	}
	if _, err := w.Write(append(data, '\n')); err != nil {
		return fault.Errorf(fault.Storage, "write the extract: %w", err)
	}
	return nil
}
