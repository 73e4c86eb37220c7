// Package places says what the configuration of a PKCS#11 module names: the
// folders it keeps state in, the files it reads and the sockets it talks
// through. Both halves of keyrite-hsmd use it, so that the sandbox, the safe copy of a
// token file and the PIN counter mean the same folder; the client checks with it what
// a user named. It reads configuration and touches nothing.
package places

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Places is what one module's configuration names.
type Places struct {
	// TokenDir is the folder of token files that SoftHSM would use, or empty.
	TokenDir string
	// Write are the folders in which the module may change files; Read are
	// further files and folders that it may read.
	Write, Read []string
	// Unix says that the module talks through Unix sockets; TCP are the ports
	// that it may connect to.
	Unix bool
	TCP  []uint16
	// Abstract says that a Unix socket has an abstract name, which is the network
	// namespace's and not the file system's (unix(7)).
	Abstract bool
}

// Sockets says it in words.
func (p *Places) Sockets() string {
	var out []string
	if p.Unix {
		out = append(out, "unix")
	}
	for _, port := range p.TCP {
		out = append(out, "tcp:"+strconv.Itoa(int(port)))
	}
	if len(out) == 0 {
		return "none"
	}
	return strings.Join(out, " ")
}

// StoreLock is the file in TokenDir that all processes of keyrite lock around
// whatever changes a token file, and around each try of a PIN.
const StoreLock = ".keyrite.lock"

// SoftHSMConf is where Debian's SoftHSM looks without SOFTHSM2_CONF.
const SoftHSMConf = "/etc/softhsm/softhsm2.conf"

// Of reads the configuration of the module. Which module it is, is guessed from
// its file name: nothing is loaded yet, and a wrong guess only denies. args is the string for C_Initialize.
// sockets and folders are what the user named beside it: "unix", "tcp:PORT", and
// absolute paths.
func Of(module, args string, env func(string) string, sockets, folders []string) (*Places, error) {
	p := &Places{Read: []string{filepath.Dir(module)}}
	name := filepath.Base(module)
	var err error
	p.softHSM(name, env("SOFTHSM2_CONF"))
	switch {
	case strings.Contains(name, "softokn"):
		p.nss(args)
	case strings.Contains(name, "tpm2_pkcs11"), strings.Contains(name, "tpm2-pkcs11"):
		err = p.tpm(env)
	case strings.Contains(name, "opencryptoki"):
		// Token data, locks, shared memory with pkcsslotd and its socket.
		p.Write = append(p.Write, "/var/lib/opencryptoki", "/run/lock", "/var/lock", "/dev/shm", "/var/log/opencryptoki")
		p.Unix = true
	case strings.Contains(name, "opensc"), strings.Contains(name, "p11-kit"):
		p.Unix = true // pcscd; the server of p11-kit
	}
	if err != nil {
		return nil, err
	}
	if f := env("OPENSC_CONF"); f != "" {
		p.Read = append(p.Read, f)
	}
	return p, p.named(sockets, folders)
}

// SoftHSM reads a configuration file of SoftHSM 2: the folder of its tokens, and
// whether they are files there. SQLite, the other store, looks after itself.
func SoftHSM(conf string) (dir string, files bool, err error) {
	f, err := os.Open(conf)
	if err != nil {
		return "", false, fmt.Errorf("read SoftHSM configuration: %w", err)
	}
	defer f.Close()
	files = true
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		k, v, _ := strings.Cut(sc.Text(), "=")
		switch strings.TrimSpace(k) {
		case "directories.tokendir":
			dir = strings.TrimSpace(v)
		case "objectstore.backend":
			files = strings.TrimSpace(v) == "file"
		}
	}
	if err := sc.Err(); err != nil {
		return "", false, fmt.Errorf("read %s: %w", conf, err)
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return "", false, fmt.Errorf("%s: directories.tokendir %q is no folder", conf, dir)
	}
	return dir, files, nil
}

// softHSM is for every module where the variable is set: SoftHSM may stand behind
// another one. A configuration that cannot be read names nothing; the module
// process says so.
func (p *Places) softHSM(name, conf string) {
	if conf == "" {
		if !strings.Contains(name, "softhsm") {
			return
		}
		conf = SoftHSMConf
	}
	dir, files, err := SoftHSM(conf)
	if err != nil {
		return
	}
	p.Read = append(p.Read, conf)
	p.Write = append(p.Write, dir)
	if files {
		p.TokenDir = dir
	}
}

// nss takes the folder out of configdir='sql:/path'.
func (p *Places) nss(args string) {
	_, rest, ok := strings.Cut(args, "configdir='")
	dir, _, closed := strings.Cut(rest, "'")
	if _, path, prefixed := strings.Cut(dir, ":"); prefixed {
		dir = path
	}
	if ok && closed && filepath.IsAbs(dir) {
		p.Write = append(p.Write, dir)
	}
}

// tpm reads the store of tpm2-pkcs11 and its TCTI (tpm2-tss, Tss2_TctiLdr).
func (p *Places) tpm(env func(string) string) error {
	if dir := env("TPM2_PKCS11_STORE"); dir != "" {
		p.Write = append(p.Write, dir)
	}
	tcti := env("TPM2_PKCS11_TCTI")
	if tcti == "" {
		tcti = env("TPM2TOOLS_TCTI")
	}
	kind, rest, _ := strings.Cut(tcti, ":")
	switch kind {
	case "device":
		return nil
	case "swtpm", "mssim":
	default: // tabrmd over D-Bus; empty: the loader tries that first
		p.Unix, p.Abstract = true, strings.Contains(env("DBUS_SESSION_BUS_ADDRESS"), "abstract=")
		return nil
	}
	port, path := 2321, "" // tpm2-tss, default of both simulators
	for part := range strings.SplitSeq(rest, ",") {
		k, v, _ := strings.Cut(part, "=")
		switch k {
		case "port":
			n, err := strconv.ParseUint(v, 10, 16)
			if err != nil || n == 0 || n == 65535 {
				return fmt.Errorf("TCTI %q: the port is no number from 1 to 65534", tcti)
			}
			port = int(n)
		case "path":
			path = v
		}
	}
	if path != "" {
		p.Unix = true
		return nil
	}
	p.TCP = append(p.TCP, uint16(port), uint16(port+1)) // commands; control of the simulator
	return nil
}

// named adds what the user named.
func (p *Places) named(sockets, folders []string) error {
	for _, s := range sockets {
		port, tcp := strings.CutPrefix(s, "tcp:")
		n, err := strconv.ParseUint(port, 10, 16)
		switch {
		case s == "unix":
			p.Unix = true
		case tcp && err == nil && n > 0:
			p.TCP = append(p.TCP, uint16(n))
		default:
			return fmt.Errorf("socket %q is neither unix nor tcp:PORT", s)
		}
	}
	for _, f := range folders {
		if !filepath.IsAbs(f) || filepath.Clean(f) == "/" {
			return fmt.Errorf("folder %q is no absolute path below /", f)
		}
		p.Write = append(p.Write, f)
	}
	slices.Sort(p.TCP)
	p.TCP = slices.Compact(p.TCP)
	return nil
}
