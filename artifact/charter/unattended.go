package charter

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
)

// TypeUnattended lets a host open the vault by itself after a restart, for a while; it
// ends by its time, by TypeAccessEnded, with its host, or by a later one for the host.
const TypeUnattended = "unattended"

// MaxUnattended is the longest time from the statement to its end.
const MaxUnattended = 92 * 24 * time.Hour

// maxPCR is the last of the registers that the firmware and the boot loader extend;
// others can be set back by software (TCG PC Client Platform TPM Profile, 4.6.2).
const maxPCR = 15

// Unattended gives one host, in the state that its TPM measured, what a restart needs.
// Without one in force for a host, only a quorum opens the vault there.
type Unattended struct {
	// Digest is the SHA-256 over the values of PCRs, in the order of their numbers,
	// that the host must have; without one, those that it has when a quorum opens the
	// vault under this statement.
	Digest  []byte `json:"digest,omitempty"`
	Expires string `json:"expires"` // as the statement's time; at most MaxUnattended after it
	Host    string `json:"host"`
	ID      string `json:"id"`
	PCRs    []int  `json:"pcrs"` // of the bank SHA-256, 0 to 15, rising
}

// Hash is the hex SHA-256 of the statement's canonical body: what was sealed under
// another body is not opened under this one.
func (u *Unattended) Hash() (string, error) {
	b, err := jcs.Marshal(u)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// Ends is when it ends.
func (u *Unattended) Ends() time.Time {
	at, err := ParseTime(u.Expires)
	if err != nil {
		return time.Time{} // it was checked when it was folded in
	}
	return at
}

// UnattendedAt is what a host may do by itself at a time; an error of class policy
// says that it may not, and why.
func (s *State) UnattendedAt(host string, now time.Time) (*Unattended, error) {
	if _, ok := s.Access.Hosts[host]; !ok {
		return nil, fault.Errorf(fault.Policy, "the charter knows no host %.40q", host)
	}
	u, ok := s.Grants.Unattended[host]
	if !ok {
		return nil, fault.Errorf(fault.Policy, "the charter lets nobody open the vault on host %.40q but its key masters", host)
	}
	if !now.Before(u.Ends()) {
		return nil, fault.Errorf(fault.Policy, "unattended %s ended at %s", u.ID, u.Expires)
	}
	return &u, nil
}

func (s *State) addUnattended(u *Unattended) error {
	if err := s.Access.fresh(TypeUnattended, u.ID, s.Grants.unattendedIDs[u.ID]); err != nil {
		return err
	}
	if _, ok := s.Access.Hosts[u.Host]; !ok {
		return badAccess(TypeUnattended, u.ID, fmt.Sprintf("there is no host %q", u.Host))
	}
	ends, err := ParseTime(u.Expires)
	if err != nil {
		return err
	}
	if !ends.After(s.now) || ends.Sub(s.now) > MaxUnattended {
		return badAccess(TypeUnattended, u.ID, "it ends after it begins, within 92 days")
	}
	if len(u.PCRs) == 0 || !slices.IsSorted(u.PCRs) || len(slices.Compact(slices.Clone(u.PCRs))) != len(u.PCRs) || u.PCRs[0] < 0 || u.PCRs[len(u.PCRs)-1] > maxPCR {
		return badAccess(TypeUnattended, u.ID, "its PCRs are one or more of 0 to 15, rising")
	}
	if u.Digest != nil && (len(u.Digest) != sha256.Size || slices.Equal(u.Digest, make([]byte, sha256.Size))) {
		return badAccess(TypeUnattended, u.ID, "its digest is no SHA-256")
	}
	s.Grants.Unattended[u.Host] = *u
	s.Grants.unattendedIDs[u.ID] = true
	return nil
}

// endUnattended ends one by its id; one that a later one replaced has ended.
func (s *State) endUnattended(id string) bool {
	for host, u := range s.Grants.Unattended {
		if u.ID == id {
			delete(s.Grants.Unattended, host)
			return true
		}
	}
	return false
}
