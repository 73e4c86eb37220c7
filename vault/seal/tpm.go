package seal

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/tlog"
	"keyrite/internal/tpm"
)

// TPMWindow is the Config.Window of a store whose head is in a TPM: NV memory wears
// out, so the head follows updates that nobody waits for within five minutes.
const TPMWindow = 5 * time.Minute

// TPMPause is the Config.Pause that goes with TPMWindow: at most 360 writes a day,
// and room for one that is late.
const TPMPause = 4 * time.Minute

// Handles in the owner's range of the TCG registry (0x01800000 to 0x01BFFFFF).
const (
	tpmHeadHandle    = 0x01800200
	tpmCounterHandle = 0x01800201
)

// The index of the head:
//
//	8 bytes    "krhead1\n"
//	16 bytes   nonce, of Bind
//	2 × 88     slots, written in turn
//
// and a slot:
//
//	8 bytes    value of the counter at which it counts, big-endian
//	8 bytes    size of the log, big-endian
//	32 bytes   root of the log
//	8 bytes    zero
//	32 bytes   HMAC-SHA-256 of all that and of nonce, world and vault
const (
	tpmMagic     = "krhead1\n"
	tpmNonce     = 16
	tpmSlot      = 88
	tpmSlots     = len(tpmMagic) + tpmNonce
	tpmHeadBytes = tpmSlots + 2*tpmSlot
	tpmMAC       = tpmSlot - sha256.Size
)

// TPMIndexes are the two indexes of a TPMKeeper: the head and its counter.
func TPMIndexes() []tpm.Index { return []tpm.Index{tpmHeadIndex(), tpmCounterIndex()} }

func tpmHeadIndex() tpm.Index { return tpm.Index{Handle: tpmHeadHandle, Bytes: uint16(tpmHeadBytes)} }

func tpmCounterIndex() tpm.Index {
	return tpm.Index{Handle: tpmCounterHandle, Bytes: 8, Counter: true}
}

// errTPMHead says that what the TPM has is not what this store put there.
var errTPMHead = fault.Hint(fault.Errorf(fault.Verify, "the head in the TPM was not put there by this store, or was removed and defined anew: %w", ErrFork),
	"if this is the newest copy of the store, key masters take it over with 'keyrite-vault unseal --new-attempt --operation rehead': see docs/operations/vault-tpm.md")

// TPMKeeper keeps the head in a TPM of this host: in an ordinary NV index, beside a
// counter that nobody can take back. A head counts only with the counter's present
// value and an HMAC under a key that the store itself keeps, sealed. So whoever has
// the TPM's authorisations and an older copy of the store, but not the store's data
// key, cannot make the older copy count.
//
// The two phases: the new head is written for the counter's next value, into the slot
// that does not count (prepared); then the counter steps (committed). Whatever is cut
// off in between, one of the two heads counts.
type TPMKeeper struct {
	open func() (*tpm.Device, error)
	auth []byte

	mu     sync.Mutex // guards the rest; held through commands of the TPM
	memory *tpmMemory // of the store that is open or being opened
}

// tpmMemory is what the store remembers of its TPM.
type tpmMemory struct {
	base  uint64 // value of the counter when it was bound: no head counts at it but the first, which is none
	nonce [tpmNonce]byte
	key   [sha256.Size]byte
}

const tpmMemoryBytes = 1 + 8 + tpmNonce + sha256.Size

// NewTPMKeeper keeps the head in the TPM that open connects to, whose indexes have
// that authorisation. It asks the TPM nothing yet.
func NewTPMKeeper(open func() (*tpm.Device, error), auth []byte) *TPMKeeper {
	return &TPMKeeper{open: open, auth: bytes.Clone(auth)}
}

// with connects for f: the TPM may have been away meanwhile.
func (k *TPMKeeper) with(f func(*tpm.Device) error) error {
	d, err := k.open()
	if err == nil {
		err = f(d)
		_ = d.Close() // every answer has been read
	}
	if fault.ClassOf(err) == fault.Unreachable {
		return fault.Hint(err, "without its TPM the vault stays sealed: see 'The TPM is lost' in docs/operations/vault-tpm.md")
	}
	return err
}

// Bind implements Bound: the index is emptied and the counter stepped, so that no head
// of before counts any more.
func (k *TPMKeeper) Bind(context.Context) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := &tpmMemory{}
	for _, b := range [][]byte{m.nonce[:], m.key[:]} {
		if _, err := rand.Read(b); err != nil {
			return nil, fault.Errorf(fault.Unexpected, "read system random: %w", err)
		}
	}
	err := k.with(func(d *tpm.Device) (err error) {
		fresh := append(append([]byte(tpmMagic), m.nonce[:]...), make([]byte, 2*tpmSlot)...)
		if err := d.Write(tpmHeadIndex(), k.auth, 0, fresh); err != nil {
			return err
		}
		m.base, err = d.Step(tpmCounterIndex(), k.auth)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("bind the store to the TPM: %w", err)
	}
	k.memory = m
	return m.marshal(), nil
}

func (m *tpmMemory) marshal() []byte {
	out := append([]byte{1}, binary.BigEndian.AppendUint64(nil, m.base)...)
	return append(append(out, m.nonce[:]...), m.key[:]...)
}

// Recall implements Bound.
func (k *TPMKeeper) Recall(memory []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(memory) != tpmMemoryBytes || memory[0] != 1 {
		return fault.Errorf(fault.Verify, "what the store remembers of its TPM is damaged or of a later version: %w", ErrAltered)
	}
	m := &tpmMemory{base: binary.BigEndian.Uint64(memory[1:])}
	copy(m.nonce[:], memory[9:])
	copy(m.key[:], memory[9+tpmNonce:])
	k.memory = m
	return nil
}

// Advance implements Keeper.
func (k *TPMKeeper) Advance(ctx context.Context, h Head, c Chain) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("advance the head in the TPM: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.memory == nil {
		return fault.New(fault.Unexpected, "the keeper was not told which store it is of")
	}
	return k.with(func(d *tpm.Device) error {
		had, count, err := k.load(d, h)
		if err != nil {
			return err
		}
		if had != nil {
			if err := extends(*had, h, c); err != nil || *had == h {
				return err
			}
		}
		offset := tpmSlots + int((count+1)%2)*tpmSlot
		if err := d.Write(tpmHeadIndex(), k.auth, offset, k.memory.slot(count+1, h)); err != nil {
			return fmt.Errorf("prepare the head in the TPM: %w", err)
		}
		now, err := d.Step(tpmCounterIndex(), k.auth)
		if err != nil {
			return fmt.Errorf("commit the head in the TPM: %w", err)
		}
		if now != count+1 {
			return fmt.Errorf("commit the head in the TPM: somebody else counted: %w", errTPMHead)
		}
		return nil
	})
}

// load is the head that counts, nil if none was put there since Bind; and the value
// of the counter.
func (k *TPMKeeper) load(d *tpm.Device, of Head) (*Head, uint64, error) {
	data, err := d.Read(tpmHeadIndex(), k.auth)
	if err != nil {
		return nil, 0, k.foreign(err)
	}
	count, err := d.Count(tpmCounterIndex(), k.auth)
	if err != nil {
		return nil, 0, k.foreign(err)
	}
	m := k.memory
	if len(data) != tpmHeadBytes || !bytes.Equal(data[:tpmSlots], append([]byte(tpmMagic), m.nonce[:]...)) || count < m.base {
		return nil, 0, errTPMHead
	}
	slot := data[tpmSlots+int(count%2)*tpmSlot:][:tpmSlot]
	if count == m.base && bytes.Equal(slot, make([]byte, tpmSlot)) {
		return nil, count, nil
	}
	h := Head{Vault: of.Vault, World: of.World, Size: int64(binary.BigEndian.Uint64(slot[8:])), Root: tlog.Hash(slot[16:48])}
	if h.Size < 1 || !hmac.Equal(slot, m.slot(count, h)) {
		return nil, 0, errTPMHead
	}
	return &h, count, nil
}

// foreign tells an index that is not the vault's from a TPM that is not there: a
// refusal means another authorisation, of somebody who defined the index anew.
func (k *TPMKeeper) foreign(err error) error {
	switch fault.ClassOf(err) {
	case fault.Policy, fault.Verify:
		return fmt.Errorf("%w (%w)", errTPMHead, err)
	}
	return err
}

// slot is what stands in the index for a head that counts at a value of the counter.
func (m *tpmMemory) slot(count uint64, h Head) []byte {
	out := binary.BigEndian.AppendUint64(nil, count)
	out = binary.BigEndian.AppendUint64(out, uint64(h.Size))
	out = append(out, h.Root[:]...)
	out = append(out, make([]byte, tpmMAC-len(out))...)
	mac := hmac.New(sha256.New, m.key[:])
	mac.Write(parts([]byte("keyrite head in a TPM v1"), m.nonce[:], []byte(h.World), h.Vault[:], out))
	return mac.Sum(out)
}
