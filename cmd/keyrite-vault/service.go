package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/internal/cli"
	"keyrite/vault/api"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/engine/kv"
	"keyrite/vault/engine/password"
	"keyrite/vault/engine/pki"
	"keyrite/vault/engine/token"
	"keyrite/vault/engine/transit"
	"keyrite/vault/node"
	"keyrite/vault/page"
	"keyrite/vault/remind"
	"keyrite/vault/seal"
	"keyrite/vault/unseal"
)

// apiVersion is what clients of HashiCorp Vault are told; some ask for at least some
// version of it. It is that of the interface, not ours.
const apiVersion = "1.15.0"

// service is what an open vault does for its clients: a node, and in front of it the API
// and the pages for people.
type service struct {
	node  *node.Node
	api   *api.Server
	lists *api.Lists
	page  *page.Server
	head  seal.Keeper
	safe  string // whose shares open the vault
}

// engines are all that a charter may mount.
func engines() map[string]func(*engine.Host) (engine.Engine, error) {
	return map[string]func(*engine.Host) (engine.Engine, error){
		"kv":       func(h *engine.Host) (engine.Engine, error) { return kv.New(h), nil },
		"password": func(h *engine.Host) (engine.Engine, error) { return password.New(h), nil },
		"pki":      func(h *engine.Host) (engine.Engine, error) { return pki.New(h), nil },
		"token":    func(h *engine.Host) (engine.Engine, error) { return token.New(h), nil },
		"transit":  func(h *engine.Host) (engine.Engine, error) { return transit.New(h), nil },
	}
}

// newService makes the service of v. sealing is called when a client has it sealed.
func newService(v *vault, head seal.Keeper, sealing func() error, l *slog.Logger) (*service, error) {
	st := v.charter.State()
	s := &service{head: head, safe: v.bind.Safe}
	var metrics *api.Metrics
	var err error
	s.node, err = node.New(node.Config{
		World: st.World, Vault: st.Vault, Charter: v.charter.path, Engines: engines(), Public: v.bind.Public, Sealing: sealing, Log: l, Copies: filepath.Join(v.dir, copiesDir), Outside: v.watch.Things, Changed: v.tend,
		Metrics: func(p engine.Params) (*engine.Plan, error) { return metrics.Plan(p) },
		Opening: func() any { return v.attempts.Status() },
	})
	if err != nil {
		return nil, err
	}
	metrics = api.NewMetrics(s.node.Status)
	newest := v.charter.newest(time.Now)
	if s.api, err = api.New(api.Config{Vault: s.node, Opening: opening{v}, Version: apiVersion, Metrics: metrics, Charter: newest, Log: l}); err != nil {
		return nil, err
	}
	s.lists = s.api.Lists()
	s.page, err = page.New(page.Config{Vault: s.node, Progress: opening{v}.Progress, Attempts: v.attempts.Status, Charter: newest, Log: l})
	return s, err
}

// Opened takes what a quorum opened, and gives what is closed first when the vault is
// sealed.
func (s *service) Opened(ctx context.Context, o *unseal.Opened) (io.Closer, error) {
	by := node.By{Safe: s.safe, Epoch: o.Epoch, Holders: o.Holders, At: o.At}
	return s.node.Open(ctx, node.Opened{Store: o.Store, Token: o.Token, Head: s.head, By: by})
}

// servingStatus is what status says of what is served.
type servingStatus struct {
	Entries    int64  `json:"entries"`           // of the log
	Stopped    string `json:"stopped,omitempty"` // why nothing is served after a failed write
	Behind     string `json:"behind,omitempty"`  // why the head cannot be advanced
	BehindMS   int64  `json:"behind_ms,omitempty"`
	LeftOut    uint64 `json:"refusals_left_out,omitempty"` // of unknown callers
	Unlisted   uint64 `json:"looks_left_out,omitempty"`    // at paths that need no caller
	CutOff     int    `json:"intents_cut_off,omitempty"`
	NotInForce string `json:"charter_refused,omitempty"` // why the charter file is not in force

	Sinks     []sinkStatus     `json:"sinks,omitempty"`     // copies of the trail, by id
	Reminders []reminderStatus `json:"reminders,omitempty"` // who is told what is due, by id
}

// reminderStatus is how whoever is reminded is told.
type reminderStatus struct {
	ID    string `json:"id"`
	Kind  string `json:"kind"`
	Sent  string `json:"sent,omitempty"`  // the last message that was taken
	Error string `json:"error,omitempty"` // why the last try failed
	Since string `json:"since,omitempty"` // when the trouble began
}

func reminderStates(states map[string]remind.State) []reminderStatus {
	var out []reminderStatus
	for _, id := range slices.Sorted(maps.Keys(states)) {
		x := states[id]
		s := reminderStatus{ID: id, Kind: x.Kind}
		if !x.Sent.IsZero() {
			s.Sent = trail.FormatTime(x.Sent)
		}
		if x.Error != nil {
			s.Error, s.Since = cli.Escape(x.Error.Error()), trail.FormatTime(x.Since)
		}
		out = append(out, s)
	}
	return out
}

// sinkStatus is how a copy of the trail is.
type sinkStatus struct {
	ID     string `json:"id"`
	Kind   string `json:"kind"`
	Behind uint64 `json:"behind"`          // entries that it has not
	Error  string `json:"error,omitempty"` // why
	Since  string `json:"since,omitempty"` // when the trouble began

	Deleted string `json:"deleted,omitempty"` // when its file was found deleted
	Lost    uint64 `json:"lost,omitempty"`    // entries of which the copies went with it
}

func sinkStates(states map[string]audit.SinkState) []sinkStatus {
	var out []sinkStatus
	for _, id := range slices.Sorted(maps.Keys(states)) {
		x := states[id]
		s := sinkStatus{ID: id, Kind: x.Kind, Behind: x.Behind}
		if x.Error != nil {
			s.Error, s.Since = cli.Escape(x.Error.Error()), trail.FormatTime(x.Since)
		}
		if !x.Deleted.IsZero() {
			s.Deleted, s.Lost = trail.FormatTime(x.Deleted), x.Lost
		}
		out = append(out, s)
	}
	return out
}

// warnings are what is wrong with copies of the trail, in words.
func (s *service) warnings() (out []string) {
	for _, x := range sinkStates(s.node.Status().Sinks) {
		if x.Error != "" {
			out = append(out, "sink "+x.ID+" gets no copies of the trail since "+x.Since+": "+x.Error)
		}
		if x.Deleted != "" {
			out = append(out, fmt.Sprintf("the file of sink %s was deleted, which was noticed %s; a new one goes on after entry %d", x.ID, x.Deleted, x.Lost))
		}
	}
	return out
}

// Status is shown under "serving"; nil while the vault is sealed.
func (s *service) Status() any {
	st := s.node.Status()
	if st.Sealed {
		return nil
	}
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return cli.Escape(err.Error())
	}
	return servingStatus{st.Store.Size, text(st.Store.Stopped), text(st.Store.Keeper), st.Store.Behind.Milliseconds(), st.LeftOut, st.Unlisted, st.Intents, text(st.FileRefused), sinkStates(st.Sinks), reminderStates(st.Reminders)}
}

// state is the charter in force: that of the node while it is open.
func (v *vault) state() *charter.State {
	if v.service != nil {
		if c := v.service.node.Charter(); c != nil {
			return c
		}
	}
	return v.charter.State()
}

// opening is how the API sees the attempts to open the vault.
type opening struct{ v *vault }

// Progress is that of the attempt that is furthest.
func (o opening) Progress() api.Progress {
	st := o.v.attempts.Status()
	p := api.Progress{Initialized: st.Created, Need: st.Need, Of: len(o.v.state().Epochs[o.v.bind.Safe].Shares)}
	for _, a := range st.Attempts {
		if p.Attempt == "" || len(a.Given) > p.Have {
			p.Attempt, p.Have = a.Attempt, len(a.Given)
		}
	}
	return p
}

// Unseal takes one answer of 'keyrite share open', as the text of its file. A share in
// the clear, as clients of other vaults send it, is refused. They also say that they want
// neither a reset nor a migration, which there is not here.
func (o opening) Unseal(ctx context.Context, p engine.Params) error {
	if err := p.Only("key", "migrate", "reset"); err != nil {
		return err
	}
	for _, x := range []struct{ name, hint string }{
		{"migrate", "the charter says what opens the vault"},
		{"reset", "on the host: keyrite-vault unseal --drop ATTEMPT"},
	} {
		wanted, err := p.Bool(x.name)
		if err != nil {
			return err
		}
		if wanted {
			return fault.Hint(fault.Errorf(fault.Usage, "%q is not done over HTTP", x.name), x.hint)
		}
	}
	key, err := p.String("key")
	if err != nil {
		return err
	}
	if !strings.HasPrefix(key, "{") {
		return fault.Hint(fault.New(fault.Usage, "a share is taken only as the answer to a request"), "keyrite share open REQUEST --key FILE --share FILE --out ANSWER, and send the text of ANSWER as key")
	}
	_, err = o.v.attempts.Answer(ctx, []byte(key))
	return err
}

// listenOptions say where clients are served.
type listenOptions struct {
	listen []string
	socket string
}

// Roles of listeners, over TLS but for the last.
const (
	roleAPI  = "api"
	rolePage = "page"
	// roleLists is without TLS: what stands there is signed and for whoever asks.
	roleLists = "lists"
)

// listeners are those that are open.
type listeners struct {
	tcp  map[string]net.Listener // by role
	unix net.Listener
	tls  *certFile
}

func (l *listeners) close() {
	for _, x := range l.tcp {
		_ = x.Close()
	}
	if l.unix != nil {
		_ = l.unix.Close()
	}
}

// open listens for clients.
func (o *listenOptions) open(ctx context.Context, b *bind) (*listeners, error) {
	l := &listeners{tcp: map[string]net.Listener{}}
	var lc net.ListenConfig
	for _, x := range o.listen {
		role, addr, ok := strings.Cut(x, "=")
		if _, _, err := net.SplitHostPort(addr); !ok || err != nil || !slices.Contains([]string{roleAPI, rolePage, roleLists}, role) || l.tcp[role] != nil {
			l.close()
			return nil, cli.Usagef("--listen %q is not api=HOST:PORT, page=HOST:PORT or lists=HOST:PORT, each once", x)
		}
		var err error
		if role != roleLists && l.tls == nil {
			l.tls, err = loadCert(b)
		}
		if err == nil {
			if l.tcp[role], err = lc.Listen(ctx, "tcp", addr); err != nil {
				delete(l.tcp, role)
				err = fault.Errorf(fault.Usage, "listen for clients: %w", err)
			}
		}
		if err != nil {
			l.close()
			return nil, err
		}
	}
	if o.socket == "" {
		return l, nil
	}
	if err := removeSocket(o.socket); err != nil {
		l.close()
		return nil, err
	}
	var err error
	if l.unix, err = lc.Listen(ctx, "unix", o.socket); err == nil {
		err = os.Chmod(o.socket, 0o666) //nolint:gosec // who may connect is decided by who they are
	}
	if err != nil {
		l.close()
		return nil, fault.Errorf(fault.Usage, "listen for local clients: %w", err)
	}
	return l, nil
}

// removeSocket removes what an earlier process left, and nothing that is no socket.
func removeSocket(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && st.Mode().Type() != os.ModeSocket {
		return fault.Errorf(fault.Exists, "%q is there and is no socket", path)
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return fault.Errorf(fault.Usage, "remove the old socket: %w", err)
	}
	return nil
}

// serve answers on what is open; a listener that fails is told on the channel.
func (s *service) serve(l *listeners) <-chan error {
	failed := make(chan error, 4)
	if t := l.tcp[roleLists]; t != nil {
		go func() { failed <- s.lists.Serve(t) }()
	}
	for role, f := range map[string]func(net.Listener, *tls.Config) error{roleAPI: s.api.Serve, rolePage: s.page.Serve} {
		if t := l.tcp[role]; t != nil {
			go func() { failed <- f(t, api.TLS(l.tls.get)) }()
		}
	}
	if l.unix != nil {
		go func() { failed <- s.api.Serve(l.unix, nil) }()
	}
	return failed
}

// shutdown lets requests under way end.
func (s *service) shutdown() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	return errors.Join(s.page.Shutdown(ctx), s.lists.Shutdown(ctx), s.api.Shutdown(ctx))
}
