package api_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/vault/api"
)

// raw sends a request line as it is and gives the status; 0 if the connection ended.
func (r *rig) raw(t *testing.T, target string) int {
	t.Helper()
	c, err := tls.Dial("tcp", r.addr, r.tls(&r.mes))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: vault\r\nConnection: close\r\n\r\n", target); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode
}

// spellings are ways of writing a path that one part of a program might read as it and
// another not.
func spellings(p string) []string {
	var out []string
	for i := range p {
		out = append(out, p[:i]+fmt.Sprintf("%%%02x", p[i])+p[i+1:], p[:i]+fmt.Sprintf("%%%02X", p[i])+p[i+1:], p[:i]+fmt.Sprintf("%%25%02x", p[i])+p[i+1:])
		for _, in := range []string{"/", "./", "../", "%2f", "%2e%2e/", "\x00", "\r", "\t", ";", ";x=y", "\\", "*", "+", "%", "\u200b", "\u202e", "\ufeff", "\x80", "%c0%af", "\u2215", "\uff0f", "%09", "%5c", "%c0%ae", "&", "|", "\u0301"} {
			out = append(out, p[:i]+in+p[i:])
		}
	}
	for _, end := range []string{"/", "//", "/.", "/..", "/../" + path.Base(p), ".", "..", "%00", "\x00", "%20", "#x", "/*", "/+", "é", "e\u0301", "%3fx", ";"} {
		out = append(out, p+end)
	}
	for _, start := range []string{"/", "//", "./", "../", "x/../", "%2f", "\\", "\ufeff", "v1/../", "../v1/"} {
		out = append(out, start+p)
	}
	return append(out, strings.ToUpper(p), strings.ReplaceAll(p, "/", "\\"), strings.ReplaceAll(p, "/", "%2F"))
}

// TestSpellingsOverTheWire: of more than 500 spellings of a secret's path none is
// answered with it, nor with a redirection to it, by the real server.
func TestSpellingsOverTheWire(t *testing.T) {
	r := newRig(t)
	const secret = "kv/data/line1/plc"
	if p := r.put(secret, `{"data":{"a":"b"}}`); p.status != 200 {
		t.Fatalf("%d %s", p.status, p.raw)
	}
	if got := r.raw(t, "/v1/"+secret); got != 200 {
		t.Fatalf("the path itself: %d", got)
	}
	all := spellings(secret)
	if len(all) < 500 {
		t.Fatalf("only %d spellings", len(all))
	}
	seen := map[int]int{}
	for _, s := range all {
		got := r.raw(t, "/v1/"+s)
		seen[got]++
		switch got {
		case 0, 400, 403, 404:
		default:
			t.Errorf("%q: %d", s, got)
		}
	}
	for _, target := range []string{"/v1//" + secret, "//v1/" + secret, "/V1/" + secret, "/x/../v1/" + secret, "https://vault/v1/" + secret, "v1/" + secret, "*", "/"} {
		if got := r.raw(t, target); got != 0 && got != 400 && got != 404 {
			t.Errorf("target %q: %d", target, got)
		}
	}
	t.Logf("%d spellings, answers by status %v", len(all), seen)
}

// TestUnixSocket: whoever connects is who the kernel says, whatever it claims.
func TestUnixSocket(t *testing.T) {
	r := newRig(t)
	curl := func(uid uint32) string {
		cmd := exec.CommandContext(t.Context(), "curl", "-sS", "--unix-socket", r.socket, "-H", "X-Forwarded-For: 127.0.0.1", "http://vault/v1/auth/token/lookup-self")
		if os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, NoSetGroups: true}}
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if os.Getuid() != 0 {
		if out := curl(0); !strings.Contains(out, "errors") {
			t.Errorf("a user that the charter does not know: %s", out)
		}
		return
	}
	if out := curl(localUID); !strings.Contains(out, `"identity":"local"`) {
		t.Errorf("the user of the charter: %s", out)
	}
	for _, uid := range []uint32{0, 1, localUID - 1} {
		if out := curl(uid); !strings.Contains(out, `"class":"peer"`) {
			t.Errorf("user %d: %s", uid, out)
		}
	}
}

// TestPlainAndOldConnections: nothing is answered without TLS 1.3 on a port.
func TestPlainAndOldConnections(t *testing.T) {
	r := newRig(t)
	old := r.tls(&r.mes)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if c, err := tls.Dial("tcp", r.addr, old); err == nil {
		c.Close()
		t.Error("TLS 1.2 is answered")
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.addr+"/v1/kv/data/line1/plc", http.NoBody)
	r.ok(err)
	resp, err := http.DefaultClient.Do(req)
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			t.Error("without TLS it is answered")
		}
	}
}

// TestLimitsOfConnections: one address may not take all, and those that are refused do
// not stop the others.
func TestLimitsOfConnections(t *testing.T) {
	r := found(t, newWorld(t))
	r.start(nil, engines(), api.Limits{PerAddress: 4})
	var open []*tls.Conn
	for range 4 {
		c, err := tls.Dial("tcp", r.addr, r.tls(&r.mes))
		r.ok(err)
		open = append(open, c)
	}
	if c, err := tls.Dial("tcp", r.addr, r.tls(&r.mes)); err == nil {
		c.Close()
		t.Error("a fifth connection of the address is taken")
	}
	for _, c := range open {
		c.Close()
	}
	end := time.Now().Add(5 * time.Second)
	for {
		c, err := tls.Dial("tcp", r.addr, r.tls(&r.mes))
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after the others are gone: %v", err)
		}
	}
}
