package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"

	"keyrite/artifact/fault"
	"keyrite/vault/audit"
	"keyrite/vault/unseal"
)

// ErrNotRunning says that no vault serves from the state folder.
var ErrNotRunning = fault.New(fault.Unreachable, "no vault runs from this state folder")

// maxReply bounds what the vault says.
const maxReply = 4 << 20

// Client asks the vault that serves from a state folder.
type Client struct{ http *http.Client }

// NewClient asks nothing yet.
func NewClient(dir string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		short, done, err := shortPath(dir)
		if err != nil {
			return nil, err
		}
		defer done()
		var d net.Dialer
		return d.DialContext(ctx, "unix", short)
	}
	// The last share of a quorum is answered when all is open.
	return &Client{&http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}, Timeout: 10 * time.Minute}}
}

// Status asks how things stand.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var s Status
	return &s, c.call(ctx, http.MethodGet, pathStatus, nil, &s)
}

// New begins an attempt; valid 0 takes what is configured.
func (c *Client) New(ctx context.Context, operation string, valid time.Duration) (*unseal.Begun, error) {
	body, err := json.Marshal(newAttempt{operation, int64(valid / time.Second)})
	if err != nil {
		return nil, err
	}
	var x unseal.Begun
	return &x, c.call(ctx, http.MethodPost, pathAttempts, body, &x)
}

// Answer hands in one holder's answer.
func (c *Client) Answer(ctx context.Context, data []byte) (*unseal.Progress, error) {
	var p unseal.Progress
	return &p, c.call(ctx, http.MethodPost, pathAnswers, data, &p)
}

// Retry tries again to open with the shares that an attempt has.
func (c *Client) Retry(ctx context.Context, id string) (*unseal.Progress, error) {
	if !validID(id) {
		return nil, fault.Errorf(fault.Usage, "%.80q is no number of an attempt", id)
	}
	var p unseal.Progress
	return &p, c.call(ctx, http.MethodPost, pathAttempts+"/"+id+"/retry", nil, &p)
}

// Drop ends an attempt.
func (c *Client) Drop(ctx context.Context, id string) error {
	if !validID(id) {
		return fault.Errorf(fault.Usage, "%.80q is no number of an attempt", id)
	}
	return c.call(ctx, http.MethodDelete, pathAttempts+"/"+id, nil, &struct{}{})
}

// Seal asks the vault to seal; it does so after its answer.
func (c *Client) Seal(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, pathSeal, nil, &struct{}{})
}

// Audit copies an extract of the trail to w. What it got counts only when there was no
// error, and when it was verified.
func (c *Client) Audit(ctx context.Context, w io.Writer, choice audit.Choice) error {
	body, err := json.Marshal(choice)
	if err != nil {
		return err
	}
	resp, err := c.ask(ctx, http.MethodPost, pathAudit, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != extractType {
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
		if err != nil {
			return fault.Errorf(fault.Unreachable, "ask the vault: %w", err)
		}
		return remote(data, resp.StatusCode)
	}
	from := &lost{resp.Body}
	_, err = io.Copy(w, from)
	return err
}

// lost tells the loss of the vault from a disk that is full.
type lost struct{ r io.Reader }

// Read implements io.Reader.
func (l *lost) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fault.Errorf(fault.Unreachable, "the vault broke off: %w", err)
	}
	return n, err
}

// ask makes one request.
func (c *Client) ask(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://vault"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(r)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fault.Hint(ErrNotRunning, "start it with 'keyrite-vault serve', as the same user")
	}
	if err != nil {
		if class := fault.ClassOf(err); class != fault.Unexpected {
			return nil, fault.Errorf(class, "ask the vault: %w", err)
		}
		return nil, fault.Errorf(fault.Unreachable, "ask the vault: %w", err)
	}
	return resp, nil
}

func (c *Client) call(ctx context.Context, method, path string, body []byte, out any) error {
	resp, err := c.ask(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return fault.Errorf(fault.Unreachable, "ask the vault: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return remote(data, resp.StatusCode)
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fault.Errorf(fault.Unexpected, "ask the vault: %w", err)
	}
	return nil
}

// remote is the vault's error as if it were ours.
func remote(data []byte, status int) error {
	var p struct {
		Error problem `json:"error"`
	}
	if err := json.Unmarshal(data, &p); err != nil || p.Error.Class == "" {
		return fault.Errorf(fault.Unexpected, "the vault answered with status %d", status)
	}
	return fault.Hint(fault.New(fault.Class(p.Error.Class), p.Error.Message), p.Error.Hint)
}
