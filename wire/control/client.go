package control

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"keyrite/wire/problem"
	"keyrite/wire/strict"
)

// Client calls an access server.
type Client struct {
	HTTP  *http.Client
	Addr  string // host:port
	World string
	Token string // login token, for a user's calls
}

// NewClient returns a client that dials addr with conf, which must present the
// caller's certificate and verify the server's. No proxy of the environment is
// used and no redirect followed.
func NewClient(addr, world string, conf *tls.Config) *Client {
	conf = conf.Clone()
	conf.MinVersion = tls.VersionTLS13
	conf.NextProtos = []string{ALPN}
	tr := &http.Transport{
		TLSClientConfig: conf, TLSHandshakeTimeout: RequestTimeout, ResponseHeaderTimeout: RequestTimeout,
		MaxResponseHeaderBytes: MaxHeaderBytes, MaxIdleConns: 1, IdleConnTimeout: RequestTimeout,
		DialContext: (&net.Dialer{Timeout: RequestTimeout}).DialContext,
	}
	return &Client{Addr: addr, World: world, HTTP: &http.Client{
		Transport:     tr,
		CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirect },
	}}
}

var errRedirect = errors.New("the server redirects, which access servers never do")

// Enrol joins the account that made the activation key.
func (c *Client) Enrol(ctx context.Context, activationKey string) (*Enrolled, error) {
	var out Enrolled
	return &out, c.post(ctx, PathEnrol, &Enrol{ActivationKey: NormalKey(activationKey), Format: Format, World: c.World}, &out)
}

// GatewaySession asks for the gateway's own session.
func (c *Client) GatewaySession(ctx context.Context) (*Session, error) {
	var out Session
	return &out, c.post(ctx, PathGatewaySession, &Empty{Format: Format, World: c.World}, &out)
}

// GatewayPolicy fetches the signed account policy as a gateway.
func (c *Client) GatewayPolicy(ctx context.Context) ([]byte, error) {
	return c.get(ctx, PathGatewayPolicy, MaxPolicyBytes)
}

// Login logs a user in.
func (c *Client) Login(ctx context.Context, account, user string, password []byte) (*LoggedIn, error) {
	var out LoggedIn
	err := c.post(ctx, PathLogin, &Login{Account: account, Format: Format, Password: string(password), User: user, World: c.World}, &out)
	return &out, err
}

// Logout ends the login and every session opened with it.
func (c *Client) Logout(ctx context.Context) error {
	return c.post(ctx, PathLogout, &Empty{Format: Format, World: c.World}, &Empty{})
}

// Gateways lists what the user may see.
func (c *Client) Gateways(ctx context.Context) (*Gateways, error) {
	b, err := c.get(ctx, PathGateways, MaxListBytes)
	if err != nil {
		return nil, err
	}
	var out Gateways
	if err := Parse(b, &out); err != nil {
		return nil, err
	}
	return &out, c.sameWorld(out.World)
}

// UserPolicy fetches the signed account policy as a user.
func (c *Client) UserPolicy(ctx context.Context) ([]byte, error) {
	return c.get(ctx, PathUserPolicy, MaxPolicyBytes)
}

// Connect asks for a session towards a gateway.
func (c *Client) Connect(ctx context.Context, gateway string) (*Session, error) {
	var out Session
	return &out, c.post(ctx, PathConnect, &Connect{Format: Format, Gateway: gateway, World: c.World}, &out)
}

func (c *Client) sameWorld(w string) error {
	if w != c.World {
		return errorf("policy", "the access server is of world %.50q, not %q", w, c.World)
	}
	return nil
}

func (c *Client) post(ctx context.Context, path string, in, out Message) error {
	b, err := strict.Marshal(in)
	if err != nil {
		return errorf("unexpected", "ask %s: %w", path, err)
	}
	if err := in.check(); err != nil {
		return errorf("usage", "ask %s: %w", path, err)
	}
	got, err := c.do(ctx, http.MethodPost, path, b, MaxBodyBytes)
	if err != nil {
		return err
	}
	if err := Parse(got, out); err != nil {
		return fmt.Errorf("answer to %s: %w", path, err)
	}
	return c.sameWorld(worldOf(out))
}

func worldOf(m Message) string {
	switch m := m.(type) {
	case *Enrolled:
		return m.World
	case *Session:
		return m.World
	case *LoggedIn:
		return m.World
	case *Empty:
		return m.World
	}
	return ""
}

func (c *Client) get(ctx context.Context, path string, limit int64) ([]byte, error) {
	return c.do(ctx, http.MethodGet, path, nil, limit)
}

func (c *Client) do(ctx context.Context, method, path string, body []byte, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*RequestTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, "https://"+c.Addr+path, bytes.NewReader(body))
	if err != nil {
		return nil, errorf("usage", "ask %s: %w", path, err)
	}
	if body == nil {
		req.Body, req.ContentLength = http.NoBody, 0
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("User-Agent", "keyrite")
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, wrapHTTP(path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, wrapHTTP(path, err)
	}
	if resp.StatusCode != http.StatusOK {
		p, err := problem.Parse(b)
		if err != nil {
			return nil, errorf("unreachable", "ask %s: the server answered %d without a reason", path, resp.StatusCode)
		}
		return nil, p
	}
	if int64(len(b)) > limit {
		return nil, errorf("verify", "ask %s: %w: more than %d bytes", path, ErrBody, limit)
	}
	return b, nil
}

// wrapHTTP gives a failed call its class: peer when one of the two sides did
// not take the other's certificate, else unreachable; a check of the caller's
// own keeps its class.
func wrapHTTP(path string, err error) error {
	class := "unreachable"
	var own interface{ FaultClass() string }
	var cert *tls.CertificateVerificationError
	var op *net.OpError
	var host x509.HostnameError
	switch {
	case errors.Is(err, context.Canceled):
		class = "interrupted"
	case errors.As(err, &own):
		class = own.FaultClass()
	case errors.As(err, &cert), errors.As(err, &host), errors.As(err, &op) && op.Op == "remote error":
		class = "peer"
	}
	return errorf(class, "ask %s: %w", path, err)
}
