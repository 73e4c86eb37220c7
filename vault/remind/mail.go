package remind

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"mime/quotedprintable"
	"net"
	"net/netip"
	"net/smtp"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/world"
	"keyrite/internal/cli"
	"keyrite/vault/duty"
)

// sendMail sends plain text through one mail server, which lets the vault's host in: there
// is no place for a password.
type sendMail struct {
	charter.Reminder
	world world.World
	vault string
}

func (w *sendMail) send(ctx context.Context, m *message) error {
	text, err := w.text(m)
	if err != nil {
		return err
	}
	if err := w.deliver(ctx, text); err != nil {
		return fault.Errorf(fault.Unreachable, "mail through %s: %w", w.Address, err)
	}
	return nil
}

// deliver speaks SMTP (RFC 5321), with TLS from the start (RFC 8314) or STARTTLS (RFC
// 3207) where the charter says so; a server that does not offer it gets nothing.
func (w *sendMail) deliver(ctx context.Context, text []byte) error {
	host, _, err := net.SplitHostPort(w.Address)
	if err != nil {
		return err
	}
	conf, err := tlsOf(host, w.CA)
	if err != nil {
		return err
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", w.Address)
	if err != nil {
		return err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) }) // who ends the reminder does not wait
	defer stop()
	var conn net.Conn = &briefly{Conn: raw, left: maxDialogue}
	if w.TLS == "tls" {
		conn = tls.Client(conn, conf)
	}
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Hello(literal(raw.LocalAddr())); err != nil {
		return err
	}
	if w.TLS == "starttls" {
		if err := c.StartTLS(conf); err != nil {
			return fmt.Errorf("STARTTLS: %w", err)
		}
	}
	if err := c.Mail(w.From); err != nil {
		return err
	}
	for _, to := range w.To {
		if err := c.Rcpt(to); err != nil {
			return err
		}
	}
	out, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := out.Write(text); err != nil {
		return err
	}
	if err := out.Close(); err != nil { // the server has taken it, or not
		return err
	}
	_ = c.Quit() // it has it
	return nil
}

// maxDialogue bounds what a server says before a mail is taken, in bytes: a few lines,
// and its certificates.
const maxDialogue = 256 << 10

// briefly is a connection on which so much is heard and no more: a line is kept in
// memory until it ends.
type briefly struct {
	net.Conn
	left int
}

// Read implements io.Reader.
func (b *briefly) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fault.Errorf(fault.Unreachable, "the server says more than %d bytes", maxDialogue)
	}
	n, err := b.Conn.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// literal is an address as a client without a name says it (RFC 5321, section 4.1.3).
func literal(a net.Addr) string {
	p, err := netip.ParseAddrPort(a.String())
	switch {
	case err != nil:
		return "localhost"
	case p.Addr().Unmap().Is4():
		return "[" + p.Addr().Unmap().String() + "]"
	}
	return "[IPv6:" + p.Addr().WithZone("").String() + "]"
}

// text is the mail (RFC 5322). What came from elsewhere stands in the body alone, with
// everything in it visible.
func (w *sendMail) text(m *message) ([]byte, error) {
	soon, late := duty.Count(m.items)
	subject := fmt.Sprintf("keyrite vault %.8s: %d late, %d soon", w.vault, late, soon)
	if !w.world.IsLive() {
		subject = "REHEARSAL, " + subject
	}
	id := make([]byte, 16)
	rand.Read(id)
	_, domain, _ := strings.Cut(w.From, "@")
	var b bytes.Buffer
	for _, h := range [][2]string{
		{"From", w.From},
		{"To", strings.Join(w.To, ",\r\n ")},
		{"Subject", subject},
		{"Date", m.at.Format("Mon, 02 Jan 2006 15:04:05 +0000")},
		{"Message-ID", "<" + hex.EncodeToString(id) + "@" + domain + ">"},
		{"Auto-Submitted", "auto-generated"},
		{"MIME-Version", "1.0"},
		{"Content-Type", "text/plain; charset=utf-8"},
		{"Content-Transfer-Encoding", "quoted-printable"},
	} {
		b.WriteString(h[0] + ": " + h[1] + "\r\n")
	}
	b.WriteString("\r\n")
	q := quotedprintable.NewWriter(&b)
	if _, err := q.Write([]byte(strings.ReplaceAll(w.body(m), "\n", "\r\n"))); err != nil {
		return nil, fault.Errorf(fault.Unexpected, "write the mail: %w", err)
	}
	if err := q.Close(); err != nil {
		return nil, fault.Errorf(fault.Unexpected, "write the mail: %w", err)
	}
	return b.Bytes(), nil
}

func (w *sendMail) body(m *message) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Vault %s\nin world %s reminds you (%s, %s).\n", w.vault, w.world, w.ID, charter.FormatTime(m.at))
	for i := range m.items {
		x := &m.items[i]
		when := "now"
		if !x.Due.IsZero() {
			when = charter.FormatTime(x.Due)
		}
		fmt.Fprintf(&b, "\n%s, %s: %s\n  %s\n", strings.ToUpper(string(x.Level)), when, cli.Escape(x.About), x.Act)
	}
	if m.more > 0 {
		fmt.Fprintf(&b, "\nAnd %d more, of which you are told later.\n", m.more)
	}
	b.WriteString("\nAll that is due: 'keyrite-vault status' on the host, or keyrite/due.\nWho is told stands in the charter (statements of type reminder).\n")
	return b.String()
}
