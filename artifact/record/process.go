package record

import "unicode"

// Process is what was in force in the process that loaded the module of a token: what
// the kernel said there, not what was asked of it.
type Process struct {
	Capabilities    string `json:"capabilities"` // "none", or the effective set in hex
	CoreFiles       bool   `json:"core_files"`   // it could leave one
	Dumpable        bool   `json:"dumpable"`     // others of its user could read its memory
	Landlock        string `json:"landlock"`     // version of its ABI, or why there is none
	Network         string `json:"network"`      // "no interface", or their names
	NoNewPrivileges bool   `json:"no_new_privileges"`
	Seccomp         string `json:"seccomp"` // "filter", or why there is none
	Sockets         string `json:"sockets"` // which it could open
	User            int    `json:"user"`    // effective user id
}

// maxProcessText bounds each text of a Process, in bytes.
const maxProcessText = 256

// check wants a whole description of a process that could have been trusted with a
// PIN: keyrite-hsmd ends where it cannot give up core files, readable memory and new
// privileges. What a kernel does not offer is told and no fault. Records of before
// this was kept have none.
func (p *Process) check() error {
	if p == nil {
		return nil
	}
	for _, s := range []string{p.Capabilities, p.Landlock, p.Network, p.Seccomp, p.Sockets} {
		if s == "" || len(s) > maxProcessText || !printable(s) {
			return bad("%w: the module process of an admission is not described", ErrEntry)
		}
	}
	if p.User < 0 || p.CoreFiles || p.Dumpable || !p.NoNewPrivileges {
		return bad("%w: the module process of an admission could leave a core file, be read, or gain privileges", ErrEntry)
	}
	return nil
}

func printable(s string) bool {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}
