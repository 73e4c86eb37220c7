package uplink_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyrite/artifact/fault"
	"keyrite/gateway/secureelement/setest"
	"keyrite/gateway/tunnel"
	"keyrite/gateway/uplink"
	"keyrite/wire/control"
	wire "keyrite/wire/tunnel"
)

// relay plays the access and VPN server; fail says what goes wrong.
type relay struct {
	mu    sync.Mutex // guards the fields below
	fail  error
	asked []time.Time
	muxes []*mux
}

func (r *relay) GatewaySession(context.Context) (*control.Session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, time.Now())
	if r.fail != nil {
		return nil, r.fail
	}
	return &control.Session{Server: control.Server{Addr: "vpn:443", ID: "vpn1"}}, nil
}

func (r *relay) GatewayPolicy(context.Context) ([]byte, error) {
	return nil, fault.New(fault.Policy, "the account has no policy yet")
}

func (r *relay) dial(context.Context, *control.Session) (wire.Mux, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := &mux{done: make(chan struct{})}
	r.muxes = append(r.muxes, m)
	return m, nil
}

// mux is a tunnel without streams.
type mux struct {
	once sync.Once
	done chan struct{}
}

func (m *mux) Open(context.Context) (net.Conn, error) { return nil, errors.New("no") }
func (m *mux) Accept() (net.Conn, error) {
	<-m.done
	return nil, errors.New("ended")
}
func (m *mux) Done() <-chan struct{} { return m.done }
func (m *mux) Close() error {
	m.once.Do(func() { close(m.done) })
	return nil
}

type element struct{}

func (element) PolicyVersion() (int64, error)  { return 0, nil }
func (element) RaisePolicyVersion(int64) error { return nil }

func start(t *testing.T, r *relay, report func(uplink.State)) (stop func()) {
	t.Helper()
	keeper, err := tunnel.NewKeeper(tunnel.KeeperConfig{Path: filepath.Join(t.TempDir(), "policy.json"), Element: element{}, Key: setest.Key(t).Public(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	u := uplink.New(uplink.Config{
		Control: r, Dial: r.dial, Keeper: keeper, Report: report, Rejudge: func(context.Context) {}, Log: slog.New(slog.DiscardHandler),
		Flows: func(ctx context.Context, m wire.Mux) {
			select {
			case <-m.Done():
			case <-ctx.Done():
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		u.Run(ctx)
		close(done)
	}()
	return func() {
		cancel()
		<-done
	}
}

// TestBackOff: attempts come further apart, never more than a minute, each at a
// random moment; the first after a long good session comes soon.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &relay{fail: fault.New(fault.Unreachable, "down")}
		stop := start(t, r, func(uplink.State) {})
		time.Sleep(30 * time.Minute)
		r.mu.Lock()
		n, asked := len(r.asked), r.asked
		r.mu.Unlock()
		if n < 35 || n > 130 { // 30 s apart in the mean
			t.Errorf("%d attempts in half an hour", n)
		}
		gaps := map[time.Duration]bool{}
		for i := 1; i < n; i++ {
			gap := asked[i].Sub(asked[i-1])
			gaps[gap] = true
			if ceiling := min(time.Second<<min(i-1, 10), time.Minute); gap > ceiling {
				t.Errorf("attempt %d after %v, more than %v", i, gap, ceiling)
			}
		}
		if len(gaps) < n-2 {
			t.Error("the pauses are not random")
		}
		r.mu.Lock()
		r.fail = nil
		r.mu.Unlock()
		time.Sleep(2 * time.Minute)
		r.mu.Lock()
		before, m := len(r.asked), r.muxes[0]
		r.mu.Unlock()
		m.Close()
		time.Sleep(time.Second)
		r.mu.Lock()
		if len(r.asked) <= before {
			t.Error("no new attempt within a second after a good session")
		}
		r.mu.Unlock()
		stop()
	})
}

// TestOnlineOnlyWithTunnel looks at the states in their order.
func TestOnlineOnlyWithTunnel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &relay{fail: fault.New(fault.Peer, "not ours")}
		var mu sync.Mutex
		var states []string
		stop := start(t, r, func(s uplink.State) {
			mu.Lock()
			defer mu.Unlock()
			r.mu.Lock()
			defer r.mu.Unlock()
			if s.State == uplink.Online && len(r.muxes) == 0 {
				t.Error("online without a tunnel")
			}
			if s.State == uplink.Offline && r.fail != nil && s.Cause != "peer" {
				t.Errorf("cause %q", s.Cause)
			}
			states = append(states, s.State)
		})
		synctest.Wait()
		r.mu.Lock()
		r.fail = nil
		r.mu.Unlock()
		time.Sleep(time.Minute)
		stop()
		mu.Lock()
		defer mu.Unlock()
		want := []string{uplink.Connecting, uplink.Offline, uplink.Connecting, uplink.Online, uplink.Stopped}
		if len(states) != len(want) {
			t.Fatalf("states %v", states)
		}
		for i := range want {
			if states[i] != want[i] {
				t.Errorf("states %v, want %v", states, want)
			}
		}
	})
}
