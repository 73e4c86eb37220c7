package supervise

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"keyrite/hsm/internal/frame"
)

// stateFolder makes the folder of the PIN counters, but for tokens that seem to
// carry theirs with them. The module process, which knows what it has loaded,
// judges it and says so before it tries a PIN.
func stateFolder(c *frame.Command) string {
	dir := c.Settings.StateDir
	if dir != "" && !strings.Contains(filepath.Base(c.Module), "softhsm") {
		_ = os.MkdirAll(dir, 0o700)
	}
	return dir
}

// counter reads the counter of one token, or resets it.
func (s *supervisor) counter(ctx context.Context, c *frame.Command, a *frame.Answer) error {
	defer s.hold.lock(c.Token)()
	j := s.job(frame.ForPINs, c.Token)
	j.Reset = c.Reset
	res, err := s.children.run(ctx, j, nil)
	if err != nil {
		return err
	}
	if a.PINs = res.PINs; a.PINs == nil {
		return fault(frame.KindInternal, "unexpected", "the module process gave no counter")
	}
	return nil
}
