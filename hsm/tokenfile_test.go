package hsm_test

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
	"keyrite/hsm/internal/frame"
)

// all is the size of the sample that leaves nothing out.
const all = 0

// long skips a test that is for the long run.
func long(t *testing.T) {
	t.Helper()
	if os.Getenv("KEYRITE_TEST_LONG") == "" {
		t.Skip("long: set KEYRITE_TEST_LONG=1")
	}
}

// some picks n points of a sweep at random, from a seed that is printed, or all.
func some(t *testing.T, points []hsmtest.Point, n int) []hsmtest.Point {
	t.Helper()
	if n == all || len(points) <= n {
		return points
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("%d of %d points, seed %d", n, len(points), seed)
	var out []hsmtest.Point
	for _, i := range rand.New(rand.NewPCG(seed, 0)).Perm(len(points))[:n] {
		out = append(out, points[i])
	}
	return out
}

// fileToken is a token with known PINs.
type fileToken struct {
	*hsmtest.Env
	id   hsm.TokenID
	pins map[frame.Role]string
}

func newFileToken(t *testing.T) *fileToken {
	t.Helper()
	e := hsmtest.New(t)
	id, err := e.Supervisor.InitToken(t.Context(), "work")
	if err != nil {
		t.Fatal(err)
	}
	e.SetPINs(t, id, newSO, newUser)
	return &fileToken{e, id, map[frame.Role]string{frame.SOPIN: newSO, frame.UserPIN: newUser, frame.NextSOPIN: newSO + "N", frame.NextUserPIN: newUser + "N"}}
}

// login logs in once, under strace, and says how it went.
func (f *fileToken) login(t *testing.T, log string, inject ...string) (killed bool, err error) {
	t.Helper()
	p := f.Trace(t, frame.Job{Purpose: frame.ForOpen, Token: f.id}, map[frame.Role]string{frame.UserPIN: newUser}, log, inject...)
	err = p.Hello()
	return p.End(), err
}

// change changes the PINs to the next ones, under strace.
func (f *fileToken) change(t *testing.T, log string, inject ...string) (killed bool, err error) {
	t.Helper()
	p := f.Trace(t, frame.Job{Purpose: frame.ForChange, Token: f.id}, f.pins, log, inject...)
	_, err = p.Result()
	return p.End(), err
}

// opens wants the token to open, and nothing but the lock to be left beside it.
func (f *fileToken) opens(t *testing.T, at string) {
	t.Helper()
	s, err := f.Supervisor.Open(t.Context(), f.id)
	if err != nil {
		t.Fatalf("%s: the token does not open: %v", at, err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("%s: %v", at, err)
	}
	if left, _ := filepath.Glob(filepath.Join(f.TokenDir, ".keyrite-*.copy")); len(left) != 0 {
		t.Errorf("%s: %v is left", at, left)
	}
}

// settle brings the token back to the first PINs.
func (f *fileToken) settle(t *testing.T, at string) {
	t.Helper()
	f.Take(t, f.Supervisor, f.id, hsm.Current, newSO, newUser)
	f.Take(t, f.Supervisor, f.id, hsm.Next, f.pins[frame.NextSOPIN], f.pins[frame.NextUserPIN])
	err := f.Supervisor.SettlePINs(t.Context(), f.id)
	if errors.Is(err, hsm.ErrWaiting) {
		// Killed right after the old PIN was tried in vain, which the change does to
		// prove it gone: with the tries of the settling there are three wrong ones in a
		// row, and people wait half a minute or reset the counter. Here its file is
		// removed, so that the next change makes the same calls as the first.
		c, counted := f.Supervisor.PINCounter(t.Context(), f.id)
		if counted != nil {
			t.Fatal(counted)
		}
		if err := os.Remove(c.Path); err != nil {
			t.Fatal(err)
		}
		f.Take(t, f.Supervisor, f.id, hsm.Current, newSO, newUser)
		f.Take(t, f.Supervisor, f.id, hsm.Next, f.pins[frame.NextSOPIN], f.pins[frame.NextUserPIN])
		err = f.Supervisor.SettlePINs(t.Context(), f.id)
	}
	if err != nil {
		t.Fatalf("%s: the PINs cannot be settled: %v", at, err)
	}
	f.opens(t, at)
}

func (f *fileToken) points(t *testing.T, run func(*testing.T, string, ...string) (bool, error)) []hsmtest.Point {
	t.Helper()
	log := f.TraceLog()
	if killed, err := run(t, log); killed || err != nil {
		t.Fatalf("without a fault: killed %v, %v", killed, err)
	}
	points := hsmtest.Points(t, log, f.TokenDir)
	if len(points) < 10 {
		t.Fatalf("only %d points", len(points))
	}
	return points
}

// TestLongEachWriteOfALogin kills a login before each call that changes a file,
// and lets each such call fail for want of space: the token opens every time.
func TestLongEachWriteOfALogin(t *testing.T) { long(t); eachWriteOfALogin(t, all) }

// TestEachWriteOfALogin does so with a sample.
func TestEachWriteOfALogin(t *testing.T) { eachWriteOfALogin(t, 8) }

func eachWriteOfALogin(t *testing.T, sample int) {
	f := newFileToken(t)
	points := f.points(t, f.login)
	broken := 0
	for _, p := range some(t, points, sample) {
		if killed, err := f.login(t, f.TraceLog(), p.Kill()); !killed {
			t.Errorf("%s: not killed: %v", p, err)
		}
		broken += f.cut(t)
		f.opens(t, "killed before "+p.String())
		if killed, err := f.login(t, f.TraceLog(), p.Fail("ENOSPC")); killed {
			t.Errorf("%s without space: killed, %v", p, err)
		}
		f.opens(t, "no space for "+p.String())
	}
	t.Logf("the token file was cut at %d points", broken)
	if sample == all && broken == 0 {
		t.Error("no kill cut the token file: the sweep misses what it is for")
	}
	swept(t, "kills, and want of space, at each write of a login", sample, points)
}

// swept prints the row of docs/long-run.md.
func swept(t *testing.T, what string, sample int, points []hsmtest.Point) {
	t.Helper()
	if sample == all {
		t.Logf("long: %s: %d of %d", what, len(points), len(points))
	}
}

// cut counts token files of 0 bytes.
func (f *fileToken) cut(t *testing.T) int {
	t.Helper()
	st, err := os.Stat(f.file(t))
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() == 0 {
		return 1
	}
	return 0
}

func (f *fileToken) file(t *testing.T) string {
	t.Helper()
	fs, err := filepath.Glob(filepath.Join(f.TokenDir, "*", "token.object"))
	if err != nil || len(fs) != 1 {
		t.Fatal(fs, err)
	}
	return fs[0]
}

// TestLongEachWriteOfARecovery cuts the token by a killed login, and then kills the
// process that puts it back, before each call that changes a file.
func TestLongEachWriteOfARecovery(t *testing.T) { long(t); eachWriteOfARecovery(t, all) }

// TestEachWriteOfARecovery does so with a sample.
func TestEachWriteOfARecovery(t *testing.T) { eachWriteOfARecovery(t, 6) }

func eachWriteOfARecovery(t *testing.T, sample int) {
	f := newFileToken(t)
	var write hsmtest.Point // of the token file, after it was cut
	for _, p := range f.points(t, f.login) {
		if p.Call == "write" && filepath.Base(p.Path) == "token.object" {
			write = p
		}
	}
	breakIt := func() {
		t.Helper()
		if killed, err := f.login(t, f.TraceLog(), write.Kill()); !killed || f.cut(t) != 1 {
			t.Fatalf("the login was not killed in the middle: %v", err)
		}
	}
	breakIt()
	points := f.points(t, f.login)
	for _, p := range some(t, points, sample) {
		breakIt()
		if killed, err := f.login(t, f.TraceLog(), p.Kill()); !killed {
			t.Errorf("%s: not killed: %v", p, err)
		}
		f.opens(t, "killed before "+p.String())
		breakIt()
		if killed, err := f.login(t, f.TraceLog(), p.Fail("ENOSPC")); killed {
			t.Errorf("%s without space: killed, %v", p, err)
		}
		f.opens(t, "no space for "+p.String())
	}
	swept(t, "kills, and want of space, at each write of a recovery", sample, points)
}

// TestLongEachWriteOfAPINChange does the same to a change of both PINs; afterwards
// one epoch opens the token.
func TestLongEachWriteOfAPINChange(t *testing.T) { long(t); eachWriteOfAPINChange(t, all) }

// TestEachWriteOfAPINChange does so with a sample.
func TestEachWriteOfAPINChange(t *testing.T) { eachWriteOfAPINChange(t, 6) }

func eachWriteOfAPINChange(t *testing.T, sample int) {
	f := newFileToken(t)
	points := f.points(t, f.change)
	f.settle(t, "after a whole change")
	for _, p := range some(t, points, sample) {
		if killed, err := f.change(t, f.TraceLog(), p.Kill()); !killed {
			t.Errorf("%s: not killed: %v", p, err)
		}
		f.settle(t, "killed before "+p.String())
		if killed, err := f.change(t, f.TraceLog(), p.Fail("ENOSPC")); killed {
			t.Errorf("%s without space: killed, %v", p, err)
		}
		f.settle(t, "no space for "+p.String())
	}
	swept(t, "kills, and want of space, at each write of a change of PINs", sample, points)
}

// TestTokenIsLostWithoutTheGuard shows what the guard is for: pkcs11-tool, killed
// in the same login, leaves a token that nobody opens again.
func TestTokenIsLostWithoutTheGuard(t *testing.T) {
	f := newFileToken(t)
	tool := []string{"pkcs11-tool", "--module", f.Config.Module, "--token-label", "work", "--login", "--pin", newUser, "--list-objects"}
	run := func(log, inject string) error {
		args := []string{"-f", "-qq", "-y", "-o", log, "-e", "trace=" + hsmtest.Durable}
		if inject != "" {
			args = append(args, "-e", inject)
		}
		cmd := exec.Command("strace", append(args, tool...)...)
		cmd.Env = []string{"PATH=/usr/bin:/bin", "SOFTHSM2_CONF=" + f.Conf}
		return cmd.Run()
	}
	log := f.TraceLog()
	if err := run(log, ""); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(f.file(t))
	if err != nil {
		t.Fatal(err)
	}
	lost := 0
	points := hsmtest.Points(t, log, f.TokenDir)
	for _, p := range points {
		if err := run(f.TraceLog(), p.Kill()); err == nil {
			t.Errorf("%s: not killed", p)
		}
		if f.cut(t) == 1 {
			lost++
			if _, err := f.Supervisor.Open(t.Context(), f.id); err == nil || class(err) != "token" && class(err) != "storage" {
				t.Errorf("%s: a token of 0 bytes: %v (class %s)", p, err, class(err))
			}
			if err := os.WriteFile(f.file(t), whole, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("lost at %d of %d points", lost, len(points))
	if lost == 0 {
		t.Error("the token survived without the guard: the tests above show nothing")
	}
}

// TestTokenFileCutAnywhere leaves any beginning of the file behind, as a full disk
// and a power cut may: it is put back from the copy, whole.
func TestTokenFileCutAnywhere(t *testing.T) {
	f := newFileToken(t)
	whole, err := os.ReadFile(f.file(t))
	if err != nil {
		t.Fatal(err)
	}
	cp := filepath.Join(f.TokenDir, ".keyrite-"+filepath.Base(filepath.Dir(f.file(t)))+".copy")
	for _, tc := range []struct {
		name string
		left []byte
	}{
		{"nothing", nil},
		{"7 bytes", whole[:7]},
		{"the generation alone", whole[:8]},
		{"up to the first attribute", whole[:64]}, // 8 + 24 + 32 bytes of label
		{"half", whole[:len(whole)/2]},
		{"without the last attribute", whole[:len(whole)-24-72]}, // the user PIN
		{"all but a byte", whole[:len(whole)-1]},
		{"zeros", make([]byte, len(whole))},
	} {
		if err := errors.Join(os.WriteFile(cp, whole, 0o600), os.WriteFile(f.file(t), tc.left, 0o600)); err != nil {
			t.Fatal(err)
		}
		f.opens(t, tc.name)
	}
	// With both cut nothing is changed, and both are named.
	if err := errors.Join(os.WriteFile(cp, whole[:100], 0o600), os.Truncate(f.file(t), 0)); err != nil {
		t.Fatal(err)
	}
	_, err = f.Supervisor.Open(t.Context(), f.id)
	if class(err) != "storage" || !strings.Contains(err.Error(), "token.object") || !strings.Contains(err.Error(), ".copy") {
		t.Errorf("both cut: %v (class %s)", err, class(err))
	}
}

// TestFullDiskIsRefusedBeforeALogin fills a real file system: nothing is touched,
// the cause is named, and with space again the token opens.
func TestFullDiskIsRefusedBeforeALogin(t *testing.T) {
	f := newFileToken(t)
	saved := t.TempDir()
	if err := os.CopyFS(saved, os.DirFS(f.TokenDir)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", f.TokenDir, "tmpfs", 0, "size=4m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(f.TokenDir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := os.CopyFS(f.TokenDir, os.DirFS(saved)); err != nil {
		t.Fatal(err)
	}
	// What was mounted later is another folder for the module's sandbox.
	f.Supervisor = f.Start(t)
	f.Take(t, f.Supervisor, f.id, hsm.Current, newSO, newUser)
	f.opens(t, "with space")
	before, err := os.ReadFile(f.file(t))
	if err != nil {
		t.Fatal(err)
	}
	fill := filepath.Join(f.TokenDir, "fill")
	for _, free := range []int{1<<20 - 8192, 4096, 0} {
		if err := fillDisk(fill, f.TokenDir, free); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Supervisor.Open(t.Context(), f.id); class(err) != "storage" {
			t.Errorf("%d bytes free: %v (class %s)", free, err, class(err))
		}
		now, err := os.ReadFile(f.file(t))
		if err != nil || string(now) != string(before) {
			t.Errorf("%d bytes free: the token file was touched (%v)", free, err)
		}
		if err := os.Remove(fill); err != nil {
			t.Fatal(err)
		}
		f.opens(t, "with space again")
		if before, err = os.ReadFile(f.file(t)); err != nil {
			t.Fatal(err)
		}
	}
}

// fillDisk leaves about free bytes.
func fillDisk(path, dir string, free int) error {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return err
	}
	n := int(fs.Bavail)*int(fs.Bsize) - free
	return os.WriteFile(path, make([]byte, n), 0o600)
}
