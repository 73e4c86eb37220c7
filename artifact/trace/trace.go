// Package trace walks from a file in the field back to the people who made its
// key: signature, release or certificate, key, ceremony record, script, people.
//
// It joins what other packages verified and checks only that the pieces belong
// together; it is handed results of verification, never raw files. Several records
// of one vault are put in the order of its charter, so a key that was made later
// leads through the ceremonies before it to the genesis. A step that could not be
// taken is a Link that says so: a missing record is shown as a gap, not left out. It
// must never present a link that was not verified as one.
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

// Firmware walks back from an image whose statement was verified against the
// anchors in force.
func (x *Vault) Firmware(s *firmware.Statement) ([]Link, error) {
	p := &s.Predicate
	rec, _, err := x.anchors.Key(s.Role(), "dsse")
	if err != nil {
		return nil, err
	}
	if rec.ID != p.Key.ID || rec.Record != p.Key.Record || rec.SpecHash != p.Key.SpecHash {
		return nil, fault.Errorf(fault.Verify, "%w: the statement names %.40q of %.64q as its key, and key %s signed it", ErrGap, p.Key.ID, p.Key.Record, rec.ID)
	}
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
	rest, err := x.Key(rec.ID)
	return append(out, rest...), err
}

// Device walks back from a birth certificate that was verified up to the key
// root of the anchors.
func (x *Vault) Device(id *birthcert.Identity, f *charter.Factory, root string) ([]Link, error) {
	out := []Link{
		link("device", fmt.Sprintf("%s, key %s (%s)", id.DeviceSerial, id.SPKIHash, id.Assurance), "in the birth certificate"),
		link("certificate", fmt.Sprintf("number %s, bundle %s", id.CertSerial, id.Bundle), "signed by the factory's CA"),
		link("factory", fmt.Sprintf("%s, %s %d to %d, evidence: %s", f.ID, f.Product, f.SerialFrom, f.SerialTo, f.Evidence), "in the charter; its CA is certified by the birth root"),
	}
	for _, v := range x.records {
		if _, ok := v.Charter.Factories[f.ID]; ok {
			out = append(out, link("enrolled", record.Origin(v.Open.Record)+" “"+v.Open.Title+"”", "the first of the records given whose charter has the factory"))
			break
		}
	}
	rest, err := x.Key(root)
	return append(out, rest...), err
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
	return []Link{
		link("record", fmt.Sprintf("%s “%s”, %s, %d entries, root %s", rec.Record, v.Open.Title, made(v), v.Entries, v.Root), "verified whole: chain, attributes, receipts, signatures"),
		link("birth", fmt.Sprintf("announced in entry %d, born in entry %d, proven in entry %d; %s", intent, birth, proof, rec.Origin()), "never extractable, made in the token, read back attribute by attribute"),
		link("script", v.Open.ScriptHash, "the exact file that ran, named in the first entry that everybody's signatures cover"),
		link("people", people(v), "signed the roster, and the end of the record"),
	}, nil
}

func made(v *record.Verified) string {
	if v.Open.World.IsLive() {
		return "live"
	}
	return "a REHEARSAL: worth nothing in the field"
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
