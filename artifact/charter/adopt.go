package charter

import (
	"regexp"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
)

// EpochAdopted takes over the shares that a void ceremony dealt, where they and no
// others open the safe's token now: the ceremony was killed after the token had
// changed its PINs, and recover finished the change. What proves it stands in the
// record of the ceremony that adopts; the approvers sign the root of the void one.
type EpochAdopted struct {
	Epoch
	Record string `json:"record"` // origin of the void record that dealt it
	Root   string `json:"root"`   // hex tree root that it ended with
}

// KeyAdopted says that a key lives in another safe's token, where a transfer left
// it that was void after the key had begun to be destroyed where it was.
type KeyAdopted struct {
	ID     string `json:"id"`
	Record string `json:"record"` // origin of the void record
	Root   string `json:"root"`   // hex tree root that it ended with
	Safe   string `json:"safe"`   // where it is
}

// maxHolders is how many shares a split may have (vault/shamir: x is one byte, not 0).
const maxHolders = 255

var originRE = regexp.MustCompile(`^keyrite/record/[0-9a-f]{16}$`)

func checkSource(what, record, root string) error {
	if !originRE.MatchString(record) || !hexRE.MatchString(root) {
		return fault.Errorf(fault.Verify, "%w: %s is adopted from no record", ErrStatement, what)
	}
	return nil
}

// adoptEpoch takes the epoch that follows, in the same token, with shares that are
// all new. Who holds them was decided in a ceremony that is void, so they need not
// be the openers of now; therefore the safe is stale until it is dealt anew.
func (s *State) adoptEpoch(x *EpochAdopted) error {
	e := &x.Epoch
	before, dealt := s.Epochs[e.Safe]
	if _, ok := s.People.Safe(e.Safe); !ok || !dealt {
		return fault.Errorf(fault.Verify, "%w: adopted epoch of safe %.40q", ErrStatement, e.Safe)
	}
	if err := x.Check(&before); err != nil {
		return err
	}
	s.deal(e)
	s.adopted[e.Safe] = e.Epoch
	return nil
}

// Check wants the epoch that follows before, in the same token, with one share for
// each of its holders, in order, all different and new, and a void record that it
// comes from.
func (x *EpochAdopted) Check(before *Epoch) error {
	e := &x.Epoch
	if err := checkSource("epoch of safe "+e.Safe, x.Record, x.Root); err != nil {
		return err
	}
	if before.Epoch < 1 || e.Epoch != before.Epoch+1 || e.Safe != before.Safe || e.Token != before.Token {
		return fault.Errorf(fault.Verify, "%w: adopted epoch %d of safe %.40q does not follow epoch %d in its token", ErrStatement, e.Epoch, e.Safe, before.Epoch)
	}
	if e.Need < 2 || e.Need > len(e.Shares) || len(e.Shares) > maxHolders {
		return fault.Errorf(fault.Verify, "%w: adopted epoch %d of safe %s wants %d of %d shares", ErrStatement, e.Epoch, e.Safe, e.Need, len(e.Shares))
	}
	seen := map[string]bool{}
	for i, sh := range e.Shares {
		if sh.Index != i+1 || sh.Holder == "" || i > 0 && sh.Holder <= e.Shares[i-1].Holder || envelope.CheckKey(sh.Public) != nil || seen[string(sh.Public)] {
			return fault.Errorf(fault.Verify, "%w: share %d of adopted epoch %d of safe %s", ErrStatement, i+1, e.Epoch, e.Safe)
		}
		seen[string(sh.Public)] = true
	}
	return unlike(e, before)
}

// adoptKey moves a key that is in force to the token of another safe.
func (s *State) adoptKey(x *KeyAdopted) error {
	k, ok := s.Keys[x.ID]
	_, retired := s.Retired[x.ID]
	e, dealt := s.Epochs[x.Safe]
	if _, from := s.SafeOf(&k); !ok || retired || !from || !dealt || k.Token == e.Token {
		return fault.Errorf(fault.Verify, "%w: key %.40q cannot be adopted in safe %.40q", ErrStatement, x.ID, x.Safe)
	}
	if err := checkSource("key "+x.ID, x.Record, x.Root); err != nil {
		return err
	}
	s.move(&k, e.Token)
	return nil
}
