package p11

// #include <stdlib.h>
import "C"

import (
	"encoding/binary"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"unsafe"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/internal/places"
)

// softHSM is what CK_INFO.manufacturerID says of every SoftHSM, whatever its
// file is called and whatever stands in between.
const softHSM = "SoftHSM"

// findStore looks where SoftHSM would look for its tokens, whatever the module
// is; confirm says whether that matters. It runs between dlopen and
// C_Initialize, since a module in between may set the variable for the one
// behind it.
func findStore() (*store, error) {
	conf, named := confPath()
	dir, files, err := places.SoftHSM(conf)
	if err != nil {
		return nil, faultf("open token store", frame.KindUsage, "%v", err)
	}
	if !files {
		return nil, nil
	}
	return &store{dir: dir, named: named}, nil
}

// confPath is the order in which SoftHSM 2.6.1 looks for its configuration. The
// variable is read as C sees it, which Go's copy of the environment need not be.
func confPath() (path string, named bool) {
	name := C.CString("SOFTHSM2_CONF")
	defer C.free(unsafe.Pointer(name))
	if v := C.getenv(name); v != nil {
		return C.GoString(v), true
	}
	if u, err := user.LookupId(strconv.Itoa(os.Getuid())); err == nil {
		p := filepath.Join(u.HomeDir, ".config/softhsm2/softhsm2.conf")
		if f, err := os.Open(p); err == nil {
			f.Close()
			return p, false
		}
	}
	return places.SoftHSMConf, false
}

// confirm decides whether the store is this module's: by what the loaded module
// says of itself. SoftHSM whose store is not known is refused, for its tokens
// would be used without their guard.
func confirm(st *store, missing error, info frame.ModuleInfo) (*store, error) {
	if info.Manufacturer != softHSM {
		return nil, nil
	}
	return st, missing
}

// Kinds of an attribute in an object file of SoftHSM 2.6.1 (ObjectFile.cpp).
const (
	boolKind  = 1
	ulongKind = 2
	bytesKind = 3
	arrayKind = 4 // attributes in attributes
	mechsKind = 5
)

// parseObject reads an object file:
//
//	8 bytes  generation, big-endian, as all numbers
//	then for each attribute
//	8 bytes  type
//	8 bytes  kind
//	n bytes  the value: 1 byte, 8 bytes, or a length of 8 bytes and what it counts
//
// It returns the types, or false for a file that was cut or is something else.
func parseObject(b []byte) (map[uint64]bool, bool) {
	const word = 8
	next := func() (uint64, bool) {
		if len(b) < word {
			return 0, false
		}
		v := binary.BigEndian.Uint64(b)
		b = b[word:]
		return v, true
	}
	skip := func(n uint64) bool {
		if n > uint64(len(b)) {
			return false
		}
		b = b[n:]
		return true
	}
	types := map[uint64]bool{}
	if _, ok := next(); !ok {
		return nil, false
	}
	for len(b) > 0 {
		t, _ := next()
		kind, ok := next()
		if !ok {
			return nil, false
		}
		size := uint64(1)
		switch kind {
		case boolKind:
		case ulongKind:
			size = word
		case bytesKind, arrayKind:
			size, ok = next()
		case mechsKind:
			size, ok = next()
			size = min(size, 1<<32) * word
		default:
			return nil, false
		}
		if !ok || !skip(size) {
			return nil, false
		}
		types[t] = true
	}
	return types, len(types) > 0
}

// wholeLike reports whether a token file is whole: it parses to its end and has
// every attribute that its copy had. A write that was cut at a border between two
// attributes parses, too.
func wholeLike(b, before []byte) bool {
	have, ok := parseObject(b)
	if !ok {
		return false
	}
	had, _ := parseObject(before)
	for t := range had {
		if !have[t] {
			return false
		}
	}
	return true
}
