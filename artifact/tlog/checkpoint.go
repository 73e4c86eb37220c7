package tlog

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/world"
)

// MaxCheckpointBytes bounds a checkpoint with all its signatures.
const MaxCheckpointBytes = 64 << 10

var (
	// ErrNote says that a checkpoint is not well formed or not canonical.
	ErrNote = fault.New(fault.Verify, "checkpoint is not well formed")
	// ErrSigner says that a signature line is by nobody who may sign, or by one
	// who signed before.
	ErrSigner = fault.New(fault.Verify, "checkpoint has an unknown or repeated signature line")
	// ErrSignature says that a signature line does not hold.
	ErrSignature = fault.New(fault.Verify, "checkpoint signature does not hold")
)

// Checkpoint states the size and root of a log. The world is an extension line,
// so it is part of what is signed.
type Checkpoint struct {
	Origin string // log's name, for example keyrite/record/1f0c…
	World  world.World
	Size   int64
	Root   Hash
}

var (
	originRE = regexp.MustCompile(`^[a-z0-9./:-]{1,128}$`)
	nameRE   = regexp.MustCompile(`^[a-z][a-z0-9./-]{0,63}$`)
)

// Text is the note text: origin, size, root and the world line.
func (c Checkpoint) Text() []byte {
	return fmt.Appendf(nil, "%s\n%d\n%s\nworld %s\n", c.Origin, c.Size, base64.StdEncoding.EncodeToString(c.Root[:]), c.World)
}

func parseText(text []byte) (Checkpoint, error) {
	var c Checkpoint
	lines := strings.Split(string(text), "\n")
	if len(lines) != 5 || lines[4] != "" || !originRE.MatchString(lines[0]) {
		return c, ErrNote
	}
	c.Origin = lines[0]
	size, err := strconv.ParseInt(lines[1], 10, 64)
	root, err2 := base64.StdEncoding.DecodeString(lines[2])
	w, ok := strings.CutPrefix(lines[3], "world ")
	if err != nil || err2 != nil || len(root) != len(c.Root) || !ok || size < 0 {
		return c, ErrNote
	}
	c.Size, c.World = size, world.World(w)
	copy(c.Root[:], root)
	if c.World.Check() != nil || !bytes.Equal(c.Text(), text) {
		return c, ErrNote
	}
	return c, nil
}

// Signer is a key that may stand under a checkpoint. Name is the key name of the
// note, for a person his name.
type Signer struct {
	Name   string
	Public crypto.PublicKey // ed25519.PublicKey or *ecdsa.PublicKey on P-256
}

// Sign returns the checkpoint as a note signed by the log itself.
func Sign(c Checkpoint, name string, key crypto.Signer) ([]byte, error) {
	if _, err := parseText(c.Text()); err != nil {
		return nil, err
	}
	l, err := signLine(c.Text(), name, key, nil)
	if err != nil {
		return nil, err
	}
	return append(append(c.Text(), '\n'), l...), nil
}

// Cosign adds a cosignature of time at to a signed checkpoint.
func Cosign(note []byte, name string, key crypto.Signer, at time.Time) ([]byte, error) {
	text, _, err := split(note)
	if err != nil {
		return nil, err
	}
	l, err := signLine(text, name, key, &at)
	if err != nil {
		return nil, err
	}
	return append(bytes.Clone(note), l...), nil
}

// cosigned is the message of a cosignature (c2sp.org/tlog-cosignature).
func cosigned(text []byte, unix uint64) []byte {
	return append(fmt.Appendf(nil, "cosignature/v1\ntime %d\n", unix), text...)
}

func signLine(text []byte, name string, key crypto.Signer, at *time.Time) (string, error) {
	if !nameRE.MatchString(name) {
		return "", fault.New(fault.Usage, "a checkpoint is signed under a plain name")
	}
	pub := key.Public()
	hash, err := lineHash(name, pub, at != nil)
	if err != nil {
		return "", err
	}
	var payload []byte
	msg := text
	if at != nil {
		payload = binary.BigEndian.AppendUint64(nil, uint64(at.Unix()))
		msg = cosigned(text, uint64(at.Unix()))
	}
	sig, err := envelope.SignBytes(key, msg)
	if err != nil {
		return "", fault.Errorf(fault.ClassOf(err), "sign checkpoint: %w", err)
	}
	if envelope.CheckBytes(pub, msg, sig) != nil {
		return "", fault.New(fault.Token, "the key gave a signature that does not hold")
	}
	blob := binary.BigEndian.AppendUint32(nil, hash)
	blob = append(append(blob, payload...), sig...)
	return "— " + name + " " + base64.StdEncoding.EncodeToString(blob) + "\n", nil
}

// split cuts a note into its text and its signature lines without the newline.
func split(note []byte) ([]byte, []string, error) {
	if len(note) > MaxCheckpointBytes {
		return nil, nil, ErrNote
	}
	text, sigs, ok := bytes.Cut(note, []byte("\n\n"))
	if !ok || len(sigs) == 0 || sigs[len(sigs)-1] != '\n' {
		return nil, nil, ErrNote
	}
	return append(bytes.Clone(text), '\n'), strings.Split(string(sigs[:len(sigs)-1]), "\n"), nil
}

// Opened is a checkpoint with those whose signatures on it hold.
type Opened struct {
	Checkpoint
	Log        string               // name of the log's own signer
	Cosigners  []string             // in the order of the lines
	CosignedAt map[string]time.Time // by name
}

// Open reads a signed checkpoint. The first line must be by log; every further
// line must be a cosignature by one of cosigners, each at most once. Anything
// else, also an unknown line, is refused.
func Open(note []byte, origin string, w world.World, log Signer, cosigners []Signer) (*Opened, error) {
	text, lines, err := split(note)
	if err != nil {
		return nil, err
	}
	c, err := parseText(text)
	if err != nil {
		return nil, err
	}
	if c.Origin != origin {
		return nil, fault.Errorf(fault.Verify, "checkpoint of %q, not %q", c.Origin, origin)
	}
	if err := world.Match(w, c.World); err != nil {
		return nil, err
	}
	o := &Opened{Checkpoint: c, Log: log.Name, CosignedAt: map[string]time.Time{}}
	if _, err := checkLine(lines[0], text, log, false); err != nil {
		return nil, err
	}
	for _, l := range lines[1:] {
		s, ok := signerOf(l, cosigners)
		if _, twice := o.CosignedAt[s.Name]; !ok || twice {
			return nil, ErrSigner
		}
		at, err := checkLine(l, text, s, true)
		if err != nil {
			return nil, err
		}
		o.CosignedAt[s.Name] = at
		o.Cosigners = append(o.Cosigners, s.Name)
	}
	return o, nil
}

func signerOf(l string, cosigners []Signer) (Signer, bool) {
	name, _, err := parseLine(l)
	if err != nil {
		return Signer{}, false
	}
	for _, s := range cosigners {
		if s.Name == name {
			return s, true
		}
	}
	return Signer{}, false
}

func parseLine(l string) (string, []byte, error) {
	rest, ok := strings.CutPrefix(l, "— ")
	name, b64, ok2 := strings.Cut(rest, " ")
	blob, err := base64.StdEncoding.Strict().DecodeString(b64)
	if !ok || !ok2 || err != nil || !nameRE.MatchString(name) || "— "+name+" "+base64.StdEncoding.EncodeToString(blob) != l {
		return "", nil, ErrNote
	}
	return name, blob, nil
}

func checkLine(l string, text []byte, s Signer, cosignature bool) (time.Time, error) {
	var at time.Time
	name, blob, err := parseLine(l)
	if err != nil {
		return at, err
	}
	hash, err := lineHash(name, s.Public, cosignature)
	if err != nil || name != s.Name || len(blob) < 4 || binary.BigEndian.Uint32(blob) != hash {
		return at, ErrSigner
	}
	sig, msg := blob[4:], text
	if cosignature {
		if len(sig) < 8 {
			return at, ErrSignature
		}
		unix := binary.BigEndian.Uint64(sig)
		if unix > 1<<40 { // far beyond any clock; keeps the conversion exact
			return at, ErrSignature
		}
		at = time.Unix(int64(unix), 0).UTC()
		sig, msg = sig[8:], cosigned(text, unix)
	}
	if envelope.CheckBytes(s.Public, msg, sig) != nil {
		return at, fault.Errorf(fault.Verify, "%w: %s", ErrSignature, name)
	}
	return at, nil
}

// ParseSigned reads what a signature line of a checkpoint signs: its text, or for a
// cosignature the time and the text. at is zero for the former.
func ParseSigned(msg []byte) (c Checkpoint, at time.Time, err error) {
	rest, ok := bytes.CutPrefix(msg, []byte("cosignature/v1\ntime "))
	if !ok {
		c, err = parseText(msg)
		return c, at, err
	}
	digits, text, ok := bytes.Cut(rest, []byte("\n"))
	unix, err := strconv.ParseUint(string(digits), 10, 41)
	if !ok || err != nil || !bytes.Equal(cosigned(text, unix), msg) {
		return c, at, ErrNote
	}
	c, err = parseText(text)
	return c, time.Unix(int64(unix), 0).UTC(), err
}
