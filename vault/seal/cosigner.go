package seal

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/tlog"
)

// CosignerConfig says which process keeps the head. All are required.
type CosignerConfig struct {
	// URL is the prefix of c2sp.org/tlog-witness: https, or http on loopback.
	URL string
	// Client makes the requests; it knows whom to trust, and its timeout bounds
	// one request.
	Client *http.Client
	// Cosigner is the name and the key that the cosignatures are by.
	Cosigner tlog.Signer
	// LogName and LogKey sign the store's checkpoints: Ed25519.
	LogName string
	LogKey  crypto.Signer
}

// CosignerKeeper keeps the head at a cosigner on another machine.
type CosignerKeeper struct {
	c   CosignerConfig
	url string

	mu   sync.Mutex // guards the rest; held through a request
	size int64      // what the cosigner had last
	last []byte     // the checkpoint with its cosignature

	at atomic.Int64 // of the newest cosignature, Unix seconds; not under mu, since nobody waits for the network to ask the time
}

// NewCosignerKeeper checks the configuration; it asks nobody yet.
func NewCosignerKeeper(c CosignerConfig) (*CosignerKeeper, error) {
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "address of the cosigner: %w", err)
	}
	if c.Client == nil || c.Client.Timeout <= 0 || c.LogKey == nil || c.LogName == "" || c.Cosigner.Public == nil || c.Cosigner.Name == "" {
		return nil, fault.New(fault.Usage, "a cosigner needs a client with a timeout, its name and key, and the name and key of the log")
	}
	ip := net.ParseIP(u.Hostname())
	if u.Host == "" || u.Scheme != "https" && (u.Scheme != "http" || !ip.IsLoopback()) {
		return nil, fault.Errorf(fault.Usage, "address of the cosigner %q: https is needed, or http to a loopback address", c.URL)
	}
	return &CosignerKeeper{c: c, url: strings.TrimSuffix(c.URL, "/") + "/add-checkpoint"}, nil
}

// Checkpoint is the newest cosigned checkpoint, nil before the first.
func (k *CosignerKeeper) Checkpoint() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return bytes.Clone(k.last)
}

// Vouched is the newest time that the cosigner put under a head; zero before the
// first. It never goes back.
func (k *CosignerKeeper) Vouched() time.Time {
	if at := k.at.Load(); at > 0 {
		return time.Unix(at, 0)
	}
	return time.Time{}
}

// Advance implements Keeper.
func (k *CosignerKeeper) Advance(ctx context.Context, h Head, c Chain) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	cp := h.Checkpoint()
	note, err := tlog.Sign(cp, k.c.LogName, k.c.LogKey)
	if err != nil {
		return err
	}
	// Once with the size that it had, once more with the one that it names.
	for range 2 {
		if k.size > h.Size {
			return ErrBehind
		}
		body, err := k.request(note, h, c)
		if err != nil {
			return err
		}
		again, err := k.ask(ctx, body, note, cp)
		if err != nil || !again {
			return err
		}
	}
	return fault.New(fault.Unreachable, "the cosigner names another size at each request: somebody else advances this log")
}

func (k *CosignerKeeper) request(note []byte, h Head, c Chain) ([]byte, error) {
	out := fmt.Appendf(nil, "old %d\n", k.size)
	if k.size > 0 && k.size < h.Size {
		proof, err := c.Prove(k.size, h.Size)
		if err != nil {
			return nil, err
		}
		for _, p := range proof {
			out = append(out, base64.StdEncoding.EncodeToString(p[:])+"\n"...)
		}
	}
	return append(append(out, '\n'), note...), nil
}

// ask makes one request. again says that the cosigner named another size.
func (k *CosignerKeeper) ask(ctx context.Context, body, note []byte, cp tlog.Checkpoint) (again bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, k.url, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	resp, err := k.c.Client.Do(req)
	if err != nil {
		return false, fault.Errorf(fault.Unreachable, "ask the cosigner: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, tlog.MaxCheckpointBytes))
	if err != nil {
		return false, fault.Errorf(fault.Unreachable, "read the cosigner's answer: %w", err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return false, k.take(answer, note, cp)
	case http.StatusConflict:
		return k.conflict(resp.Header.Get("Content-Type"), string(answer), cp.Size)
	case http.StatusUnprocessableEntity:
		return false, ErrFork
	case http.StatusForbidden, http.StatusNotFound:
		return false, fault.Hint(fault.Errorf(fault.Policy, "the cosigner does not know this log or its key (status %d)", resp.StatusCode),
			"tell whoever runs the cosigner the log's origin and key: "+cp.Origin)
	}
	return false, fault.Errorf(fault.Unreachable, "the cosigner answered with status %d", resp.StatusCode)
}

// unnamed is of an answer without the one cosignature that counts.
func unnamed(err error) error {
	return fault.Hint(err, "only the cosigner that the charter's audit-log names counts, by its key there: see 'The cosigner, or the newest copy, is lost' in docs/operations/vault.md")
}

// take keeps the cosignature, which must hold.
func (k *CosignerKeeper) take(lines, note []byte, cp tlog.Checkpoint) error {
	all := append(bytes.Clone(note), lines...)
	log := tlog.Signer{Name: k.c.LogName, Public: k.c.LogKey.Public()}
	o, err := tlog.Open(all, cp.Origin, cp.World, log, []tlog.Signer{k.c.Cosigner})
	if err != nil {
		return unnamed(fault.Errorf(fault.Peer, "the cosigner's answer: %w", err))
	}
	if len(o.Cosigners) != 1 {
		return unnamed(fault.New(fault.Peer, "the cosigner gave no cosignature"))
	}
	k.size, k.last = cp.Size, all
	k.at.Store(max(k.at.Load(), o.CosignedAt[o.Cosigners[0]].Unix()))
	return nil
}

// conflict reads which size the cosigner has.
func (k *CosignerKeeper) conflict(kind, text string, size int64) (bool, error) {
	told, err := strconv.ParseInt(strings.TrimSuffix(text, "\n"), 10, 64)
	if kind != "text/x.tlog.size" || err != nil || told < 0 {
		return false, fault.New(fault.Unreachable, "the cosigner refuses this checkpoint and does not say which size it has")
	}
	if told > size {
		return false, ErrBehind
	}
	if told == k.size {
		return false, ErrFork // the same size, another root
	}
	k.size = told
	return true, nil
}
