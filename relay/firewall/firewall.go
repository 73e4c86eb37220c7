// Package firewall decides whether a flow may pass the relay. It is a pure
// function of the session, the open message, the account's policy and the time.
//
// relay/vpn asks it for each flow, and again for every open flow when a policy
// changes. It must never permit what the account policy does not: the gateway
// decides the same question by itself, so a mistake here can only deny too much
// or waste a stream.
package firewall

import (
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/policy"
	"keyrite/artifact/world"
	"keyrite/relay/ticket"
	"keyrite/wire/tunnel"
)

var (
	// ErrSession says that a flow is not of the session it came on.
	ErrSession = fault.New(fault.Policy, "the flow is not one of this session")
	// ErrVersion says that the ends do not hold the same policy.
	ErrVersion = fault.New(fault.Policy, "the flow was opened under another version of the account policy")
)

// Decide returns nil if the flow o, opened on the session of ticket t, may pass
// under p, the account's policy in force (nil if it has none).
func Decide(t *ticket.Ticket, o *tunnel.Open, p *policy.Policy, now time.Time) error {
	if err := Still(t, o, p, now); err != nil {
		return err
	}
	if o.PolicyVersion != p.Version {
		return fault.Errorf(fault.Policy, "%w: %d, in force is %d", ErrVersion, o.PolicyVersion, p.Version)
	}
	return nil
}

// Still is Decide for a flow that is open already: it may go on under a newer
// policy than it was opened with, if that permits it too.
func Still(t *ticket.Ticket, o *tunnel.Open, p *policy.Policy, now time.Time) error {
	if t.Kind != ticket.KindUser || o.User != t.User || o.Gateway != t.Gateway || world.World(o.World) != t.World {
		return ErrSession
	}
	if p != nil && (p.Account != t.Account || p.World != t.World) {
		return ErrSession
	}
	to := o.AddrPort()
	return policy.Decide(p, policy.Flow{User: t.User, Key: t.Key, Gateway: t.Gateway, Addr: to.Addr(), Port: int(to.Port())}, now)
}
