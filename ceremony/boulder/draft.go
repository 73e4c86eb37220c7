package boulder

import (
	"bytes"
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"keyrite/ceremony/script"
)

// draft is a script being written. Text goes in quoted, so nothing of a
// configuration can become part of the language.
type draft struct {
	Options
	kind, title, purpose string

	key, algorithm string // a key to make
	login          bool   // which wants a login for each signature
	issuer         string // a key that exists
	cert           *script.Certificate
	list           *script.CRL

	out  bytes.Buffer
	step int
	part int
}

func (d *draft) line(format string, args ...any) { fmt.Fprintf(&d.out, format+"\n", args...) }

func (d *draft) text() []byte {
	d.line("# Imported from a configuration of Boulder's ceremony tool. Read every line: this")
	d.line("# file alone decides what happens in the room.")
	d.line("format: %s\nkind: %s\ntitle: %q\npurpose: %q", script.Format, d.kind, d.title, d.purpose)
	d.line("pins:\n  keyrite: %s\n  hsmd: %s\n  module: %s", d.Pins.Keyrite, d.Pins.HSMD, d.Pins.Module)
	e := d.Environment
	d.line("environment: {network: %s, swap: %s, core_dumps: %s, clock: %s}", e.Network, e.Swap, cmp.Or(e.CoreDumps, "any"), cmp.Or(e.Clock, "any"))
	r := d.Roles
	d.line("roles:\n  conductor: 1\n  conductor_operates: true\n  key_masters: {need: %d, of: %d}\n  witnesses: %d\n  approvers: {need: %d, of: %d}",
		r.KeyMasters.Need, r.KeyMasters.Of, r.Witnesses, r.Approvers.Need, r.Approvers.Of)
	d.line("safes:\n  - {name: %s, token: %s}", d.Safe, d.Safe)
	d.things()
	d.planned()
	d.steps()
	return d.out.Bytes()
}

func (d *draft) things() {
	if d.key != "" {
		d.line("keys:\n  - id: %s\n    safe: %s\n    purpose: %q\n    algorithm: %s\n    domain: x509\n    attestation: quorum", d.key, d.Safe, d.purpose, d.algorithm)
		d.line("    usage: {sign: true, decrypt: false, unwrap: false, derive: false, sign_recover: false, extractable: false, sensitive: true, always_authenticate: %t, destroyable: true}", d.login)
	}
	if d.issuer != "" {
		d.line("existing:\n  - {id: %s, safe: %s, domain: x509}", d.issuer, d.Safe)
	}
	if c := d.cert; c != nil {
		d.line("certificates:\n  - id: %s\n    profile: ca\n    issuer: %s", c.ID, c.Issuer)
		if c.Key != "" {
			d.line("    key: %s", c.Key)
		} else {
			d.line("    public: %s", c.Public)
		}
		d.authority(&c.CA)
	}
	if l := d.list; l != nil {
		d.line("crls:\n  - id: %s\n    issuer: %s\n    number: %d\n    days: %d", l.ID, l.Issuer, l.Number, l.Days)
		if len(l.Revoked) > 0 {
			d.line("    revoked:")
		}
		for _, x := range l.Revoked {
			d.line("      - {serial: %q, date: %q, reason: %s}", x.Serial, x.Date, x.Reason)
		}
	}
}

func (d *draft) authority(a *script.Authority) {
	d.line("    ca:\n      common_name: %q\n      organization: %q\n      country: %q\n      signature: %s", a.CommonName, a.Organization, a.Country, a.Signature)
	d.line("      not_before: %q\n      not_after: %q\n      path_length: %d\n      key_usages: [%s]", a.NotBefore, a.NotAfter, a.PathLength, strings.Join(a.KeyUsages, ", "))
	for _, l := range []struct {
		name string
		list []string
	}{{"ext_key_usages", a.ExtKeyUsages}, {"policies", a.Policies}} {
		if len(l.list) > 0 {
			quoted := make([]string, len(l.list))
			for i, x := range l.list {
				quoted[i] = strconv.Quote(x)
			}
			d.line("      %s: [%s]", l.name, strings.Join(quoted, ", "))
		}
	}
	for _, x := range [][2]string{{"crl_url", a.CRLURL}, {"issuer_url", a.IssuerURL}, {"ocsp_url", a.OCSPURL}, {"subject_key_id", a.SubjectKeyID}} {
		if x[1] != "" {
			d.line("      %s: %q", x[0], x[1])
		}
	}
}

// planned are the misses of people that make nothing void, as in the scripts that we
// ship.
func (d *draft) planned() {
	d.line("contingencies:")
	d.line("  - {id: late, on: late, then: again, steps: []}")
	d.line("  - {id: mistyped, on: passphrase, then: again, steps: []}")
	d.line("  - {id: spare-card, on: card, then: again, steps: []}")
	if d.kind != "genesis" {
		d.line("  - {id: spare-share, on: share, then: again, steps: []}")
	}
	d.line("  - {id: misread, on: words, then: again, steps: []}")
}

func (d *draft) begin() { d.part, d.step = d.part+1, 0 }

func (d *draft) do(verb, arg, title, limit, more string) {
	d.step++
	if arg != "" {
		verb += ", " + arg
	}
	d.line("  - {id: \"%d.%d\", do: %s, title: %q, limit: %s%s}", d.part, d.step, verb, title, limit, more)
}

const (
	seen = ", confirm: [witness]"
	safe = "safe: "
)

func (d *draft) steps() {
	d.line("summon:")
	d.begin()
	d.do("environment.check", "", "The ceremony computer", "10m", "")
	d.do("people.identify", "", "Who is here", "60m", ", planned: [late, mistyped, spare-card]")
	d.do("documents.see", "", "Identity documents", "60m", "")
	if d.kind != "genesis" {
		d.do("vault.load", "", "The vault as it is", "10m", seen)
	}
	d.line("run:")
	d.begin()
	if d.kind == "genesis" {
		d.do("genesis.sign", "", "Everybody signs the roster and this script", "60m", "")
		d.begin()
		d.do("token.init", safe+d.Safe, "Token", "10m", "")
		d.do("token.admit", safe+d.Safe, "Attack the token", "10m", seen)
		d.do("shares.deal", safe+d.Safe, "Deal the secret", "10m", "")
		d.do("shares.receipts", safe+d.Safe, "Receipts", "60m", "")
		d.do("token.pins", safe+d.Safe, "PINs from the secret", "10m", "")
	} else {
		d.do("safe.open", safe+d.Safe, "Open the safe", "60m", ", planned: [spare-share]")
	}
	d.begin()
	if d.key != "" {
		d.do("key.generate", "key: "+d.key, "The key is born", "10m", seen)
	}
	if d.cert != nil {
		d.do("cert.issue", "cert: "+d.cert.ID, "The certificate", "10m", seen)
	}
	if d.list != nil {
		d.do("crl.issue", "crl: "+d.list.ID, "The revocation list", "10m", seen)
	}
	if d.key != "" {
		d.do("charter.append", "", "Charter", "60m", "")
	}
	d.line("seal:")
	d.begin()
	if d.key != "" {
		d.do("keys.store", safe+d.Safe, "Store the key", "10m", "")
		d.do("keys.prove", safe+d.Safe, "The key signs that it is there", "10m", "")
		d.do("births.sign", "", "Who watched the birth signs for it", "60m", "")
	}
	d.do("outputs.write", "", "Public outputs", "10m", "")
	d.do("read.aloud", "", "Read the anchors aloud", "30m", ", planned: [misread]"+seen)
}
