package hsm

import (
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/internal/places"
)

// Config says which module to use.
type Config struct {
	// Module is the path of the PKCS#11 module. Required.
	Module string
	// ModuleSHA256 is the hash of the module that was admitted, 64 hex digits: any
	// other is refused before its code runs. Optional: any module.
	ModuleSHA256 string
	// ModuleArgs is handed to C_Initialize; only NSS wants it. Optional.
	ModuleArgs string
	// HSMD is the keyrite-hsmd to start. Optional: the one beside the running
	// executable; only tests name another.
	HSMD string
	// Env is where the variables that modules need are taken from. Optional:
	// os.Environ(). What is not on the allow-list never reaches the module.
	Env []string
	// Reopen is how long a token is left alone between two re-initialisations,
	// the first start after a loss being one. Optional: 30 s; only tests that
	// lose tokens on purpose set less.
	Reopen time.Duration
	// StateDir is the folder for the counters of wrong PINs, absolute; it is made
	// if missing. Tokens of SoftHSM carry their counter with them and need none.
	// Optional: .local/state/keyrite/pins in the user's home. Without either no
	// PIN is tried.
	StateDir string
	// Sockets and Folders are what the module may use beside what its own
	// configuration names: "unix" for Unix sockets, "tcp:PORT" for connections to
	// one port, and absolute paths of folders that it writes to. Optional.
	Sockets, Folders []string
	// Stderr takes what the processes print when they crash, which may show
	// their memory: for debugging with test tokens only. Optional: nothing.
	Stderr *os.File
}

// Check refuses what no module could be started with.
func (c *Config) Check() error {
	const op = "configure module"
	if !filepath.IsAbs(c.Module) {
		return usage(op, "module path %q is not absolute", c.Module)
	}
	if c.StateDir != "" && !filepath.IsAbs(c.StateDir) {
		return usage(op, "state folder %q is not absolute", c.StateDir)
	}
	_, err := places.Of(c.Module, c.ModuleArgs, func(string) string { return "" }, c.Sockets, c.Folders)
	if err != nil {
		return usage(op, "%v", err)
	}
	return nil
}

// allowed are the variables that modules are configured with; a name that
// ends in an underscore is a prefix. OPENSC_DEBUG is not among them: it logs PINs.
var allowed = []string{"SOFTHSM2_CONF", "TPM2_PKCS11_", "TPM2TOOLS_TCTI", "OPENCRYPTOKI_", "OCK_", "P11_KIT_SERVER_ADDRESS", "OPENSC_CONF", "PCSCLITE_CSOCK_NAME"}

// defaultReopen: one re-initialisation is what heals a dead session of the
// modules known for it; more of them in a row only hammer a sick HSM.
const defaultReopen = 30 * time.Second

func (c *Config) settings() frame.Settings {
	reopen := c.Reopen
	if reopen <= 0 {
		reopen = defaultReopen
	}
	return frame.Settings{ReopenMS: max(1, reopen.Milliseconds()), ModuleSHA256: c.ModuleSHA256, StateDir: c.stateDir(), Sockets: c.Sockets, Folders: c.Folders}
}

// stateDir is the default of the XDG Base Directory Specification 0.8.
func (c *Config) stateDir() string {
	if c.StateDir != "" {
		return c.StateDir
	}
	home, err := os.UserHomeDir()
	if err != nil || home == "" {
		u, err := user.Current()
		if err != nil {
			return ""
		}
		home = u.HomeDir
	}
	if !filepath.IsAbs(home) || home == "/" || home == "/nonexistent" {
		return ""
	}
	return filepath.Join(home, ".local", "state", "keyrite", "pins")
}

// environment filters by the allow-list. The search path is ours: modules
// start programs by absolute names or not at all.
func environment(from []string) []string {
	out := []string{"PATH=/usr/bin:/bin", "GOTRACEBACK=none"}
	for _, kv := range from {
		name, _, _ := strings.Cut(kv, "=")
		for _, a := range allowed {
			if name == a || strings.HasSuffix(a, "_") && strings.HasPrefix(name, a) {
				out = append(out, kv)
			}
		}
	}
	return out
}

// hsmdPath finds keyrite-hsmd beside the running executable.
func hsmdPath(override string) (string, error) {
	if override != "" {
		return override, nil
	}
	exe, err := os.Executable()
	if err == nil {
		exe, err = filepath.EvalSymlinks(exe)
	}
	if err != nil {
		return "", &Error{Op: "find keyrite-hsmd", Class: "unexpected", Text: err.Error(), cause: err}
	}
	p := filepath.Join(filepath.Dir(exe), "keyrite-hsmd")
	if _, err := os.Stat(p); err != nil {
		return "", &Error{Op: "find keyrite-hsmd", Class: "usage", Text: "it must lie beside this program: " + err.Error(), cause: err}
	}
	return p, nil
}
