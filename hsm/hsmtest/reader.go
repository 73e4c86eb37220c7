package hsmtest

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyrite/hsm"
)

// Where Debian puts OpenSC and the virtual reader.
const (
	openSC = "/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so"
	vpcd   = "/usr/lib/pcsc/drivers/serial/libifdvpcd.so"
	pcscd  = "/usr/sbin/pcscd"
)

// CardReader is a virtual reader under a pcscd of its own, in a mount namespace
// where the daemon's one fixed folder is a private one.
type CardReader struct {
	Config hsm.Config // OpenSC over this reader
	addr   string
}

// NewCardReader starts one. It needs the packages of scripts/setup, and root for
// its namespace.
func NewCardReader(t testing.TB) *CardReader {
	t.Helper()
	for _, f := range []string{openSC, vpcd, pcscd} {
		if _, err := os.Stat(f); err != nil {
			t.Fatalf("%s is missing: scripts/setup installs it", f)
		}
	}
	if os.Getuid() != 0 {
		t.Fatal("a private card reader needs a mount namespace: run as root")
	}
	dir, err := os.MkdirTemp("", "keyrite-card-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.MkdirAll("/run/pcscd", 0o755); err != nil {
		t.Fatal(err)
	}
	var said string
	for try := range 5 { // another program may take the port in between
		r, out := startReader(t, filepath.Join(dir, strconv.Itoa(try)))
		if r != nil {
			return r
		}
		said = out
	}
	t.Fatalf("the virtual card reader did not start:\n%s", said)
	return nil
}

// startReader starts the reader once, in a folder that it makes. If it does not
// come up, nothing is left and what it said is returned.
func startReader(t testing.TB, dir string) (*CardReader, string) {
	t.Helper()
	port := freePorts(t)
	run := filepath.Join(dir, "run")
	if err := os.MkdirAll(run, 0o755); err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf("FRIENDLYNAME \"Virtual PCD\"\nDEVICENAME /dev/null:0x%X\nLIBPATH %s\nCHANNELID 0x%X\n", port, vpcd, port)
	if err := os.WriteFile(filepath.Join(dir, "reader.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount --bind "$1" /run/pcscd && exec "$2" --foreground --config "$3"`, "sh", run, pcscd, filepath.Join(dir, "reader.conf"))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	end := func() { _ = cmd.Process.Kill(); <-ended }
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	sock := filepath.Join(run, "pcscd.comm")
	for range 100 {
		if _, err := os.Stat(sock); err == nil {
			if c, err := net.Dial("tcp", addr); err == nil {
				_ = c.Close()
				t.Cleanup(end)
				return &CardReader{addr: addr, Config: hsm.Config{Module: openSC, HSMD: HSMD(t), Env: []string{"PCSCLITE_CSOCK_NAME=" + sock}, StateDir: filepath.Join(dir, "state")}}, ""
			}
		}
		<-time.After(100 * time.Millisecond) // the driver is a program of its own
	}
	end()
	return nil, out.String()
}

// freePorts finds two in a row, on which the driver listens: below the range that
// the kernel gives to connections, so that none takes one meanwhile.
func freePorts(t testing.TB) int {
	t.Helper()
	for range 100 {
		var b [2]byte
		if _, err := rand.Read(b[:]); err != nil {
			t.Fatal(err)
		}
		port := 20000 + int(binary.BigEndian.Uint16(b[:]))%12000
		if listens(port) && listens(port+1) {
			return port
		}
	}
	t.Fatal("no two free ports in a row")
	return 0
}

func listens(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	_ = l.Close()
	return true
}

// Insert puts a card in and waits until the reader sees it; the returned function
// pulls it out.
func (r *CardReader) Insert(t testing.TB, c *PIVCard) func() {
	t.Helper()
	out, err := c.Insert(r.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(out)
	s, err := hsm.Start(t.Context(), r.Config)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 50 {
		tokens, _, err := s.Tokens(t.Context())
		if err == nil && len(tokens) > 0 && tokens[0].Initialised {
			return out
		}
		<-time.After(100 * time.Millisecond) // the driver is a program of its own
	}
	t.Fatal("the reader does not see the card")
	return nil
}

// Token names the card in the reader.
func (r *CardReader) Token(t testing.TB, s *hsm.Supervisor) hsm.TokenID {
	t.Helper()
	tokens, _, err := s.Tokens(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range tokens {
		if x.Initialised {
			return x.Token
		}
	}
	t.Fatal("no card")
	return hsm.TokenID{}
}
