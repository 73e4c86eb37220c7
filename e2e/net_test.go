package e2e

// The test in flow_test.go needs root, iproute2 and swtpm, and fails without
// them. Everything that it makes carries its process number and goes with it.

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wires is the four namespaces and their links.
//
//	user 10.77.1.2 -- 10.77.1.1 relay 10.77.2.1 -- 10.77.2.2 gateway 192.168.77.1 -- 192.168.77.2 lan
//
// The relay is reached at 10.77.0.1 from both sides and forwards no packet.
type wires struct {
	t                         *testing.T
	user, relay, gateway, lan string
}

const (
	relayIP = "10.77.0.1"
	lanIP   = "192.168.77.2"
)

func newWires(t *testing.T) *wires {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("network namespaces need root")
	}
	id := fmt.Sprint(os.Getpid())
	w := &wires{t: t, user: "kru" + id, relay: "krr" + id, gateway: "krg" + id, lan: "krl" + id}
	for _, ns := range []string{w.user, w.relay, w.gateway, w.lan} {
		w.ip("netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		w.ip("-n", ns, "link", "set", "lo", "up")
	}
	w.link(w.user, "10.77.1.2/30", w.relay, "10.77.1.1/30", "u")
	w.link(w.gateway, "10.77.2.2/30", w.relay, "10.77.2.1/30", "g")
	w.link(w.gateway, "192.168.77.1/24", w.lan, lanIP+"/24", "l")
	w.ip("-n", w.lan, "addr", "add", "192.168.77.3/24", "dev", "l1")
	w.ip("-n", w.relay, "addr", "add", relayIP+"/32", "dev", "lo")
	w.ip("-n", w.user, "route", "add", "default", "via", "10.77.1.1")
	w.ip("-n", w.gateway, "route", "add", "default", "via", "10.77.2.1")
	return w
}

func (w *wires) ip(args ...string) {
	w.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		w.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (w *wires) link(a, addrA, b, addrB, name string) {
	w.t.Helper()
	w.ip("link", "add", name+"0", "netns", a, "type", "veth", "peer", "name", name+"1", "netns", b)
	for i, ns := range []string{a, b} {
		dev := fmt.Sprintf("%s%d", name, i)
		w.ip("-n", ns, "addr", "add", []string{addrA, addrB}[i], "dev", dev)
		w.ip("-n", ns, "link", "set", dev, "up")
	}
}

// in runs f on a thread inside a namespace; sockets that f opens stay there.
func (w *wires) in(ns string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and with it its
		// stay in the namespace.
		runtime.LockOSThread()
		fd, err := unix.Open("/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			_ = unix.Close(fd)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func (w *wires) listen(ns, addr string) net.Listener {
	w.t.Helper()
	var ln net.Listener
	err := w.in(ns, func() (err error) {
		ln, err = net.Listen("tcp4", addr)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = ln.Close() })
	return ln
}

// dial connects from a namespace. It goes to an address, never a name, so no
// other goroutine is asked to resolve anything.
func (w *wires) dial(ns, addr string) (net.Conn, error) {
	ap := netip.MustParseAddrPort(addr)
	var c net.Conn
	err := w.in(ns, func() (err error) {
		d := net.Dialer{Timeout: 2 * time.Second, FallbackDelay: -1}
		c, err = d.DialContext(context.Background(), "tcp4", ap.String())
		return err
	})
	return c, err
}

// capture keeps what passes every interface of a namespace.
type capture struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (w *wires) capture(ns string) *capture {
	w.t.Helper()
	c := &capture{}
	fd := -1
	err := w.in(ns, func() (err error) {
		all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8 // network order
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		defer unix.Close(fd)
		buf := make([]byte, 1<<17)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if n, _, err := unix.Recvfrom(fd, buf, 0); err == nil {
				c.mu.Lock()
				c.data.Write(buf[:n])
				c.mu.Unlock()
			}
		}
	}()
	w.t.Cleanup(func() {
		close(stop)
		<-stopped
	})
	return c
}

func (c *capture) has(s string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Contains(c.data.Bytes(), []byte(s))
}

func (c *capture) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.data.Len()
}
