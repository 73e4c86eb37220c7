package api_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
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
	status, _ := r.send(t, fmt.Sprintf("GET %s HTTP/1.1\r\nHost: vault\r\nConnection: close\r\n\r\n", target))
	return status
}

// send sends bytes as they are and gives status and body of the answer; 0 if the
// connection ended. The answer may come before all was sent.
func (r *rig) send(t *testing.T, request string) (status int, body string) {
	t.Helper()
	c, err := tls.Dial("tcp", r.addr, r.tls(&r.mes))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { _, _ = io.WriteString(c, request) }()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	out, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(out)
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

// TestLimitsOfRequests: headers and bodies are taken up to the limit and not beyond it,
// however their length is told, or not told.
func TestLimitsOfRequests(t *testing.T) {
	r := newRig(t)
	const mebibyte = 1 << 20
	whole := func(n int) string {
		const in = `{"data":{"a":1}}`
		return in + strings.Repeat(" ", n-len(in))
	}
	chunked := func(body string, end string) string {
		var b strings.Builder
		for len(body) > 0 {
			n := min(len(body), 10_000)
			fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
			body = body[n:]
		}
		return b.String() + end
	}
	const post, secret = "POST /v1/kv/data/line1/x HTTP/1.1\r\nHost: vault\r\n", "GET /v1/auth/token/lookup-self HTTP/1.1\r\nHost: vault\r\n"
	sized := func(n int) string { return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", post, n, whole(n)) }
	inChunks := func(n int) string {
		return post + "Transfer-Encoding: chunked\r\n\r\n" + chunked(whole(n), "0\r\n\r\n")
	}
	padded := func(n int) string { return secret + "X-Pad: " + strings.Repeat("x", n) + "\r\n\r\n" }
	many := func(n int) string { return secret + strings.Repeat("X-Pad: x\r\n", n) + "\r\n" }
	for name, c := range map[string]struct {
		request string
		status  int
		says    string
	}{
		"a body of the limit":                  {sized(mebibyte), 200, `"version"`},
		"one byte more":                        {sized(mebibyte + 1), 400, "at most 1048576"},
		"a body of the limit, in chunks":       {inChunks(mebibyte), 200, `"version"`},
		"one byte more, in chunks":             {inChunks(mebibyte + 1), 400, "more than 1048576"},
		"three times that, in chunks":          {inChunks(3 * mebibyte), 400, "more than 1048576"},
		"a chunk that is announced too large":  {post + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n{}", 503, "did not come"},
		"two lengths":                          {post + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, ""},
		"a length that is none":                {post + "Content-Length: -1\r\n\r\n{}", 400, ""},
		"headers below the limit":              {padded(15 << 10), 200, "mes"},
		"headers over the limit":               {padded(21 << 10), 431, ""},
		"headers over the limit in many lines": {many(3000), 431, ""},
		"headers of a megabyte":                {padded(mebibyte), 431, ""},
	} {
		if status, body := r.send(t, c.request); status != c.status || !strings.Contains(body, c.says) {
			t.Errorf("%s: %d %.200s, want %d with %q", name, status, body, c.status, c.says)
		}
	}
	if p := r.get("auth/token/lookup-self"); p.status != 200 {
		t.Errorf("after all of these: %d %s", p.status, p.raw)
	}
}

// TestClientsThatReadNothing: who asks and never takes the answer is cut off, and others
// get his place.
func TestClientsThatReadNothing(t *testing.T) {
	r := found(t, newWorld(t))
	r.start(nil, engines(), api.Limits{Write: time.Second, PerAddress: 4})
	r.client.CloseIdleConnections()
	if p := r.put("kv/data/line1/big", `{"data":{"a":"`+strings.Repeat("x", 900_000)+`"}}`); p.status != 200 {
		t.Fatalf("%d %s", p.status, p.raw)
	}
	r.client.CloseIdleConnections()
	for range 3 {
		c, err := tls.Dial("tcp", r.addr, r.tls(&r.mes))
		r.ok(err)
		defer c.Close()
		r.ok(c.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10))
		// More than the kernel keeps for both ends.
		_, err = io.WriteString(c, strings.Repeat("GET /v1/kv/data/line1/big HTTP/1.1\r\nHost: vault\r\n\r\n", 20))
		r.ok(err)
	}
	if p := r.get("auth/token/lookup-self"); p.status != 200 {
		t.Errorf("beside them: %d %s", p.status, p.raw)
	}
	r.client.CloseIdleConnections()
	// All four places are free again only when the three were cut off: connections that
	// wait for another request stay.
	end := time.Now().Add(15 * time.Second)
	for free := 0; free < 4; {
		var open []*tls.Conn
		for free = 0; free < 4; free++ {
			c, err := tls.Dial("tcp", r.addr, r.tls(&r.mes))
			if err != nil {
				break
			}
			open = append(open, c)
		}
		for _, c := range open {
			c.Close()
		}
		if time.Now().After(end) {
			t.Fatalf("only %d places are free", free)
		}
		<-time.After(50 * time.Millisecond)
	}
}
