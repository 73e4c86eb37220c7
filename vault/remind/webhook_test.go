package remind

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/clitest"
	"keyrite/vault/duty"
)

// hook is a receiver over TLS.
type hook struct {
	*httptest.Server
	t    *testing.T
	stop chan struct{}

	mu     sync.Mutex // guards the rest
	status int
	hangs  bool
	got    []*http.Request
	bodies []string
}

func newHook(t *testing.T) *hook {
	t.Helper()
	h := &hook{t: t, status: http.StatusNoContent, stop: make(chan struct{})}
	h.Server = httptest.NewTLSServer(http.HandlerFunc(h.serve))
	t.Cleanup(func() { close(h.stop); h.Close() })
	return h
}

func (h *hook) serve(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	h.mu.Lock()
	h.got, h.bodies = append(h.got, r), append(h.bodies, string(raw))
	status, hangs := h.status, h.hangs
	h.mu.Unlock()
	if hangs {
		<-h.stop
	}
	w.Header().Set("Location", h.URL+"/elsewhere")
	w.WriteHeader(status)
}

func (h *hook) answer(status int) { h.mu.Lock(); defer h.mu.Unlock(); h.status = status }
func (h *hook) hang()             { h.mu.Lock(); defer h.mu.Unlock(); h.hangs = true }
func (h *hook) count() int        { h.mu.Lock(); defer h.mu.Unlock(); return len(h.got) }

// wait waits until so many messages came.
func (h *hook) wait(n int) {
	h.t.Helper()
	if !clitest.Await(20*time.Second, func() bool { return h.count() >= n }) {
		h.t.Fatalf("%d messages, want %d", h.count(), n)
	}
}

func (h *hook) reminder(id string) charter.Reminder {
	return charter.Reminder{ID: id, Kind: "webhook", Level: "soon", Address: h.URL + "/keyrite", CA: h.Certificate().Raw}
}

func hooked(r charter.Reminder) *webhook {
	return &webhook{Reminder: r, world: "rehearsal:abcdefgh", vault: strings.Repeat("5c", 32)}
}

func note() *message {
	return &message{at: artifacttest.Now(), more: 3, items: []duty.Item{item("a", duty.Late), {ID: "shares/work", Kind: duty.Shares, About: "safe work: 3 of 5", Level: duty.Late, Act: "ask"}}}
}

// TestWebhook: one JSON object goes to the receiver of the charter over TLS, and what it
// answers is a status.
func TestWebhook(t *testing.T) {
	h := newHook(t)
	if err := hooked(h.reminder("duty")).send(t.Context(), note()); err != nil {
		t.Fatal(err)
	}
	r := h.got[0]
	if r.Method != http.MethodPost || r.URL.Path != "/keyrite" || r.Header.Get("Content-Type") != "application/json" || r.TLS == nil || r.TLS.Version < tls.VersionTLS12 {
		t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	want := `{"format":"keyrite/reminder/v1","items":[{"about":"bundle a","act":"export it","due":"2027-01-01T02:00:00Z","id":"a","kind":"bundle","level":"late"},` +
		`{"about":"safe work: 3 of 5","act":"ask","id":"shares/work","kind":"shares","level":"late"}],"more":3,"reminder":"duty","time":"2026-11-22T02:00:00Z","vault":"` +
		strings.Repeat("5c", 32) + `","world":"rehearsal:abcdefgh"}`
	if h.bodies[0] != want || !json.Valid([]byte(h.bodies[0])) {
		t.Errorf("%s\nwant\n%s", h.bodies[0], want)
	}
}

// TestWebhookRefusals: a receiver that is another, that sends elsewhere, or that is not
// well, has not been told.
func TestWebhookRefusals(t *testing.T) {
	h, other := newHook(t), newHook(t)
	r := h.reminder("duty")
	for _, status := range []int{301, 302, 307, 308, 400, 401, 404, 500, 503} {
		h.answer(status)
		if err := hooked(r).send(t.Context(), note()); fault.ClassOf(err) != fault.Unreachable {
			t.Errorf("status %d: %v", status, err)
		}
	}
	for _, x := range h.got {
		if x.URL.Path != "/keyrite" || x.Method != http.MethodPost {
			t.Errorf("followed to %s %s", x.Method, x.URL)
		}
	}
	h.answer(http.StatusOK)
	n := h.count()
	foreign := r
	foreign.CA = nil // those of the system do not have it
	if err := hooked(foreign).send(t.Context(), note()); fault.ClassOf(err) != fault.Unreachable {
		t.Errorf("of an unknown CA: %v", err)
	}
	t.Setenv("HTTPS_PROXY", other.URL)
	if err := hooked(r).send(t.Context(), note()); err != nil || other.count() != 0 {
		t.Errorf("a proxy of the environment: %v, %d", err, other.count())
	}
	if h.count() != n+1 {
		t.Errorf("%d messages came", h.count()-n)
	}
	h.Close()
	if err := hooked(r).send(t.Context(), note()); fault.ClassOf(err) != fault.Unreachable {
		t.Errorf("gone: %v", err)
	}
}
