package charter_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

// reminderCases are statements of reminders, and what they are worth.
func reminderCases() map[string]engineCase {
	out := map[string]engineCase{}
	add := func(kind, name, expect string, edit func(*charter.Reminder)) {
		r := charter.Reminder{ID: "duty", Kind: kind, Level: "soon", Address: "https://hooks.plant1.example/keyrite"}
		if kind == "mail" {
			r.Address, r.TLS, r.From, r.To = "mail.plant1.example:587", "starttls", "vault@plant1.example", []string{"anna@plant1.example", "ben@plant1.example"}
		}
		edit(&r)
		out["reminder-"+kind+"-"+name] = engineCase{charter.TypeReminder, expect, r}
	}
	none := func(*charter.Reminder) {}
	hook := func(name, expect, address string) {
		add("webhook", name, expect, func(r *charter.Reminder) { r.Address = address })
	}
	add("webhook", "whole", "ok", none)
	add("webhook", "late", "ok", func(r *charter.Reminder) { r.Level = "late" })
	add("webhook", "days", "ok", func(r *charter.Reminder) { r.Days = 90 })
	hook("port", "ok", "https://hooks.example:8443/a?b=c")
	hook("ip", "ok", "https://192.0.2.1/")
	hook("loopback-http", "ok", "http://127.0.0.1:8080/")
	hook("http", "verify", "http://hooks.plant1.example/")
	hook("http-localhost", "verify", "http://localhost:8080/")
	hook("http-loopback-name", "verify", "http://127.0.0.1.example:8080/")
	hook("file", "verify", "file:///etc/passwd")
	hook("no-scheme", "verify", "hooks.plant1.example")
	hook("no-host", "verify", "https:///x")
	hook("user", "verify", "https://root:x@hooks.example/")
	hook("fragment", "verify", "https://hooks.example/#x")
	hook("blank", "verify", "https://hooks.example/a b")
	hook("line", "verify", "https://hooks.example/\r\nX: y")
	hook("odd-host", "verify", "https://HOOKS.example/")
	hook("port-0", "verify", "https://hooks.example:0/")
	hook("long", "verify", "https://hooks.example/"+strings.Repeat("a", 512))
	add("webhook", "of-a-mail", "verify", func(r *charter.Reminder) { r.To = []string{"anna@plant1.example"} })
	add("webhook", "level-fine", "verify", func(r *charter.Reminder) { r.Level = "fine" })
	add("webhook", "no-level", "verify", func(r *charter.Reminder) { r.Level = "" })
	add("webhook", "days-late", "verify", func(r *charter.Reminder) { r.Level, r.Days = "late", 3 })
	add("webhook", "days-negative", "verify", func(r *charter.Reminder) { r.Days = -1 })
	add("webhook", "days-366", "verify", func(r *charter.Reminder) { r.Days = 366 })
	add("webhook", "no-ca", "verify", func(r *charter.Reminder) { r.CA = []byte("x") })
	add("webhook", "no-id", "verify", func(r *charter.Reminder) { r.ID = "" })
	add("mail", "whole", "ok", none)
	add("mail", "tls", "ok", func(r *charter.Reminder) { r.TLS, r.Address = "tls", "mail.plant1.example:465" })
	add("mail", "loopback", "ok", func(r *charter.Reminder) { r.TLS, r.Address = "none", "127.0.0.1:25" })
	add("mail", "loopback-6", "ok", func(r *charter.Reminder) { r.TLS, r.Address = "none", "[::1]:25" })
	add("mail", "plain", "verify", func(r *charter.Reminder) { r.TLS = "none" })
	add("mail", "plain-localhost", "verify", func(r *charter.Reminder) { r.TLS, r.Address = "none", "localhost:25" })
	add("mail", "no-tls", "verify", func(r *charter.Reminder) { r.TLS = "" })
	add("mail", "a-url", "verify", func(r *charter.Reminder) { r.Address = "https://mail.example/" })
	add("mail", "nobody", "verify", func(r *charter.Reminder) { r.To = nil })
	add("mail", "twice", "verify", func(r *charter.Reminder) { r.To[1] = r.To[0] })
	add("mail", "out-of-order", "verify", func(r *charter.Reminder) { r.To[0], r.To[1] = r.To[1], r.To[0] })
	add("mail", "many", "verify", func(r *charter.Reminder) {
		r.To = nil
		for i := range charter.MaxMailTo + 1 {
			r.To = append(r.To, fmt.Sprintf("p%02d@plant1.example", i))
		}
	})
	for name, address := range map[string]string{
		"line": "anna@plant1.example\r\nBcc: x@y.example", "blank": "anna x@plant1.example", "quoted": `"anna"@plant1.example`, "no-domain": "anna@", "brackets": "<anna@plant1.example>", "no-at": "anna",
		"comma": "anna@a.example,ben@b.example",
	} {
		add("mail", "to-"+name, "verify", func(r *charter.Reminder) { r.To = []string{address} })
		add("mail", "from-"+name, "verify", func(r *charter.Reminder) { r.From = address })
	}
	add("socket", "another-kind", "verify", none)
	return out
}

// In a live world nothing goes out in clear but to the mail server of the host itself;
// a CA is one; and there is an end to how many are told.
func TestReminders(t *testing.T) {
	v := newVault(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(ca bool) []byte {
		tpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IsCA: ca, BasicConstraintsValid: true}
		der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	r := charter.Reminder{ID: "r", Kind: "webhook", Level: "soon", Address: "https://hooks.example/", CA: certificate(false)}
	if err := v.propose(charter.TypeReminder, r); fault.ClassOf(err) != fault.Verify {
		t.Errorf("a CA that is none: %v", err)
	}
	r.CA = certificate(true)
	plain := r
	plain.Address = "http://127.0.0.1:80/"
	if err := v.propose(charter.TypeReminder, plain); fault.ClassOf(err) != fault.Verify {
		t.Errorf("http with a CA: %v", err)
	}
	for i := range charter.MaxReminders {
		r.ID = fmt.Sprintf("r%d", i)
		v.decide(charter.TypeReminder, r)
	}
	r.ID = "more"
	if err := v.propose(charter.TypeReminder, r); fault.ClassOf(err) != fault.Verify {
		t.Errorf("too many: %v", err)
	}
	v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "r3", Type: charter.TypeReminder})
	if n := len(v.refold().Reminders); n != charter.MaxReminders-1 {
		t.Errorf("%d left", n)
	}
	r.ID = "r3"
	if err := v.propose(charter.TypeReminder, r); fault.ClassOf(err) != fault.Verify {
		t.Errorf("its id again: %v", err)
	}
}
