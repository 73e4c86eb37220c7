package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// line is one entry of the floor's audit file, and who waits for it.
type line struct {
	text []byte
	done chan error
}

// floor serves signatures over HTTPS to clients with a certificate: JSON digest in,
// PKCS#11 signature, verified, one line in an audit file that is synced in groups, JSON
// out, and nothing else. Its second line on standard input names, with spaces between,
// the files of its certificate and key, of the CA of its clients, and of the audit.
func floor(args []string, in *bufio.Scanner) error {
	pin := append([]byte{}, in.Bytes()...)
	if !in.Scan() {
		return errors.New("no files on standard input")
	}
	files := strings.Fields(in.Text())
	if len(files) != 4 {
		return errors.New("certificate, key, CA and audit are needed")
	}
	r, err := openRaw(args[0], args[1], args[2], args[3], pin)
	if err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(files[0], files[1])
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(files[2])
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	audit, err := os.OpenFile(files[3], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	lines := make(chan line, 256)
	go group(audit, lines)
	sessions := make(chan int, workers)
	for w := range workers {
		sessions <- w
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, NextProtos: []string{"http/1.1"},
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, l.Addr())
	return serve(l, func(digest []byte) ([]byte, error) {
		w := <-sessions
		defer func() { sessions <- w }()
		return r.signed(w, digest, true)
	}, lines)
}

// group writes and syncs what waits together.
func group(f *os.File, lines <-chan line) {
	for first := range lines {
		waiting := []line{first}
		text := append([]byte{}, first.text...)
	more:
		for len(waiting) < cap(lines) {
			select {
			case l := <-lines:
				waiting, text = append(waiting, l), append(text, l.text...)
			default:
				break more
			}
		}
		_, err := f.Write(text)
		err = errors.Join(err, f.Sync())
		for _, l := range waiting {
			l.done <- err
		}
	}
}

func serve(l net.Listener, sign func([]byte) ([]byte, error), lines chan<- line) error {
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Input []byte `json:"input"`
		}
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4096)).Decode(&in)
		var sig []byte
		if err == nil {
			sig, err = sign(in.Input)
		}
		if err == nil {
			done := make(chan error, 1)
			lines <- line{fmt.Appendf(nil, "{\"t\":%q,\"d\":\"%x\"}\n", time.Now().UTC().Format(time.RFC3339Nano), in.Input), done}
			err = <-done
		}
		if err != nil {
			http.Error(w, "not signed", http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"signature": sig}) // a client that is gone
	})}
	return s.Serve(l)
}
