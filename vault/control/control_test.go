package control_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyrite/artifact/fault"
	"keyrite/artifact/openrequest"
	"keyrite/vault/control"
	"keyrite/vault/unseal"
	"keyrite/vault/vaulttest"
)

func TestMain(m *testing.M) { vaulttest.Main(m) }

// room is a vault with its socket, in a folder with a long name.
type room struct {
	*vaulttest.Vault
	dir    string
	client *control.Client
	sealed chan struct{}
	fresh  error
}

func newRoom(t *testing.T) *room {
	t.Helper()
	x := &room{Vault: vaulttest.NewWith(t, nil), sealed: make(chan struct{}, 1)}
	x.dir = filepath.Join(t.TempDir(), strings.Repeat("a long name ", 15))
	if err := os.Mkdir(x.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	a, err := unseal.NewAttempts(x.Unsealing(nil))
	if err != nil {
		t.Fatal(err)
	}
	x.client = control.NewClient(x.dir)
	if _, err := x.client.Status(t.Context()); !errors.Is(err, control.ErrNotRunning) {
		t.Errorf("without a socket: %v", err)
	}
	// A socket that somebody left who was killed.
	if err := os.WriteFile(control.Path(x.dir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := control.Listen(t.Context(), x.dir)
	if err != nil {
		t.Fatal(err)
	}
	s := &control.Server{
		Attempts: a, Sealed: func() { x.sealed <- struct{}{} }, Fresh: func() error { return x.fresh },
		Status: func() control.Status { return control.Status{Status: a.Status(), Host: vaulttest.Host} },
	}
	h := s.Serve(l)
	t.Cleanup(func() { _ = h.Close(); _ = a.Seal() })
	return x
}

// All of it over the socket: begin, answer, look, open, seal.
func TestUnsealOverTheSocket(t *testing.T) {
	x := newRoom(t)
	ctx := t.Context()
	if st, err := os.Stat(control.Path(x.dir)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v %v", st.Mode(), err)
	}
	b, err := x.client.New(ctx, openrequest.Create, 0)
	if err != nil {
		t.Fatal(err)
	}
	gone, err := x.client.New(ctx, openrequest.Create, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := x.client.Drop(ctx, gone.Attempt); err != nil {
		t.Fatal(err)
	}
	if _, err := x.client.Retry(ctx, gone.Attempt); fault.ClassOf(err) != fault.Policy {
		t.Errorf("a dropped one tried again: %v", err)
	}
	for _, bad := range []string{"", "../status", strings.Repeat("0", 63), strings.Repeat("A", 64)} {
		if err := x.client.Drop(ctx, bad); fault.ClassOf(err) != fault.Usage {
			t.Errorf("%q: %v", bad, err)
		}
	}
	_, err = x.client.Answer(ctx, x.Answer(t, gone.Request, "master1"))
	if fault.ClassOf(err) != fault.Policy || fault.HintOf(err) == "" || !strings.Contains(err.Error(), "master1") {
		t.Errorf("for a dropped one: %v", err)
	}
	for _, n := range []string{"master1", "master2"} {
		if _, err := x.client.Answer(ctx, x.Answer(t, b.Request, n)); err != nil {
			t.Fatal(err)
		}
	}
	_, err = x.client.Answer(ctx, x.Answer(t, b.Request, "master2"))
	if fault.ClassOf(err) != fault.Quorum {
		t.Errorf("twice: %v", err)
	}
	st, err := x.client.Status(ctx)
	if err != nil || !st.Sealed || st.Created || len(st.Attempts) != 1 || len(st.Attempts[0].Given) != 2 || st.Host != vaulttest.Host {
		t.Errorf("%+v %v", st, err)
	}
	p, err := x.client.Answer(ctx, x.Answer(t, b.Request, "master5"))
	if err != nil || !p.Open {
		t.Fatalf("%+v %v", p, err)
	}
	if st, err := x.client.Status(ctx); err != nil || st.Sealed || !st.Created {
		t.Errorf("%+v %v", st, err)
	}
	if _, err := x.client.New(ctx, openrequest.Unseal, 0); fault.ClassOf(err) != fault.Exists {
		t.Errorf("an attempt at an open vault: %v", err)
	}
	if err := x.client.Seal(ctx); err != nil {
		t.Fatal(err)
	}
	<-x.sealed
	if st, err := x.client.Status(ctx); err != nil || !st.Sealed {
		t.Errorf("%+v %v", st, err)
	}
}

// Nobody is asked for a share while it could not be used.
func TestNobodyIsAskedInVain(t *testing.T) {
	x := newRoom(t)
	x.fresh = fault.New(fault.Verify, "altered")
	if _, err := x.client.New(t.Context(), openrequest.Create, 0); fault.ClassOf(err) != fault.Verify {
		t.Errorf("with an altered charter: %v", err)
	}
	x.fresh = nil
	if err := os.RemoveAll(x.HSM.TokenDir); err != nil {
		t.Fatal(err)
	}
	if _, err := x.client.New(t.Context(), openrequest.Create, 0); fault.ClassOf(err) != fault.Token {
		t.Errorf("without the token: %v", err)
	}
}

// What is no request is refused, and what is too long is not read.
func TestSocketRefusals(t *testing.T) {
	x := newRoom(t)
	ask := func(text string) string {
		c, err := net.Dial("unix", shortOf(t, x.dir))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = c.Write([]byte(text))
		b := make([]byte, 4096)
		n, _ := c.Read(b)
		return string(b[:n])
	}
	for _, c := range []struct{ text, want string }{
		{"GET /v1/attempts HTTP/1.1\r\nHost: vault\r\n\r\n", "405"},
		{"GET /v1/secrets HTTP/1.1\r\nHost: vault\r\n\r\n", "404"},
		{"POST /v1/attempts HTTP/1.1\r\nHost: vault\r\nContent-Length: 2\r\n\r\n[]", "usage"},
		{"POST /v1/attempts HTTP/1.1\r\nHost: vault\r\nContent-Length: 9\r\n\r\n{\"own\":1}", "usage"},
		{"POST /v1/answers HTTP/1.1\r\nHost: vault\r\nContent-Length: 2\r\n\r\n{}", "verify"},
		{"nonsense\r\n\r\n", "400"},
	} {
		if got := ask(c.text); !strings.Contains(got, c.want) {
			t.Errorf("%q: %q", c.text, got)
		}
	}
	big := strings.Repeat("x", 100_000)
	if got := ask("POST /v1/answers HTTP/1.1\r\nHost: vault\r\nContent-Length: 100000\r\n\r\n" + big); !strings.Contains(got, "usage") {
		t.Errorf("100,000 bytes: %q", got)
	}
}

// shortOf names the socket by a link, since its own name is too long.
func shortOf(t *testing.T, dir string) string {
	t.Helper()
	short := t.TempDir()
	if err := os.Symlink(dir, filepath.Join(short, "d")); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(short, "d", control.SocketName)
}
