package update

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"keyrite/artifact/fault"
)

// Source is where the files of a TUF repository come from.
type Source interface {
	// Metadata and Target open a file by its name in the repository. One that
	// does not exist is fs.ErrNotExist. Reading ends with ctx.
	Metadata(ctx context.Context, name string) (io.ReadCloser, error)
	Target(ctx context.Context, name string) (io.ReadCloser, error)
}

// Folder is a repository on a medium: folders metadata and targets.
type Folder struct{ dir string }

// NewFolder returns the repository in dir.
func NewFolder(dir string) *Folder { return &Folder{dir} }

// Metadata implements Source.
func (f *Folder) Metadata(_ context.Context, name string) (io.ReadCloser, error) {
	return f.open("metadata", name)
}

// Target implements Source.
func (f *Folder) Target(_ context.Context, name string) (io.ReadCloser, error) {
	return f.open("targets", name)
}

// open stays below the folder whatever the name or its links say.
func (f *Folder) open(sub, name string) (io.ReadCloser, error) {
	root, err := os.OpenRoot(filepath.Join(f.dir, sub))
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "open repository: %w", err)
	}
	defer func() { _ = root.Close() }() // read only
	file, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read repository: %w", err)
	}
	fi, err := file.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		_ = file.Close()
		return nil, fault.Errorf(fault.Usage, "read repository: %s is not a regular file", name)
	}
	return file, nil
}

// Remote is a repository behind an HTTPS server that the client authenticates.
type Remote struct {
	client            *http.Client
	metadata, targets string
}

// NewRemote returns the repository at two base addresses, such as
// "https://HOST/v1/gateway/tuf/metadata/". The client brings its certificates
// and must not follow redirects.
func NewRemote(client *http.Client, metadata, targets string) *Remote {
	return &Remote{client, strings.TrimSuffix(metadata, "/") + "/", strings.TrimSuffix(targets, "/") + "/"}
}

// Metadata implements Source. A relay refuses a file that it lacks as it refuses
// one that is not for us; for the next root, whose absence is the usual case,
// both mean that there is none. A relay that keeps a new root back this way
// gains nothing that a silent one would not.
func (r *Remote) Metadata(ctx context.Context, name string) (io.ReadCloser, error) {
	body, err := r.get(ctx, r.metadata+url.PathEscape(name))
	if strings.HasSuffix(name, ".root.json") && fault.ClassOf(err) == fault.Policy {
		return nil, fs.ErrNotExist
	}
	return body, err
}

// Target implements Source.
func (r *Remote) Target(ctx context.Context, name string) (io.ReadCloser, error) {
	return r.get(ctx, r.targets+url.PathEscape(name))
}

func (r *Remote) get(ctx context.Context, addr string) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	p := newPaced(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, addr, http.NoBody)
	if err != nil {
		cancel()
		return nil, fault.Errorf(fault.Usage, "ask the repository: %w", err)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		p.stop()
		return nil, fetchError(err)
	}
	if resp.StatusCode == http.StatusOK {
		p.body = resp.Body
		return p, nil
	}
	_ = resp.Body.Close()
	p.stop()
	switch resp.StatusCode {
	case http.StatusNotFound:
		return nil, fs.ErrNotExist
	case http.StatusForbidden, http.StatusUnauthorized:
		return nil, fault.Errorf(fault.Policy, "the repository refuses this gateway: status %d", resp.StatusCode)
	}
	return nil, fault.Errorf(fault.Unreachable, "the repository answers with status %d", resp.StatusCode)
}

// fetchError keeps the class that the client gave its error.
func fetchError(err error) error {
	if errors.Is(err, context.Canceled) {
		return fault.Errorf(fault.Interrupted, "read from the repository: %w", err)
	}
	if c := fault.ClassOf(err); c != fault.Unexpected {
		return err
	}
	return fault.Errorf(fault.Unreachable, "read from the repository: %w", err)
}

// Pace of a download: below it, it is broken off, so that nobody can hold an
// update for ever with a byte now and then.
const (
	grace   = 60 * time.Second
	minRate = 2 << 10 // bytes a second; a GPRS link gives 4 KiB/s
)

// paced is a body that must come at the pace above.
type paced struct {
	body   io.ReadCloser
	cancel context.CancelFunc
	timer  *time.Timer
	start  time.Time
	n      int64
	slow   chan struct{}
}

func newPaced(cancel context.CancelFunc) *paced {
	p := &paced{cancel: cancel, start: time.Now(), slow: make(chan struct{})}
	p.timer = time.AfterFunc(grace, func() {
		close(p.slow)
		cancel()
	})
	return p
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.body.Read(b)
	p.n += int64(n)
	select {
	case <-p.slow:
		return n, fault.Errorf(fault.Unreachable, "the repository sends less than %d bytes a second", minRate)
	default:
	}
	// Only a timer that has not fired may be set again: it closes slow once.
	if p.timer.Stop() {
		p.timer.Reset(time.Until(p.start.Add(grace + time.Duration(p.n/minRate)*time.Second)))
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = fetchError(err)
	}
	return n, err
}

func (p *paced) stop() {
	p.timer.Stop()
	p.cancel()
}

// Close ends the download.
func (p *paced) Close() error {
	p.stop()
	return p.body.Close()
}
