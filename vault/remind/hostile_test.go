package remind

import (
	"bytes"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/clitest"
	"keyrite/vault/duty"
)

// TestMailServerWithoutEnd: a server that never ends its line is not listened to for
// long, for what it says is kept in memory.
func TestMailServerWithoutEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	took := make(chan int, 1)
	go func() {
		n := 0
		defer func() { took <- n }()
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = c.Write([]byte("220 "))
		for piece := bytes.Repeat([]byte("a"), 64<<10); n < 64<<20; n += len(piece) {
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
	}()
	err = posted(charter.Reminder{ID: "duty", Kind: "mail", Address: l.Addr().String(), TLS: "none", From: "a@b", To: []string{"c@d"}}).send(t.Context(), note())
	if fault.ClassOf(err) != fault.Unreachable {
		t.Error(err)
	}
	if n := <-took; n >= 32<<20 { // what the kernel holds between the two is far less
		t.Errorf("%d bytes were taken", n)
	}
}

// TestAddressIsNotTold: an address of a webhook may have a word in it that lets whoever
// has it post there; errors go to logs.
func TestAddressIsNotTold(t *testing.T) {
	s := httptest.NewTLSServer(nil)
	at := s.URL
	s.Close()
	err := hooked(charter.Reminder{ID: "duty", Kind: "webhook", Address: at + "/hook?key=canary"}).send(t.Context(), note())
	if fault.ClassOf(err) != fault.Unreachable || strings.Contains(err.Error(), "canary") {
		t.Error(err)
	}
}

// TestStatesDoNotWait: how reminders are is told while one that ends is waited for.
func TestStatesDoNotWait(t *testing.T) {
	d := newDesk(t)
	r := d.run()
	asked, answer := make(chan struct{}), make(chan struct{})
	r.c.Items = func() ([]duty.Item, error) { asked <- struct{}{}; <-answer; return nil, nil }
	r.Set(map[string]charter.Reminder{"duty": {ID: "duty", Kind: "webhook", Address: "https://127.0.0.1:1", Level: "late"}})
	<-asked
	ended := make(chan struct{})
	go func() { r.Set(nil); close(ended) }()
	told := make(chan struct{})
	go func() {
		clitest.Await(20*time.Second, func() bool { return len(r.States()) == 0 })
		r.Wake()
		close(told)
	}()
	select {
	case <-told:
	case <-time.After(20 * time.Second):
		t.Error("who asks for the states waits for a reminder that ends")
	}
	close(answer)
	<-ended
	<-told
}

// TestClockSetBack: what was told by a clock that was ahead keeps nothing back.
func TestClockSetBack(t *testing.T) {
	now := artifacttest.Now()
	for _, kind := range []string{"mail", "webhook"} {
		x := &reminder{Reminder: charter.Reminder{Kind: kind, Level: "soon"}}
		_, b := x.pick([]duty.Item{item("a", duty.Late)}, &book{Told: map[string]told{}}, now.Add(400*day))
		if m, _ := x.pick([]duty.Item{item("a", duty.Late), item("b", duty.Late)}, b, now); len(m.items) != 2 {
			t.Errorf("%s: %d told", kind, len(m.items))
		}
	}
}
