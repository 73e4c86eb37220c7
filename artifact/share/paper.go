package share

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"keyrite/artifact/fault"
)

// The paper form of a share file: the same ciphertext, in lines that a person
// can read back and type, each with a check of its own. docs/formats/share.md
// describes it.
const (
	paperVersion = 1
	// lineBytes are the bytes in one line: 40 characters in groups of five.
	lineBytes = 25
	// lineChecks is the length of a line's check in characters.
	lineChecks = 6
	// maxPaperLines is the highest number of a line, which has two digits. A share
	// file has about 460 bytes and so 20 lines.
	maxPaperLines = 99
	headerSum     = lineBytes - 3
	// separator joins the lines in a QR code, whose compact alphabet has no line
	// break (ISO/IEC 18004, 7.4.4).
	separator = "."
)

// ErrPaper says that lines from paper were misread.
var ErrPaper = fault.New(fault.Verify, "the paper was misread")

var paperAlphabet = base32.StdEncoding.WithPadding(base32.NoPadding)

// base32Letters is the alphabet of RFC 4648, section 6. It has neither 0 nor 1
// nor 8, so that what looks like one of them is a letter.
const base32Letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

// PaperLines writes a share file as lines for paper: two digits, eight groups of
// five characters, and a check. The first line, 00, says how long the file is
// and carries its hash. A file above 2,475 bytes is of class usage.
func PaperLines(file []byte) ([]string, error) {
	if n := (len(file) + lineBytes - 1) / lineBytes; len(file) == 0 || n > maxPaperLines {
		return nil, fault.Errorf(fault.Usage, "a share on paper has 1 to %d bytes, not %d", maxPaperLines*lineBytes, len(file))
	}
	sum := sha256.Sum256(file)
	head := append(binary.BigEndian.AppendUint16([]byte{paperVersion}, uint16(len(file))), sum[:headerSum]...)
	lines := []string{paperLine(0, head)}
	for n := 1; len(file) > 0; n++ {
		var block [lineBytes]byte
		file = file[copy(block[:], file):]
		lines = append(lines, paperLine(n, block[:]))
	}
	return lines, nil
}

// PaperQR writes the same lines as one text for a QR code.
func PaperQR(file []byte) (string, error) {
	lines, err := PaperLines(file)
	if err != nil {
		return "", err
	}
	return strings.ReplaceAll(strings.Join(lines, separator), " ", ""), nil
}

// FromPaper reads a share file back from its lines, in any order, typed or
// scanned: small letters, other spacing, and 0, 1, 8 for O, I, B are understood.
// A line that was misread, is missing or stands twice with different text is
// named; the error is of class verify.
func FromPaper(lines []string) ([]byte, error) {
	blocks := map[int][]byte{}
	for _, text := range lines {
		for part := range strings.SplitSeq(text, separator) {
			if strings.TrimSpace(part) == "" {
				continue
			}
			n, block, err := parsePaperLine(part)
			if err != nil {
				return nil, err
			}
			if old, ok := blocks[n]; ok && !bytes.Equal(old, block) {
				return nil, fault.Errorf(fault.Verify, "%w: line %02d stands twice, with different text", ErrPaper, n)
			}
			blocks[n] = block
		}
	}
	head, ok := blocks[0]
	if !ok {
		return nil, fault.Errorf(fault.Verify, "%w: line 00 is missing", ErrPaper)
	}
	size := int(binary.BigEndian.Uint16(head[1:3]))
	count := (size + lineBytes - 1) / lineBytes
	if head[0] != paperVersion || size == 0 || count > maxPaperLines {
		return nil, fault.Errorf(fault.Verify, "%w: line 00 is of no version that this program reads", ErrPaper)
	}
	return joinPaper(blocks, size, count, head[3:])
}

func joinPaper(blocks map[int][]byte, size, count int, want []byte) ([]byte, error) {
	var missing []string
	var file []byte
	for n := 1; n <= count; n++ {
		if blocks[n] == nil {
			missing = append(missing, fmt.Sprintf("%02d", n))
		}
		file = append(file, blocks[n]...)
	}
	if len(missing) > 0 {
		return nil, fault.Errorf(fault.Verify, "%w: missing: %s of %d lines", ErrPaper, strings.Join(missing, ", "), count+1)
	}
	if len(blocks) != count+1 {
		return nil, fault.Errorf(fault.Verify, "%w: there are lines of another share", ErrPaper)
	}
	padding := file[size:]
	file = file[:size:size]
	if sum := sha256.Sum256(file); !bytes.Equal(sum[:headerSum], want) || !bytes.Equal(padding, make([]byte, len(padding))) {
		return nil, fault.Errorf(fault.Verify, "%w: the lines are not all of one share", ErrPaper)
	}
	return file, nil
}

func paperLine(n int, block []byte) string {
	data := paperAlphabet.EncodeToString(block)
	var out strings.Builder
	fmt.Fprintf(&out, "%02d", n)
	for i := 0; i < len(data); i += 5 {
		out.WriteString(" " + data[i:i+5])
	}
	return out.String() + " " + paperCheck(n, data)
}

func parsePaperLine(text string) (int, []byte, error) {
	s := strings.ToUpper(strings.Join(strings.Fields(text), ""))
	const length = 2 + lineBytes*8/5 + lineChecks
	if len(s) != length {
		return 0, nil, fault.Errorf(fault.Verify, "%w: the line %.12q… has %d characters, not %d", ErrPaper, s, len(s), length)
	}
	n, err := strconv.ParseUint(s[:2], 10, 7)
	if err != nil {
		return 0, nil, fault.Errorf(fault.Verify, "%w: a line begins with its number, not with %.2q", ErrPaper, s)
	}
	s = strings.NewReplacer("0", "O", "1", "I", "8", "B").Replace(s[2:])
	data, check := s[:len(s)-lineChecks], s[len(s)-lineChecks:]
	block, err := paperAlphabet.DecodeString(data)
	if err != nil || paperCheck(int(n), data) != check {
		return 0, nil, fault.Hint(fault.Errorf(fault.Verify, "%w: line %02d", ErrPaper, n), "compare it with the paper letter by letter, and read the line's number too")
	}
	return int(n), block, nil
}

// paperCheck is the BCH code of BIP-173 over the line's number and its
// characters, as six characters. It finds every error in up to four characters,
// and any other but one in a billion.
func paperCheck(n int, data string) string {
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
		step(uint32(strings.IndexByte(base32Letters, c)))
	}
	for range lineChecks {
		step(0)
	}
	sum ^= 1
	out := make([]byte, lineChecks)
	for i := range out {
		out[i] = base32Letters[sum>>(5*(lineChecks-1-i))&31]
	}
	return string(out)
}
