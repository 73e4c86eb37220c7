package node

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/world"
)

// TestKillWhileStatementsAreTakenOver: kill -9 at any point of an append leaves a
// charter that opens, with everything that was acknowledged, in force to the last
// statement of the file, and what the engines founded beside it.
func TestKillWhileStatementsAreTakenOver(t *testing.T) { killAppends(t, 25) }

// TestLongKillsWhileStatementsAreTakenOver is the same, many times.
func TestLongKillsWhileStatementsAreTakenOver(t *testing.T) {
	if os.Getenv("KEYRITE_TEST_LONG") == "" {
		t.Skip("long: 1,000 kills")
	}
	killAppends(t, 1000)
	t.Logf("long: kills while statements are taken over: 1000 of 1000")
}

func killAppends(t *testing.T, kills int) {
	b := newBench(t)
	had := len(b.Charter)
	for i := range 40 {
		b.Approve(charter.TypePipeline, charter.Pipeline{ID: fmt.Sprintf("p%d", i), Key: b.SPKI("pipeline1"), Products: []string{"gw100"}})
	}
	base, all := b.State.Size()-40, b.lines(had)
	ahead := 0
	for i := range kills {
		dir := t.TempDir()
		for _, f := range []string{"charter.jsonl", "store.db", "head", "wrapped"} {
			copyFile(t, filepath.Join(b.dir, f), filepath.Join(dir, f))
		}
		b.ok(os.WriteFile(filepath.Join(dir, "lines"), bytes.Join(all, []byte("\n")), 0o600))
		s := state{dir, b.State.Vault, b.World.World}
		acked, err := killed(t, s, "append-until-killed", time.Duration(i)*211*time.Microsecond)
		b.ok(err)
		shut, size := openAfterKill(t, s)
		if size < base+acked {
			t.Fatalf("kill %d: %d acknowledged, %d in force", i, acked, size-base)
		}
		if size > base+acked {
			ahead++
		}
		b.ok(shut())
	}
	t.Logf("%d kills, %d of them between an append and its acknowledgement", kills, ahead)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// killed runs the process that does it, kills it that long after its first word, and
// returns how many acts it acknowledged.
func killed(t *testing.T, s state, what string, after time.Duration) (acked int, err error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(t.Context(), exe, what, s.dir, s.vault+" "+string(s.world))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	in := bufio.NewScanner(out)
	if !in.Scan() || in.Text() != "open" {
		return 0, fmt.Errorf("it said %q", in.Text())
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	for in.Scan() {
		if n, err := fmt.Sscanf(in.Text(), "ack %d", &acked); err != nil || n != 1 {
			return acked, fmt.Errorf("it said %q", in.Text())
		}
	}
	_ = cmd.Wait()
	return acked, nil
}

// stateOfChild is what such a process was told.
func stateOfChild(dir, which string) (state, error) {
	s := state{dir: dir}
	var w string
	_, err := fmt.Sscan(which, &s.vault, &w)
	s.world = world.World(w)
	return s, err
}

// appendUntilKilled is that process: it takes the statements of a file over, one by
// one, and waits for its end.
func appendUntilKilled(dir, which string) error {
	s, err := stateOfChild(dir, which)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(filepath.Join(dir, "lines"))
	if err != nil {
		return err
	}
	n, _, err := s.open(context.Background())
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "open")
	for i, l := range bytes.Split(raw, []byte("\n")) {
		if _, err := n.Append(context.Background(), [][]byte{l}); err != nil {
			return err
		}
		fmt.Fprintln(os.Stdout, "ack", i+1)
	}
	select {}
}

// openAfterKill opens the vault as the next process would, and wants file, store and
// engines to say the same.
func openAfterKill(t *testing.T, s state) (shut func() error, size int) {
	t.Helper()
	n, shut, err := s.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, node: n}
	size = b.inForce().Size()
	raw, err := os.ReadFile(filepath.Join(s.dir, "charter.jsonl"))
	b.ok(err)
	if in := bytes.Count(raw, []byte("\n")); in != size || raw[len(raw)-1] != '\n' {
		t.Fatalf("%d statements in force, %d in the file", size, in)
	}
	if got := b.stored("found/kv", "size"); got != fmt.Sprint(size) {
		t.Fatalf("%d statements in force, the engine was brought to %s", size, got)
	}
	return shut, size
}
