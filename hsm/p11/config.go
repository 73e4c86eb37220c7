package p11

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"keyrite/hsm/internal/frame"
)

// opencryptokiConf is where opencryptoki reads its settings; nothing names another.
const opencryptokiConf = "/etc/opencryptoki/opencryptoki.conf"

// fileOf gives the file that a module reads its settings from, or "".
func fileOf(info frame.ModuleInfo) string {
	base := filepath.Base(info.Path)
	switch {
	case info.Manufacturer == softHSM:
		path, _ := confPath()
		return path
	case strings.Contains(base, "opencryptoki"):
		return opencryptokiConf
	case strings.Contains(base, "opensc"):
		return os.Getenv("OPENSC_CONF")
	}
	return ""
}

// settings are how the names begin of the variables that modules are set by.
var settings = []string{"SOFTHSM2_", "TPM2", "OPENCRYPTOKI_", "OCK_", "P11_KIT_", "OPENSC_", "PCSCLITE_"}

// configuration hashes what decides, beside its code, how the module behaves: its
// file by its name, the variables that it is given as $NAME, the string for
// C_Initialize.
func configuration(info frame.ModuleInfo, args string) ([]frame.Library, error) {
	out := []frame.Library{}
	for _, kv := range os.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		file := name == "SOFTHSM2_CONF" || name == "OPENSC_CONF" // what is in it counts, for its own module
		if !file && slices.ContainsFunc(settings, func(p string) bool { return strings.HasPrefix(name, p) }) {
			out = append(out, hashed("$"+name, value))
		}
	}
	if path := fileOf(info); path != "" {
		sum, err := hashSettings(path)
		if err != nil {
			return nil, faultf("load module", frame.KindUsage, "configuration: %v", err)
		}
		out = append(out, frame.Library{Path: filepath.Base(path), SHA256: sum})
	}
	if args != "" {
		out = append(out, hashed("C_Initialize", args))
	}
	slices.SortFunc(out, func(a, b frame.Library) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

// hashSettings hashes what a configuration file says: without comments and blank
// lines, and without the place of SoftHSM's tokens, each of which is known by its
// serial number wherever it lies.
func hashSettings(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		name, _, _ := strings.Cut(line, "=")
		if line == "" || line[0] == '#' || strings.TrimSpace(name) == "directories.tokendir" {
			continue
		}
		h.Write([]byte(line + "\n"))
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func hashed(name, value string) frame.Library {
	sum := sha256.Sum256([]byte(value))
	return frame.Library{Path: name, SHA256: hex.EncodeToString(sum[:])}
}
