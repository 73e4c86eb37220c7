package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/openrequest"
)

// killAtRandom opens and seals a vault again and again, and kills it with signal 9 at
// some moment from the last share on, each second time while it serves: whatever it was
// about, the next process opens, or makes, the vault, and it has what a client was told
// that it wrote.
func killAtRandom(t *testing.T, times int) {
	t.Helper()
	h := newHouse(t)
	c := newClients(h)
	h.bind("head: {file: head.json}\ntls: {certificate: tls.pem, key: tls.key}\n")
	h.Approve(charter.TypeMount, charter.Mount{ID: "kv", Engine: "kv"})
	h.Approve(charter.TypePolicy, charter.Policy{ID: "line1", Version: 1, Rules: []access.Rule{{Path: "kv/data/line1/*", Can: []access.Capability{access.Create, access.Read, access.Update}}}})
	h.Approve(charter.TypeIdentity, charter.Identity{ID: "mes", Policies: []string{"line1"}, TTL: 600, Certificate: &charter.Certificate{CA: c.ca.Raw, URI: "spiffe://example.com/mes"}})
	h.host()
	count := &counting{c: c}
	created := 0
	for i := range times {
		s := h.serveClients(c)
		stop := count.begin(t)
		operation := openrequest.Unseal
		if !h.status().Created {
			operation = openrequest.Create
		}
		for _, n := range []string{"a.request", "a.1", "a.2", "a.3"} {
			_ = os.Remove(h.path(n))
		}
		h.vault(0, "unseal", "--new-attempt", "--operation", operation, "--out", "a.request")
		for n, who := range []string{"master1", "master2", "master3"} {
			if code, text := h.answer("a.request", who, []string{"a.1", "a.2", "a.3"}[n]); code != 0 {
				t.Fatalf("exit %d: %s", code, text)
			}
		}
		h.vault(0, "unseal", "--answer", "a.1", "--answer", "a.2")
		last := h.command("keyrite-vault", "unseal", "--answer", "a.3", "--bind", "vault.yaml", "--state-dir", "state")
		if err := last.Start(); err != nil {
			t.Fatal(err)
		}
		ms, err := rand.Int(rand.Reader, big.NewInt(int64(100+200*(i%8))))
		if err != nil {
			t.Fatal(err)
		}
		timer := time.NewTimer(time.Duration(ms.Int64()) * time.Millisecond)
		<-timer.C
		if i%2 == 1 {
			select {
			case <-count.wrote:
				<-time.After(time.Duration(ms.Int64()%300) * time.Millisecond)
			case <-time.After(time.Minute):
				t.Fatal("it serves nobody")
			}
		}
		if err := s.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = s.cmd.Wait()
		_ = last.Wait()
		stop()
		h.alone(0)
		if operation == openrequest.Create {
			created++
		}
	}
	s := h.serveClients(c)
	operation := openrequest.Unseal
	if !h.status().Created {
		operation = openrequest.Create
	}
	h.open(operation, "master5", "master4", "master3")
	stop := count.begin(t)
	<-count.wrote
	stop()
	s.stop()
	t.Logf("%d times killed, %d of them while the store was made; %d writes acknowledged, looked at %d times", times, created, count.acked, count.looked)
}

// counting is a client that writes 1, 2, 3 and so on to one path, each when the one before
// was acknowledged, for as many processes as it is begun with.
type counting struct {
	c             *clients
	acked, looked int
	wrote         chan struct{} // closed when this process acknowledged a number
}

// begin lets it write until it is stopped. Before it writes, it looks at what the process
// has: the number that was acknowledged last, or the next one.
func (x *counting) begin(t *testing.T) (stop func()) {
	x.wrote = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		for has := -1; has < 0; {
			if ctx.Err() != nil {
				return
			}
			code, data := x.ask(ctx, http.MethodGet, "")
			switch code {
			case http.StatusNotFound:
				has = 0
			case http.StatusOK:
				has = data.Data.Data.N
			default:
				continue
			}
			if x.looked++; has != x.acked && has != x.acked+1 {
				t.Errorf("it has number %d, and %d was acknowledged", has, x.acked)
			}
			x.acked = has
		}
		for first := true; ctx.Err() == nil; {
			if code, _ := x.ask(ctx, http.MethodPut, fmt.Sprintf(`{"data":{"n":%d}}`, x.acked+1)); code != http.StatusOK {
				continue
			}
			x.acked++
			if first {
				close(x.wrote)
				first = false
			}
		}
	})
	return func() { cancel(); done.Wait() }
}

type counted struct {
	Data struct {
		Data struct{ N int }
	}
}

// ask is one request; code 0 if it has no answer.
func (x *counting) ask(ctx context.Context, method, body string) (code int, out counted) {
	req, err := http.NewRequestWithContext(ctx, method, x.c.base+"/v1/kv/data/line1/count", strings.NewReader(body))
	if err != nil {
		return 0, out
	}
	resp, err := x.c.http.Do(req)
	if err != nil {
		<-time.After(5 * time.Millisecond)
		return 0, out
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		<-time.After(5 * time.Millisecond)
		return resp.StatusCode, out
	}
	if method == http.MethodGet && json.NewDecoder(resp.Body).Decode(&out) != nil {
		return 0, out
	}
	return resp.StatusCode, out
}

func TestKilledWhileItOpens(t *testing.T) { killAtRandom(t, 10) }

func TestLongKilledWhileItOpens(t *testing.T) {
	if os.Getenv("KEYRITE_TEST_LONG") == "" {
		t.Skip("long: opens and kills a vault 300 times")
	}
	killAtRandom(t, 300)
}
