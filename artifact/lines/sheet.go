package lines

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"keyrite/artifact/fault"
)

// Parse reads a file back from its lines, in any order, typed or scanned: small
// letters, other spacing, and 0, 1, 8 for O, I, B are understood. Every line that
// was misread, is missing or stands twice with different text is named; the error
// is of class verify.
func Parse(text string) ([]byte, error) {
	var s Sheet
	err := s.Add(text)
	missing := s.missing()
	if err == nil && len(missing) == 0 {
		return s.Bytes()
	}
	if len(missing) > 0 {
		err = errors.Join(err, s.bad("missing: %s", numbers(missing)))
	}
	return nil, err
}

// Sheet takes lines as they are typed. The zero value is an empty one.
type Sheet struct {
	blocks map[int][]byte
}

// Add takes one line, or several, or a scanned code. Good lines stay; the error, of
// class verify, names each one that is not, and a hint says where to look.
func (s *Sheet) Add(text string) error {
	if s.blocks == nil {
		s.blocks = map[int][]byte{}
	}
	var all []error
	hint := ""
	place := 0
	for l := range strings.Lines(text) {
		for part := range strings.SplitSeq(l, separator) {
			if part = strings.TrimSpace(part); part == "" {
				continue
			}
			place++
			n, block, err := parseLine(part, place)
			if old, ok := s.blocks[n]; err == nil && ok && !bytes.Equal(old, block) {
				err = fmt.Errorf("line %02d stands twice, with different text", n)
			}
			if err == nil {
				s.blocks[n] = block
				continue
			}
			all = append(all, err)
			hint = "compare it with the paper letter by letter, and read the line's number too"
		}
	}
	if len(all) == 0 {
		return nil
	}
	text = all[0].Error()
	for _, err := range all[1:] {
		text += "; " + err.Error()
	}
	return fault.Hint(s.bad("%s", text), hint)
}

func (*Sheet) bad(format string, args ...any) error {
	return fault.Errorf(fault.Verify, "%w: %s", ErrMisread, fmt.Sprintf(format, args...))
}

// count is how many lines there must be, 0 before line 00 is there.
func (s *Sheet) count() int {
	head, ok := s.blocks[0]
	if !ok {
		return 0
	}
	return (int(binary.BigEndian.Uint16(head[1:3]))+blockBytes-1)/blockBytes + 1
}

// missing are the numbers of lines that are not there yet.
func (s *Sheet) missing() []int {
	if s.blocks[0] == nil {
		return []int{0}
	}
	var out []int
	for n := range min(s.count(), maxLine+1) {
		if s.blocks[n] == nil {
			out = append(out, n)
		}
	}
	return out
}

// Begun says whether the first line is there, without which nobody knows how many
// there are.
func (s *Sheet) Begun() bool { return s.blocks[0] != nil }

// Missing says in words which lines are to come, "" when all are there.
func (s *Sheet) Missing() string {
	list := s.missing()
	if len(list) == 0 {
		return ""
	}
	return "line " + numbers(list)
}

func numbers(list []int) string {
	var out []string
	for _, n := range list {
		out = append(out, fmt.Sprintf("%02d", n))
	}
	return strings.Join(out, ", ")
}

// Bytes joins the lines to the file.
func (s *Sheet) Bytes() ([]byte, error) {
	if list := s.missing(); len(list) > 0 {
		return nil, s.bad("missing: %s", numbers(list))
	}
	head, count := s.blocks[0], s.count()
	size := int(binary.BigEndian.Uint16(head[1:3]))
	if head[0] != version || size == 0 || size > MaxBytes {
		return nil, s.bad("line 00 is of no version that this program reads")
	}
	if len(s.blocks) != count {
		return nil, s.bad("there are lines of another file")
	}
	var data []byte
	for n := 1; n < count; n++ {
		data = append(data, s.blocks[n]...)
	}
	padding := data[size:]
	data = data[:size:size]
	if sum := sha256.Sum256(data); !bytes.Equal(sum[:headerSum], head[3:]) || !bytes.Equal(padding, make([]byte, len(padding))) {
		return nil, s.bad("they are not all of one file")
	}
	return data, nil
}

// lineChars is the length of a line without blanks.
const lineChars = 2 + blockBytes*8/5 + checkChars

// parseLine reads one line, the place-th that was given.
func parseLine(text string, place int) (int, []byte, error) {
	s := strings.ToUpper(strings.Join(strings.Fields(text), ""))
	n, err := strconv.ParseUint(s[:min(2, len(s))], 10, 7)
	if err != nil || len(s) < 2 {
		return 0, nil, fmt.Errorf("line %d of what was given begins with %.4q, and not with its number, two digits", place, s)
	}
	if len(s) != lineChars {
		return 0, nil, fmt.Errorf("line %02d has %d characters, not %d", n, len(s), lineChars)
	}
	s = strings.NewReplacer("0", "O", "1", "I", "8", "B").Replace(s[2:])
	for i := range s {
		if strings.IndexByte(alphabet, s[i]) < 0 {
			return 0, nil, fmt.Errorf("line %02d has a character that is in no line, %s", n, where(i))
		}
	}
	data, sum := s[:len(s)-checkChars], s[len(s)-checkChars:]
	block, err := encoding.DecodeString(data)
	if err != nil || check(int(n), data) != sum {
		return 0, nil, fmt.Errorf("line %02d%s", n, suspect(int(n), data, sum))
	}
	return int(n), block, nil
}

// where says in words where the i-th character after a line's number stands.
func where(i int) string {
	if i >= blockBytes*8/5 {
		return "in its check"
	}
	return fmt.Sprintf("in its group %d", i/groupChars+1)
}

// suspect says where one wrong character would explain a wrong check, "" if none
// would. What it ought to be is not said: only the paper knows.
func suspect(n int, data, sum string) string {
	want, wrong := check(n, data), 0
	for i := range want {
		if want[i] != sum[i] {
			wrong++
		}
	}
	if wrong == 1 {
		return " (look at its check)"
	}
	b := []byte(data)
	for i := range b {
		was := b[i]
		for j := range len(alphabet) {
			b[i] = alphabet[j]
			if check(n, string(b)) == sum {
				return fmt.Sprintf(" (look at its group %d)", i/groupChars+1)
			}
		}
		b[i] = was
	}
	return ""
}

// Compare names the lines of text that are not those of the original, with the
// groups that differ. Lines that are missing, and lines of no number, are left to
// Parse. The file is as public as what it is encrypted with: both are shown.
func Compare(text string, original []byte) ([]string, error) {
	want, err := Of(original)
	if err != nil {
		return nil, err
	}
	var out []string
	for l := range strings.Lines(text) {
		for part := range strings.SplitSeq(l, separator) {
			s := strings.ToUpper(strings.Join(strings.Fields(part), ""))
			n, err := strconv.ParseUint(s[:min(2, len(s))], 10, 7)
			if err != nil || len(s) < 2 || int(n) >= len(want) {
				continue
			}
			out = append(out, differs(int(n), s[2:], strings.Fields(want[n])[1:])...)
		}
	}
	return out, nil
}

func differs(n int, got string, want []string) []string {
	got = strings.NewReplacer("0", "O", "1", "I", "8", "B").Replace(got)
	long := len(got) != lineChars-2
	var out []string
	for i, w := range want {
		g := got[:min(len(w), len(got))]
		got = got[len(g):]
		if g == w {
			continue
		}
		name := fmt.Sprintf("group %d", i+1)
		if i == len(want)-1 {
			name = "the check"
		}
		out = append(out, fmt.Sprintf("line %02d, %s: %q was read, the original has %s", n, name, g, w))
		if long {
			break // from here on everything is shifted
		}
	}
	if long {
		out = append(out, fmt.Sprintf("line %02d: characters are missing, or there are too many", n))
	}
	return out
}
