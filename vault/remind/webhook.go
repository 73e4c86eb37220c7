package remind

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
	"keyrite/vault/duty"
)

// Format names the body of a webhook's request.
const Format = "keyrite/reminder/v1"

// body is one request: docs/formats/reminder.md.
type body struct {
	Format   string      `json:"format"`
	Items    []duty.Item `json:"items"`
	More     int         `json:"more"`
	Reminder string      `json:"reminder"`
	Time     string      `json:"time"`
	Vault    string      `json:"vault"`
	World    world.World `json:"world"`
}

// webhook posts one object at a time. It follows nobody elsewhere, takes no proxy from
// the environment, and looks at nothing of the answer but its status.
type webhook struct {
	charter.Reminder
	world world.World
	vault string
}

// maxAnswer bounds what is read of an answer, so that the connection ends well.
const maxAnswer = 4 << 10

func (w *webhook) send(ctx context.Context, m *message) error {
	raw, err := jcs.Marshal(body{Format: Format, Items: m.items, More: m.more, Reminder: w.ID, Time: charter.FormatTime(m.at), Vault: w.vault, World: w.world})
	if err != nil {
		return err
	}
	conf, err := tlsOf("", w.CA)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.Address, bytes.NewReader(raw))
	if err != nil {
		return fault.Errorf(fault.Usage, "ask the webhook %s: %w", w.ID, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "keyrite-vault")
	c := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := c.Do(req)
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // the address may have a word in it that lets whoever has it post there
	}
	if err != nil {
		return fault.Errorf(fault.Unreachable, "reach the webhook: %w", err)
	}
	defer resp.Body.Close()
	_, err = io.CopyN(io.Discard, resp.Body, maxAnswer)
	if err != nil && !errors.Is(err, io.EOF) {
		return fault.Errorf(fault.Unreachable, "hear the webhook: %w", err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fault.Errorf(fault.Unreachable, "the webhook answered with status %d", resp.StatusCode)
	}
	return nil
}
