package charter

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/envelope"
	"keyrite/artifact/jcs"
)

// Line is one statement of a log as people are shown it. It is for display: what
// counts is the fold.
type Line struct {
	Seq     int      `json:"seq"`
	Time    string   `json:"time"`
	Type    string   `json:"type"`
	About   string   `json:"about"`
	Words   string   `json:"words"`      // what it says, in a sentence; not all of it
	Decided string   `json:"decided_by"` // the set of people who decide on its type
	Signers []string `json:"signers"`    // by name
}

// Describe reads one line of a log that was folded, so it is known to hold. names maps
// key ids to people: State.Names.
func Describe(line []byte, names map[string]string) (*Line, error) {
	env, err := envelope.Parse(line)
	if err != nil {
		return nil, err
	}
	var st Statement
	if err := jcs.Unmarshal(env.Payload, &st); err != nil {
		return nil, err
	}
	l := &Line{Seq: st.Seq, Time: st.Time, Type: st.Type, About: About(&st), Words: Words(&st), Decided: decidedBy(st.Type), Signers: []string{}}
	for _, s := range env.Signatures {
		l.Signers = append(l.Signers, names[s.KeyID])
	}
	return l, nil
}

// decidedBy names the set of people who decide on a type of statement: see Deciding.
func decidedBy(typ string) string {
	switch typ {
	case TypeGenesis:
		return "everybody whom it names"
	case TypePeople:
		return "the approvers of before and after, and everybody who enters"
	case TypeBreakGlassPulled:
		return "the people of the break-glass"
	case TypeReleaseApproved:
		return "the release approvers"
	}
	return "the approvers"
}

// Words says what a statement does, in a sentence without its stop. It is not all that
// the statement says: the whole is shown by artifact/signrequest.
func Words(st *Statement) string {
	if say, ok := sayers()[st.Type]; ok {
		if s, err := say(st.Body); err == nil {
			return s
		}
	}
	return strings.TrimSpace("statement of type " + st.Type + " " + About(st))
}

// sayers say each type of statement. A test compares them with the types there are.
func sayers() map[string]func(json.RawMessage) (string, error) {
	return map[string]func(json.RawMessage) (string, error){
		TypeGenesis: said(func(g *Genesis) string { return "the vault is founded, with " + sayPeople(&g.People) }),
		TypePeople:  said(func(p *People) string { return "the people are from now on " + sayPeople(p) }),
		TypeEpoch: said(func(e *Epoch) string {
			return fmt.Sprintf("safe %s has shares of epoch %d: any %d of %d open it", e.Safe, e.Epoch, e.Need, len(e.Shares))
		}),
		TypeEpochAdopted: said(func(e *EpochAdopted) string {
			return fmt.Sprintf("safe %s has the shares of epoch %d, which a void ceremony dealt", e.Safe, e.Epoch.Epoch)
		}),
		TypeKey: said(sayKey),
		TypeKeyRetired: said(func(k *KeyRetired) string {
			return fmt.Sprintf("key %s ends, %s: nothing that it signs from now on counts", k.ID, k.Reason)
		}),
		TypeSuccessor: said(func(x *Successor) string { return fmt.Sprintf("key %s stands for %s from now on", x.Successor, x.ID) }),
		TypeReceiver:  said(func(r *Receiver) string { return "a ceremony may wrap keys for safe " + r.Safe }),
		TypeKeyMoved:  said(func(k *KeyMoved) string { return fmt.Sprintf("key %s lives in the token of safe %s", k.ID, k.Safe) }),
		TypeKeyAdopted: said(func(k *KeyAdopted) string {
			return fmt.Sprintf("key %s lives in the token of safe %s, where a void transfer left it", k.ID, k.Safe)
		}),
		TypeSafeRetired: said(func(x *SafeRetired) string { return fmt.Sprintf("safe %s opens no more, %s", x.Safe, x.Reason) }),
		TypeFloor: said(func(f *Floor) string {
			return fmt.Sprintf("nothing of product %s below security version %d is signed", f.Product, f.SecurityVersion)
		}),
		TypePipeline: said(func(p *Pipeline) string {
			return fmt.Sprintf("pipeline %s may ask for releases of %s", p.ID, strings.Join(p.Products, ", "))
		}),
		TypeFactory: said(func(f *Factory) string {
			return fmt.Sprintf("factory %s may make devices %d to %d of product %s", f.ID, f.SerialFrom, f.SerialTo, f.Product)
		}),
		TypeStation:    said(func(x *Station) string { return fmt.Sprintf("station %s of factory %s signs reports", x.ID, x.Factory) }),
		TypeRelay:      said(func(r *Relay) string { return fmt.Sprintf("relay server %s is known as %s server", r.ID, r.Role) }),
		TypeVendorRoot: said(func(r *VendorRoot) string { return fmt.Sprintf("attestations under the vendor root %s count", r.ID) }),
		TypeHost:       said(func(h *Host) string { return "the vault may run on host " + h.ID + ", which may ask key masters" }),
		TypeMount:      said(func(m *Mount) string { return fmt.Sprintf("an engine of kind %s is at %s/", m.Engine, m.ID) }),
		TypePolicy:     said(sayPolicy),
		TypeIdentity:   said(sayIdentity),
		TypeCertificateRevoked: said(func(r *CertificateRevoked) string {
			return fmt.Sprintf("a client certificate of %s counts no more: SHA-256 %.16s…", r.Identity, r.SHA256)
		}),
		TypeAccessEnded: said(func(e *AccessEnded) string { return fmt.Sprintf("%s %s ends for ever", e.Type, e.ID) }),
		TypeKVConfig: said(func(k *KVConfig) string {
			return fmt.Sprintf("secrets at %s/ keep %d versions", k.Mount, k.MaxVersions)
		}),
		TypePasswordPolicy: said(sayPasswords),
		TypeTokenRole: said(func(t *TokenRole) string {
			return fmt.Sprintf("tokens of role %s say audience %s, for %s", At(t.Mount, t.Name), t.Audience, seconds(t.TTL))
		}),
		TypeTransitKey: said(sayTransit),
		TypePKIRole: said(func(r *PKIRole) string {
			return fmt.Sprintf("certificates of role %s, version %d: signed by key %s, for %s, for %s at most%s", At(r.Mount, r.Name), r.Version, r.Key, strings.Join(r.Usages, " and "), seconds(r.MaxTTL), sayPlaces(r))
		}),
		TypeReleaseApproved: said(func(r *ReleaseApproved) string {
			return fmt.Sprintf("key %s may sign version %s of %s once, security version %d, until %s", r.Key, r.Version, r.Product, r.SecurityVersion, r.Expires)
		}),
		TypeAuditLog: said(func(l *AuditLog) string {
			return fmt.Sprintf("the vault's trail is signed by %s and cosigned by %d of %d", l.Log.Name, l.Need, len(l.Cosigners))
		}),
		TypeAuditSink: said(func(x *AuditSink) string {
			return strings.TrimSpace(fmt.Sprintf("the trail is copied to sink %s, %s %s", x.ID, x.Kind, x.Address))
		}),
		TypeReminder: said(func(r *Reminder) string {
			to := r.Address
			if len(r.To) > 0 {
				to = strings.Join(r.To, ", ") + " by " + r.Address
			}
			return fmt.Sprintf("reminder %s tells %s, by %s, what has to be done next, from level %s on", r.ID, to, r.Kind, r.Level)
		}),
		TypeDelegation: said(func(d *Delegation) string {
			return fmt.Sprintf("identity %s may %s %s %d times until %s", d.Identity, d.Can, d.Path, d.Uses, d.Expires)
		}),
		TypeUnattended: said(func(u *Unattended) string {
			return fmt.Sprintf("host %s may open the vault by itself after a restart, without its key masters, while its TPM measures the same in PCRs %v, until %s", u.Host, u.PCRs, u.Expires)
		}),
		TypeBreakGlass: said(func(b *BreakGlass) string {
			return fmt.Sprintf("break-glass %s: %d of %s may give identity %s more rights, after %s and for %s", b.ID, b.People.Need, strings.Join(b.People.Members, ", "), b.Identity, seconds(b.Delay), seconds(b.Duration))
		}),
		TypeBreakGlassPulled: said(func(b *BreakGlassPulled) string {
			return fmt.Sprintf("break-glass %s is pulled, time %d: %s", b.ID, b.Times, b.Reason)
		}),
		TypeBreakGlassEnded: said(func(b *BreakGlassEnded) string {
			return fmt.Sprintf("break-glass %s is stopped, time %d", b.ID, b.Times)
		}),
	}
}

func said[T any](say func(*T) string) func(json.RawMessage) (string, error) {
	return func(body json.RawMessage) (string, error) {
		var v T
		if err := jcs.Unmarshal(body, &v); err != nil {
			return "", err
		}
		return say(&v), nil
	}
}

func sayPeople(p *People) string {
	var safes []string
	for _, s := range p.Safes {
		safes = append(safes, fmt.Sprintf("safe %s with %d of %d openers", s.Name, s.Openers.Need, len(s.Openers.Members)))
	}
	return fmt.Sprintf("%d people, %d of %d approvers, %s", len(p.Roster), p.Sets.Approvers.Need, len(p.Sets.Approvers.Members), strings.Join(safes, ", "))
}

func sayKey(k *KeyAdmitted) string {
	s := fmt.Sprintf("key %s is admitted: %s, for %s, in token %s", k.ID, k.Algorithm, k.Domain, k.Token.Label)
	if k.SuccessorOf != "" {
		s += ", dormant until it stands for " + k.SuccessorOf
	}
	return s
}

// maxSaid bounds how many parts of a list are said.
const maxSaid = 6

func sayPolicy(p *Policy) string {
	var rules []string
	for i, r := range p.Rules {
		if i == maxSaid {
			rules = append(rules, fmt.Sprintf("and %d rules more", len(p.Rules)-maxSaid))
			break
		}
		var can []string
		for _, c := range r.Can {
			can = append(can, string(c))
		}
		if slices.Contains(r.Can, access.Deny) {
			can = []string{"nothing"}
		}
		rules = append(rules, strings.Join(can, ", ")+" on "+r.Path)
	}
	return fmt.Sprintf("policy %s, version %d, gives %s", p.ID, p.Version, strings.Join(rules, "; "))
}

func sayIdentity(x *Identity) string {
	by := "by a proof that is not known here"
	switch {
	case x.Certificate != nil:
		by = "by a certificate for " + x.Certificate.URI
		if ca, err := x509.ParseCertificate(x.Certificate.CA); err == nil {
			by += " of " + ca.Subject.String()
		}
	case x.JWT != nil:
		by = fmt.Sprintf("by a token of %s for %s", x.JWT.Issuer, x.JWT.Subject)
	case x.AppRole != nil:
		by = "by a secret id, from " + strings.Join(x.AppRole.Networks, ", ")
	case x.Unix != nil:
		by = fmt.Sprintf("as user %d of the vault's host", x.Unix.UID)
	}
	return fmt.Sprintf("identity %s is known %s and has %s", x.ID, by, strings.Join(x.Policies, ", "))
}

func sayPasswords(p *PasswordPolicy) string {
	s := fmt.Sprintf("passwords of policy %s have %d characters", At(p.Mount, p.Name), p.Length)
	if p.RotateAfter > 0 {
		s += " and are changed after " + (time.Duration(p.RotateAfter) * time.Second).String()
	}
	return s
}

func sayTransit(k *TransitKey) string {
	if k.Software == nil {
		return fmt.Sprintf("transit key %s is key %s of the token", At(k.Mount, k.Name), k.TokenKey)
	}
	return fmt.Sprintf("transit key %s is of type %s with %d versions, from %d on in use", At(k.Mount, k.Name), k.Software.Type, k.Software.Versions, k.Software.MinDecryption)
}

func seconds(n int) string { return (time.Duration(n) * time.Second).String() }

// sayPlaces says what is given out with certificates, where it is told which were
// revoked, and to whom.
func sayPlaces(r *PKIRole) string {
	var b strings.Builder
	if n := len(r.Chain); n > 0 {
		fmt.Fprintf(&b, "; with %d above their issuer's", n)
	}
	if r.CRL != "" {
		fmt.Fprintf(&b, "; its list is at %s", r.CRL)
	}
	if r.OCSP != "" {
		fmt.Fprintf(&b, "; answers are at %s", r.OCSP)
	}
	if r.Public {
		b.WriteString("; WHOEVER asks the vault hears which were revoked")
	}
	return b.String()
}
