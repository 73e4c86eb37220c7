package actions

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
)

// Environment describes this computer for the record: network, swap, core dumps,
// kernel and USB.
func Environment() map[string]string {
	return map[string]string{
		"network":    orNone(networkUp()),
		"swap":       orNone(swapOn()),
		"core_dumps": firstLine("/proc/sys/kernel/core_pattern"),
		"kernel":     kernel(),
		"usb":        orNone(usbDevices()),
	}
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, " ")
}

// networkUp lists interfaces that are up, the loopback excepted.
func networkUp() []string {
	ifs, err := net.Interfaces()
	if err != nil {
		return []string{"unreadable"}
	}
	var up []string
	for _, i := range ifs {
		if i.Flags&net.FlagUp != 0 && i.Flags&net.FlagLoopback == 0 {
			up = append(up, i.Name)
		}
	}
	return up
}

// swapOn lists swap areas; the first line of /proc/swaps is a heading.
func swapOn() []string {
	data, err := os.ReadFile("/proc/swaps")
	if err != nil {
		return []string{"unreadable"}
	}
	var on []string
	for i, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		if f := strings.Fields(line); i > 0 && len(f) > 0 {
			on = append(on, f[0])
		}
	}
	return on
}

func firstLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "unreadable"
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return line
}

func kernel() string {
	var u syscall.Utsname
	if err := syscall.Uname(&u); err != nil {
		return "unreadable"
	}
	var b strings.Builder
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}

func usbDevices() []string {
	names, err := filepath.Glob("/sys/bus/usb/devices/*/idVendor")
	if err != nil {
		return []string{"unreadable"}
	}
	var out []string
	for _, n := range names {
		out = append(out, firstLine(n)+":"+firstLine(filepath.Join(filepath.Dir(n), "idProduct")))
	}
	slices.Sort(out)
	return out
}

// Programs hashes the executable, keyrite-hsmd and the module. The module is
// hashed again from the descriptor that is loaded (see hsm).
func Programs(hsmd, module string) ([]record.Program, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fault.Errorf(fault.Unexpected, "find own program: %w", err)
	}
	if hsmd == "" {
		hsmd = filepath.Join(filepath.Dir(exe), "keyrite-hsmd")
	}
	var out []record.Program
	for _, p := range [][2]string{{"keyrite", exe}, {"keyrite-hsmd", hsmd}, {"module", module}} {
		sum, err := HashFile(p[1])
		if err != nil {
			return nil, err
		}
		out = append(out, record.Program{Name: p[0], SHA256: sum})
	}
	return out, nil
}

// checkEnvironment enforces what the script demands of computer and programs,
// and examines all certificates before the first key exists.
func (a *Actions) checkEnvironment(ctx context.Context, r *ceremony.Run, _ *script.Step) error {
	s := r.Script
	want := map[string]string{"keyrite": s.Pins.Keyrite, "keyrite-hsmd": s.Pins.HSMD, "module": s.Pins.Module}
	for _, p := range r.Programs {
		r.Console.Say("", p.Name+" "+p.SHA256)
		if want[p.Name] != p.SHA256 {
			return fault.Hint(fault.Errorf(fault.Policy, "%s is not the program that the script pins (%s)", p.Name, want[p.Name]),
				"make a script for this build with 'keyrite ceremony new' and rehearse it")
		}
	}
	if up := networkUp(); s.Environment.Network == "down" && len(up) > 0 {
		return fault.Errorf(fault.Policy, "the script wants the network down, but %s is up", strings.Join(up, ", "))
	}
	if on := swapOn(); s.Environment.Swap == "off" && len(on) > 0 {
		return fault.Errorf(fault.Policy, "the script wants swap off, but %s is on", strings.Join(on, ", "))
	}
	if err := a.checkFree(ctx, r); err != nil {
		return err
	}
	return a.previewCertificates(r)
}

// openedModule checks that the module a session loaded is the pinned one.
func openedModule(s *script.Script, sha string) error {
	if sha != s.Pins.Module {
		return fault.Errorf(fault.Policy, "the module that was loaded (%s) is not the one that the script pins", sha)
	}
	return nil
}
