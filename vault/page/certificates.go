package page

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strings"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
)

// mountsPath lists the engines that the caller has a rule for. It is free for whoever is
// known.
const mountsPath = "sys/internal/ui/mounts"

// certificates are those that pki engines gave out.
type certificates struct {
	Mounts []certificateMount
}

// certificateMount is one engine.
type certificateMount struct {
	ID      string
	Serials []certificateLink
	Older   string   // address of those that come next; "" at the end
	Refused *refusal // why none is shown; nil if they are
}

type certificateLink struct{ Serial, Link string }

// perList is how many numbers of certificates stand on one page.
const perList = 100

func showCertificates(x *look) (any, error) {
	if err := x.only("mount", "after"); err != nil {
		return nil, err
	}
	var ui struct {
		Secret map[string]struct{ Type string }
	}
	if err := x.read(mountsPath, nil, &ui); err != nil {
		return nil, err
	}
	p := &certificates{}
	only := x.query.Get("mount")
	for _, id := range slices.Sorted(maps.Keys(ui.Secret)) {
		name := strings.TrimSuffix(id, "/")
		if ui.Secret[id].Type != "pki" || only != "" && name != only {
			continue
		}
		m, err := x.serials(name, x.query.Get("after"))
		if err != nil {
			return nil, err
		}
		p.Mounts = append(p.Mounts, *m)
	}
	if only != "" && len(p.Mounts) == 0 {
		return nil, fault.Errorf(fault.Usage, "no rule of yours is about %.40q, or it gives out no certificates", only)
	}
	return p, nil
}

// serials are the numbers of one engine after another number.
func (x *look) serials(mount, after string) (*certificateMount, error) {
	m := &certificateMount{ID: mount}
	var list struct{ Keys []string }
	switch err := x.call(engine.List, mount+"/certs", nil, &list); {
	case errors.As(err, &m.Refused):
		return m, nil
	case errors.Is(err, engine.ErrNotThere):
	case err != nil:
		return nil, err
	}
	slices.Sort(list.Keys)
	n, at := slices.BinarySearch(list.Keys, after)
	if at {
		n++
	}
	rest := list.Keys[n:]
	if len(rest) > perList {
		rest = rest[:perList]
		m.Older = "/certificates?" + url.Values{"mount": {mount}, "after": {rest[perList-1]}}.Encode()
	}
	for _, s := range rest {
		m.Serials = append(m.Serials, certificateLink{s, "/certificates/one?" + url.Values{"mount": {mount}, "serial": {s}}.Encode()})
	}
	return m, nil
}

// certificate is one that was given out.
type certificate struct {
	*x509.Certificate
	Mount, Serial, SHA256, PEM string
	From, To                   string
	Names                      []string
	Revoked                    string // when; "" if it was not
}

func showCertificate(x *look) (any, error) {
	if err := x.only("mount", "serial"); err != nil {
		return nil, err
	}
	c := &certificate{Mount: x.query.Get("mount"), Serial: x.query.Get("serial")}
	if c.Mount == "" || c.Serial == "" || strings.Contains(c.Mount+c.Serial, "/") {
		return nil, fault.New(fault.Usage, "mount and serial of a certificate are needed")
	}
	var a struct {
		Certificate string
		Revoked     string `json:"revocation_time_rfc3339"`
	}
	if err := x.read(c.Mount+"/cert/"+c.Serial, nil, &a); err != nil {
		return nil, err
	}
	b, _ := pem.Decode([]byte(a.Certificate))
	if b == nil {
		return nil, fault.Errorf(fault.Usage, "%.40q is no certificate of %.40q", c.Serial, c.Mount)
	}
	var err error
	if c.Certificate, err = x509.ParseCertificate(b.Bytes); err != nil {
		return nil, fault.Errorf(fault.Verify, "the certificate cannot be read: %w", err)
	}
	sum := sha256.Sum256(b.Bytes)
	c.SHA256, c.PEM, c.Revoked = hex.EncodeToString(sum[:]), a.Certificate, a.Revoked
	c.From, c.To = charter.FormatTime(c.NotBefore), charter.FormatTime(c.NotAfter)
	c.Names = append(c.Names, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		c.Names = append(c.Names, ip.String())
	}
	for _, u := range c.URIs {
		c.Names = append(c.Names, u.String())
	}
	return c, nil
}
