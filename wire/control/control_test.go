package control

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"keyrite/wire/problem"
	"keyrite/wire/strict"
)

const testWorld = "rehearsal:0123456789ab"

func classOf(err error) string {
	if err == nil {
		return "ok"
	}
	var e interface{ FaultClass() string }
	if errors.As(err, &e) {
		return e.FaultClass()
	}
	return "none"
}

func TestReadBodies(t *testing.T) {
	good := `{"activation_key":"ABCDEFGHIJKLMNOPQRSTUVWXYZ","format":"keyrite/control/v1","world":"` + testWorld + `"}`
	for name, c := range map[string]struct {
		body  string
		set   func(*http.Request)
		class string
	}{
		"good":            {good, nil, "ok"},
		"empty":           {"", nil, "usage"},
		"huge":            {strings.Repeat(" ", MaxBodyBytes+1), nil, "usage"},
		"no length":       {good, func(r *http.Request) { r.ContentLength = -1 }, "usage"},
		"form":            {good, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, "usage"},
		"unknown member":  {strings.Replace(good, `{`, `{"a":1,`, 1), nil, "verify"},
		"repeated member": {strings.Replace(good, `"format"`, `"activation_key":"A","format"`, 1), nil, "verify"},
		"two values":      {good + good, nil, "verify"},
		"lower-case key":  {strings.Replace(good, "ABC", "abc", 1), nil, "verify"},
		"no world":        {strings.Replace(good, testWorld, "", 1), nil, "verify"},
		"other format":    {strings.Replace(good, "control/v1", "control/v2", 1), nil, "verify"},
		"array":           {"[" + good + "]", nil, "verify"},
	} {
		r := httptest.NewRequest(http.MethodPost, PathEnrol, strings.NewReader(c.body))
		r.Header.Set("Content-Type", "application/json")
		if c.set != nil {
			c.set(r)
		}
		var m Enrol
		if err := Read(httptest.NewRecorder(), r, &m); classOf(err) != c.class {
			t.Errorf("%s: got %v, want %s", name, err, c.class)
		}
	}
}

func TestNormalKey(t *testing.T) {
	if got := NormalKey("abcde-fghij klmno-PQRST-uvwxy-z"); got != "ABCDEFGHIJKLMNOPQRSTUVWXYZ" {
		t.Error(got)
	}
}

func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.EnableHTTP2 = false
	srv.StartTLS()
	t.Cleanup(srv.Close)
	tr := srv.Client().Transport.(*http.Transport)
	return NewClient(srv.Listener.Addr().String(), testWorld, tr.TLSClientConfig)
}

func TestClient(t *testing.T) {
	ok := &LoggedIn{Expires: "2026-11-22T12:00:00Z", Format: Format, Token: strings.Repeat("t", 43), World: testWorld}
	for name, c := range map[string]struct {
		h     http.HandlerFunc
		class string
	}{
		"good":        {func(w http.ResponseWriter, _ *http.Request) { Write(w, ok) }, "ok"},
		"refused":     {func(w http.ResponseWriter, _ *http.Request) { problem.Write(w, "token", "login refused") }, "token"},
		"other world": {func(w http.ResponseWriter, _ *http.Request) { m := *ok; m.World = "live"; Write(w, &m) }, "policy"},
		"plain error": {func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "boom", 500) }, "unreachable"},
		"no JSON":     {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello")) }, "verify"},
		"huge":        {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, MaxBodyBytes+1)) }, "verify"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://127.0.0.1/", http.StatusFound)
		}, "unreachable"},
	} {
		_, err := serve(t, c.h).Login(t.Context(), "acme", "ann", []byte("x"))
		if classOf(err) != c.class {
			t.Errorf("%s: got %v, want %s", name, err, c.class)
		}
	}
	down := serve(t, nil)
	down.Addr = "127.0.0.1:1"
	if err := down.Logout(t.Context()); classOf(err) != "unreachable" {
		t.Errorf("no server: %v", err)
	}
}

// A server that the caller's verification does not take is class peer.
func TestUnknownServer(t *testing.T) {
	c := serve(t, nil)
	c.HTTP.Transport.(*http.Transport).TLSClientConfig.RootCAs = nil
	if err := c.Logout(t.Context()); classOf(err) != "peer" {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, m := range []Message{
		&Enrol{ActivationKey: strings.Repeat("A", 26), Format: Format, World: testWorld},
		&Login{Account: "acme", Format: Format, Password: "p", User: "ann", World: testWorld},
		&Session{Expires: "2026-11-22T12:00:00Z", Format: Format, Server: Server{"127.0.0.1:443", "vpn1"}, Ticket: []byte{1}, World: testWorld},
		&Gateways{Format: Format, Gateways: []Gateway{{"press-7", true}}, World: testWorld},
	} {
		b, err := strict.Marshal(m)
		if err != nil || Parse(b, m) != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range []Message{&Enrol{}, &Enrolled{}, &Login{}, &LoggedIn{}, &Session{}, &Gateways{}, &Connect{}, &Empty{}} {
			if Parse(b, m) != nil {
				continue
			}
			again, err := strict.Marshal(m)
			if err != nil || !bytes.Equal(again, b) {
				t.Errorf("%q read as %q, %v", b, again, err)
			}
		}
	})
}
