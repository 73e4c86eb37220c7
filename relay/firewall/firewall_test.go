package firewall

import (
	"strings"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/policy"
	"keyrite/artifact/world"
	"keyrite/relay/ticket"
	"keyrite/wire/tunnel"
)

func TestDecide(t *testing.T) {
	const w = world.World("rehearsal:0123456789ab")
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	k := strings.Repeat("a", 64)
	fresh := func() (*ticket.Ticket, *tunnel.Open, *policy.Policy) {
		return &ticket.Ticket{Account: "acme", Gateway: "press-7", Key: k, Kind: ticket.KindUser, User: "ann", World: w},
			&tunnel.Open{Addr: "192.168.10.2", Gateway: "press-7", PolicyVersion: 3, Port: 80, Proto: "tcp", User: "ann", World: string(w)},
			&policy.Policy{
				Account: "acme", Format: policy.Format, NotBefore: "2026-11-22T00:00:00Z", NotAfter: "2026-11-23T00:00:00Z", Version: 3, World: w,
				Users: []policy.User{{Keys: []string{k}, Name: "ann"}}, Gateways: []policy.Gateway{{ID: "press-7", SPKI: strings.Repeat("1", 64)}},
				Devices: []policy.Device{{Addr: "192.168.10.2", Gateway: "press-7", Name: "hmi", Ports: []policy.Ports{{First: 80, Last: 80}}}},
				Rules:   []policy.Rule{{Device: "hmi", User: "ann"}},
			}
	}
	for name, c := range map[string]struct {
		change      func(*ticket.Ticket, *tunnel.Open, *policy.Policy)
		open, still bool
	}{
		"permitted":                  {func(*ticket.Ticket, *tunnel.Open, *policy.Policy) {}, true, true},
		"opened under an older one":  {func(_ *ticket.Ticket, o *tunnel.Open, _ *policy.Policy) { o.PolicyVersion = 2 }, false, true},
		"gateway's session":          {func(k *ticket.Ticket, _ *tunnel.Open, _ *policy.Policy) { k.Kind = ticket.KindGateway }, false, false},
		"another user's flow":        {func(_ *ticket.Ticket, o *tunnel.Open, _ *policy.Policy) { o.User = "bob" }, false, false},
		"another gateway's flow":     {func(_ *ticket.Ticket, o *tunnel.Open, _ *policy.Policy) { o.Gateway = "press-8" }, false, false},
		"session of another gateway": {func(k *ticket.Ticket, _ *tunnel.Open, _ *policy.Policy) { k.Gateway = "press-8" }, false, false},
		"another world":              {func(_ *ticket.Ticket, o *tunnel.Open, _ *policy.Policy) { o.World = "live" }, false, false},
		"another account's policy":   {func(_ *ticket.Ticket, _ *tunnel.Open, p *policy.Policy) { p.Account = "globex" }, false, false},
		"another key":                {func(k *ticket.Ticket, _ *tunnel.Open, _ *policy.Policy) { k.Key = strings.Repeat("b", 64) }, false, false},
		"rule gone":                  {func(_ *ticket.Ticket, _ *tunnel.Open, p *policy.Policy) { p.Rules = []policy.Rule{} }, false, false},
		"policy expired":             {func(_ *ticket.Ticket, _ *tunnel.Open, p *policy.Policy) { p.NotAfter = "2026-11-22T01:00:00Z" }, false, false},
	} {
		tk, o, p := fresh()
		c.change(tk, o, p)
		if err := Decide(tk, o, p, now); c.open != (err == nil) || err != nil && fault.ClassOf(err) != fault.Policy {
			t.Errorf("%s: Decide: %v", name, err)
		}
		if err := Still(tk, o, p, now); c.still != (err == nil) || err != nil && fault.ClassOf(err) != fault.Policy {
			t.Errorf("%s: Still: %v", name, err)
		}
	}
	tk, o, _ := fresh()
	if Decide(tk, o, nil, now) == nil || Still(tk, o, nil, now) == nil {
		t.Error("no policy permitted a flow")
	}
}
