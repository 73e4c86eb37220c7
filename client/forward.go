package client

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"

	"keyrite/artifact/fault"
	"keyrite/wire/tunnel"
)

// Forward carries every connection to a local port as a flow of its own.
type Forward struct {
	link *Link
	ln   net.Listener
	to   netip.AddrPort
	// Refused is told about every flow that was not opened.
	Refused func(error)
}

// Listen opens local, which must be an address of this machine's loopback:
// whoever reaches the port reaches the equipment with the user's rights.
func (l *Link) Listen(ctx context.Context, local string, to netip.AddrPort) (*Forward, error) {
	ap, err := netip.ParseAddrPort(local)
	if err != nil || !ap.Addr().IsLoopback() {
		return nil, fault.Errorf(fault.Usage, "%q is not a loopback ADDRESS:PORT such as 127.0.0.1:8080", local)
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", local)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "listen on %s: %w", local, err)
	}
	return &Forward{link: l, ln: ln, to: to, Refused: func(error) {}}, nil
}

// Addr is where it listens.
func (f *Forward) Addr() string { return f.ln.Addr().String() }

// Run forwards until ctx ends, then closes every flow.
func (f *Forward) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		_ = f.ln.Close()
		f.link.Close()
	})
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, tunnel.MaxFlows)
	for {
		c, err := f.ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fault.Errorf(fault.Unexpected, "accept: %w", err)
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-slots }()
				f.one(ctx, c)
			})
		default:
			_ = c.Close()
			f.Refused(fault.Errorf(fault.Quota, "more than %d connections at once", tunnel.MaxFlows))
		}
	}
}

func (f *Forward) one(ctx context.Context, c net.Conn) {
	flow, err := f.link.Open(ctx, f.to)
	if err != nil {
		_ = c.Close()
		if !errors.Is(err, context.Canceled) {
			f.Refused(err)
		}
		return
	}
	stop := context.AfterFunc(ctx, func() { _, _ = c.Close(), flow.Close() })
	defer stop()
	tunnel.Splice(c, flow)
}
