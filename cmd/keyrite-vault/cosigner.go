package main

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/internal/cli"
	"keyrite/internal/config"
	"keyrite/vault/cosigner"
)

// cosignerFormat names the binding file of a cosigner.
const cosignerFormat = "keyrite/cosigner-bind/v1"

// cosignerBind says whose logs a cosigner keeps. docs/formats/vault-bind.md
type cosignerBind struct {
	Format string              `yaml:"format"` // keyrite/cosigner-bind/v1. Required.
	Name   string              `yaml:"name"`   // as in the charter's audit-log. Required.
	Logs   map[string][]string `yaml:"logs"`   // origin of a log → keys of its signers, as in signed notes: NAME+HASH+KEY. Required.
	TLS    bindTLS             `yaml:"tls"`    // Required unless it listens on loopback.

	dir string
}

type cosignerOptions struct {
	placeOptions
	listen string
}

func newCosigner() *cobra.Command {
	var o cosignerOptions
	c := &cobra.Command{
		Use:   "cosigner --bind FILE --state-dir DIR --listen cosigner=HOST:PORT",
		Short: "Keep the newest head of vaults' logs, on another machine",
		Long: `Run a cosigner: it keeps the newest head of each log that the binding names, and puts its
signature under what continues it, never under less and never under another history. It
runs on a machine that whoever copies or restores the vault's host does not get with it.
Its state folder is made by 'keyrite-vault cosigner create'.

Exit codes: 0 ended by a signal; 2 binding, folder or address not usable; 14 what it kept is
damaged; 15 another process has the folder.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runCosigner(c, &o) },
	}
	o.addFlags(c)
	c.Flags().StringVar(&o.listen, "listen", "", "cosigner=HOST:PORT; port 0 takes a free one (required)")
	c.AddCommand(newCosignerCreate())
	return c
}

func newCosignerCreate() *cobra.Command {
	var o placeOptions
	c := &cobra.Command{
		Use:   "create --bind FILE --state-dir DIR",
		Short: "Make the state folder and the key of a cosigner",
		Long: `Make the state folder and the key of a cosigner, and print its public half for the charter's
audit-log statement.

Exit codes: 0 made, 2 binding or folder not usable, 16 the folder exists.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runCosignerCreate(c, &o) },
	}
	o.addFlags(c)
	return c
}

func loadCosignerBind(path string) (*cosignerBind, error) {
	b := &cosignerBind{dir: filepath.Dir(path)}
	if _, err := config.Load(path, b); err != nil {
		return nil, err
	}
	f := &config.Faults{}
	f.If(b.Format != cosignerFormat, "format is %.40q, not %q", b.Format, cosignerFormat)
	f.If(!bindIDRE.MatchString(b.Name), "name is missing, or no id")
	f.If(len(b.Logs) == 0, "logs names none")
	f.If((b.TLS.Certificate == "") != (b.TLS.Key == ""), "tls needs certificate and key")
	if err := f.Err(path); err != nil {
		return nil, fault.Hint(err, "docs/formats/vault-bind.md has every member, with an example")
	}
	return b, nil
}

func runCosignerCreate(c *cobra.Command, o *placeOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	b, err := loadCosignerBind(o.bind)
	if err != nil {
		return err
	}
	if err := makeState(o.stateDir); err != nil {
		return err
	}
	pub, err := cosignerKey(o.stateDir)
	if err != nil {
		return err
	}
	res := struct {
		Schema   string `json:"schema"`
		StateDir string `json:"state_dir"`
		Name     string `json:"name"`
		Key      string `json:"key"` // base64 of 32 bytes
	}{"keyrite/cosigner-create/v1", o.stateDir, b.Name, base64.StdEncoding.EncodeToString(pub.Public().(ed25519.PublicKey))}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s is made. Key of cosigner %s, for the charter's audit-log statement: %s\n", cli.Escape(res.StateDir), res.Name, res.Key)
	})
}

func cosignerKey(dir string) (ed25519.PrivateKey, error) {
	k, err := loadKey(dir, logKeyFile)
	if err != nil {
		return nil, err
	}
	key, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, fault.New(fault.Usage, "the cosigner's key is not Ed25519")
	}
	return key, nil
}

func runCosigner(c *cobra.Command, o *cosignerOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	b, err := loadCosignerBind(o.bind)
	if err != nil {
		return err
	}
	release, err := holdState(o.stateDir)
	if err != nil {
		return err
	}
	defer release()
	key, err := cosignerKey(o.stateDir)
	if err != nil {
		return err
	}
	h, err := cosigner.New(cosigner.Config{Dir: filepath.Join(o.stateDir, storeDir), Name: b.Name, Key: key, Logs: b.Logs})
	if err != nil {
		return err
	}
	l, err := b.open(c.Context(), o.listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.OutOrStdout(), "ready cosigner %s\n", l.Addr())
	return serveHTTP(c.Context(), l, h)
}

// open makes the listener: with TLS, or on loopback.
func (b *cosignerBind) open(ctx context.Context, flag string) (net.Listener, error) {
	addr, ok := strings.CutPrefix(flag, "cosigner=")
	host, _, err := net.SplitHostPort(addr)
	if !ok || err != nil {
		return nil, cli.Usagef("--listen %q is not cosigner=HOST:PORT", flag)
	}
	if b.TLS.Certificate == "" && !net.ParseIP(host).IsLoopback() {
		return nil, cli.Usagef("the binding has no tls, and %q is not a loopback address", host)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "listen: %w", err)
	}
	if b.TLS.Certificate == "" {
		return l, nil
	}
	path := func(p string) string {
		if filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(b.dir, p)
	}
	cert, err := tls.LoadX509KeyPair(path(b.TLS.Certificate), path(b.TLS.Key))
	if err != nil {
		return nil, errors.Join(fault.Errorf(fault.Usage, "load the certificate: %w", err), l.Close())
	}
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}}), nil
}

// serveHTTP answers until ctx ends, and lets what is under way come to its end.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, WriteTimeout: 15 * time.Second, MaxHeaderBytes: 16 << 10}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fault.Errorf(fault.Unexpected, "serve: %w", err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	return srv.Shutdown(drain)
}
