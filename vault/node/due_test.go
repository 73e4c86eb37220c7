package node

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/internal/clitest"
	"keyrite/vault/duty"
	"keyrite/vault/engine"
)

// TestDueAndReminders: what is due is told to whom the charter lets ask, and to whom a
// reminder names, from the moment of its statement until it is ended; a restart does not
// repeat it, and the trail has it.
func TestDueAndReminders(t *testing.T) {
	var got atomic.Int64
	var last atomic.Value
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		raw, _ := io.ReadAll(r.Body)
		last.Store(string(raw))
		got.Add(1)
	}))
	defer hook.Close()
	b := newBench(t)
	b.Approve(charter.TypePolicy, charter.Policy{ID: "duty", Version: 1, Rules: []access.Rule{{Path: "keyrite/due", Can: []access.Capability{access.Read}}, {Path: "keyrite/status", Can: []access.Capability{access.Read}}}})
	b.Approve(charter.TypeIdentity, charter.Identity{ID: "duty", Policies: []string{"duty"}, TTL: 60, Unix: &charter.Unix{UID: adminUID}})
	b.writeCharter()
	start := func() {
		t.Helper()
		cfg := b.state().config()
		cfg.Outside = func(*charter.State) []duty.Thing {
			return []duty.Thing{{Kind: duty.Bundle, Name: "b", About: "bundle b", Ends: time.Now().Add(time.Hour)}, {Kind: duty.Bundle, Name: "far", Ends: time.Now().AddDate(1, 0, 0)}}
		}
		n, shut, err := b.state().openWith(t.Context(), cfg, b.store())
		b.ok(err)
		b.node, b.shut = n, func() { b.ok(shut()) }
	}
	start()
	r, err := b.call(adminUID, engine.Read, "keyrite/due", "")
	b.ok(err)
	data, _ := r.Answer.Data.(map[string]any)
	items, _ := data["items"].([]duty.Item)
	if data["soon"] != 1 || data["late"] != 0 || len(items) != 2 || items[0].ID != "bundle/b" || items[0].Level != duty.Soon {
		t.Errorf("%+v", data)
	}
	if _, err := b.call(mes, engine.Read, "keyrite/due", ""); err == nil {
		t.Error("told to whom no rule lets ask")
	}
	size := len(b.Charter)
	b.Approve(charter.TypeReminder, charter.Reminder{ID: "hook", Kind: "webhook", Level: "soon", Address: hook.URL + "/"})
	_, err = b.node.Append(t.Context(), [][]byte{[]byte(strings.TrimSuffix(string(b.Charter[size:]), "\n"))})
	b.ok(err)
	sent := func() bool { return !b.node.Status().Reminders["hook"].Sent.IsZero() }
	if !clitest.Await(20*time.Second, sent) || got.Load() != 1 {
		t.Fatalf("%d messages, %+v", got.Load(), b.node.Status().Reminders)
	}
	if text, _ := last.Load().(string); !strings.Contains(text, `"id":"bundle/b"`) || strings.Contains(text, "far") || !strings.Contains(text, string(b.World.World)) {
		t.Errorf("%s", text)
	}
	told := 0
	for _, e := range b.entries(0) {
		if e.Operation == "reminder" && e.Params["id"] == "hook" {
			told++
		}
	}
	if told != 1 {
		t.Errorf("%d entries", told)
	}
	r, err = b.call(adminUID, engine.Read, "keyrite/status", "")
	b.ok(err)
	status, _ := r.Answer.Data.(map[string]any)
	if list, _ := status["reminders"].([]map[string]any); len(list) != 1 || list[0]["id"] != "hook" || list[0]["sent"] == nil || list[0]["error"] != nil {
		t.Errorf("%+v", status["reminders"])
	}
	b.shut()
	start()
	defer func() { b.shut() }()
	if !clitest.Await(20*time.Second, sent) || got.Load() != 1 {
		t.Errorf("after a restart: %d messages", got.Load())
	}
	size = len(b.Charter)
	b.Approve(charter.TypeAccessEnded, charter.AccessEnded{ID: "hook", Type: charter.TypeReminder})
	_, err = b.node.Append(t.Context(), [][]byte{[]byte(strings.TrimSuffix(string(b.Charter[size:]), "\n"))})
	b.ok(err)
	if n := len(b.node.Status().Reminders); n != 0 {
		t.Errorf("%d reminders after it was ended", n)
	}
}
