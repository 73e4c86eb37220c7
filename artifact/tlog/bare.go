package tlog

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"regexp"
	"strconv"
	"strings"

	"keyrite/artifact/fault"
)

// bareRE is what may name a tiled log; the same as originRE, since the note's
// key has the log's name.
var bareRE = regexp.MustCompile(`^[a-z0-9./:-]{1,128}$`)

// OpenBare reads the checkpoint of a tiled log, which has no extension lines:
// the world must stand in origin. It takes exactly one signature line, by the
// log's key, whose name is the origin.
func OpenBare(note []byte, origin string, pub ed25519.PublicKey) (int64, Hash, error) {
	var root Hash
	text, lines, err := split(note)
	if err != nil {
		return 0, root, err
	}
	parts := strings.Split(string(text), "\n")
	if len(parts) != 4 || len(lines) != 1 || !bareRE.MatchString(origin) || len(pub) != ed25519.PublicKeySize {
		return 0, root, ErrNote
	}
	if parts[0] != origin {
		return 0, root, fault.Errorf(fault.Verify, "checkpoint of %.140q, not %q", parts[0], origin)
	}
	size, err := strconv.ParseInt(parts[1], 10, 64)
	hash, err2 := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || err2 != nil || size < 1 || len(hash) != len(root) {
		return 0, root, ErrNote
	}
	root = Hash(hash)
	b64, ok := strings.CutPrefix(lines[0], "— "+origin+" ")
	blob, err := base64.StdEncoding.DecodeString(b64)
	if !ok || err != nil || len(blob) != 4+ed25519.SignatureSize || binary.BigEndian.Uint32(blob) != keyHash(origin, []byte{algEd25519}, pub) {
		return 0, root, ErrSigner
	}
	again := BareText(origin, size, root) + "\n— " + origin + " " + base64.StdEncoding.EncodeToString(blob) + "\n"
	if !bytes.Equal([]byte(again), note) {
		return 0, root, ErrNote
	}
	if !ed25519.Verify(pub, text, blob[4:]) {
		return 0, root, ErrSignature
	}
	return size, root, nil
}

// BareText is the text of such a checkpoint.
func BareText(origin string, size int64, root Hash) string {
	return origin + "\n" + strconv.FormatInt(size, 10) + "\n" + base64.StdEncoding.EncodeToString(root[:]) + "\n"
}

// BareKeyHash is the key hash of the log's key in its signature line.
func BareKeyHash(origin string, pub ed25519.PublicKey) uint32 {
	return keyHash(origin, []byte{algEd25519}, pub)
}
