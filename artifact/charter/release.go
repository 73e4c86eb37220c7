package charter

import (
	"encoding/hex"
	"time"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
)

// TypeReleaseApproved is the statement type of a release that a key may sign. The
// release approvers decide on it, not the approvers of the charter.
const TypeReleaseApproved = "release-approved"

// ReleaseApproved lets one key of the charter sign one sequence of bytes, once. A later
// one of the same bytes takes its place.
type ReleaseApproved struct {
	Digest          string `json:"digest"`           // hex, of the to-be-signed bytes
	Expires         string `json:"expires"`          // RFC 3339, UTC, whole seconds; at most MaxReleaseValidity after the statement
	Format          string `json:"format"`           // what the bytes are: the domain of the key
	Hash            string `json:"hash"`             // of the digest: ReleaseHash of the key
	ID              string `json:"id"`               //
	Key             string `json:"key"`              // id of the key record in force
	Product         string `json:"product"`          //
	SecurityVersion int64  `json:"security_version"` // 1 to MaxSecurityVersion
	Version         string `json:"version"`          // 1 to MaxReleaseVersion bytes, for people
}

// MaxReleaseValidity is how long an approval holds that nobody uses.
const MaxReleaseValidity = 7 * 24 * time.Hour

// MaxReleaseVersion bounds the version of a release, in bytes.
const MaxReleaseVersion = 64

// Releases are the releases that were approved.
type Releases struct {
	ByID     map[string]ReleaseApproved
	Floors   map[string]int64  // highest security version approved, by product
	byDigest map[string]string // key id and digest → id of the newest
}

func newReleases() Releases {
	return Releases{map[string]ReleaseApproved{}, map[string]int64{}, map[string]string{}}
}

// Release finds what a key may sign by its digest, in hex.
func (s *State) Release(key, digest string) (*ReleaseApproved, bool) {
	r, ok := s.Releases.ByID[s.Releases.byDigest[key+"/"+digest]]
	return &r, ok
}

// ReleaseHash is the hash by which an approval names what a key of the algorithm
// will sign: the one that it signs a digest of, and SHA-256 for a key that signs
// messages.
func ReleaseHash(algorithm string) string {
	if algorithm == anchor.P384 {
		return "sha2-384"
	}
	return "sha2-256"
}

// releasers are who decides on an approval.
func (s *State) releasers(*Statement) (Set, error) { return s.People.Sets.Releases, nil }

// approveRelease is the decider of an approval, whose expiry is held against the
// statement's own time.
func (s *State) approveRelease(st *Statement) error {
	var r ReleaseApproved
	if err := jcs.Unmarshal(st.Body, &r); err != nil {
		return err
	}
	at, err := ParseTime(st.Time)
	if err != nil {
		return err
	}
	end, err := ParseTime(r.Expires)
	if err != nil {
		return err
	}
	if !end.After(at) || end.Sub(at) > MaxReleaseValidity {
		return badRelease(&r, "it ends before it begins, or holds longer than 7 days")
	}
	if err := s.checkRelease(&r); err != nil {
		return err
	}
	if err := put(s.Releases.ByID, r.ID, r); err != nil {
		return err
	}
	s.Releases.byDigest[r.Key+"/"+r.Digest] = r.ID
	s.Releases.Floors[r.Product] = r.SecurityVersion
	return nil
}

func badRelease(r *ReleaseApproved, why string) error {
	return fault.Errorf(fault.Verify, "%w: release %.40q: %s", ErrStatement, r.ID, why)
}

// checkRelease wants a key in force that is not for general signatures, and a security
// version that does not sink. The same bytes may be approved anew: their signature may
// have been lost.
func (s *State) checkRelease(r *ReleaseApproved) error {
	rec, ok := s.Keys[r.Key]
	if !ok {
		return badRelease(r, "no key is called "+r.Key)
	}
	if in, err := s.Key(rec.Role(), rec.Domain); err != nil || in.ID != r.Key {
		return badRelease(r, "the key is not in force")
	}
	digest, err := hex.DecodeString(r.Digest)
	size := map[string]int{"sha2-256": 32, "sha2-384": 48}[r.Hash]
	switch {
	case rec.Domain == anchor.DomainGeneral || r.Format != rec.Domain:
		return badRelease(r, "the key signs "+rec.Domain)
	case err != nil || len(digest) != size || hex.EncodeToString(digest) != r.Digest || r.Hash != ReleaseHash(rec.Algorithm):
		return badRelease(r, "the digest is not in hex, of "+ReleaseHash(rec.Algorithm))
	case !idRE.MatchString(r.Product) || !plainVersion(r.Version):
		return badRelease(r, "a product is an id, a version 1 to 64 visible characters of ASCII")
	case r.SecurityVersion < 1 || r.SecurityVersion > MaxSecurityVersion || r.SecurityVersion < max(s.Floors[r.Product].SecurityVersion, s.Releases.Floors[r.Product]):
		return badRelease(r, "the security version is none, or lower than one before")
	}
	return nil
}

// plainVersion wants characters that look like themselves.
func plainVersion(v string) bool {
	for _, c := range []byte(v) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(v) >= 1 && len(v) <= MaxReleaseVersion
}
