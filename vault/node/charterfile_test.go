package node

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/durable"
	"keyrite/vault/engine"
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

// aSecond is a second, on a machine that is slowed by the race detector more.
const aSecond = time.Second * raceSlows

// TestFileHoldsForALiveTokenWithinASecond: what is appended to the file, which may be
// long, shuts a token out that was good, within a second. A machine that is busy with
// other things may need longer for one of them, not for all.
func TestFileHoldsForALiveTokenWithinASecond(t *testing.T) {
	for _, statements := range []int{0, 10_000} {
		t.Run(fmt.Sprint(statements), func(t *testing.T) {
			b := newBench(t)
			for i := 2; b.State.Size() < statements; i++ {
				b.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: i, Rules: []access.Rule{{Path: "kv/data/line1/*", Can: []access.Capability{access.Update}}}})
			}
			ids := []string{"a", "b", "c"}
			for i, id := range ids {
				b.Approve(charter.TypeIdentity, process(id, 2000+i))
			}
			b.writeCharter()
			b.open()
			var took []time.Duration
			for i, id := range ids {
				took = append(took, b.shutsOut(id, 2000+i))
			}
			t.Logf("%d statements: shut out after %s", b.State.Size(), took)
			if slices.Min(took) >= aSecond {
				t.Errorf("with %d statements a live token is shut out after %s", b.State.Size(), took)
			}
		})
	}
}

// shutsOut ends an identity in the file, as 'keyrite charter append' does, and says how
// long its token was good after that.
func (b *bench) shutsOut(id string, uid int) time.Duration {
	b.t.Helper()
	r, err := b.call(uid, engine.Write, "auth/unix/login", "")
	b.ok(err)
	token := r.Answer.Auth.Token
	use := func() error {
		_, err := b.withToken(&token, uid, "kv/data/line1/x", `{"text":"a"}`)
		return err
	}
	b.ok(use())
	had := len(b.Charter)
	b.Approve(charter.TypeAccessEnded, charter.AccessEnded{Type: charter.TypeIdentity, ID: id})
	var file *durable.Append
	await(b.t, func() bool {
		file, _, err = durable.OpenShared(b.charterFile())
		return !errors.Is(err, durable.ErrInUse)
	})
	b.ok(err)
	began := time.Now()
	b.ok(file.Line(b.lines(had)[0]))
	b.ok(file.Close())
	await(b.t, func() bool { return fault.ClassOf(use()) == fault.Peer })
	return time.Since(began)
}
