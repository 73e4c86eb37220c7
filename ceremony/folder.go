package ceremony

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/internal/durable"
)

// early tells what an error before ARMED means for who sees his first one.
func early(err error) error {
	hint := "nothing has happened yet: put it right, and give the same command again"
	if own := fault.HintOf(err); own != "" {
		hint = own + "; " + hint
	}
	return fault.Hint(err, hint)
}

// makeRoom keeps an attempt from going on in a folder that has one. Only one that
// stopped before ARMED, when nothing had been done, gives way: it is kept under
// another name, so that the same command can be given again.
func (cfg *Config) makeRoom() error {
	dir := filepath.Clean(cfg.Dir)
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	exists := fault.Hint(fault.Errorf(fault.Exists, "record folder %q exists", dir), "records are never overwritten: choose another folder")
	st, err := freeState(dir)
	switch {
	case fault.ClassOf(err) == fault.Sealed:
		return err // another process holds a ceremony here
	case err != nil || st.State == "CLOSED":
		return exists
	case st.armed():
		return fault.Hint(fault.Errorf(fault.Void, "the ceremony in %q is %s and cannot go on", dir, st.State),
			"a ceremony is never resumed: start from step 1 with another --record folder and --after "+dir)
	case cfg.Console == nil: // nobody would hear of it
		return exists
	}
	return cfg.setAside(dir)
}

// freeState is the state of an attempt that no process holds.
func freeState(dir string) (*Status, error) {
	transcript := filepath.Join(dir, record.TranscriptFile)
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() {
		return nil, fault.Errorf(fault.Exists, "%q is no folder", dir)
	}
	if err := durable.CheckFree(transcript); err != nil {
		return nil, err
	}
	st, err := ReadState(dir)
	if err == nil && st.Entries == 0 {
		err = fault.Errorf(fault.Exists, "%q has no attempt yet", dir) // one may begin there just now
	}
	return st, err
}

// maxEarly bounds how many attempts that stopped before ARMED lie beside a record.
const maxEarly = 1000

// setAside renames the folder of an attempt that stopped before ARMED. Two who want
// it at once take turns, and the second finds what the first began.
func (cfg *Config) setAside(dir string) error {
	unlock, err := durable.Lock(filepath.Dir(dir))
	if err != nil {
		return err
	}
	defer unlock()
	st, err := freeState(dir)
	if err != nil {
		return err
	}
	for n := 1; n <= maxEarly && !st.armed(); n++ {
		to := dir + ".early-" + strconv.Itoa(n)
		if err := durable.Rename(dir, to); fault.ClassOf(err) == fault.Exists {
			continue
		} else if err != nil {
			return err
		}
		cfg.Console.Say("", "the attempt in "+dir+" stopped before ARMED ("+st.State+"), when nothing had been done; it is kept as "+to)
		return nil
	}
	return fault.Errorf(fault.Exists, "record folder %q exists", dir)
}
