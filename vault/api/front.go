package api

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"

	"keyrite/artifact/fault"
	"keyrite/vault/identity"
)

// Front is what stands between the network and a face of the vault, this API or the
// page for people: its listeners, and what clients may take there.
type Front struct {
	http   *http.Server
	limits Limits
	bodies *budget
}

// NewFront makes a front for one face. Zero values of l stand for the defaults; log gets
// what is wrong with connections, at level debug.
func NewFront(h http.Handler, l Limits, log *slog.Logger) *Front {
	l = l.withDefaults()
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true) // one request at a time on a connection: its limits are the request's
	return &Front{limits: l, bodies: newBudget(l.Bodies), http: &http.Server{
		Handler: h, Protocols: protocols, ConnContext: connContext, ErrorLog: quiet(log),
		ReadHeaderTimeout: l.Header, ReadTimeout: l.Read, WriteTimeout: l.Write, IdleTimeout: l.Idle,
		MaxHeaderBytes: l.HeaderBytes,
	}}
}

// quiet keeps what net/http says of broken handshakes and clients out of the way.
func quiet(l *slog.Logger) *slogErrors { return slog.NewLogLogger(l.Handler(), slog.LevelDebug) }

// TLS is the configuration that a server's TLS listener must have: TLS 1.3 alone, and
// client certificates asked for, not wanted. What one proves is vault/identity's to
// judge; that its holder has the key is proven here.
func TLS(cert func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, GetCertificate: cert, ClientAuth: tls.RequestClientCert, NextProtos: []string{"http/1.1"},
		// A session that is resumed would carry the certificate of before.
		SessionTicketsDisabled: true,
	}
}

// Serve answers on a listener until Shutdown: a TLS one over TLS's configuration, or a
// Unix socket, whose callers the kernel names. Any other is refused.
func (f *Front) Serve(l net.Listener, t *tls.Config) error {
	_, local := l.Addr().(*net.UnixAddr)
	if local == (t != nil) {
		return fault.New(fault.Usage, "the vault is served over TLS, or over a Unix socket")
	}
	l = limited(l, f.limits)
	if t != nil {
		l = tls.NewListener(l, t)
	}
	return f.accept(l)
}

// servePlain is Serve without TLS, for a face that takes nothing that says who asks.
func (f *Front) servePlain(l net.Listener) error { return f.accept(limited(l, f.limits)) }

func (f *Front) accept(l net.Listener) error {
	if err := f.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Shutdown lets requests that are under way end, until ctx does.
func (f *Front) Shutdown(ctx context.Context) error {
	err := f.http.Shutdown(ctx)
	if err != nil {
		return errors.Join(err, f.http.Close())
	}
	return nil
}

// Body reads the body of a request, of at most limit bytes. done must be called when
// the data is not needed any more.
func (f *Front) Body(w http.ResponseWriter, r *http.Request, limit int64) (data []byte, done func(), err error) {
	data, held, err := f.body(w, r, limit)
	return data, func() { f.give(held) }, err
}

// give gives back what a body held of the budget.
func (f *Front) give(held int64) { f.bodies.give(held) }

// body reads the body in pieces that the budget has room for. held is what it took of it,
// also after an error.
func (f *Front) body(w http.ResponseWriter, r *http.Request, limit int64) (out []byte, held int64, err error) {
	if r.ContentLength > limit {
		return nil, 0, fault.Errorf(fault.Usage, "the body has %d bytes, at most %d are taken", r.ContentLength, limit)
	}
	if r.ContentLength == 0 {
		return nil, 0, nil
	}
	in := http.MaxBytesReader(w, r.Body, limit)
	out = make([]byte, 0, min(max(r.ContentLength+1, 1<<10), freeBody))
	for {
		if len(out) == cap(out) {
			more := int64(cap(out))
			if !f.bodies.take(more) {
				return nil, held, errBusy
			}
			held += more
			out = append(make([]byte, 0, 2*more), out...)
		}
		n, err := in.Read(out[len(out):cap(out)])
		out = out[:len(out)+n]
		switch tooLong := (*http.MaxBytesError)(nil); {
		case errors.Is(err, io.EOF):
			return out, held, nil
		case errors.As(err, &tooLong):
			return nil, held, fault.Errorf(fault.Usage, "the body has more than %d bytes", limit)
		case err != nil:
			return nil, held, fault.Errorf(fault.Unreachable, "the body did not come: %w", err)
		}
	}
}

// Peer is the other end of the request's connection.
func Peer(r *http.Request) identity.Peer {
	p := identity.Peer{UID: noUID}
	if uid, ok := r.Context().Value(uidKey{}).(int); ok {
		p.UID = uid
		return p
	}
	if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		p.Remote = a.Addr().Unmap().WithZone("")
	}
	if r.TLS != nil {
		p.Certificates = r.TLS.PeerCertificates
	}
	return p
}

// OtherOrigin refuses a request that a web page of another origin had a browser make: a
// browser adds its user's client certificate by itself. Reading is refused too. The page
// would not see the answer, but the trail would say that the user asked, and a
// delegation would lose a use.
//
// Browsers say so in Sec-Fetch-Site (W3C Fetch Metadata) or Origin; programs send
// neither.
func OtherOrigin(r *http.Request) error {
	q := *r
	q.Method = http.MethodPost // the rule for writing holds for all
	if err := (&http.CrossOriginProtection{}).Check(&q); err != nil {
		return fault.Errorf(fault.Policy, "a web page of another origin asks: %w", err)
	}
	return nil
}
