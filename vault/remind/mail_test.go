package remind

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"mime/quotedprintable"
	"net"
	"net/http/httptest"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/clitest"
	"keyrite/vault/duty"
)

// postOffice is a mail server: as much of RFC 5321 and RFC 3207 as a client meets.
type postOffice struct {
	t    *testing.T
	l    net.Listener
	conf *tls.Config // nil: it does not offer STARTTLS
	// refuse answers 5xx to the command that begins so.
	refuse string

	mu       sync.Mutex // guards the rest
	mails    []string
	commands []string // with "TLS " before those that came encrypted
	wg       sync.WaitGroup
}

// newPostOffice listens, with TLS from the start or with STARTTLS on offer.
func newPostOffice(t *testing.T, kind string) (*postOffice, []byte) {
	t.Helper()
	web := httptest.NewTLSServer(nil) // for its certificate on loopback
	conf, ca := web.TLS.Clone(), web.Certificate().Raw
	web.Close()
	p := &postOffice{t: t}
	conf.NextProtos = nil
	var err error
	if p.l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	switch kind {
	case "tls":
		p.l = tls.NewListener(p.l, conf)
	case "starttls":
		p.conf = conf
	}
	p.wg.Go(func() {
		for {
			c, err := p.l.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { defer c.Close(); _ = c.SetDeadline(time.Now().Add(20 * time.Second)); p.talk(c) })
		}
	})
	t.Cleanup(func() { p.l.Close(); p.wg.Wait() })
	return p, ca
}

func (p *postOffice) talk(c net.Conn) {
	_, secret := c.(*tls.Conn)
	in := bufio.NewReader(c)
	say := func(s string) { _, _ = io.WriteString(c, s+"\r\n") }
	say("220 post.example ESMTP")
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		cmd := strings.TrimRight(line, "\r\n")
		p.mu.Lock()
		if secret {
			p.commands = append(p.commands, "TLS "+cmd)
		} else {
			p.commands = append(p.commands, cmd)
		}
		p.mu.Unlock()
		word, _, _ := strings.Cut(strings.ToUpper(cmd), " ")
		switch {
		case p.refuse != "" && strings.HasPrefix(cmd, p.refuse):
			say("554 5.7.1 refused\x1b[2J")
		case word == "EHLO":
			if p.conf != nil && !secret {
				say("250-post.example")
				say("250 STARTTLS")
			} else {
				say("250 post.example")
			}
		case word == "STARTTLS" && p.conf != nil:
			say("220 go on")
			c = tls.Server(c, p.conf)
			in, secret = bufio.NewReader(c), true
		case word == "MAIL", word == "RCPT":
			say("250 ok")
		case word == "DATA":
			say("354 go on")
			p.take(in)
			say("250 taken")
		case word == "QUIT":
			say("221 bye")
			return
		default:
			say("502 what")
		}
	}
}

func (p *postOffice) take(in *bufio.Reader) {
	var b strings.Builder
	for {
		line, err := in.ReadString('\n')
		if err != nil || line == ".\r\n" {
			break
		}
		b.WriteString(strings.TrimPrefix(line, "."))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mails = append(p.mails, b.String())
}

func (p *postOffice) had() (mails, commands []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mails, p.commands
}

func (p *postOffice) reminder(how string, ca []byte) charter.Reminder {
	return charter.Reminder{
		ID: "duty", Kind: "mail", Level: "soon", Address: p.l.Addr().String(), TLS: how, CA: ca, From: "vault@plant1.example", To: []string{"anna@plant1.example", "ben@plant1.example"},
	}
}

func posted(r charter.Reminder) *sendMail {
	return &sendMail{Reminder: r, world: "rehearsal:abcdefgh", vault: strings.Repeat("5c", 32)}
}

// TestMail: a mail that a stranger's parser reads comes to each of them, encrypted as
// the charter says, with everything that came from elsewhere visible in its body.
func TestMail(t *testing.T) {
	for how, first := range map[string]string{"starttls": "EHLO [127.0.0.1]", "tls": "TLS EHLO [127.0.0.1]", "none": "EHLO [127.0.0.1]"} {
		p, ca := newPostOffice(t, how)
		if how == "none" {
			ca = nil
		}
		m := note()
		m.items = append(m.items, duty.Item{ID: "x", Kind: duty.Bundle, Level: duty.Soon, About: "a\r\n.\r\nMAIL FROM:<x>\x1b[2J “ü”", Act: "see"})
		if err := posted(p.reminder(how, ca)).send(t.Context(), m); err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		mails, commands := p.had()
		if len(mails) != 1 || commands[0] != first {
			t.Fatalf("%s: %d mails, %q", how, len(mails), commands)
		}
		for _, c := range commands {
			if how == "starttls" && strings.Contains(c, "MAIL") && !strings.HasPrefix(c, "TLS ") {
				t.Errorf("in clear: %s", c)
			}
		}
		all := strings.Join(commands, "\n")
		for _, want := range []string{"MAIL FROM:<vault@plant1.example>", "RCPT TO:<anna@plant1.example>", "RCPT TO:<ben@plant1.example>", "QUIT"} {
			if strings.Count(all, want) != 1 {
				t.Errorf("%s: %q in %s", how, want, all)
			}
		}
		read, err := mail.ReadMessage(strings.NewReader(mails[0]))
		if err != nil {
			t.Fatal(err)
		}
		to, err := read.Header.AddressList("To")
		if err != nil || len(to) != 2 || read.Header.Get("Subject") != "REHEARSAL, keyrite vault 5c5c5c5c: 2 late, 1 soon" || read.Header.Get("Auto-Submitted") != "auto-generated" {
			t.Errorf("%v %v %v", to, err, read.Header)
		}
		if at, err := read.Header.Date(); err != nil || !at.Equal(m.at) {
			t.Errorf("%s, %v", at, err)
		}
		body, err := io.ReadAll(quotedprintable.NewReader(read.Body))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"LATE, 2027-01-01T02:00:00Z: bundle a\r\n  export it", "LATE, now: safe work: 3 of 5", `MAIL FROM:<x>\x1b[2J “ü”`, "And 3 more", "keyrite/due", "world rehearsal:abcdefgh"} {
			if !strings.Contains(string(body), want) {
				t.Errorf("no %q in %s", want, body)
			}
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(mails[0], "\r\n"), "\r\n") {
			if len(line) > 100 || strings.ContainsAny(line, "\r\n\x1b") {
				t.Errorf("line %q", line)
			}
		}
	}
}

// TestMailRefusals: a server that does not offer what the charter wants, is another, or
// refuses anything, has taken no mail, and a server that hangs holds up nobody.
func TestMailRefusals(t *testing.T) {
	plain, _ := newPostOffice(t, "none")
	if err := posted(plain.reminder("starttls", nil)).send(t.Context(), note()); fault.ClassOf(err) != fault.Unreachable {
		t.Errorf("no STARTTLS: %v", err)
	}
	if mails, commands := plain.had(); len(mails) != 0 || strings.Contains(strings.Join(commands, " "), "MAIL") {
		t.Errorf("without STARTTLS it was told %q", commands)
	}
	for _, how := range []string{"tls", "starttls"} {
		p, _ := newPostOffice(t, how)
		if err := posted(p.reminder(how, nil)).send(t.Context(), note()); fault.ClassOf(err) != fault.Unreachable {
			t.Errorf("%s by an unknown CA: %v", how, err)
		}
		if mails, _ := p.had(); len(mails) != 0 {
			t.Errorf("%s: an unknown server took %q", how, mails)
		}
	}
	for _, cmd := range []string{"EHLO", "MAIL", "RCPT TO:<ben", "DATA"} {
		p, _ := newPostOffice(t, "none")
		p.refuse = cmd
		if err := posted(p.reminder("none", nil)).send(t.Context(), note()); fault.ClassOf(err) != fault.Unreachable {
			t.Errorf("%s is refused: %v", cmd, err)
		}
		if mails, _ := p.had(); len(mails) != 0 {
			t.Errorf("%s is refused: %q", cmd, mails)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	silent := posted(charter.Reminder{ID: "duty", Kind: "mail", Address: l.Addr().String(), TLS: "none", From: "a@b", To: []string{"c@d"}})
	ended := make(chan error, 1)
	go func() { ended <- silent.send(ctx, note()) }()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cancel()
	select {
	case err := <-ended:
		if fault.ClassOf(err) != fault.Unreachable {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("a server that says nothing holds up the end")
	}
}

// TestMailOnceADay: reminders by mail run over the store and a server, one mail a day.
func TestMailOnceADay(t *testing.T) {
	d := newDesk(t)
	p, ca := newPostOffice(t, "starttls")
	d.due(0, item("a", duty.Soon))
	r := d.run(p.reminder("starttls", ca))
	wait := func(n int) {
		t.Helper()
		if !clitest.Await(20*time.Second, func() bool { mails, _ := p.had(); return len(mails) >= n && r.States()["duty"].Sent.Equal(d.now()) }) {
			mails, _ := p.had()
			t.Fatalf("%d mails, want %d, %+v", len(mails), n, r.States())
		}
	}
	wait(1)
	first := d.now()
	d.due(time.Hour, item("a", duty.Late), item("b", duty.Soon))
	if err := r.running["duty"].step(t.Context()); err != nil {
		t.Error(err)
	}
	if st := r.States()["duty"]; !st.Sent.Equal(first) {
		t.Errorf("an hour later: %+v", st)
	}
	d.due(23*time.Hour, item("a", duty.Late), item("b", duty.Soon))
	r.Wake()
	wait(2)
	if mails, _ := p.had(); len(mails) != 2 || !strings.Contains(mails[1], "1 late, 1 soon") {
		t.Errorf("%q", mails)
	}
}
