package node

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/durable"
)

// TestFileIsCopiedSlowly: whoever copies a longer charter over the file takes no lock and
// may need a while: what he writes is not cut, and holds when it is whole. That is so for
// an open vault, and for one that is opened meanwhile.
func TestFileIsCopiedSlowly(t *testing.T) {
	t.Parallel()
	for name, atStart := range map[string]bool{"open": false, "opened meanwhile": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			had := len(b.Charter)
			if !atStart {
				b.open()
			}
			b.Approve(charter.TypeIdentity, process("scada", 1002))
			b.Approve(charter.TypeAccessEnded, charter.AccessEnded{Type: charter.TypeIdentity, ID: "mes"})
			half := had + (len(b.Charter)-had)/4
			done := make(chan error, 1)
			f, err := os.OpenFile(b.charterFile(), os.O_WRONLY|os.O_TRUNC, 0)
			b.ok(err)
			_, err = f.Write(b.Charter[:half])
			b.ok(err)
			time.AfterFunc(600*time.Millisecond, func() {
				_, err := f.Write(b.Charter[half:])
				done <- errors.Join(err, f.Close())
			})
			if atStart {
				b.open()
			}
			b.ok(<-done)
			await(t, func() bool { return b.inForce().Size() == b.State.Size() })
			if got, err := os.ReadFile(b.charterFile()); err != nil || !bytes.Equal(got, b.Charter) {
				t.Errorf("the file has %d bytes and is another, want %d: %v", len(got), len(b.Charter), err)
			}
			if told := b.node.Status().FileRefused; told != nil {
				t.Errorf("told: %v", told)
			}
			if b.inForce().Head() != b.State.Head() {
				t.Error("another charter is in force")
			}
			b.shut()
			b.open()
		})
	}
}

// TestFileThatStaysUnfinished: it is told of after seconds, nothing is written into it,
// and it is taken over when it is whole, or forgotten when the one of before is back.
func TestFileThatStaysUnfinished(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	n := b.open()
	good, had := bytes.Clone(b.Charter), len(b.Charter)
	b.Approve(charter.TypeIdentity, process("scada", 1002))
	torn := b.Charter[:had+100]
	refused := func() {
		t.Helper()
		b.ok(os.WriteFile(b.charterFile(), torn, 0o600))
		began := time.Now()
		_, err := n.Append(t.Context(), b.lines(had))
		if !errors.Is(err, durable.ErrUnfinished) || fault.ClassOf(err) != fault.Sealed {
			t.Errorf("appended meanwhile: %v", err)
		}
		await(t, func() bool { return n.Status().FileRefused != nil })
		if err := n.Status().FileRefused; !errors.Is(err, durable.ErrUnfinished) || time.Since(began) < 2*time.Second {
			t.Errorf("told after %s: %v", time.Since(began), err)
		}
		if got, err := os.ReadFile(b.charterFile()); err != nil || !bytes.Equal(got, torn) {
			t.Errorf("the file was changed: %d bytes, %v", len(got), err)
		}
	}
	refused()
	b.ok(os.WriteFile(b.charterFile(), good, 0o600))
	await(t, func() bool { return n.Status().FileRefused == nil })
	if n.Charter().Size() != b.State.Size()-1 {
		t.Errorf("%d statements in force", n.Charter().Size())
	}
	refused()
	b.writeCharter()
	await(t, func() bool { return n.Status().FileRefused == nil })
	if n.Charter().Size() != b.State.Size() {
		t.Errorf("%d statements in force", n.Charter().Size())
	}
}

// TestFileAfterAPowerCut: what a write left that was cut off is taken away by whoever
// writes next, and when the vault is opened; never from a file that is behind.
func TestFileAfterAPowerCut(t *testing.T) {
	b := newBench(t)
	had := len(b.Charter)
	b.Approve(charter.TypeIdentity, process("scada", 1002))
	cutOff := func(data []byte) {
		t.Helper()
		before := time.Now().Add(-durable.Rest)
		b.ok(errors.Join(os.WriteFile(b.charterFile(), data, 0o600), os.Chtimes(b.charterFile(), before, before)))
	}
	is := func(want []byte) {
		t.Helper()
		if got, err := os.ReadFile(b.charterFile()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("the file has %d bytes, want %d: %v", len(got), len(want), err)
		}
	}
	cutOff(b.Charter[:had+100])
	n := b.open()
	is(b.Charter[:had])

	cutOff(b.Charter[:had+100]) // of a 'keyrite charter append' that was killed
	_, err := n.Append(t.Context(), b.lines(had))
	b.ok(err)
	is(b.Charter)
	b.shut()

	cutOff(b.Charter[:had+100])
	if _, _, err := b.state().open(t.Context()); !errors.Is(err, ErrRolledBack) {
		t.Errorf("behind, and cut off: %v", err)
	}
	is(b.Charter[:had+100])
}
