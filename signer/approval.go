package signer

import (
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/jcs"
	"keyrite/artifact/person"
	"keyrite/artifact/world"
)

// purpose is the only one there is so far.
const purpose = "firmware"

// Approval is one person's consent to one request, bound to everything that the
// person was shown and to the key that will sign.
type Approval struct {
	Approver        string      `json:"approver"`
	Expires         string      `json:"expires"`
	Format          string      `json:"format"`
	Key             string      `json:"key"` // hex SHA-256 of the release key's SubjectPublicKeyInfo
	Nonce           []byte      `json:"nonce"`
	Product         string      `json:"product"`
	Purpose         string      `json:"purpose"`
	Request         string      `json:"request"` // hex SHA-256 of the request's payload
	SecurityVersion int64       `json:"security_version"`
	SHA256          string      `json:"sha256"` // of the image, as the approver measured it
	Shown           string      `json:"shown"`  // hex SHA-256 of the text on the screen
	Time            string      `json:"time"`
	Vault           string      `json:"vault"`
	Version         string      `json:"version"`
	World           world.World `json:"world"`
}

// RoleOf is the role of the key that signs the releases of a product: that of the
// product's own key if the charter ever had one, be it retired, else the common one.
func RoleOf(c *charter.State, product string) string {
	if id := firmware.KeyIDOf(product); ownKey(c, id) {
		return id
	}
	return firmware.KeyID
}

// ownKey says whether a key of the charter was made to sign one product's releases.
// A dormant twin may bear such a name by chance.
func ownKey(c *charter.State, id string) bool {
	k, ok := c.Keys[id]
	return ok && strings.HasPrefix(id, firmware.KeyIDOf("")) && k.SuccessorOf == "" && k.Domain == "dsse"
}

// releaseKey is the key of the charter that signs in that role, and its key id.
func releaseKey(c *charter.State, role string) (crypto.PublicKey, string, error) {
	rec, err := c.Key(role, "dsse")
	if err != nil {
		return nil, "", err
	}
	pub, err := rec.Key()
	if err != nil {
		return nil, "", err
	}
	id, err := envelope.KeyID(pub)
	return pub, id, err
}

// binding is what an approval by name at a time must say.
func (q *Requested) binding(name string) (Approval, error) {
	r := &q.Request
	_, key, err := releaseKey(q.state, RoleOf(q.state, r.Product))
	return Approval{
		Approver: name, Format: ApprovalFormat, Key: key, Product: r.Product, Purpose: purpose, Request: q.Hash,
		SecurityVersion: r.SecurityVersion, SHA256: r.SHA256, Shown: hashOf([]byte(q.Shown())), Vault: r.Vault, Version: r.Version, World: r.World,
	}, err
}

// Approve returns k's approval of a request whose image has the hash and size
// that the approver measured.
func Approve(q *Requested, sha256hex string, size int64, k *person.Key, now time.Time) ([]byte, error) {
	p := k.Public()
	if err := world.Match(q.state.World, p.World); err != nil {
		return nil, err
	}
	if err := mayApprove(q.state, p); err != nil {
		return nil, err
	}
	if err := q.CheckImage(sha256hex, size); err != nil {
		return nil, err
	}
	a, err := q.binding(p.Name)
	if err != nil {
		return nil, err
	}
	a.Time, a.Expires = charter.FormatTime(now), charter.FormatTime(now.Add(MaxValidity))
	a.Nonce = make([]byte, nonceBytes)
	rand.Read(a.Nonce)
	return seal(ApprovalType, a, k.Signer())
}

// mayApprove wants the very person of the charter in the release set, and not
// one whose key is that of a pipeline.
func mayApprove(c *charter.State, p *person.Person) error {
	m, ok := c.People.Person(p.Name)
	if !ok || !slices.Contains(c.People.Sets.Releases.Members, p.Name) || !m.Person.Equal(p) {
		return fault.Errorf(fault.Policy, "%w: %s", ErrApprover, p.Name)
	}
	if id, err := pipelineOf(c, p.PublicKey()); err == nil {
		return fault.Errorf(fault.Policy, "%w: %s has the key of pipeline %s, and who asks does not approve", ErrApprover, p.Name, id)
	}
	return nil
}

// consent is a checked approval.
type consent struct {
	approver, hash string
}

// openApproval checks one approval against the request.
func openApproval(data []byte, q *Requested, now time.Time) (consent, error) {
	env, payload, err := parse(data, ApprovalType)
	if err != nil {
		return consent{}, err
	}
	var a Approval
	if err := jcs.Unmarshal(payload, &a); err != nil {
		return consent{}, err
	}
	if err := sameVault(q.state, a.World, a.Vault); err != nil {
		return consent{}, err
	}
	m, ok := q.state.People.Person(a.Approver)
	if !ok {
		return consent{}, fault.Errorf(fault.Policy, "%w: %.40q", ErrApprover, a.Approver)
	}
	if err := mayApprove(q.state, &m.Person); err != nil {
		return consent{}, err
	}
	if _, _, err := envelope.Verify(env, ApprovalType, []envelope.Key{{Name: a.Approver, Public: m.Person.PublicKey()}}, 1); err != nil {
		if errors.Is(err, envelope.ErrUnknown) {
			return consent{}, fault.Errorf(fault.Policy, "%w: it says %s, but another key signed it", ErrApprover, a.Approver)
		}
		return consent{}, err
	}
	if err := checkTimes("the approval of "+a.Approver, a.Time, a.Expires, now); err != nil {
		return consent{}, err
	}
	return consent{a.Approver, hashOf(payload)}, q.checkBinding(&a)
}

func (q *Requested) checkBinding(a *Approval) error {
	want, err := q.binding(a.Approver)
	if err != nil {
		return err
	}
	if len(a.Nonce) != nonceBytes {
		return fault.Errorf(fault.Verify, "the approval of %s has no nonce", a.Approver)
	}
	// What the approver chose is taken as it is; the rest must be the same.
	want.Nonce, want.Time, want.Expires = a.Nonce, a.Time, a.Expires
	got, err := jcs.Marshal(a)
	if err != nil {
		return err
	}
	expect, err := jcs.Marshal(want)
	if err != nil {
		return err
	}
	if string(got) != string(expect) {
		return fault.Errorf(fault.Policy, "%w: %s approved %s", ErrBinding, a.Approver, differs(a, &want))
	}
	return nil
}

// differs names the first difference for people.
func differs(got, want *Approval) string {
	switch {
	case got.Request != want.Request:
		return fmt.Sprintf("request %.16q", got.Request)
	case got.SHA256 != want.SHA256:
		return fmt.Sprintf("another image, SHA-256 %.70q", got.SHA256)
	case got.Key != want.Key:
		return "the use of another key"
	case got.Purpose != want.Purpose:
		return fmt.Sprintf("another purpose, %.40q", got.Purpose)
	case got.Shown != want.Shown:
		return "another text on the screen"
	}
	return "other values"
}
