package charter

import (
	"crypto/x509"
	"net/netip"
	"net/url"
	"regexp"
)

// TypeReminder is the statement of somebody who is told what has to be done next; it
// ends by TypeAccessEnded.
const TypeReminder = "reminder"

// Reminder is a place to which the vault tells what has to be done next, before it is
// too late: see docs/formats/reminder.md. It holds nothing up.
type Reminder struct {
	// Address is, for a webhook, an https URL, in a rehearsal also http to an address of
	// loopback; for mail HOST:PORT of the mail server.
	Address string `json:"address"`
	// CA is the one that the receiver's certificate must follow from, DER. Without it
	// those of the host's system count.
	CA []byte `json:"ca,omitempty"`
	// Days is how many days before its end a thing is told of at the latest, 1 to 365,
	// whatever its level is; 0 for none. For level soon only.
	Days  int      `json:"days,omitempty"`
	From  string   `json:"from,omitempty"` // of mail: whose it is
	ID    string   `json:"id"`
	Kind  string   `json:"kind"`          // webhook or mail
	Level string   `json:"level"`         // from which level on: soon or late
	TLS   string   `json:"tls,omitempty"` // of mail: starttls, tls, or none, to an address of loopback
	To    []string `json:"to,omitempty"`  // of mail: 1 to MaxMailTo, sorted
}

// Limits of a reminder.
const (
	MaxReminders = 16
	MaxMailTo    = 16
	maxDays      = 365
	maxURL       = 512
)

var (
	// mailRE is an address without quotes and comments (RFC 5321, section 4.1.2).
	mailRE = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$")
	urlRE  = regexp.MustCompile(`^[!-~]+$`)
)

func (s *State) addReminder(r *Reminder) error {
	_, taken := s.Reminders[r.ID]
	if err := s.Access.fresh(TypeReminder, r.ID, taken); err != nil {
		return err
	}
	if len(s.Reminders) >= MaxReminders {
		return badAccess(TypeReminder, r.ID, "there are 16 already")
	}
	if r.Level != "soon" && r.Level != "late" || r.Days < 0 || r.Days > maxDays || r.Days > 0 && r.Level != "soon" {
		return badAccess(TypeReminder, r.ID, "its level is soon or late, its days 1 to 365 and of level soon")
	}
	if r.CA != nil {
		if c, err := x509.ParseCertificate(r.CA); err != nil || !c.IsCA {
			return badAccess(TypeReminder, r.ID, "its CA is no certificate of a CA")
		}
	}
	why := "it is neither webhook nor mail"
	switch r.Kind {
	case "webhook":
		why = s.webhook(r)
	case "mail":
		why = mail(r)
	}
	if why != "" {
		return badAccess(TypeReminder, r.ID, why)
	}
	s.Reminders[r.ID] = *r
	return nil
}

// webhook says what is wrong with one; "" for nothing.
func (s *State) webhook(r *Reminder) string {
	if r.From != "" || r.To != nil || r.TLS != "" {
		return "a webhook has an address and nothing of a mail"
	}
	u, err := url.Parse(r.Address)
	if err != nil || len(r.Address) > maxURL || !urlRE.MatchString(r.Address) || u.String() != r.Address || u.User != nil || u.Fragment != "" || u.Opaque != "" || u.Hostname() == "" {
		return "its address is no URL in its usual spelling, without user and fragment"
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	if host := u.Host; u.Port() == "" && !hostPort(host+":"+port) || u.Port() != "" && !hostPort(host) {
		return "its host is no name or address in its usual spelling"
	}
	plain := u.Scheme == "http" && !s.World.IsLive() && loopback(u.Host)
	switch {
	case u.Scheme != "https" && !plain:
		return "it is not https, or, in a rehearsal, http to an address of loopback"
	case plain && r.CA != nil:
		return "http has no CA"
	}
	return ""
}

// mail says what is wrong with one; "" for nothing.
func mail(r *Reminder) string {
	if !hostPort(r.Address) {
		return "its address is not HOST:PORT"
	}
	switch {
	case r.TLS == "none" && !loopback(r.Address):
		return "without TLS it goes to an address of loopback only"
	case r.TLS == "none" && r.CA != nil:
		return "without TLS it has no CA"
	case r.TLS != "none" && r.TLS != "starttls" && r.TLS != "tls":
		return "its tls is starttls, tls or none"
	}
	if len(r.From) > 254 || !mailRE.MatchString(r.From) {
		return "from is no mail address"
	}
	if !sortedSet(r.To) || len(r.To) > MaxMailTo {
		return "to is 1 to 16 addresses, sorted and distinct"
	}
	for _, a := range r.To {
		if len(a) > 254 || !mailRE.MatchString(a) {
			return "to has what is no mail address"
		}
	}
	return ""
}

// loopback says whether HOST:PORT is an address of loopback; a name is none, since
// others decide what it means.
func loopback(hostPort string) bool {
	p, err := netip.ParseAddrPort(hostPort)
	return err == nil && p.Addr().IsLoopback()
}
