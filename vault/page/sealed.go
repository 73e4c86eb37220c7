package page

import (
	"log/slog"
	"net/http"
	"strconv"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
	"keyrite/vault/api"
	"keyrite/vault/node"
	"keyrite/vault/unseal"
)

// statusPath is what shows how the vault is, and who gives shares.
const statusPath = "keyrite/status"

// sealStatusPath is what tells everybody how far the opening is.
const sealStatusPath = "sys/seal-status"

// sealPage is how far the opening is. Attempts is nil for whom that is not told.
type sealPage struct {
	Note     string // why somebody sees this page, if not because the vault is sealed
	Sealed   bool
	Known    bool // a certificate was shown, and counts
	Shown    bool // a certificate was shown
	Why      string
	Vault    string
	Progress api.Progress
	Attempts *unseal.Status
	Stopped  string // class of what stopped the store
}

// seal shows the state of the seal: to strangers what sys/seal-status tells everybody,
// and while the vault is sealed, to whom the charter lets read keyrite/status, also who
// gave a share. Each look is told to the node for its entry. A sealed vault has no trail
// to write in: it counts looks and tells them when it is opened, and the operator's log
// says who learned who gave shares.
func (x *look) seal(note string) {
	p := sealPage{Note: note, Sealed: x.state.Sealed, Shown: len(x.peer.Certificates) > 0, Vault: x.state.Vault, Progress: x.s.cfg.Progress()}
	if err := x.state.Store.Stopped; err != nil {
		p.Stopped = string(fault.ClassOf(err)) // strangers hear the class
	}
	if note == "" { // else a call was made, which has its entry
		x.s.cfg.Vault.Looked(x.r.Context(), node.Look{Operation: string(access.Read), Path: sealStatusPath, Peer: x.peer})
	}
	status := http.StatusOK
	switch {
	case x.r.Method != http.MethodGet && x.r.Method != http.MethodHead:
		status = http.StatusMethodNotAllowed
	case note != "":
		status = http.StatusForbidden
	case x.view != nil && x.view.path != "/" && p.Sealed:
		status = http.StatusServiceUnavailable
	case x.view != nil && x.view.path != "/":
		status = http.StatusForbidden
	}
	if p.Sealed && p.Shown {
		if id, err := x.judge(); err != nil {
			p.Why = err.Error()
		} else {
			x.identity, p.Known = id, true
			a := x.s.cfg.Attempts()
			x.s.cfg.Vault.Looked(x.r.Context(), node.Look{Operation: string(access.Read), Path: statusPath, Peer: x.peer})
			p.Attempts = &a
			x.s.cfg.Log.LogAttrs(x.r.Context(), slog.LevelInfo, "somebody looked at the attempts to open the vault", slog.String("identity", id), slog.String("remote", x.peer.Remote.String()))
		}
	}
	title := "Open"
	if p.Sealed {
		title = "Sealed"
	}
	x.render(status, title, "sealed", &p)
}

// judge says who asks a sealed vault, if the newest charter on its disk lets him read
// keyrite/status; that charter is none before the one that the vault had.
func (x *look) judge() (string, error) {
	st, err := x.s.cfg.Charter()
	if err != nil {
		x.s.cfg.Log.LogAttrs(x.r.Context(), slog.LevelError, "the charter cannot be read, so nobody is known", slog.String("error", err.Error()))
		return "", fault.New(fault.Policy, "the charter cannot be read, so nobody is known")
	}
	return node.MayWhileSealed(st, x.peer, statusPath, access.Read, x.s.cfg.Now)
}

// Missing is how many shares are wanting still.
func (p *sealPage) Missing() string { return strconv.Itoa(max(0, p.Progress.Need-p.Progress.Have)) }
