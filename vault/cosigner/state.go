package cosigner

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"keyrite/artifact/fault"
	"keyrite/artifact/tlog"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

// emptyRoot is the root of the empty tree (RFC 6962, Section 2.1).
var emptyRoot = sha256.Sum256(nil)

// statePath is the file of a log: its origin may have any characters.
func statePath(dir, origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return filepath.Join(dir, hex.EncodeToString(sum[:16])+".checkpoint")
}

// kept reads the newest checkpoint that was cosigned; size 0 if there is none.
func (l *log) kept(origin string) (*head, error) {
	data, err := intake.Read(l.path, tlog.MaxCheckpointBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return &head{origin: origin, root: emptyRoot}, nil
	}
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read what is kept of log %q: %w", origin, err)
	}
	text, _, ok := strings.Cut(string(data), "\n\n")
	h, err := parseHead(text + "\n")
	if !ok || err != nil || h.origin != origin {
		return nil, fault.Hint(fault.Errorf(fault.Verify, "%s is not a checkpoint of log %q", l.path, origin),
			"this cosigner cannot know any more what it signed: take a new key for it and have the logs' owners decide")
	}
	return h, nil
}

// keep makes a cosigned checkpoint the one that is kept.
func (l *log) keep(signed []byte) error { return durable.Replace(l.path, signed, 0o644) }
