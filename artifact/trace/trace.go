// Package trace walks from a file in the field back to the people who made its
// key: signature, release or certificate, key, ceremony record, script, people.
//
// It joins what other packages verified and checks only that the pieces belong
// together; it is handed results of verification, never raw files. A step that
// could not be taken is a Link that says so: a missing record is shown as a gap,
// not left out. It must never present a link that was not verified as one.
package trace

import (
	"fmt"
	"sort"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/record"
)

// Link is one step of the way back.
type Link struct {
	What   string `json:"what"`   // "image", "signature", "release", "key", "record", "script", "people"
	Is     string `json:"is"`     // what was found
	Shown  string `json:"shown"`  // how it was checked
	Proven bool   `json:"proven"` // false: not checked, and Shown says why
}

// ErrGap says that two verified pieces do not belong together.
var ErrGap = fault.New(fault.Verify, "the pieces do not belong together")

func link(what, is, shown string) Link { return Link{what, is, shown, true} }

// Firmware walks back from an image whose statement was verified against a.
func Firmware(s *firmware.Statement, a *anchor.Anchors, records []*record.Verified) ([]Link, error) {
	p := &s.Predicate
	var who []string
	for _, x := range p.Approvals {
		who = append(who, x.Approver)
	}
	out := []Link{
		link("image", fmt.Sprintf("%s, %d bytes, SHA-256 %s", s.Image().Name, p.Size, s.Image().Digest.SHA256), "hashed here"),
		link("signature", "by key "+p.Key.ID, "in-toto statement in a DSSE envelope, checked with the anchors' key"),
		link("release", fmt.Sprintf("%s %s, security version %d, channel %s, signed %s", p.Product, p.Version, p.SecurityVersion, p.Channel, p.Time), "in the signed statement"),
		link("decision", fmt.Sprintf("asked by pipeline %s, approved by %s", p.Pipeline, strings.Join(who, " and ")), "in the signed statement"),
	}
	rest, err := key(p.Key.ID, a, records)
	return append(out, rest...), err
}

// Device walks back from a birth certificate that was verified up to the key
// root of the anchors.
func Device(id *birthcert.Identity, f *charter.Factory, root string, a *anchor.Anchors, records []*record.Verified) ([]Link, error) {
	out := []Link{
		link("device", fmt.Sprintf("%s, key %s (%s)", id.DeviceSerial, id.SPKIHash, id.Assurance), "in the birth certificate"),
		link("certificate", fmt.Sprintf("number %s, bundle %s", id.CertSerial, id.Bundle), "signed by the factory's CA"),
		link("factory", fmt.Sprintf("%s, %s %d to %d, evidence: %s", f.ID, f.Product, f.SerialFrom, f.SerialTo, f.Evidence), "in the charter; its CA is certified by the birth root"),
	}
	rest, err := key(root, a, records)
	return append(out, rest...), err
}

// key goes from a key to the ceremony where it was born.
func key(id string, a *anchor.Anchors, records []*record.Verified) ([]Link, error) {
	rec, ok := a.Known(id)
	if !ok {
		return nil, fault.Errorf(fault.Verify, "%w: the anchors know no key %.40q", ErrGap, id)
	}
	out := []Link{link("key", fmt.Sprintf("%s (%s), signs %s only, in token %s serial %s", rec.ID, rec.Algorithm, rec.Domain, rec.Token.Label, rec.Token.Serial), "in the anchors")}
	for _, v := range records {
		if record.Origin(v.Open.Record) == rec.Record {
			rest, err := born(rec, v)
			return append(out, rest...), err
		}
	}
	return append(out, Link{"record", rec.Record, "not given: pass its folder with --record to walk on", false}), nil
}

// born shows the key's birth in a verified record.
func born(rec *anchor.KeyRecord, v *record.Verified) ([]Link, error) {
	intent, birth, proof := int64(-1), int64(-1), int64(-1)
	for _, l := range v.Timeline {
		switch d := l.Data.(type) {
		case *record.Intent:
			if d.Key == rec.ID && d.Effect == "generate" {
				intent = l.Seq
			}
		case *record.KeyMade:
			if d.Key.ID == rec.ID && d.Stage == "born" && string(d.Key.Public) == string(rec.Public) {
				birth = l.Seq
			}
		case *record.Possession:
			if d.Key == rec.ID {
				proof = l.Seq
			}
		}
	}
	if v.State != "CLOSED" || intent < 0 || birth < intent || proof < birth {
		return nil, fault.Errorf(fault.Verify, "%w: record %s does not show the birth of key %s", ErrGap, v.Open.Record, rec.ID)
	}
	made := "live"
	if !v.Open.World.IsLive() {
		made = "a REHEARSAL: worth nothing in the field"
	}
	return []Link{
		link("record", fmt.Sprintf("%s “%s”, %s, %d entries, root %s", rec.Record, v.Open.Title, made, v.Entries, v.Root), "verified whole: chain, attributes, receipts, signatures"),
		link("birth", fmt.Sprintf("announced in entry %d, born in entry %d, proven in entry %d", intent, birth, proof), "never extractable, made in the token, read back attribute by attribute"),
		link("script", v.Open.ScriptHash, "the exact file that ran, signed by everybody in the founding statement"),
		link("people", people(v), "signed the roster, and the end of the record"),
	}, nil
}

// people groups names by role.
func people(v *record.Verified) string {
	byRole := map[string][]string{}
	for name, role := range v.Roles {
		byRole[role] = append(byRole[role], name)
	}
	var out []string
	for _, role := range []string{charter.RoleConductor, charter.RoleKeyMaster, charter.RoleWitness, charter.RoleApprover} {
		names := byRole[role]
		sort.Strings(names)
		if len(names) > 0 {
			out = append(out, role+" "+strings.Join(names, ", "))
		}
	}
	return strings.Join(out, "; ") + "; cosigned by " + strings.Join(v.Cosigners, ", ")
}
