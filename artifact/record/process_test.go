package record

import (
	"strings"
	"testing"

	"keyrite/artifact/fault"
)

// A record tells what bound the process of the module, or is of before that was kept.
func TestModuleProcessIsDescribed(t *testing.T) {
	good := Process{Capabilities: "none", Landlock: "none: this kernel does not offer it", Network: "no interface", NoNewPrivileges: true, Seccomp: "filter", Sockets: "unix tcp:1500", User: 1000}
	for _, tc := range []struct {
		name string
		edit func(*Process)
		good bool
	}{
		{"as it is", func(*Process) {}, true},
		{"all that a kernel may lack", func(p *Process) {
			p.Seccomp, p.Network, p.Capabilities = "none: this kernel offers no filter", "eth0", "00000000a80425fb"
		}, true},
		{"an empty text", func(p *Process) { p.Landlock = "" }, false},
		{"a long text", func(p *Process) { p.Sockets = strings.Repeat("x", maxProcessText+1) }, false},
		{"an escape sequence", func(p *Process) { p.Network = "eth0\x1b[2J" }, false},
		{"core files", func(p *Process) { p.CoreFiles = true }, false},
		{"readable memory", func(p *Process) { p.Dumpable = true }, false},
		{"new privileges", func(p *Process) { p.NoNewPrivileges = false }, false},
		{"no user", func(p *Process) { p.User = -1 }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := good
			tc.edit(&p)
			if err := p.check(); (err == nil) != tc.good || err != nil && fault.ClassOf(err) != fault.Verify {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := (*Process)(nil).check(); err != nil {
		t.Errorf("a record of before: %v", err)
	}
}
