package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/durable"
	"keyrite/vault/seal"
)

// charterFile is the charter log while it is held: nobody else appends to it meanwhile.
type charterFile struct {
	*durable.Append
	lines [][]byte
	state *charter.State // of all lines
}

// holdCharter takes the charter file and reads it. It must continue what came before. One
// that somebody writes is durable.ErrUnfinished; only who is to write it cuts off what a
// write of before left unfinished.
func (v *vault) holdCharter(before seen, write bool) (*charterFile, error) {
	file, lines, err := durable.OpenShared(v.cfg.Charter)
	if err != nil {
		return nil, fmt.Errorf("open the charter: %w", err)
	}
	st, err := v.readCharter(file, lines, before, write)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &charterFile{file, lines, st}, nil
}

func (v *vault) readCharter(file *durable.Append, lines [][]byte, before seen, write bool) (*charter.State, error) {
	if file.Unfinished() && !write || len(lines) == 0 {
		return nil, unfinished()
	}
	if err := file.Settled(); err != nil {
		return nil, fmt.Errorf("read the charter: %w", err)
	}
	st, err := v.fold(lines)
	if err != nil {
		return nil, err
	}
	if before.Size > 0 {
		if err := st.CheckHead(before.Size, before.Head); err != nil {
			return nil, fault.Errorf(fault.Policy, "%w: %w", ErrRolledBack, err)
		}
	}
	return st, file.CutRested()
}

func unfinished() error {
	return fault.Hint(fmt.Errorf("the charter file is being written, or was left so: %w", durable.ErrUnfinished),
		"wait until it is written; if nobody writes it, put the whole one there under another name and 'mv' it over this one")
}

// awaitCharter is holdCharter for the start, which waits while somebody writes the file,
// for twice the time after which an unfinished line is cut off.
func (v *vault) awaitCharter(ctx context.Context, before seen) (*charterFile, error) {
	long := time.NewTimer(2 * durable.Rest)
	defer long.Stop()
	tick := time.NewTicker(followPeriod)
	defer tick.Stop()
	for {
		file, err := v.holdCharter(before, true)
		if !errors.Is(err, durable.ErrUnfinished) {
			return file, err
		}
		select {
		case <-ctx.Done():
			return nil, fault.Errorf(fault.Interrupted, "%w: %w", ctx.Err(), err)
		case <-long.C:
			return nil, err
		case <-tick.C:
		}
	}
}

// unfinishedLooks is how many looks in a row may find the file unfinished before it is
// told: 4 seconds of them.
const unfinishedLooks = int64(4 * time.Second / followPeriod)

// follow takes over what others appended to the file, with 'keyrite charter append',
// since it was read. It looks at the file's size only, so it may be called often.
func (v *vault) follow(ctx context.Context) {
	at, err := os.Stat(v.cfg.Charter)
	if err == nil && at.Size() == v.followed.Load() {
		return
	}
	if err == nil {
		_, err = v.goOn(ctx, nil, nil)
	}
	if errors.Is(err, durable.ErrInUse) || errors.Is(err, seal.ErrStopped) || errors.Is(err, seal.ErrLagging) {
		return // whoever appends ends soon; a store that stopped, or waits for its head, says so everywhere
	}
	if errors.Is(err, durable.ErrUnfinished) {
		v.followed.Store(-1) // it is looked at until it is whole
		if v.unfinished.Add(1) != unfinishedLooks {
			return // whoever writes it ends soon; if not, that is told of once
		}
	} else {
		v.unfinished.Store(0)
		if at != nil {
			v.followed.Store(at.Size()) // one that is refused is told of once
		}
	}
	if err != nil {
		v.cfg.Log.ErrorContext(ctx, "the charter file is not taken over", slog.String("error", err.Error()))
	}
	v.trouble.Store(&trouble{err})
}

// trouble is what was wrong with the charter file when it was looked at last; its error
// is nil if nothing was.
type trouble struct{ error }
