package api_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/vault/api"
)

func newWorld(t testing.TB) *artifacttest.World { return artifacttest.New(t) }

// alone is what the process is told that is measured.
type alone struct {
	Folder    folder
	Cert, Key []byte
}

// slowLimits are short, so that the test sees them work.
func slowLimits() api.Limits { return api.Limits{Header: 4 * time.Second, Read: 8 * time.Second} }

// serveAlone is that process: it opens a vault, serves it, and says where.
func serveAlone(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var a alone
	if err := json.Unmarshal(raw, &a); err != nil {
		return err
	}
	api.TuneCollector()
	n, metrics, _, err := a.Folder.open(context.Background(), nil, engines())
	if err != nil {
		return err
	}
	s, err := api.New(api.Config{Vault: n, Version: "1.15.0", Limits: slowLimits(), Metrics: metrics})
	if err != nil {
		return err
	}
	key, err := x509.ParsePKCS8PrivateKey(a.Key)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, l.Addr())
	c := &tls.Certificate{Certificate: [][]byte{a.Cert}, PrivateKey: key}
	return s.Serve(l, api.TLS(func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c, nil }))
}

// plainProgram is this program without the race detector, whose memory would be measured
// instead.
func plainProgram(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if !raceDetector {
		return exe
	}
	exe = filepath.Join(t.TempDir(), "plain.test")
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", exe, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return exe
}

// rss is the resident memory of a process, in bytes.
func rss(t *testing.T, pid int) int64 {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kb); n == 1 {
			return kb << 10
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// TestSlowClients: 150 connections that send as little as they can, or nearly all of
// the largest body, take less than 64 MiB; others are served meanwhile; and the slow are
// cut off. Memory is that of a process of its own.
func TestSlowClients(t *testing.T) {
	r := found(t, newWorld(t))
	r.ok(os.WriteFile(filepath.Join(r.Dir, "charter.jsonl"), r.Charter, 0o600))
	k, err := r.key()
	r.ok(err)
	k.Wipe()
	server := r.ca.issue(t, "vault", "", []net.IP{net.IPv4(127, 0, 0, 1)})
	der, err := x509.MarshalPKCS8PrivateKey(server.PrivateKey)
	r.ok(err)
	told, err := json.Marshal(alone{r.folder, server.Certificate[0], der})
	r.ok(err)
	file := filepath.Join(r.Dir, "alone")
	r.ok(os.WriteFile(file, told, 0o600))
	cmd := exec.CommandContext(t.Context(), plainProgram(t), "serve-slow-clients", file)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	r.ok(err)
	r.ok(cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	in := bufio.NewScanner(out)
	if !in.Scan() {
		t.Fatal("the server says nothing")
	}
	r.addr = in.Text()
	r.client = r.as(&r.mes)
	for range 50 { // what a server takes when it has served something
		if p := r.put("kv/data/line1/x", `{"data":{"a":"`+strings.Repeat("x", 1000)+`"}}`); p.status != 200 {
			t.Fatalf("%d %s", p.status, p.raw)
		}
	}
	before := rss(t, cmd.Process.Pid)
	slow := r.slow(150)
	if p := r.get("kv/data/line1/x"); p.status != 200 {
		t.Errorf("meanwhile: %d %s", p.status, p.raw)
	}
	grown := rss(t, cmd.Process.Pid) - before
	t.Logf("%d slow connections: %.1f MiB more", len(slow), float64(grown)/(1<<20))
	if grown > 64<<20 {
		t.Errorf("memory grew by %d bytes", grown)
	}
	began := time.Now()
	for _, c := range slow {
		_ = c.SetReadDeadline(began.Add(60 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil && isTimeout(err) {
			t.Fatal("a slow client is not cut off")
		}
	}
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error)
	return ok && n.Timeout()
}

// slow opens n connections: a third sends half a header, a third half of a large body
// with a certificate, a third without one.
func (r *rig) slow(n int) []net.Conn {
	r.t.Helper()
	var mu sync.Mutex
	var all []net.Conn
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			cert := &r.mes
			if i%3 == 2 {
				cert = nil
			}
			c, err := tls.Dial("tcp", r.addr, r.tls(cert))
			if err != nil {
				r.t.Error(err)
				return
			}
			mu.Lock()
			all = append(all, c)
			mu.Unlock()
			_ = c.SetWriteDeadline(time.Now().Add(3 * time.Second))
			if i%3 == 0 {
				_, _ = io.WriteString(c, "GET /v1/kv/data/line1/x HTTP/1.1\r\nHost: v\r\nX-")
				return
			}
			_, _ = fmt.Fprintf(c, "PUT /v1/kv/data/line1/y%d HTTP/1.1\r\nHost: v\r\nContent-Length: %d\r\n\r\n{\"data\":{\"a\":\"", i, 1<<20)
			_, _ = io.WriteString(c, strings.Repeat("x", 1<<20-100))
		})
	}
	wg.Wait()
	return all
}
