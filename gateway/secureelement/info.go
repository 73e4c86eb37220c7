package secureelement

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"keyrite/artifact/fault"
)

// Info is what an element says about itself.
type Info struct {
	ChipID   string // 32 hex digits: first half of the SHA-256 of its endorsement key's public area
	Kind     string // "tpm2"
	Maker    string // as registered with TCG, for example "IBM"
	Firmware string // hex, as the maker counts
}

// Info reads maker and firmware and derives the chip id. The endorsement key
// comes from a seed that the maker put in, so the id is the same for the life of
// the chip, also after a reset; it is not secret and proves nothing by itself.
func (e *Element) Info() (info *Info, err error) {
	defer e.enter()()
	maker, err := e.property(tpm2.TPMPTManufacturer)
	if err != nil {
		return nil, err
	}
	version, err := e.property(tpm2.TPMPTFirmwareVersion1)
	if err != nil {
		return nil, err
	}
	ek, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.ECCEKTemplate)}.Execute(e.t)
	if err != nil {
		return nil, wrap("make the endorsement key", err)
	}
	if err := e.flush(ek.ObjectHandle); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(ek.OutPublic.Bytes())
	name := []byte{byte(maker >> 24), byte(maker >> 16), byte(maker >> 8), byte(maker)}
	return &Info{ChipID: hex.EncodeToString(sum[:16]), Kind: "tpm2", Maker: printable(name), Firmware: fmt.Sprintf("%08x", version)}, nil
}

func (e *Element) property(p tpm2.TPMPT) (uint32, error) {
	r, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(p), PropertyCount: 1}.Execute(e.t)
	if err != nil {
		return 0, wrap("read capabilities", err)
	}
	props, err := r.CapabilityData.Data.TPMProperties()
	if err != nil || len(props.TPMProperty) != 1 {
		return 0, fault.New(fault.Token, "read capabilities: unusable answer")
	}
	return props.TPMProperty[0].Value, nil
}

// printable keeps letters, digits and inner spaces of a vendor id.
func printable(b []byte) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, string(b)))
}
