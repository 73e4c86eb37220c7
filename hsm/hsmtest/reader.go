package hsmtest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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
	port := freePort(t)
	conf := fmt.Sprintf("FRIENDLYNAME \"Virtual PCD\"\nDEVICENAME /dev/null:0x%X\nLIBPATH %s\nCHANNELID 0x%X\n", port, vpcd, port)
	if err := os.WriteFile(filepath.Join(dir, "reader.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(dir, "run")
	if err := os.Mkdir(run, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("/run/pcscd", 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount --bind "$1" /run/pcscd && exec "$2" --foreground --config "$3"`, "sh", run, pcscd, filepath.Join(dir, "reader.conf"))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	r := &CardReader{addr: fmt.Sprintf("127.0.0.1:%d", port)}
	sock := filepath.Join(run, "pcscd.comm")
	r.Config = hsm.Config{Module: openSC, HSMD: HSMD(t), Env: []string{"PCSCLITE_CSOCK_NAME=" + sock}}
	for range 100 {
		if _, err := os.Stat(sock); err == nil {
			if c, err := net.Dial("tcp", r.addr); err == nil {
				_ = c.Close()
				return r
			}
		}
		<-time.After(100 * time.Millisecond) // the driver is a program of its own
	}
	t.Fatalf("the virtual card reader did not start:\n%s", out.String())
	return nil
}

// freePort finds one; the driver listens on two in a row.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr, _ := l.Addr().(*net.TCPAddr)
	return addr.Port
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
