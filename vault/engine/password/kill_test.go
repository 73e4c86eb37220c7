package password_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/trail"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/password"
	"keyrite/vault/seal"
)

// rotateUntilKilled rotates a password as fast as it can, and says what it read after
// each rotation that was acknowledged. NOT SECRET.
func rotateUntilKilled(dir string) error {
	s, err := enginetest.Open(dir)
	if err != nil {
		return err
	}
	state := &charter.State{Passwords: map[string]charter.PasswordPolicy{"pw/plc": policy("plc", nil)}}
	e := password.New(&engine.Host{Mount: "pw", Charter: func() *charter.State { return state }, View: s.View})
	j := audit.NewJournal(s)
	do := func(m engine.Method, op string) (*engine.Answer, error) {
		path, err := access.ParsePath("pw/" + op + "/a")
		if err != nil {
			return nil, err
		}
		p, err := e.Plan(&engine.Request{Method: m, Path: path, Rest: []string{op, "a"}, Now: time.Unix(1e9, 0)})
		if err != nil {
			return nil, err
		}
		var a *engine.Answer
		entry := &audit.Entry{Kind: audit.Request, Operation: string(p.Needs), Path: path.String(), Time: trail.FormatTime(time.Unix(1e9, 0))}
		_, err = j.Do(context.Background(), seal.Durable, entry, func(tx *seal.Tx) (err error) {
			a, err = p.Apply(tx)
			return err
		})
		return a, err
	}
	for {
		if _, err := do(engine.Write, "rotate"); err != nil {
			return err
		}
		a, err := do(engine.Read, "password")
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stdout, "ack %v %s\n", a.Result["version"], fmt.Sprintf("%+v", a.Data))
	}
}

// Killed at any moment, the password is at a version that is not older than the last one
// acknowledged, and that one is what was read then, or history.
func TestKilledRotation(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, e := bench(t)
	b.Must(e, engine.Write, "pw/password/a", `{"policy":"plc"}`)
	total := 0
	for range 30 {
		if err := b.Store.Close(); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe, enginetest.ChildCommand, b.Dir)
		cmd.Stderr = t.Output()
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ack := enginetest.KillAfter(cmd.Process)
		version, said := 0, ""
		for sc := bufio.NewScanner(out); sc.Scan(); {
			if n, err := fmt.Sscanf(sc.Text(), "ack %d", &version); err == nil && n == 1 {
				said = sc.Text()
				total++
				ack()
			}
		}
		_ = cmd.Wait()
		if b.Store, err = enginetest.Open(b.Dir); err != nil {
			t.Fatal(err)
		}
		b.Reopen()
		checkRotated(t, b, e, version, said)
	}
	if total == 0 {
		t.Error("nothing was ever acknowledged: the kills came too early")
	}
}

func checkRotated(t *testing.T, b *enginetest.Bench, e *password.Engine, version int, said string) {
	t.Helper()
	now := read(t, b, e, "pw/password/a", "")
	if now.Version < version || now.Version > version+1 && version > 0 {
		t.Fatalf("version %d was acknowledged, %d is there", version, now.Version)
	}
	if version == 0 {
		return
	}
	if now.Version > version {
		now = read(t, b, e, "pw/history/a", fmt.Sprintf(`{"version":%d}`, version))
	}
	if !strings.Contains(said, now.Password) {
		t.Fatalf("version %d is another than was read", version)
	}
}
