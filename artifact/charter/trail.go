package charter

import (
	"crypto/ed25519"
	"net/netip"
	"strconv"
	"strings"

	"keyrite/artifact/tlog"
	"keyrite/artifact/trail"
)

// Statement types about the vault's audit trail.
const (
	TypeAuditLog  = "audit-log"  // whose signatures stand for the trail
	TypeAuditSink = "audit-sink" // where copies of it go
)

// AuditLog says which key signs the state of the vault's log, and which cosigners on
// other machines vouch that it only ever grew. A later one replaces it.
type AuditLog struct {
	Cosigners []LogSigner `json:"cosigners"` // by name, distinct
	Log       LogSigner   `json:"log"`
	Need      int         `json:"need"`    // of the cosigners; 0 in a rehearsal only
	Version   int         `json:"version"` // 1, then one more each time
}

// LogSigner is an Ed25519 key that signs or cosigns logs, under the name that stands
// in the note.
type LogSigner struct {
	Key  []byte `json:"key"` // 32 bytes
	Name string `json:"name"`
}

// AuditSink is a place to which the vault copies its trail, so that others see it
// soon. The trail itself is in the store; a sink holds nothing up.
type AuditSink struct {
	// Address is, for syslog, HOST:PORT reached over TCP; a file has none: it is
	// named after the id and lies in the vault's own folder.
	Address string `json:"address,omitempty"`
	ID      string `json:"id"`
	Kind    string `json:"kind"` // file or syslog
}

// Audit is the part of the state that says who signs the trail and who gets copies.
type Audit struct {
	Log   AuditLog // version 0 if there is none yet
	Sinks map[string]AuditSink
}

func (s *State) setAuditLog(l *AuditLog) error {
	if l.Version != s.Audit.Log.Version+1 || l.Version < 1 {
		return badAccess(TypeAuditLog, l.Log.Name, "the version does not follow")
	}
	if l.Need < 0 || l.Need > len(l.Cosigners) || l.Need == 0 && s.World.IsLive() {
		return badAccess(TypeAuditLog, l.Log.Name, "it needs a cosigner or more, and not more than there are")
	}
	names, keys := map[string]bool{}, map[string]bool{}
	last := ""
	for i, x := range append([]LogSigner{l.Log}, l.Cosigners...) {
		if !idRE.MatchString(x.Name) || len(x.Key) != ed25519.PublicKeySize || names[x.Name] || keys[string(x.Key)] {
			return badAccess(TypeAuditLog, x.Name, "a signer has no name or no Ed25519 key of its own")
		}
		if i > 0 && x.Name < last {
			return badAccess(TypeAuditLog, x.Name, "cosigners stand in the order of their names")
		}
		names[x.Name], keys[string(x.Key)] = true, true
		if i > 0 {
			last = x.Name
		}
	}
	s.Audit.Log = *l
	return nil
}

// TrailSigners are those whose word on the vault's trail counts. Before the first
// audit-log statement there are none, and nothing verifies.
func (s *State) TrailSigners() trail.Signers {
	l := s.Audit.Log
	out := trail.Signers{Vault: s.Vault, World: s.World, Need: l.Need}
	if l.Version == 0 {
		return out
	}
	out.Log = tlog.Signer{Name: l.Log.Name, Public: ed25519.PublicKey(l.Log.Key)}
	for _, c := range l.Cosigners {
		out.Cosigners = append(out.Cosigners, tlog.Signer{Name: c.Name, Public: ed25519.PublicKey(c.Key)})
	}
	return out
}

func (s *State) addAuditSink(x *AuditSink) error {
	_, taken := s.Audit.Sinks[x.ID]
	if err := s.Access.fresh(TypeAuditSink, x.ID, taken); err != nil {
		return err
	}
	switch x.Kind {
	case "file":
		if x.Address != "" {
			return badAccess(TypeAuditSink, x.ID, "a file has no address: it lies in the vault's own folder")
		}
	case "syslog":
		if !hostPort(x.Address) {
			return badAccess(TypeAuditSink, x.ID, "its address is not HOST:PORT")
		}
	default:
		return badAccess(TypeAuditSink, x.ID, "it is neither file nor syslog")
	}
	s.Audit.Sinks[x.ID] = *x
	return nil
}

// hostPort says whether a is a name or address with a port, in its usual spelling.
func hostPort(a string) bool {
	if p, err := netip.ParseAddrPort(a); err == nil {
		return p.String() == a && p.Port() > 0 && p.Addr().Zone() == ""
	}
	host, port, ok := strings.Cut(a, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if !ok || err != nil || n == 0 || strconv.FormatUint(n, 10) != port || len(a) > 260 || host == "" {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if !idRE.MatchString(label) {
			return false
		}
	}
	return true
}
