package kv_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/trail"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/kv"
	"keyrite/vault/seal"
)

// keepers write secrets of three versions each.
const keepers = 4

// writeUntilKilled writes one secret per keeper as fast as it can and says which
// versions are acknowledged.
func writeUntilKilled(dir string) error {
	s, err := enginetest.Open(dir)
	if err != nil {
		return err
	}
	state := &charter.State{KV: map[string]charter.KVConfig{"kv": {MaxVersions: 3, Mount: "kv", Version: 1}}}
	e := kv.New(&engine.Host{Mount: "kv", Charter: func() *charter.State { return state }, View: s.View})
	j := audit.NewJournal(s)
	failed := make(chan error, keepers)
	for w := range keepers {
		go func() { failed <- writeVersions(e, j, w) }()
	}
	return <-failed
}

func writeVersions(e *kv.Engine, j *audit.Journal, w int) error {
	name := fmt.Sprintf("s%d", w)
	path, err := access.ParsePath("kv/data/" + name)
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		body := json.RawMessage(fmt.Sprintf(`{"i":%d,"of":"%s"}`, i, name))
		r := &engine.Request{Method: engine.Write, Path: path, Rest: []string{"data", name}, Params: engine.Params{"data": body}, Now: began()}
		p, err := e.Plan(r)
		if err != nil {
			return err
		}
		var a *engine.Answer
		_, err = j.Do(context.Background(), seal.Durable, &audit.Entry{Kind: audit.Request, Operation: "update", Path: path.String(), Time: trail.FormatTime(r.Now)}, func(tx *seal.Tx) error {
			a, err = p.Apply(tx)
			return err
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stdout, "ack %d %v %s\n", w, a.Result["version"], body)
	}
}

// Killed at any moment, each secret is in a version that is not older than the last
// one acknowledged, and its three newest versions are whole, in a row, and no other
// value is left.
func TestKilledWriter(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, _ := bench(t)
	b.World.Approve(charter.TypeKVConfig, charter.KVConfig{MaxVersions: 3, Mount: "kv", Version: 1})
	total := 0
	for range 40 {
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
		acks := acked(out, enginetest.KillAfter(cmd.Process))
		_ = cmd.Wait()
		if b.Store, err = enginetest.Open(b.Dir); err != nil {
			t.Fatal(err)
		}
		total += checkAcked(t, b, acks)
	}
	if total == 0 {
		t.Error("nothing was ever acknowledged: the kills came too early")
	}
}

type ack struct {
	version int
	body    string
}

func acked(out io.Reader, said func()) map[int]ack {
	last := map[int]ack{}
	for sc := bufio.NewScanner(out); sc.Scan(); {
		var w int
		var a ack
		if n, err := fmt.Sscanf(sc.Text(), "ack %d %d %s", &w, &a.version, &a.body); err == nil && n == 3 {
			last[w] = a
			said()
		}
	}
	return last
}

func checkAcked(t *testing.T, b *enginetest.Bench, acks map[int]ack) int {
	t.Helper()
	e := kv.New(b.Host)
	read := func(w, version int) (data string, current int) {
		a, err := b.Look(e, fmt.Sprintf("kv/data/s%d", w), fmt.Sprintf(`{"version":%d}`, version))
		if err != nil {
			t.Fatalf("s%d version %d: %v", w, version, err)
		}
		var got struct {
			Data     json.RawMessage
			Metadata struct{ Version int }
		}
		if err := json.Unmarshal([]byte(enginetest.JSON(t, a.Data)), &got); err != nil {
			t.Fatal(err)
		}
		return string(got.Data), got.Metadata.Version
	}
	kept := 0
	for w, a := range acks {
		_, current := read(w, 0)
		if current < a.version {
			t.Fatalf("s%d: version %d acknowledged, %d there", w, a.version, current)
		}
		for n := max(1, current-2); n <= current; n++ {
			data, _ := read(w, n)
			if n == a.version && data != a.body {
				t.Fatalf("s%d version %d is %s, acknowledged was %s", w, n, data, a.body)
			}
		}
		kept += a.version
	}
	err := b.Store.View(func(v *seal.View) error {
		if n := len(v.Keys("kv-value/kv", "")); n > 3*keepers {
			t.Fatalf("%d values for %d secrets of 3 versions", n, keepers)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return kept
}
