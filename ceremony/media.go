package ceremony

import (
	"slices"
	"strings"

	"keyrite/artifact/fault"
)

// DiskPrefix begins the name of a block device in what Config.Media lists.
const DiskPrefix = "disk "

// startMedia learns what is there at the start.
func (r *Run) startMedia() error {
	if r.Media == nil {
		return nil
	}
	now, err := r.Media()
	if err != nil {
		return err
	}
	r.known(now)
	return nil
}

func (r *Run) known(now []string) {
	r.media = map[string]bool{}
	for _, m := range now {
		r.media[m] = true
	}
}

// newMedia lists what is there and was not known.
func (r *Run) newMedia() (now, fresh []string, err error) {
	if now, err = r.Media(); err != nil {
		return nil, nil, err
	}
	for _, m := range now {
		if !r.media[m] {
			fresh = append(fresh, m)
		}
	}
	slices.Sort(fresh)
	return now, fresh, nil
}

// checkMedia wants no medium but those that a step takes in.
func (r *Run) checkMedia() error {
	if r.Media == nil || r.exchange {
		return nil
	}
	_, fresh, err := r.newMedia()
	if err != nil {
		return err
	}
	if len(fresh) > 0 {
		return fault.Hint(fault.Errorf(fault.Policy, "a medium is there that the script does not list: %s", strings.Join(fresh, ", ")),
			"a medium goes in and out only in a step medium.in or medium.out")
	}
	return nil
}

// settleMedia takes what a step about media brought as known: one disk at most.
func (r *Run) settleMedia() error {
	if r.Media == nil {
		return nil
	}
	if !r.exchange {
		return r.checkMedia()
	}
	now, fresh, err := r.newMedia()
	if err != nil {
		return err
	}
	disks := slices.DeleteFunc(fresh, func(m string) bool { return !strings.HasPrefix(m, DiskPrefix) })
	if len(disks) > 1 {
		return fault.Errorf(fault.Policy, "more than one medium went in: %s", strings.Join(disks, ", "))
	}
	r.known(now)
	return nil
}
