package charterstore

import (
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
