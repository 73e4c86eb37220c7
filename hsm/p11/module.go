// Package p11 is the module half of keyrite-hsmd: the only code that loads a
// PKCS#11 module and the only importer of miekg/pkcs11. It is started by the
// supervisor half with a job and PINs on a pipe, logs in to one token, and
// serves the typed requests of package hsm/internal/frame, each session by one
// goroutine, until its data socket closes; or it does one job and ends.
//
// It must never offer a raw PKCS#11 call, never write a PIN anywhere but to
// C_Login, C_SetPIN, C_InitPIN and C_InitToken, and never go on after a login
// that failed. A module that crashes takes this process with it and nothing
// else.
package p11

import (
	"bufio"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
)

// module is a loaded and initialised PKCS#11 module.
type module struct {
	ctx   *pkcs11.Ctx
	info  frame.ModuleInfo
	job   frame.Job
	store *store // nil where the module keeps no token files
}

// loadModule hashes the file and loads it through the same descriptor, so that
// the hash is that of the file which the dynamic linker opened, and hashes it once
// more, in case it was written to meanwhile (CWE-367). initialize is still to come.
func loadModule(job frame.Job) (*module, error) {
	f, sum, err := openModule(job)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ctx := pkcs11.New(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if ctx == nil {
		return nil, hinted(faultf("load module", frame.KindUsage, "%s is no PKCS#11 module, or a library that it needs is missing", job.Module),
			"ldd "+job.Module+" shows what it needs")
	}
	if again, err := digest(f); err != nil || again != sum {
		return nil, faultf("load module", frame.KindVerify, "%s was changed while it was loaded", job.Module)
	}
	if !listed(ctx) {
		return nil, hinted(faultf("load module", frame.KindUsage, "%s gives no list of its functions", job.Module),
			"it may want a file or folder that it is not allowed: name it with --module-folder, or sandbox.folders of the binding")
	}
	return &module{ctx: ctx, info: frame.ModuleInfo{Path: job.Module, SHA256: sum}}, nil
}

// listed says whether C_GetFunctionList gave a list. The binding looks at neither its
// answer nor the list, and a call through one that is not there ends the process
// without a word. Its context is one pointer, to {handle, list}; TestBadModule fails
// if a later version has another.
func listed(ctx *pkcs11.Ctx) bool {
	return (**(**[2]uintptr)(unsafe.Pointer(ctx)))[1] != 0
}

// initialize makes the loaded module ready and asks it what it is.
func (m *module) initialize(args string) error {
	opts := []pkcs11.InitializeOption{pkcs11.InitializeWithFlags(pkcs11.CKF_OS_LOCKING_OK)}
	if args != "" {
		p, err := cString(args)
		if err != nil {
			return wrap("load module", "module arguments", err)
		}
		opts = append(opts, pkcs11.InitializeWithReserved(p))
	}
	if err := m.ctx.Initialize(opts...); err != nil {
		return asFault("load module", "C_Initialize", err)
	}
	gi, err := m.ctx.GetInfo()
	if err != nil {
		return asFault("load module", "C_GetInfo", err)
	}
	m.info.Manufacturer, m.info.Description = text(gi.ManufacturerID), text(gi.LibraryDescription)
	m.info.LibraryVersion = fmt.Sprintf("%d.%d", gi.LibraryVersion.Major, gi.LibraryVersion.Minor)
	if m.info.Libraries, err = mapped(m.info.Path); err != nil {
		return err
	}
	m.info.Configuration, err = configuration(m.info, args)
	return err
}

// text trims the padding of a fixed field and what a terminal could choke on.
func text(s string) string {
	s = strings.TrimRight(s, " \x00")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\uFFFD' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// cString lays a NUL-terminated string outside the Go heap for as long as the
// process lives; modules keep the pointer.
func cString(s string) (unsafe.Pointer, error) {
	b, err := syscall.Mmap(-1, 0, len(s)+1, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	copy(b, s)
	return unsafe.Pointer(&b[0]), nil
}

// mapped lists the files with executable mappings in this process, but for
// the program itself and the module, with their hashes.
func mapped(modulePath string) ([]frame.Library, error) {
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, wrap("load module", "list libraries", err)
	}
	defer maps.Close()
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return nil, wrap("load module", "list libraries", err)
	}
	seen := map[string]bool{self: true}
	if st, err := realPath(modulePath); err == nil {
		seen[st] = true
	}
	out := []frame.Library{}
	sc := bufio.NewScanner(maps)
	for sc.Scan() {
		// address perms offset dev inode path
		fs := strings.Fields(sc.Text())
		if len(fs) < 6 || !strings.Contains(fs[1], "x") || !strings.HasPrefix(fs[5], "/") {
			continue
		}
		p := strings.Join(fs[5:], " ")
		if seen[p] {
			continue
		}
		seen[p] = true
		sum, err := hashLibrary(p)
		if err != nil {
			return nil, wrap("load module", "hash library "+p, err)
		}
		out = append(out, frame.Library{Path: p, SHA256: sum})
	}
	slices.SortFunc(out, func(a, b frame.Library) int { return strings.Compare(a.Path, b.Path) })
	return out, wrap("load module", "list libraries", sc.Err())
}

func realPath(p string) (string, error) {
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}

// hashLibrary hashes a file whose code is in this process; nobody else may be able
// to change it, as with the module.
func hashLibrary(p string) (string, error) {
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := unshared(f); err != nil {
		return "", err
	}
	return digest(f)
}

// tokens lists every token that is present, with its slot for use inside
// this process only.
func (m *module) tokens() ([]uint, []frame.TokenInfo, error) {
	slots, err := m.ctx.GetSlotList(true)
	if err != nil {
		return nil, nil, asFault("find token", "C_GetSlotList", err)
	}
	infos := make([]frame.TokenInfo, 0, len(slots))
	for _, s := range slots {
		ti, err := m.ctx.GetTokenInfo(s)
		if err != nil {
			return nil, nil, asFault("find token", "C_GetTokenInfo", err)
		}
		infos = append(infos, tokenInfo(ti))
	}
	return slots, infos, nil
}

func tokenInfo(ti pkcs11.TokenInfo) frame.TokenInfo {
	v := func(x pkcs11.Version) string { return fmt.Sprintf("%d.%d", x.Major, x.Minor) }
	return frame.TokenInfo{
		Token:        frame.Token{Label: text(ti.Label), Serial: text(ti.SerialNumber)},
		Manufacturer: text(ti.ManufacturerID), Model: text(ti.Model),
		Hardware: v(ti.HardwareVersion), Firmware: v(ti.FirmwareVersion),
		Initialised: ti.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0,
		UserPINSet:  ti.Flags&pkcs11.CKF_USER_PIN_INITIALIZED != 0,
		PINCountLow: ti.Flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0,
		PINLocked:   ti.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0,
	}
}

// find returns the one slot whose token has this label and serial.
func (m *module) find(t frame.Token) (uint, error) {
	slots, infos, err := m.tokens()
	if err != nil {
		return 0, err
	}
	at := -1
	for i, ti := range infos {
		if ti.Initialised && ti.Token == t {
			if at >= 0 {
				return 0, faultf("find token", frame.KindAmbiguous, "two tokens have label %q and serial %s", t.Label, t.Serial)
			}
			at = i
		}
	}
	if at < 0 {
		return 0, faultf("find token", frame.KindNotFound, "no token has label %q and serial %s", t.Label, t.Serial)
	}
	return slots[at], nil
}
