// Package lines writes a small file so that a person can carry it without a
// medium: as lines to read aloud, print and type, each with a check of its own,
// and as one text for a QR code.
//
// Shares go on paper this way, and requests and answers of people who sign
// elsewhere. Of and Code write, Parse reads all at once, and a Sheet takes one line
// after the other from somebody who types. It must never correct what was misread:
// it says where to look, and the person looks.
//
// Compatibility: docs/formats/lines.md, version 1 is read for ever.
package lines

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"

	"keyrite/artifact/fault"
)

const (
	version = 1
	// blockBytes are the bytes in one line: 40 characters in groups of five.
	blockBytes = 25
	// checkChars is the length of a line's check in characters.
	checkChars = 6
	groupChars = 5
	// maxLine is the highest number of a line, which has two digits.
	maxLine   = 99
	headerSum = blockBytes - 3
	// separator joins the lines in a QR code, whose compact alphabet has no line
	// break (ISO/IEC 18004, 7.4.4).
	separator = "."
)

// MaxBytes is the longest file that is written in lines.
const MaxBytes = maxLine * blockBytes

// ErrMisread says that lines were misread, are missing or do not belong together.
var ErrMisread = fault.New(fault.Verify, "the lines were misread")

var encoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// alphabet is that of RFC 4648, section 6. It has neither 0 nor 1 nor 8, so that
// what looks like one of them is a letter.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

// Of writes data as lines: two digits, eight groups of five characters, and a
// check. The first line, 00, says how long the file is and carries its hash. Data
// above MaxBytes is of class usage.
func Of(data []byte) ([]string, error) {
	if len(data) == 0 || len(data) > MaxBytes {
		return nil, fault.Errorf(fault.Usage, "1 to %d bytes are written in lines, not %d", MaxBytes, len(data))
	}
	sum := sha256.Sum256(data)
	head := append(binary.BigEndian.AppendUint16([]byte{version}, uint16(len(data))), sum[:headerSum]...)
	out := []string{line(0, head)}
	for n := 1; len(data) > 0; n++ {
		var block [blockBytes]byte
		data = data[copy(block[:], data):]
		out = append(out, line(n, block[:]))
	}
	return out, nil
}

// Code writes the same lines as one text for a QR code.
func Code(data []byte) (string, error) {
	all, err := Of(data)
	if err != nil {
		return "", err
	}
	return strings.ReplaceAll(strings.Join(all, separator), " ", ""), nil
}

func line(n int, block []byte) string {
	data := encoding.EncodeToString(block)
	var out strings.Builder
	fmt.Fprintf(&out, "%02d", n)
	for i := 0; i < len(data); i += groupChars {
		out.WriteString(" " + data[i:i+groupChars])
	}
	return out.String() + " " + check(n, data)
}

// check is the BCH code of BIP-173 over the line's number and its characters, as
// six characters. It finds every error in up to four characters, and any other
// but one in a billion.
func check(n int, data string) string {
	sum := uint32(1)
	step := func(v uint32) {
		top := sum >> 25
		sum = sum&0x1ffffff<<5 ^ v
		for i, g := range [5]uint32{0x3b6a57b2, 0x26508e6d, 0x1ea119fa, 0x3d4233dd, 0x2a1462b3} {
			if top>>i&1 == 1 {
				sum ^= g
			}
		}
	}
	step(uint32(n) >> 5)
	step(uint32(n) & 31)
	for _, c := range []byte(data) {
		step(uint32(strings.IndexByte(alphabet, c)))
	}
	for range checkChars {
		step(0)
	}
	sum ^= 1
	out := make([]byte, checkChars)
	for i := range out {
		out[i] = alphabet[sum>>(5*(checkChars-1-i))&31]
	}
	return string(out)
}
