package actions

import (
	"cmp"
	"context"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
)

// Where the system says what it is; variables for tests.
var (
	corePattern = "/proc/sys/kernel/core_pattern"
	swapAreas   = "/proc/swaps"
	osRelease   = "/etc/os-release"
	adjTime     = "/etc/adjtime"
	bootDir     = "/boot"
)

// Environment describes this computer for the record: network, swap, core dumps,
// clock, kernel, operating system, boot image and USB.
func Environment(b *Bind) (map[string]string, error) {
	out := map[string]string{
		"network":      orNone(networkUp()),
		"swap":         orNone(swapOn()),
		"core_dumps":   coreDumps(),
		"clock":        clockZone(),
		"kernel":       kernel(),
		"kernel_image": hashOr(filepath.Join(bootDir, "vmlinuz-"+kernel())),
		"os":           osName(),
		"os_release":   hashOr(osRelease),
		"usb":          orNone(usbDevices()),
	}
	if b.Boot != "" {
		sum, err := HashFile(b.Path(b.Boot))
		if err != nil {
			return nil, err
		}
		out["boot_image"] = sum
	}
	return out, nil
}

// coreDumps is "none" where no process of the ceremony can leave one: its limit is
// 0, and no program is called, which would get a dump whatever the limit.
func coreDumps() string {
	pattern := firstLine(corePattern)
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_CORE, &r); err != nil {
		return "unreadable"
	}
	if r.Cur == 0 && r.Max == 0 && !strings.HasPrefix(pattern, "|") {
		return "none"
	}
	return "limit " + strconv.FormatUint(r.Max, 10) + ", pattern " + pattern
}

// clockZone is "UTC" where neither the system's time zone nor the hardware clock
// is another one.
func clockZone() string {
	year := time.Now().Year()
	for _, month := range []time.Month{time.January, time.July} {
		if name, offset := time.Date(year, month, 1, 0, 0, 0, 0, time.Local).Zone(); offset != 0 {
			return name + " " + time.Date(year, month, 1, 0, 0, 0, 0, time.Local).Format("-07:00")
		}
	}
	if data, err := os.ReadFile(adjTime); err == nil {
		if lines := strings.Split(string(data), "\n"); len(lines) > 2 && strings.TrimSpace(lines[2]) == "LOCAL" {
			return "hardware clock in local time"
		}
	}
	return "UTC"
}

func osName() string {
	data, err := os.ReadFile(osRelease)
	if err != nil {
		return "unreadable"
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return "unnamed"
}

// hashOr is the file's SHA-256, or why there is none.
func hashOr(path string) string {
	sum, err := HashFile(path)
	if err != nil {
		return "unreadable"
	}
	return sum
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
	data, err := os.ReadFile(swapAreas)
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
			return nil, fault.Hint(err, programHint(p[0]))
		}
		out = append(out, record.Program{Name: p[0], SHA256: sum})
	}
	return out, nil
}

// programHint says what to do about a program that cannot be read.
func programHint(name string) string {
	if name == "module" {
		return "name the PKCS#11 module of your HSM with its whole path; SoftHSM's is /usr/lib/softhsm/libsofthsm2.so (apt-get install softhsm2)"
	}
	return "the programs lie in one folder: put keyrite-hsmd beside keyrite"
}

// checkEnvironment enforces what the script demands of computer and programs,
// and examines all certificates before the first key exists.
func (a *Actions) checkEnvironment(ctx context.Context, r *ceremony.Run, _ *script.Step) error {
	want := map[string]string{"keyrite": r.Script.Pins.Keyrite, "keyrite-hsmd": r.Script.Pins.HSMD, "module": r.Script.Pins.Module}
	for _, p := range r.Programs {
		r.Console.Say("", p.Name+" "+p.SHA256)
		if want[p.Name] != p.SHA256 {
			return fault.Hint(fault.Errorf(fault.Policy, "%s is not the program that the script pins (%s)", p.Name, want[p.Name]),
				"make a script for this build with 'keyrite ceremony new' and rehearse it")
		}
	}
	if err := a.proveEnvironment(r); err != nil {
		return err
	}
	if err := a.checkFree(ctx, r); err != nil {
		return err
	}
	return a.previewCertificates(r)
}

// demand is one thing that a script may want of the computer.
type demand struct{ name, is, text, hint string }

// demands lists what the script wants, with the value that Environment must give.
func demands(s *script.Script) []demand {
	var out []demand
	if s.Environment.Network == "down" {
		out = append(out, demand{"network", "none", "the network down", "take it down (ip link set NAME down), or unplug it"})
	}
	if s.Environment.Swap == "off" {
		out = append(out, demand{"swap", "none", "swap off", "swapoff -a"})
	}
	if s.Environment.CoreDumps == "off" {
		out = append(out, demand{"core_dumps", "none", "core dumps off", "sysctl kernel.core_pattern=core: no program may be called with a dump"})
	}
	if s.Environment.Clock == "utc" {
		out = append(out, demand{"clock", "UTC", "the clock in UTC", "timedatectl set-timezone UTC, timedatectl set-local-rtc 0"})
	}
	if s.Pins.Boot != "" {
		out = append(out, demand{"boot_image", s.Pins.Boot, "another boot image", "boot from the image that the script pins, and name it in the binding (boot: PATH)"})
	}
	return out
}

// proveEnvironment wants the computer to be as the script demands, now and when
// the record was opened, which says so.
func (a *Actions) proveEnvironment(r *ceremony.Run) error {
	now, err := Environment(a.bind)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		r.Console.Say("", name+": "+now[name])
	}
	for _, d := range demands(r.Script) {
		for _, got := range []string{r.Environment[d.name], now[d.name]} {
			if got != d.is {
				return fault.Hint(fault.Errorf(fault.Policy, "the script wants %s, but %s is %s", d.text, d.name, cmp.Or(got, "not named")), d.hint)
			}
		}
	}
	return nil
}

// openedModule checks that the module a session loaded is the pinned one.
func openedModule(s *script.Script, sha string) error {
	if sha != s.Pins.Module {
		return fault.Errorf(fault.Policy, "the module that was loaded (%s) is not the one that the script pins", sha)
	}
	return nil
}
