package actions

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/ceremony/script"
)

// place puts a file of that text where path points, for one test.
func place(t *testing.T, path *string, text string) {
	t.Helper()
	old := *path
	*path = filepath.Join(t.TempDir(), "file")
	t.Cleanup(func() { *path = old })
	if err := os.WriteFile(*path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What the computer is like is read from the kernel, and an "any" hides nothing
// .
func TestEnvironmentIsRead(t *testing.T) {
	env, err := Environment(&Bind{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"network", "swap", "core_dumps", "clock", "kernel", "kernel_image", "os", "os_release", "usb"} {
		if env[name] == "" {
			t.Errorf("%s is not recorded", name)
		}
	}
	if sum, err := HashFile(osRelease); err != nil || env["os_release"] != sum {
		t.Errorf("os_release %s, %v", env["os_release"], err)
	}
	place(t, &swapAreas, "Filename\tType\tSize\tUsed\tPriority\n/dev/sda2 partition 8 0 -2\n/swap file 8 0 -3\n")
	if got := strings.Join(swapOn(), " "); got != "/dev/sda2 /swap" {
		t.Errorf("swap %s", got)
	}
	place(t, &corePattern, "|/usr/share/apport/apport %p\n")
	if got := coreDumps(); !strings.Contains(got, "apport") {
		t.Errorf("a program that is called with dumps: %s", got)
	}
	place(t, &adjTime, "0.0 0 0.0\n0\nLOCAL\n")
	if got := clockZone(); got != "hardware clock in local time" {
		t.Errorf("clock %s", got)
	}
	place(t, &adjTime, "0.0 0 0.0\n0\nUTC\n")
	old := time.Local
	t.Cleanup(func() { time.Local = old })
	for zone, want := range map[string]string{"UTC": "UTC", "Europe/Vienna": "CET +01:00", "Europe/London": "BST +01:00"} {
		if time.Local, err = time.LoadLocation(zone); err != nil {
			t.Fatal(err)
		}
		if got := clockZone(); got != want {
			t.Errorf("%s: clock %s", zone, got)
		}
	}
}

// What a script demands is enforced, with a hint. It moves the files that every
// ceremony of this process reads, so no other test may run beside it.
func TestEnvironmentIsEnforced(t *testing.T) {
	h := newHouse(t)
	h.write(t, "image", []byte("a boot image"))
	for _, tt := range []struct {
		name, head, bind string
		swaps, pattern   string
		text             string // "" if it goes on
	}{
		{"anything goes", anyEnvironment, "", "x\n/swap file\n", "|prog", ""},
		{"swap on", "}\nenvironment: {network: any, swap: off}", "", "x\n/swap file\n", "core", "the script wants swap off, but swap is /swap"},
		{"swap off", "}\nenvironment: {network: any, swap: off}", "", "x\n", "core", ""},
		{"core dumps to a program", "}\nenvironment: {network: any, swap: any, core_dumps: off}", "", "x\n", "|prog", "the script wants core dumps off, but core_dumps is limit"},
		{"the pinned image", ", boot: " + sum([]byte("a boot image")) + anyEnvironment, "boot: image\n", "x\n", "core", ""},
		{"another image", ", boot: " + sum([]byte("another")) + anyEnvironment, "boot: image\n", "x\n", "core", "the script wants another boot image, but boot_image is " + sum([]byte("a boot image"))},
		{"no image", ", boot: " + sum([]byte("another")) + anyEnvironment, "", "x\n", "core", "but boot_image is not named"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			place(t, &swapAreas, tt.swaps)
			place(t, &corePattern, tt.pattern)
			dir, err := h.play(t, &scene{
				head: tt.head, bind: tt.bind, run: "  []",
				summon: `  - {id: "1.1", do: environment.check, title: Computer, limit: 1m}
  - {id: "1.2", do: people.identify, title: Who, limit: 1m}`,
			})
			if tt.text == "" {
				if err != nil {
					t.Error(err)
				}
			} else if fault.ClassOf(err) != fault.Policy || !strings.Contains(err.Error(), tt.text) || fault.HintOf(err) == "" {
				t.Errorf("got %v, hint %q", err, fault.HintOf(err))
			}
			env, ok := entries(t, dir)[0].Data["environment"].(map[string]any)
			if !ok || !strings.Contains(tt.swaps, env["swap"].(string)) && env["swap"] != "none" {
				t.Errorf("the record says %v", env)
			}
		})
	}
}

// Disks and mounts are read from the kernel; what is no medium is left out.
func TestMediaAreRead(t *testing.T) {
	dir := t.TempDir()
	old := sysBlock
	sysBlock = dir
	t.Cleanup(func() { sysBlock = old })
	disk := func(name, size, model string) {
		if err := os.MkdirAll(filepath.Join(dir, name, "device"), 0o700); err != nil {
			t.Fatal(err)
		}
		for f, text := range map[string]string{"size": size + "\n", "device/model": model + "\n"} {
			if err := os.WriteFile(filepath.Join(dir, name, f), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	disk("sda", "1000", "BUILT IN")
	disk("sdb", "0", "EMPTY READER")
	disk("loop0", "8", "")
	place(t, &mountInfo, `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 8:1 / / rw - ext4 /dev/sda1 rw
28 27 8:1 /x /mnt/bound rw shared:1 - ext4 /dev/sda1 rw
30 27 7:0 / /mnt/image rw - ext4 /dev/loop0 rw
31 27 0:44 / /mnt/net rw - nfs4 server:/x rw
32 27 0:45 / /mnt/a\040b rw - fuse.sshfs me@host: rw
33 27 0:46 / /tmp rw - tmpfs tmpfs rw
`)
	got, err := Media(&script.Script{})()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	want := "disk sda (BUILT IN)|mount /dev/sda1|mount /dev/sda1|mount me@host:|mount server:/x"
	if strings.Join(got, "|") != want {
		t.Errorf("got %q", got)
	}
	disk("sdb", "4000", "STICK")
	if got, err = Media(&script.Script{})(); err != nil || !slices.Contains(got, "disk sdb (STICK)") {
		t.Errorf("got %q, %v", got, err)
	}
	place(t, &mountInfo, "nonsense\n")
	if _, err := Media(&script.Script{})(); err == nil {
		t.Error("nonsense was understood")
	}
}
