package e2e

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/gateway/secureelement/setest"
)

// plant is the programs of the field in their namespaces.
type plant struct {
	*wires
	dir, bin string
	world    *artifacttest.World
	access   string
}

func newPlant(t *testing.T) *plant {
	t.Helper()
	f := &plant{wires: newWires(t), dir: t.TempDir(), world: artifacttest.New(t)}
	f.bin = filepath.Join(f.dir, "bin")
	build := exec.Command("go", "build", "-o", f.bin+"/", "keyrite/cmd/keyrite-relay", "keyrite/cmd/keyrite-gateway", "keyrite/cmd/keyrite-connect")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	f.world.FoundFactory()
	return f
}

func (f *plant) path(name string) string { return filepath.Join(f.dir, name) }

func (f *plant) write(name string, data []byte, err error) {
	f.t.Helper()
	if err == nil {
		err = os.WriteFile(f.path(name), data, 0o600)
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *plant) read(name string) []byte {
	f.t.Helper()
	b, err := os.ReadFile(f.path(name))
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// command is a program in a namespace, working in the test's folder. secret, if
// any, is what descriptor 3 gives.
func (f *plant) command(ns, secret string, args ...string) *exec.Cmd {
	f.t.Helper()
	c := exec.Command("ip", append([]string{"netns", "exec", ns, filepath.Join(f.bin, args[0])}, args[1:]...)...)
	c.Dir = f.dir
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if secret != "" {
		r, w, err := os.Pipe()
		if err != nil {
			f.t.Fatal(err)
		}
		_, _ = w.WriteString(secret + "\n")
		_ = w.Close()
		f.t.Cleanup(func() { _ = r.Close() })
		c.ExtraFiles = []*os.File{r}
	}
	return c
}

// run runs a program and wants an exit code; it returns its output.
func (f *plant) run(want int, ns, secret string, args ...string) string {
	f.t.Helper()
	c := f.command(ns, secret, args...)
	var errs strings.Builder
	c.Stderr = &errs
	// The kernel ends a child when the thread that started it ends.
	runtime.LockOSThread()
	out, err := c.Output()
	runtime.UnlockOSThread()
	if got := c.ProcessState.ExitCode(); got != want {
		f.t.Fatalf("%s: exit %d, want %d: %v\n%s%s", strings.Join(args, " "), got, want, err, out, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// serve starts a program and waits until it has printed a line for each prefix;
// it returns what followed them.
func (f *plant) serve(ns string, args []string, prefixes ...string) (*server, []string) {
	f.t.Helper()
	c := f.command(ns, "", args...)
	log, err := os.Create(f.path(args[0] + ".log"))
	if err != nil {
		f.t.Fatal(err)
	}
	c.Stderr = log
	out, err := c.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	s := &server{name: args[0], cmd: c, ended: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer close(s.ended)
		err := c.Start()
		started <- err
		if err == nil {
			s.err = c.Wait()
		}
	}()
	if err := <-started; err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = c.Process.Kill()
		<-s.ended
		_ = log.Close()
		if f.t.Failed() {
			b, _ := os.ReadFile(log.Name())
			f.t.Logf("%s:\n%s", args[0], b)
		}
	})
	found := make(chan string, 8)
	go func() {
		sc := bufio.NewScanner(out)
		for sc.Scan() {
			found <- sc.Text()
		}
		close(found)
	}()
	var rest []string
	for _, p := range prefixes {
		select {
		case line, ok := <-found:
			after, cut := strings.CutPrefix(line, p)
			if !ok || !cut {
				f.t.Fatalf("%s said %q, want %q", args[0], line, p)
			}
			rest = append(rest, after)
		case <-time.After(30 * time.Second):
			f.t.Fatalf("%s did not say %q", args[0], p)
		}
	}
	return s, rest
}

// server is a program that runs until it is told to end.
type server struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{}
	err   error // valid when ended is closed
}

// stop ends it as an operator does; it must end well.
func (s *server) stop(t *testing.T) {
	t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	s.wait(t)
}

func (s *server) wait(t *testing.T) {
	t.Helper()
	select {
	case <-s.ended:
		if s.err != nil {
			t.Errorf("%s: %v", s.name, s.err)
		}
	case <-time.After(20 * time.Second):
		t.Errorf("%s does not end", s.name)
	}
}

// relayUp makes and starts the relay and imports the acceptance of device.
func (f *plant) relayUp(device artifacttest.Born) *server {
	f.t.Helper()
	f.run(0, f.relay, "", "keyrite-relay", "admin", "init-keys", "--state-dir", "relay", "--out", ".")
	ca := f.world.Parsed(f.world.Anchors.Certificates["relay-ca"])
	for _, role := range []string{"access", "vpn"} {
		block, _ := pem.Decode(f.read(role + ".csr"))
		csr, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			f.t.Fatal(err)
		}
		from := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
		f.world.Approve(charter.TypeRelay, charter.Relay{ID: role + "1", Role: role, Certificate: f.world.Certificate(birthcert.Template{
			Profile: birthcert.Relay, SPKI: csr.RawSubjectPublicKeyInfo, Issuer: birthcert.IssuerOf(ca), Role: role, IPs: []string{relayIP},
			NotBefore: from, NotAfter: from.Add(24 * time.Hour),
		}, "relay-ca")})
	}
	anchors, err := f.world.Anchors.Marshal()
	f.write("anchors.json", anchors, err)
	f.write("charter.jsonl", f.world.Charter, nil)
	b := f.world.Bundle()
	b.BundleID = setest.BundleID
	f.write("acceptance.json", f.world.Accept(b, device), nil)
	f.run(0, f.relay, "", "keyrite-relay", "admin", "init", "--state-dir", "relay", "--anchor", "anchors.json")
	f.run(0, f.relay, "", "keyrite-relay", "admin", "import-acceptance", "acceptance.json", "--state-dir", "relay", "--anchor", "anchors.json")
	c, ready := f.serve(f.relay, []string{
		"keyrite-relay", "serve", "--state-dir", "relay", "--listen", "access=" + relayIP + ":0", "--listen", "vpn=" + relayIP + ":0", "--anchor", "anchors.json", "--charter", "charter.jsonl",
	}, "ready access ", "ready vpn ")
	f.access = ready[0]
	return c
}

// tufRoot is the first TUF root of the world.
func (f *plant) tufRoot() ([]byte, error) {
	r := metadata.Root(time.Now().Add(time.Hour))
	for role, id := range map[string]string{"root": "tuf-root", "targets": "tuf-targets", "snapshot": "tuf-online", "timestamp": "tuf-online"} {
		k, err := metadata.KeyFromPublicKey(f.world.Keys[id].Public())
		if err == nil {
			err = r.Signed.AddKey(k, role)
		}
		if err != nil {
			return nil, err
		}
	}
	s, err := signature.LoadECDSASigner(f.world.Keys["tuf-root"].(*ecdsa.PrivateKey), crypto.SHA256)
	if err == nil {
		_, err = r.Sign(s)
	}
	if err != nil {
		return nil, err
	}
	return r.ToBytes(false)
}

// policy writes, signs and stores a version that lets ann reach the HMI.
func (f *plant) policy(version int, thumb, spki string) {
	f.t.Helper()
	n := fmt.Sprint(version)
	f.run(0, f.user, "", "keyrite-connect", "policy", "new", "--account", "acme", "--anchor", "anchors.json", "--version", n, "--out", "policy"+n+".json",
		"--user", "ann="+thumb, "--gateway", "press-7="+spki, "--device", "hmi=press-7,"+lanIP+",80", "--device", "plc=press-7,192.168.77.3,80", "--allow", "ann:hmi")
	f.run(0, f.user, "a long passphrase", "keyrite-connect", "policy", "sign", "policy"+n+".json", "--key", "acme.key", "--out", "policy"+n+".dsse", "--passphrase-fd", "3")
	f.run(0, f.relay, "", "keyrite-relay", "admin", "set-policy", "acme", "policy"+n+".dsse", "--state-dir", "relay")
}

// lanServer answers HTTP on both pieces of equipment with the canary.
func (f *plant) lanServer(canary string) {
	f.t.Helper()
	for _, ip := range []string{lanIP, "192.168.77.3"} {
		ln := f.listen(f.lan, ip+":80")
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, canary) }), ReadHeaderTimeout: 5 * time.Second}
		go func() { _ = srv.Serve(ln) }()
		f.t.Cleanup(func() { _ = srv.Close() })
	}
}

// get fetches a page through an address of the user's namespace.
func (f *plant) get(addr, ask string) (string, error) {
	c, err := f.dial(f.user, addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "GET /%s HTTP/1.1\r\nHost: hmi\r\nConnection: close\r\n\r\n", ask); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// element gives the gateway's namespace a way to the TPM, which runs outside.
func (f *plant) element(tpm string) string {
	ln := f.listen(f.gateway, "127.0.0.1:0")
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial("tcp", tpm)
			if err != nil {
				_ = c.Close()
				continue
			}
			go func() { _, _ = io.Copy(d, c); _ = d.Close() }()
			go func() { _, _ = io.Copy(c, d); _ = c.Close() }()
		}
	}()
	return ln.Addr().String()
}

func (f *plant) eventually(what string, ok func() bool) {
	f.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 200 {
		if ok() {
			return
		}
		<-tick.C
	}
	f.t.Fatalf("not within 20 s: %s", what)
}

// A user reaches one machine through relay and gateway, and nothing else; what
// passes the relay is unreadable; what is taken away ends.
func TestOneFlowThroughTheWholeField(t *testing.T) {
	f := newPlant(t)
	born := setest.Birth(t, f.world, 1)
	relay := f.relayUp(artifacttest.Born{Cert: born.Cert})
	root, err := f.tufRoot()
	f.write("root.json", root, err)
	_ = born.Close() // the gateway needs it now
	tpm := f.element(born.TPM.Addr)
	asked, answer := "canary-question-5d1e", "canary-answer-93b7"
	f.lanServer(answer)

	// The account: policy key, user, gateway entry, activation file.
	f.run(0, f.user, "a long passphrase", "keyrite-connect", "policy-key", "--account", "acme", "--out", "acme", "--rehearsal", strings.TrimPrefix(string(f.world.World), "rehearsal:"), "--passphrase-fd", "3")
	f.run(0, f.relay, "", "keyrite-relay", "admin", "account", "add", "acme", "--policy-key", "acme.pub", "--state-dir", "relay")
	f.run(0, f.relay, "canary-password", "keyrite-relay", "admin", "user", "add", "acme", "ann", "--state-dir", "relay", "--password-fd", "3")
	key := f.run(0, f.relay, "", "keyrite-relay", "admin", "gateway", "add", "acme", "press-7", "--state-dir", "relay")
	f.run(0, f.user, key, "keyrite-connect", "activation", "--access", f.access, "--anchor", "anchors.json", "--policy-key", "acme.pub", "--out", "activation.json", "--activation-key-fd", "3")
	f.run(0, f.gateway, "", "keyrite-gateway", "enroll", "--state-dir", "gateway", "--element", tpm, "--activation", "activation.json", "--anchor", "anchors.json", "--tuf-root", "root.json")
	thumb := f.run(0, f.user, "", "keyrite-connect", "key", "--state-dir", "user")
	spki := birthcert.Hash(born.Cert.RawSubjectPublicKeyInfo)
	f.policy(1, thumb, spki)
	gateway, _ := f.serve(f.gateway, []string{"keyrite-gateway", "run", "--state-dir", "gateway", "--element", tpm, "--lan", "192.168.77.0/24"}, "online ")

	// The user.
	f.run(12, f.user, "wrong-password", "keyrite-connect", "login", "--state-dir", "user", "--access", f.access, "--account", "acme", "--user", "ann", "--anchor", "anchors.json", "--policy-key", "acme.pub", "--password-fd", "3")
	f.run(0, f.user, "canary-password", "keyrite-connect", "login", "--state-dir", "user", "--access", f.access, "--account", "acme", "--user", "ann", "--anchor", "anchors.json", "--policy-key", "acme.pub", "--password-fd", "3")
	if got := f.run(0, f.user, "", "keyrite-connect", "list", "--state-dir", "user"); got != "press-7\tonline" {
		t.Errorf("list: %q", got)
	}
	atRelay, atLAN := f.capture(f.relay), f.capture(f.lan)
	connect, ready := f.serve(f.user, []string{"keyrite-connect", "connect", "press-7", "--device", "hmi", "--state-dir", "user"}, "ready local ")
	got, err := f.get(ready[0], asked)
	if err != nil || got != answer {
		t.Fatalf("through the flow: %q, %v", got, err)
	}
	f.eventually("the capture on the LAN side sees the request", func() bool { return atLAN.has(asked) && atLAN.has(answer) })
	for _, secret := range []string{asked, answer, "canary-password", "GET /"} {
		if atRelay.has(secret) {
			t.Errorf("a capture on the relay's legs shows %q", secret)
		}
	}
	if atRelay.size() < 1000 {
		t.Error("the capture at the relay saw nothing")
	}

	// What the policy does not say is refused, by whoever is asked.
	f.run(0, f.user, "", "keyrite-connect", "check", "press-7", "--device", "hmi", "--state-dir", "user")
	f.run(13, f.user, "", "keyrite-connect", "check", "press-7", "--device", "plc", "--state-dir", "user")
	f.run(13, f.user, "", "keyrite-connect", "check", "press-7", "--address", lanIP+":81", "--state-dir", "user")
	f.run(13, f.user, "", "keyrite-connect", "check", "press-7", "--address", "10.77.2.2:80", "--state-dir", "user")
	f.run(13, f.user, "", "keyrite-connect", "check", "press-8", "--device", "hmi", "--state-dir", "user")
	for _, addr := range []string{lanIP + ":80", "10.77.2.2:80"} {
		if c, err := f.dial(f.user, addr); err == nil {
			_ = c.Close()
			t.Errorf("%s is reached beside the tunnel", addr)
		}
	}

	// Open connections end with the rule; a new policy is followed by all.
	open, err := f.dial(f.user, ready[0])
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	_, _ = io.WriteString(open, "GET /slow HTTP/1.1\r\n")
	f.policy(2, strings.Repeat("0", 64), spki)
	began := time.Now()
	_ = open.SetReadDeadline(began.Add(10 * time.Second))
	if _, err := open.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("the flow goes on without its rule: %v", err)
	}
	f.run(13, f.user, "", "keyrite-connect", "check", "press-7", "--device", "hmi", "--state-dir", "user")
	f.policy(3, thumb, spki)
	f.run(0, f.user, "", "keyrite-connect", "check", "press-7", "--device", "hmi", "--state-dir", "user")
	if got, err := f.get(ready[0], asked); err != nil || got != answer {
		t.Errorf("after the rule came back: %q, %v", got, err)
	}

	// After disconnect nothing behind the gateway is reachable.
	f.run(0, f.user, "", "keyrite-connect", "disconnect", "--state-dir", "user")
	connect.wait(t)
	if _, err := f.get(ready[0], asked); err == nil {
		t.Error("reachable after disconnect")
	}
	gateway.stop(t)
	f.eventually("the gateway is offline", func() bool {
		return f.run(0, f.user, "", "keyrite-connect", "list", "--state-dir", "user") == "press-7\toffline"
	})
	f.run(19, f.user, "", "keyrite-connect", "check", "press-7", "--device", "hmi", "--state-dir", "user")
	f.run(0, f.user, "", "keyrite-connect", "logout", "--state-dir", "user")
	f.run(12, f.user, "", "keyrite-connect", "list", "--state-dir", "user")
	relay.stop(t)
	var head struct{ Size int }
	if err := json.Unmarshal([]byte(f.run(0, f.relay, "", "keyrite-relay", "admin", "audit", "verify", "--state-dir", "relay", "--json")), &head); err != nil || head.Size < 10 {
		t.Errorf("audit: %+v, %v", head, err)
	}
}
