package api_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"keyrite/hsm"
	"keyrite/hsm/hsmtest"
	"keyrite/vault/api"
)

// TestBenchVault is scripts/bench vault: it writes its figures as lines of kind, name,
// value and goal or unit into $KEYRITE_BENCH_OUT. The vault is this process, the floor
// and the client are others; both sides are measured in turn.
func TestBenchVault(t *testing.T) {
	out, peer := os.Getenv("KEYRITE_BENCH_OUT"), os.Getenv("KEYRITE_BENCH_PEER")
	if out == "" || peer == "" {
		t.Skip("long: scripts/bench vault runs it")
	}
	api.TuneCollector() // as keyrite-vault does
	r := newTokenRig(t)
	f := startFloor(t, r, peer)
	var text bytes.Buffer
	slice, rounds := 2000, 5
	if n, err := strconv.Atoi(os.Getenv("KEYRITE_BENCH_ROUNDS")); err == nil && n > 0 {
		rounds = n
	}
	for _, conns := range []int{8, 32} {
		var ratios, rates, p99 []float64
		before := f.load(t, "floor", conns, slice)
		for range rounds {
			mine := r.load(t, "sign", conns, slice)
			after := f.load(t, "floor", conns, slice)
			ratios = append(ratios, mine.rate*2/(before.rate+after.rate))
			rates, p99 = append(rates, mine.rate), append(p99, mine.p99)
			before = after
		}
		goal := map[int]string{8: "0.60", 32: "0.70"}[conns]
		fmt.Fprintf(&text, "ratio\tvault_sign_of_floor_%d\t%.3f\t%s\n", conns, median(ratios), goal)
		fmt.Fprintf(&text, "raw\tvault_sign_%d\t%.0f\t1/s\n", conns, median(rates))
		fmt.Fprintf(&text, "raw\tvault_sign_%d_p99\t%.2f\tms\n", conns, median(p99))
		fmt.Fprintf(&text, "raw\tvault_floor_%d\t%.0f\t1/s\n", conns, before.rate)
	}
	// What a signature costs in CPU, with its module's process: of use where others use the
	// machine, too.
	mine := perCall(t, []int{os.Getpid()}, rounds*slice, func() { r.load(t, "sign", 32, rounds*slice) })
	floor := perCall(t, []int{f.pid}, rounds*slice, func() { f.load(t, "floor", 32, rounds*slice) })
	fmt.Fprintf(&text, "raw\tvault_sign_cpu_32\t%.0f\tµs\nraw\tvault_floor_cpu_32\t%.0f\tµs\n", mine, floor)
	if p := r.put("kv/data/line1/bench", `{"data":{"a":"b"}}`); p.status != 200 {
		t.Fatalf("%d %s", p.status, p.raw)
	}
	for _, op := range []string{"read", "write"} {
		var rates []float64
		for range rounds {
			rates = append(rates, r.load(t, op, 32, 2*slice).rate)
		}
		fmt.Fprintf(&text, "raw\tvault_kv_%s_32\t%.0f\t1/s\n", op, median(rates))
	}
	r.ok(os.WriteFile(out, text.Bytes(), 0o600))
	t.Log(text.String())
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// target is what a load goes to.
type target struct {
	addr, ca, cert, key string
	pid                 int // of the floor
}

// took is what a load came to: answers a second, and the slowest of a hundred in ms.
type took struct{ rate, p99 float64 }

func (r *rig) load(t testing.TB, kind string, conns, total int) took {
	t.Helper()
	ca, cert, key := r.files(r.mes)
	return target{addr: r.addr, ca: ca, cert: cert, key: key}.load(t, kind, conns, total)
}

// load runs the client in a process of its own.
func (g target) load(t testing.TB, kind string, conns, total int) took {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "bench-load", kind, g.addr, g.ca, g.cert, g.key, strconv.Itoa(conns), strconv.Itoa(total))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", kind, err)
	}
	var x took
	if _, err := fmt.Sscan(string(out), &x.rate, &x.p99); err != nil {
		t.Fatalf("%s: %v: %s", kind, err, out)
	}
	return x
}

// startFloor starts the floor with a token of its own.
func startFloor(t *testing.T, r *rig, peer string) target {
	t.Helper()
	env := hsmtest.New(t)
	id, err := env.Supervisor.InitToken(t.Context(), "floor")
	r.ok(err)
	const pin = "bench-user-pin"
	env.SetPINs(t, id, "bench-officer-pin", pin)
	s := env.Open(t, id)
	tag, err := hsm.NewTag()
	r.ok(err)
	key := hsm.NewKeyID(tag, 1)
	_, err = s.Generate(t.Context(), hsm.GenerateSpec{Template: hsm.Sign, Algorithm: hsm.ECDSAP256, KeyID: key, Label: "floor"})
	r.ok(err)
	r.ok(s.Close())
	server := r.ca.issue(t, "floor", "", loopback())
	ca, cert, keyFile := r.files(server)
	cmd := exec.CommandContext(t.Context(), peer, "floor", env.Config.Module, id.Label, id.Serial, key.String())
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+env.Conf)
	cmd.Stdin = strings.NewReader(pin + "\n" + strings.Join([]string{cert, keyFile, ca, filepath.Join(t.TempDir(), "audit")}, " ") + "\n")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	r.ok(err)
	r.ok(cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	in := bufio.NewScanner(out)
	if !in.Scan() {
		t.Fatal("the floor says nothing")
	}
	mine, clientCert, clientKey := r.files(r.mes)
	return target{in.Text(), mine, clientCert, clientKey, cmd.Process.Pid}
}

// benchLoad is the client: so many requests over so many connections.
func benchLoad(args []string) error {
	if len(args) != 7 {
		return fmt.Errorf("%d arguments", len(args))
	}
	kind, g := args[0], target{addr: args[1], ca: args[2], cert: args[3], key: args[4]}
	conns, err := strconv.Atoi(args[5])
	if err != nil {
		return err
	}
	total, err := strconv.Atoi(args[6])
	if err != nil {
		return err
	}
	pemCA, err := os.ReadFile(g.ca)
	if err != nil {
		return err
	}
	block, _ := pem.Decode(pemCA)
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca)
	cert, err := tls.LoadX509KeyPair(g.cert, g.key)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: conns, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: []tls.Certificate{cert}},
	}}
	if _, err := burst(client, kind, g.addr, conns, conns); err != nil { // handshakes
		return err
	}
	from := time.Now()
	times, err := burst(client, kind, g.addr, conns, total)
	if err != nil {
		return err
	}
	rate := float64(total) / time.Since(from).Seconds()
	slices.Sort(times)
	fmt.Fprintln(os.Stdout, rate, float64(times[len(times)*99/100])/1e6)
	return nil
}

// burst makes total requests and returns how long each took, in nanoseconds.
func burst(client *http.Client, kind, addr string, conns, total int) ([]int64, error) {
	method, path, body := request(kind)
	times := make([]int64, total)
	var next atomic.Int64
	errs := make([]error, conns)
	var wg sync.WaitGroup
	for w := range conns {
		wg.Go(func() {
			for errs[w] == nil {
				i := next.Add(1) - 1
				if i >= int64(total) {
					return
				}
				from := time.Now()
				errs[w] = once(client, method, "https://"+addr+path, body)
				times[i] = time.Since(from).Nanoseconds()
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return times, nil
}

func request(kind string) (method, path, body string) {
	digest := base64.StdEncoding.EncodeToString(make([]byte, 32))
	switch kind {
	case "floor":
		return http.MethodPut, "/sign", `{"input":"` + digest + `"}`
	case "sign":
		return http.MethodPut, "/v1/transit/sign/fwkey/sha2-256", `{"input":"` + digest + `","prehashed":true}`
	case "read":
		return http.MethodGet, "/v1/kv/data/line1/bench", ""
	}
	return http.MethodPut, "/v1/kv/data/line1/bench", `{"data":{"a":"b"}}`
}

func once(client *http.Client, method, url, body string) error {
	req, err := http.NewRequestWithContext(context.Background(), method, url, strings.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !json.Valid(raw)) {
		err = fmt.Errorf("%d %s", resp.StatusCode, raw)
	}
	return err
}

// BenchmarkSign is what one signature over HTTPS, with its entry in the trail, costs this
// process in CPU: a machine that others use, too, says nothing by the time that passes.
// The client is another process, and so is the module.
func BenchmarkSign(b *testing.B) {
	r := newTokenRig(b)
	r.benchCPU(b, "sign")
}

// BenchmarkWrite is BenchmarkSign for a secret that is written.
func BenchmarkWrite(b *testing.B) {
	r := newTokenRig(b)
	r.benchCPU(b, "write")
}

func (r *rig) benchCPU(b *testing.B, kind string) {
	api.TuneCollector()
	r.load(b, kind, 32, 500) // handshakes and caches
	n := max(b.N, 500)
	b.ResetTimer()
	before := ownCPU(b)
	r.load(b, kind, 32, n)
	b.ReportMetric(float64((ownCPU(b)-before).Microseconds())/float64(n), "cpu-µs/op")
}

// ownCPU is what this process used so far.
func ownCPU(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// perCall is the CPU that processes, and those that they had started before, use for each
// of n calls, in microseconds.
func perCall(t *testing.T, of []int, n int, f func()) float64 {
	t.Helper()
	before := cpuTimes(t)
	f()
	after := cpuTimes(t)
	sum := time.Duration(0)
	for pid, p := range after {
		had, ok := before[pid]
		if ok && (slices.Contains(of, pid) || slices.Contains(of, p.parent)) {
			sum += p.used - had.used
		}
	}
	return float64(sum.Microseconds()) / float64(n)
}

type process struct {
	parent int
	used   time.Duration
}

// cpuTimes reads proc(5) of all processes.
func cpuTimes(t *testing.T) map[int]process {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	const tick = 10 * time.Millisecond // of proc(5) on all that we run on
	out := map[int]process{}
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:])) // from the third, the state
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || len(fields) < 13 {
			continue
		}
		var n [3]int
		for i, at := range []int{1, 11, 12} {
			if n[i], err = strconv.Atoi(fields[at]); err != nil {
				t.Fatal(err)
			}
		}
		out[pid] = process{n[0], time.Duration(n[1]+n[2]) * tick}
	}
	return out
}
