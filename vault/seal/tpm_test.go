package seal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/internal/tpm"
	"keyrite/internal/tpm/tpmtest"
)

var testTPMAuth = []byte("authorisation of a test")

func testTPMKeeper(addr string) *TPMKeeper {
	return NewTPMKeeper(func() (*tpm.Device, error) { return tpm.Open(addr) }, testTPMAuth)
}

func device(t testing.TB, addr string) *tpm.Device {
	t.Helper()
	d, err := tpm.Open(addr)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// defineTPM makes the indexes as 'keyrite-vault tpm create' does.
func defineTPM(t testing.TB, addr string, auth []byte) {
	t.Helper()
	d := device(t, addr)
	defer d.Close()
	for _, x := range TPMIndexes() {
		if err := d.Define(x, auth, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func undefineTPM(t testing.TB, addr string) {
	t.Helper()
	d := device(t, addr)
	defer d.Close()
	for _, x := range TPMIndexes() {
		if err := d.Undefine(x, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// tpmBench is a store with its head in a new TPM.
func tpmBench(t testing.TB) (*bench, *tpmtest.TPM) {
	t.Helper()
	m := tpmtest.Start(t)
	defineTPM(t, m.Addr, testTPMAuth)
	return newBenchAt(t, func() Keeper { return testTPMKeeper(m.Addr) }), m
}

// folder copies the store's file, to be put back later.
func (b *bench) folder(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile(b.file())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func (b *bench) putBack(t testing.TB, data []byte) {
	t.Helper()
	if err := os.WriteFile(b.file(), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// An older copy of the store is refused, of whatever age, and the newest one opens;
// across power cuts, too.
func TestTPMHeadRefusesAnOlderStore(t *testing.T) {
	b, m := tpmBench(t)
	born := b.folder(t)
	s := b.open(t)
	put(t, s, Strict, "kv", "a", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	older := b.folder(t)
	s = b.open(t)
	put(t, s, Strict, "kv", "a", "2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	newest := b.folder(t)
	m.Restart()
	for _, data := range [][]byte{older, born} {
		b.putBack(t, data)
		err := b.tryOpen(t)
		if !errors.Is(err, ErrBehind) {
			t.Errorf("an older store: %v", err)
		}
		wantClass(t, err, fault.Verify)
	}
	b.putBack(t, newest)
	s = b.open(t)
	if got := get(t, s, "kv", "a"); got != "2" {
		t.Errorf("got %q", got)
	}
}

// Who has the authorisation of the indexes and an older store, and writes the TPM's
// index back to what it was then, is refused: the counter went on.
func TestTPMIndexWrittenBack(t *testing.T) {
	b, m := tpmBench(t)
	d := device(t, m.Addr)
	defer d.Close()
	before, err := d.Read(tpmHeadIndex(), testTPMAuth)
	if err != nil {
		t.Fatal(err)
	}
	older := b.folder(t)
	s := b.open(t)
	put(t, s, Strict, "kv", "a", "1")
	put(t, s, Strict, "kv", "a", "2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	now, err := d.Read(tpmHeadIndex(), testTPMAuth)
	if err != nil {
		t.Fatal(err)
	}
	count, err := d.Count(tpmCounterIndex(), testTPMAuth)
	if err != nil {
		t.Fatal(err)
	}
	b.putBack(t, older)
	// The old record under the counter's present value, in either slot.
	forged := bytes.Clone(before)
	old := bytes.Clone(before[tpmSlots+int((count-1)%2)*tpmSlot:][:tpmSlot])
	for i := range 2 {
		binary.BigEndian.PutUint64(old, count)
		copy(forged[tpmSlots+i*tpmSlot:], old)
	}
	for name, data := range map[string][]byte{
		"as it was":             before,
		"for the counter's now": forged,
		"another nonce":         append(append([]byte(tpmMagic), make([]byte, tpmNonce)...), now[tpmSlots:]...),
		"empty slots":           append(bytes.Clone(now[:tpmSlots]), make([]byte, 2*tpmSlot)...),
		"zeros":                 make([]byte, tpmHeadBytes),
	} {
		if err := d.Write(tpmHeadIndex(), testTPMAuth, 0, data); err != nil {
			t.Fatal(err)
		}
		if err := b.tryOpen(t); !errors.Is(err, errTPMHead) || fault.ClassOf(err) != fault.Verify || !strings.Contains(fault.HintOf(err), "rehead") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := d.Write(tpmHeadIndex(), testTPMAuth, 0, now); err != nil {
		t.Fatal(err)
	}
	if err := b.tryOpen(t); !errors.Is(err, ErrBehind) {
		t.Errorf("the index as it is: %v", err)
	}
	if _, err := d.Step(tpmCounterIndex(), testTPMAuth); err != nil {
		t.Fatal(err)
	}
	if err := b.tryOpen(t); !errors.Is(err, errTPMHead) {
		t.Errorf("somebody counted: %v", err)
	}
}

// The owner of the TPM removes the indexes and defines them anew, under the same
// authorisation or his own, with what stood in them: refused, in each case.
func TestTPMIndexDefinedAnew(t *testing.T) {
	for name, c := range map[string]struct {
		auth    []byte
		content func(now []byte) []byte
	}{
		"unwritten":             {testTPMAuth, func([]byte) []byte { return nil }},
		"with the old content":  {testTPMAuth, func(now []byte) []byte { return now }},
		"under his own":         {[]byte("the attacker's"), func(now []byte) []byte { return now }},
		"as it was when it was": {testTPMAuth, func(now []byte) []byte { return append(bytes.Clone(now[:tpmSlots]), make([]byte, 2*tpmSlot)...) }},
	} {
		t.Run(name, func(t *testing.T) {
			b, m := tpmBench(t)
			born := b.folder(t)
			d := device(t, m.Addr)
			defer d.Close()
			now, err := d.Read(tpmHeadIndex(), testTPMAuth)
			if err != nil {
				t.Fatal(err)
			}
			undefineTPM(t, m.Addr)
			defineTPM(t, m.Addr, c.auth)
			if data := c.content(now); data != nil {
				if err := d.Write(tpmHeadIndex(), c.auth, 0, data); err != nil {
					t.Fatal(err)
				}
			}
			for range 4 { // wherever the counter is
				if err := b.tryOpen(t); !errors.Is(err, errTPMHead) {
					t.Errorf("%v", err)
				}
				if _, err := d.Step(tpmCounterIndex(), c.auth); err != nil {
					t.Fatal(err)
				}
			}
			b.putBack(t, born)
			if err := b.tryOpen(t); !errors.Is(err, errTPMHead) {
				t.Errorf("the store of its first day: %v", err)
			}
		})
	}
}

// A TPM that is lost or cleared, or another one, seals the vault, and a quorum's word
// takes the store over; what was bound to the old one is not opened with the new one.
func TestTPMLostAndReheaded(t *testing.T) {
	b, m := tpmBench(t)
	s := b.open(t)
	put(t, s, Strict, "kv", "a", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	old := b.folder(t)
	m.Stop()
	err := b.tryOpen(t)
	wantClass(t, err, fault.Unreachable)
	if !strings.Contains(fault.HintOf(err), "The TPM is lost") {
		t.Errorf("hint %q", fault.HintOf(err))
	}
	other := tpmtest.Start(t)
	b.keeper = func() Keeper { return testTPMKeeper(other.Addr) }
	wantClass(t, b.tryOpen(t), fault.Verify)
	wantClass(t, Rehead(t.Context(), b.config(t), b.key, map[string]string{"did": "rehead"}), fault.Verify)
	defineTPM(t, other.Addr, testTPMAuth)
	wantClass(t, b.tryOpen(t), fault.Verify)
	if err := Rehead(t.Context(), b.config(t), b.key, map[string]string{"did": "rehead"}); err != nil {
		t.Fatal(err)
	}
	s = b.open(t)
	if raw, err := s.Entry(uint64(s.Head().Size - 1)); err != nil || !bytes.Contains(raw, []byte(`"did":"rehead"`)) {
		t.Errorf("the log's last entry: %s %v", raw, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	now := b.folder(t)
	b.putBack(t, old)
	if err := b.tryOpen(t); !errors.Is(err, errTPMHead) {
		t.Errorf("a copy of before: %v", err)
	}
	b.putBack(t, now)
	b.keeper = nil // a keeper of another kind, in the configuration alone
	if err := b.tryOpen(t); !errors.Is(err, ErrKeeper) {
		t.Errorf("another kind: %v", err)
	}
	if err := Rehead(t.Context(), b.config(t), b.key, map[string]string{"did": "rehead"}); err != nil {
		t.Fatal(err)
	}
	if err := b.tryOpen(t); err != nil {
		t.Errorf("reheaded to a file: %v", err)
	}
	b.keeper = func() Keeper { return testTPMKeeper(other.Addr) }
	if err := b.tryOpen(t); !errors.Is(err, ErrKeeper) {
		t.Errorf("back by configuration alone: %v", err)
	}
}

// A store that was resealed goes on with the same TPM.
func TestTPMHeadAcrossReseal(t *testing.T) {
	b, _ := tpmBench(t)
	next, err := NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.Wipe)
	to := b.place
	to.Epoch++
	if err := Reseal(t.Context(), b.config(t), b.key, to, next); err != nil {
		t.Fatal(err)
	}
	b.key, b.place = next, to
	s := b.open(t)
	put(t, s, Strict, "kv", "a", "1")
}

// cutter is a line to a TPM that breaks after so many commands: before the last one
// reached the TPM, or before its answer came back.
type cutter struct {
	l net.Listener

	mu     sync.Mutex // guards the rest
	to     string
	left   int // commands; negative: no end
	answer bool
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{l: l, to: to, left: -1}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go c.serve(conn)
		}
	}()
	return c
}

func (c *cutter) serve(conn net.Conn) {
	defer conn.Close()
	c.mu.Lock()
	to := c.to
	c.mu.Unlock()
	up, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer up.Close()
	for {
		cmd, err := message(conn)
		if err != nil {
			return
		}
		c.mu.Lock()
		over := c.left == 0
		answer := c.answer
		if c.left > 0 {
			c.left--
		}
		c.mu.Unlock()
		if over && !answer {
			return
		}
		if _, err := up.Write(cmd); err != nil {
			return
		}
		reply, err := message(up)
		if err != nil || over {
			return
		}
		if _, err := conn.Write(reply); err != nil {
			return
		}
	}
}

// message is one command or answer: its length stands at byte 2.
func message(r io.Reader) ([]byte, error) {
	head := make([]byte, 6)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	out := append(head, make([]byte, binary.BigEndian.Uint32(head[2:])-6)...)
	_, err := io.ReadFull(r, out[6:])
	return out, err
}

// set says after how many commands the line breaks.
func (c *cutter) set(to string, left int, answer bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.to, c.left, c.answer = to, left, answer
}

// The line breaks at each command of an update, before the TPM has it or before it
// has answered, and then the TPM's power is cut: the store opens again, whatever it
// acknowledged is there, and an older copy stays refused.
func TestTPMCutAtEachCommand(t *testing.T) {
	for _, answer := range []bool{false, true} {
		m := tpmtest.Start(t)
		defineTPM(t, m.Addr, testTPMAuth)
		c := newCutter(t, m.Addr)
		b := newBenchAt(t, func() Keeper { return testTPMKeeper(c.l.Addr().String()) })
		older := b.folder(t)
		acknowledged := int64(1)
		finished := false
		for n := 0; !finished; n++ {
			if n > 60 {
				t.Fatal("an update takes more commands than that")
			}
			s := b.open(t)
			c.set(m.Addr, n, answer)
			seq, err := s.Update(t.Context(), Strict, func(tx *Tx) (any, error) {
				return map[string]int{"n": n}, tx.Put("kv", "n", []byte{byte(n)})
			})
			if finished = err == nil; finished {
				acknowledged = int64(seq) + 1
				if n < 8 { // each of reading, writing and counting takes several
					t.Errorf("an update was confirmed after %d commands", n)
				}
			} else if !errors.Is(err, ErrUnconfirmed) {
				t.Fatalf("cut at %d: %v", n, err)
			}
			// The process ends without another word to the TPM.
			c.set(m.Addr, 0, false)
			_ = s.Close()
			m.Restart()
			c.set(m.Addr, -1, false)
			s = b.open(t)
			if s.Head().Size < acknowledged {
				t.Errorf("cut at %d: %d entries, %d acknowledged", n, s.Head().Size, acknowledged)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			newest := b.folder(t)
			b.putBack(t, older)
			if err := b.tryOpen(t); !errors.Is(err, ErrBehind) {
				t.Errorf("cut at %d: an older store: %v", n, err)
			}
			b.putBack(t, newest)
			older = newest
		}
	}
}

// A process that is killed while it writes loses nothing that it acknowledged.
func TestTPMKills(t *testing.T) {
	b, m := tpmBench(t)
	if err := os.WriteFile(filepath.Join(filepath.Dir(b.dir), "tpm"), []byte(m.Addr), 0o600); err != nil {
		t.Fatal(err)
	}
	all := map[int]int{}
	for i := range 12 {
		cmd, out := writer(t, b)
		stop := time.AfterFunc(time.Duration(50+40*i)*time.Millisecond, func() { _ = cmd.Process.Kill() })
		last, failed := acked(out)
		stop.Stop()
		_ = cmd.Wait()
		if failed != "" {
			t.Fatalf("kill %d: %s", i, failed)
		}
		maps.Copy(all, last)
		checkAcked(t, b, all)
	}
	if len(all) == 0 {
		t.Error("nothing was ever acknowledged: the kills came too early")
	}
}

// Updates that nobody waits for do not wear the TPM out: many of them, one head.
func TestTPMPause(t *testing.T) {
	b, m := tpmBench(t)
	c := b.config(t)
	c.Window, c.Pause = TPMWindow, TPMPause
	s, err := Open(t.Context(), c, b.key)
	if err != nil {
		t.Fatal(err)
	}
	d := device(t, m.Addr)
	defer d.Close()
	before, err := d.Count(tpmCounterIndex(), testTPMAuth)
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		put(t, s, Durable, "kv", "a", "1")
	}
	if n, err := d.Count(tpmCounterIndex(), testTPMAuth); err != nil || n > before+1 {
		t.Errorf("50 updates counted %d times (%v)", n-before, err)
	}
	put(t, s, Strict, "kv", "a", "2")
	if h := s.Health(); h.Advanced != h.Size {
		t.Errorf("%d of %d", h.Advanced, h.Size)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Count(tpmCounterIndex(), testTPMAuth); err != nil || n > before+3 {
		t.Errorf("all of it counted %d times (%v)", n-before, err)
	}
}

// What the store remembers of its TPM is read as it was written, or not at all.
func TestTPMMemory(t *testing.T) {
	k := testTPMKeeper("127.0.0.1:1")
	if err := k.Advance(t.Context(), Head{}, nil); err == nil {
		t.Error("a keeper of no store advanced")
	}
	good := (&tpmMemory{base: 7}).marshal()
	if err := k.Recall(good); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(k.memory.marshal(), good) {
		t.Errorf("%x", k.memory.marshal())
	}
	for _, bad := range [][]byte{nil, good[1:], append(bytes.Clone(good), 0), append([]byte{2}, good[1:]...)} {
		wantClass(t, k.Recall(bad), fault.Verify)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Advance(ctx, Head{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
