package charterstore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/internal/durable"
)

// A vault that serves holds the charter for moments: a statement is appended after
// them. Who gives up waiting is told that he did, and the file is as it was.
func TestAppendWaitsForAVault(t *testing.T) {
	v := found(t, 2, 2)
	proposal := v.propose(t, "ci2")
	approvals := map[string][]byte{"1": v.approve(t, proposal, "approver1"), "2": v.approve(t, proposal, "approver2")}
	free, err := durable.Lock(v.path)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(v.path)
	if err != nil {
		t.Fatal(err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := AppendWhenFree(gone, v.path, testWorld, v.id, proposal, approvals); !errors.Is(err, durable.ErrInUse) || fault.ClassOf(err) != fault.Interrupted {
		t.Errorf("given up: %v", err)
	}
	if after, err := os.ReadFile(v.path); err != nil || string(after) != string(before) {
		t.Errorf("the charter changed: %v", err)
	}
	time.AfterFunc(50*time.Millisecond, free)
	st, err := AppendWhenFree(t.Context(), v.path, testWorld, v.id, proposal, approvals)
	if err != nil || st.Size() != 2 {
		t.Errorf("once it is free: %v", err)
	}
}

// TestContinue: a charter takes from a longer one what it lacks, and nothing from one
// that does not begin as it does or does not hold.
func TestContinue(t *testing.T) {
	v := found(t, 2, 2)
	had, err := os.ReadFile(v.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"ci2", "ci3"} {
		proposal := v.propose(t, id)
		if _, err := Append(v.path, testWorld, v.id, proposal, map[string][]byte{"1": v.approve(t, proposal, "approver1"), "2": v.approve(t, proposal, "approver2")}); err != nil {
			t.Fatal(err)
		}
	}
	longer, err := os.ReadFile(v.path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(found(t, 2, 2).path)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name         string
		here, longer []byte
		class        fault.Class
		want         []byte
	}{
		{"longer", had, longer, "", longer},
		{"the same", longer, longer, "", longer},
		{"shorter", longer, had, fault.Policy, longer},
		{"another vault", had, other, fault.Policy, had},
		{"here another", other, longer, fault.Policy, other},
		{"cut off", had, longer[:len(longer)-1], fault.Verify, had},
		{"altered", had, bytes.Replace(longer, []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1), fault.Verify, had},
		{"none here", nil, longer, fault.Policy, nil},
		{"somebody writes it", longer[:len(had)+10], longer, fault.Sealed, longer[:len(had)+10]},
	} {
		if err := os.WriteFile(v.path, c.here, 0o600); err != nil {
			t.Fatal(err)
		}
		st, err := Continue(v.path, testWorld, v.id, c.longer)
		if fault.ClassOf(err) != c.class || err == nil && st.Size() != bytes.Count(c.want, []byte("\n")) {
			t.Errorf("%s: %v", c.name, err)
		}
		if got, err := os.ReadFile(v.path); err != nil || !bytes.Equal(got, c.want) {
			t.Errorf("%s: the charter has %d bytes, want %d: %v", c.name, len(got), len(c.want), err)
		}
	}
}
