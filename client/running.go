package client

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
)

// Running is a keyrite-connect that forwards now.
type Running struct {
	Device  string `json:"device"` // name, or address and port
	Gateway string `json:"gateway"`
	Local   string `json:"local"`
	PID     int    `json:"pid"`
	Since   string `json:"since"`
}

const runDir = "run"

// Announce writes down that this process forwards, until release is called or
// the process ends: an entry counts only while its file is locked.
func (h *Home) Announce(r Running) (release func(), err error) {
	dir := filepath.Join(h.dir, runDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fault.Errorf(fault.Storage, "make state folder: %w", err)
	}
	b, err := jcs.Marshal(r)
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, ".new-*.json")
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "write state: %w", err)
	}
	path := f.Name()
	release = func() { _, _ = os.Remove(path), f.Close() }
	// Locked and complete before it has a name that others look at.
	final := filepath.Join(dir, "connect-"+strings.TrimPrefix(filepath.Base(path), ".new-"))
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		_, err = f.Write(b)
	}
	if err == nil {
		err = os.Rename(path, final)
	}
	if err != nil {
		release()
		return nil, fault.Errorf(fault.Storage, "write state: %w", err)
	}
	path = final
	return release, nil
}

// Running lists what forwards now and clears away what died.
func (h *Home) Running() ([]Running, error) {
	dir := filepath.Join(h.dir, runDir)
	es, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return []Running{}, nil
	}
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read state: %w", err)
	}
	out := []Running{}
	for _, e := range es {
		if !strings.HasPrefix(e.Name(), "connect-") {
			continue
		}
		if r, ok := running(filepath.Join(dir, e.Name())); ok {
			out = append(out, r)
		}
	}
	return out, nil
}

func running(path string) (Running, bool) {
	var r Running
	f, err := os.Open(path)
	if err != nil {
		return r, false
	}
	defer f.Close()
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		_ = os.Remove(path) // nobody holds it: its process died
		return r, false
	}
	b, err := os.ReadFile(path)
	return r, err == nil && jcs.Unmarshal(b, &r) == nil && r.PID > 1
}

// Disconnect ends what forwards to gateway, or everything if it is empty, and
// returns how many that were.
func (h *Home) Disconnect(gateway string) (int, error) {
	all, err := h.Running()
	n := 0
	for _, r := range all {
		if gateway != "" && r.Gateway != gateway {
			continue
		}
		// The lock is held, so the number is still that process's.
		if err := syscall.Kill(r.PID, syscall.SIGTERM); err != nil {
			return n, fault.Errorf(fault.Unexpected, "end process %d: %w", r.PID, err)
		}
		n++
	}
	return n, err
}
