// Package uplink keeps a gateway connected: it asks the access server for a VPN
// server and a ticket, opens the tunnel, fetches the account policy, and comes
// back after every loss.
//
// keyrite-gateway runs one Uplink. The gateway only ever dials; nothing here
// listens. "Online" is said when the tunnel is up, and not before. It must never
// talk to a server that is not a relay of the anchors in the role it was asked
// for, and never give up: whoever wants it offline stops the program.
package uplink

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"keyrite/artifact/fault"
	"keyrite/gateway/enroll"
	"keyrite/gateway/tunnel"
	"keyrite/wire/control"
	wire "keyrite/wire/tunnel"
)

// Timing.
const (
	minPause    = time.Second      // before the second attempt, at most
	maxPause    = time.Minute      // between attempts, at most
	dialTimeout = 10 * time.Second // TCP and TLS to the VPN server
	// A session that lasted this long was a good one: the next attempt after
	// it starts with the shortest pause again.
	goodAfter = 30 * time.Second
	// pollEvery is how old a policy change gets before the gateway knows of
	// it; a flow opened under a newer policy asks at once.
	pollEvery  = 60 * time.Second
	askAtMost  = 2 * time.Second // between two such questions
	firstShift = 6               // 1 s doubled six times is above maxPause
)

// States of an uplink.
const (
	Connecting = "connecting"
	Online     = "online"
	Offline    = "offline" // waiting for the next attempt
	Stopped    = "stopped"
)

// State is what an uplink is doing.
type State struct {
	State         string
	Since         time.Time
	Server        string // VPN server, while online
	PolicyVersion int64
	Cause         string // class of the last failure, while offline
}

// Control is what an uplink asks of the access server.
type Control interface {
	GatewaySession(ctx context.Context) (*control.Session, error)
	GatewayPolicy(ctx context.Context) ([]byte, error)
}

// Dialer opens the tunnel that a session is for.
type Dialer func(ctx context.Context, s *control.Session) (wire.Mux, error)

// Config of an uplink.
type Config struct {
	Control Control
	Dial    Dialer
	Keeper  *tunnel.Keeper
	// Flows serves an open tunnel until it ends; New gives it Refresh.
	Flows func(ctx context.Context, m wire.Mux)
	// Rejudge is called when the policy changed.
	Rejudge func(ctx context.Context)
	Report  func(State) // called at each change
	Log     *slog.Logger
}

// Uplink is one gateway's connection.
type Uplink struct {
	conf Config

	mu    sync.Mutex // guards asked
	asked time.Time
}

// New returns an uplink that is not running.
func New(c Config) *Uplink { return &Uplink{conf: c} }

// DialRelay returns the dialler of a gateway: TLS 1.3 to the VPN server named in
// the session, checked against the anchors, then the upgrade.
func DialRelay(h *enroll.Home) Dialer {
	return func(ctx context.Context, s *control.Session) (wire.Mux, error) {
		conf, err := h.TLS("vpn", s.Server.Addr)
		if err != nil {
			return nil, err
		}
		dctx, cancel := context.WithTimeout(ctx, dialTimeout)
		defer cancel()
		d := &tls.Dialer{NetDialer: &net.Dialer{}, Config: conf}
		conn, err := d.DialContext(dctx, "tcp", s.Server.Addr)
		if err != nil {
			return nil, dialError(err)
		}
		return wire.Dial(ctx, conn, s.Server.Addr, s.Ticket)
	}
}

func dialError(err error) error {
	if fault.ClassOf(err) != fault.Unexpected {
		return fault.Errorf(fault.ClassOf(err), "connect to the VPN server: %w", err)
	}
	return fault.Errorf(fault.Unreachable, "connect to the VPN server: %w", err)
}

// Run connects again and again until ctx ends.
func (u *Uplink) Run(ctx context.Context) {
	failures := 0
	for ctx.Err() == nil {
		u.report(State{State: Connecting})
		start := time.Now()
		err := u.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(start) >= goodAfter {
			failures = 0
		}
		wait := pause(failures)
		failures++
		u.conf.Log.InfoContext(ctx, "offline", slog.Any("error", err), slog.Duration("retry_in", wait))
		u.report(State{State: Offline, Cause: string(fault.ClassOf(err))})
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
		case <-t.C:
		}
	}
	u.report(State{State: Stopped})
}

func (u *Uplink) report(s State) {
	s.Since, s.PolicyVersion = time.Now(), u.conf.Keeper.Version()
	u.conf.Report(s)
}

var errEnded = fault.New(fault.Unreachable, "the tunnel ended")

// once is one session from ticket to end.
func (u *Uplink) once(ctx context.Context) error {
	s, err := u.conf.Control.GatewaySession(ctx)
	if err != nil {
		return err
	}
	m, err := u.conf.Dial(ctx, s)
	if err != nil {
		return err
	}
	// The tunnel is up: only now is the gateway online.
	u.report(State{State: Online, Server: s.Server.Addr})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go u.poll(ctx, s)
	u.conf.Flows(ctx, m)
	return errEnded
}

// poll keeps the policy fresh and the state told.
func (u *Uplink) poll(ctx context.Context, s *control.Session) {
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		if u.fetch(ctx) && ctx.Err() == nil {
			u.report(State{State: Online, Server: s.Server.Addr})
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// Refresh asks for a newer policy, unless that was done a moment ago.
func (u *Uplink) Refresh(ctx context.Context) {
	u.mu.Lock()
	soon := time.Since(u.asked) < askAtMost
	if !soon {
		u.asked = time.Now()
	}
	u.mu.Unlock()
	if !soon {
		u.fetch(ctx)
	}
}

func (u *Uplink) fetch(ctx context.Context) bool {
	data, err := u.conf.Control.GatewayPolicy(ctx)
	if err == nil {
		var changed bool
		if changed, err = u.conf.Keeper.Update(data); changed {
			u.conf.Log.InfoContext(ctx, "account policy", slog.Int64("policy_version", u.conf.Keeper.Version()))
			u.conf.Rejudge(ctx)
			return true
		}
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		u.conf.Log.InfoContext(ctx, "account policy not taken", slog.Any("error", err))
	}
	return false
}

// pause is full jitter: a random time up to a ceiling that doubles, so that ten
// thousand gateways that lost one relay do not come back at once.
func pause(failures int) time.Duration {
	ceiling := maxPause
	if failures < firstShift {
		ceiling = min(minPause<<failures, maxPause)
	}
	var b [8]byte
	rand.Read(b[:])                                                       // never fails; Go 1.24 and later end the program instead
	return time.Duration(binary.BigEndian.Uint64(b[:]) % uint64(ceiling)) // ceiling is positive and the rest below it
}
