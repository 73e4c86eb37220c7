package actions

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"keyrite/artifact/fault"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
)

// Where the kernel says what could carry data; variables for tests.
var (
	sysBlock  = "/sys/block"
	mountInfo = "/proc/self/mountinfo"
	byLabel   = "/dev/disk/by-label"
)

// ownDisks are block devices that are no medium but files or memory of this
// computer, or made of other devices that are listed themselves.
func ownDisks() []string { return []string{"loop", "ram", "zram", "dm-", "md"} }

// remote are file systems that come over a network or from another program.
func remote() []string {
	return []string{"nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "fuse", "fuseblk", "ceph", "afs"}
}

// Media lists what could carry data into this computer or out of it: disks with a
// medium, what is mounted from them or from elsewhere, and, where s wants the
// network down, interfaces that are up.
func Media(s *script.Script) func() ([]string, error) {
	return func() ([]string, error) {
		disks, err := disks()
		if err != nil {
			return nil, err
		}
		mounts, err := mounted()
		if err != nil {
			return nil, err
		}
		for _, m := range mounts {
			// By source: a folder bound to another place brings nothing new.
			disks = append(disks, "mount "+m.source)
		}
		if s.Environment.Network == "down" {
			for _, n := range networkUp() {
				disks = append(disks, "network "+n)
			}
		}
		return disks, nil
	}
}

// disks lists block devices that have a medium.
func disks() ([]string, error) {
	entries, err := os.ReadDir(sysBlock)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "list disks: %w", err)
	}
	var out []string
	for _, e := range entries {
		name := e.Name()
		if slices.ContainsFunc(ownDisks(), func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		if sectors, err := strconv.ParseInt(firstLine(filepath.Join(sysBlock, name, "size")), 10, 64); err == nil && sectors == 0 {
			continue // a reader without a card
		}
		text := ceremony.DiskPrefix + name
		if data, err := os.ReadFile(filepath.Join(sysBlock, name, "device", "model")); err == nil {
			text += " (" + strings.TrimSpace(string(data)) + ")"
		}
		out = append(out, text)
	}
	return out, nil
}

// mount is one line of mountinfo, see proc_pid_mountinfo(5).
type mount struct{ point, source string }

// mounted lists what is mounted from disks, from a network or by a program.
func mounted() ([]mount, error) {
	data, err := os.ReadFile(mountInfo)
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "list mounts: %w", err)
	}
	var out []mount
	for line := range strings.Lines(string(data)) {
		left, right, ok := strings.Cut(strings.TrimSpace(line), " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 2 {
			return nil, fault.Errorf(fault.Unexpected, "list mounts: %.80q is not understood", line)
		}
		fstype, _, _ := strings.Cut(r[0], ".") // fuse.sshfs
		if strings.HasPrefix(l[2], "0:") && !slices.Contains(remote(), fstype) || strings.HasPrefix(r[1], "/dev/loop") {
			continue // memory, or a file of this computer
		}
		out = append(out, mount{unescape(l[4]), unescape(r[1])})
	}
	return out, nil
}

// unescape undoes mountinfo's \040 and udev's \x20.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			digits, base := s[i+1:i+4], 8
			if s[i+1] == 'x' {
				digits, base = s[i+2:i+4], 16
			}
			if n, err := strconv.ParseUint(digits, base, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// volumeLabel is the label of the file system that holds path, "" if it has none or
// is not on a disk of its own.
func volumeLabel(path string) (string, error) {
	mounts, err := mounted()
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(mounts, func(m mount) bool { return m.point == path })
	if i < 0 {
		return "", nil
	}
	source, err := filepath.EvalSymlinks(mounts[i].source)
	if err != nil {
		return "", nil // not a device file, as for a network
	}
	links, err := os.ReadDir(byLabel)
	if err != nil {
		return "", nil // no file system here has a label
	}
	for _, l := range links {
		if dev, err := filepath.EvalSymlinks(filepath.Join(byLabel, l.Name())); err == nil && dev == source {
			return unescape(l.Name()), nil
		}
	}
	return "", nil
}
