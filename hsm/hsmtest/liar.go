package hsmtest

import (
	_ "embed"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

//go:embed testdata/liar.c
var liarSource []byte

// Liar is a module of its own over e's store: SoftHSM, but for one thing that it
// says. It is compiled for this store, reads no variable and is part of no program.
type Liar struct {
	Module  string
	control string
	t       testing.TB
}

// Classes of objects, PKCS#11 2.40, Section 2.3 of the header.
var objectClasses = map[string]uint32{"CKO_PUBLIC_KEY": 2, "CKO_PRIVATE_KEY": 3, "CKO_SECRET_KEY": 4}

// attributeCodes are the values of the attributes that keys are compared in.
var attributeCodes = map[string]uint32{
	"CKA_CLASS": 0x0, "CKA_TOKEN": 0x1, "CKA_PRIVATE": 0x2, "CKA_LABEL": 0x3, "CKA_TRUSTED": 0x86,
	"CKA_KEY_TYPE": 0x100, "CKA_SUBJECT": 0x101, "CKA_ID": 0x102, "CKA_SENSITIVE": 0x103, "CKA_ENCRYPT": 0x104, "CKA_DECRYPT": 0x105,
	"CKA_WRAP": 0x106, "CKA_UNWRAP": 0x107, "CKA_SIGN": 0x108, "CKA_SIGN_RECOVER": 0x109, "CKA_VERIFY": 0x10a, "CKA_VERIFY_RECOVER": 0x10b,
	"CKA_DERIVE": 0x10c, "CKA_START_DATE": 0x110, "CKA_END_DATE": 0x111, "CKA_MODULUS": 0x120, "CKA_MODULUS_BITS": 0x121,
	"CKA_PUBLIC_EXPONENT": 0x122, "CKA_VALUE_LEN": 0x161, "CKA_EXTRACTABLE": 0x162, "CKA_LOCAL": 0x163, "CKA_NEVER_EXTRACTABLE": 0x164,
	"CKA_ALWAYS_SENSITIVE": 0x165, "CKA_KEY_GEN_MECHANISM": 0x166, "CKA_MODIFIABLE": 0x170, "CKA_COPYABLE": 0x171, "CKA_DESTROYABLE": 0x172,
	"CKA_EC_PARAMS": 0x180, "CKA_EC_POINT": 0x181, "CKA_ALWAYS_AUTHENTICATE": 0x202, "CKA_WRAP_WITH_TRUSTED": 0x210,
	"CKA_UNWRAP_TEMPLATE": 0x40000212, "CKA_ALLOWED_MECHANISMS": 0x40000600,
}

// Liar builds the module, which tells the truth until it is told otherwise. It
// needs gcc, which cgo needs as well.
func (e *Env) Liar(t testing.TB) *Liar {
	t.Helper()
	l := &Liar{Module: filepath.Join(e.Dir, "libliar.so"), control: filepath.Join(e.Dir, "liar.control"), t: t}
	compileModule(t, e, "liar.c", liarSource, l.Module, l.control)
	l.Honest()
	return l
}

// Honest ends every lie.
func (l *Liar) Honest() { l.t.Helper(); l.set(0, ^uint32(0), 0) }

// Lie is about one attribute of the objects of a class, from here on.
func (l *Liar) Lie(class, attribute string) {
	l.t.Helper()
	c, known := objectClasses[class]
	a, named := attributeCodes[attribute]
	if !known || !named {
		l.t.Fatalf("no lie about %s of %s", attribute, class)
	}
	l.set(c, a, 0)
}

// Garble spoils every signature from here on.
func (l *Liar) Garble() { l.t.Helper(); l.set(0, ^uint32(0), 1) }

func (l *Liar) set(class, attribute, garble uint32) {
	l.t.Helper()
	var b []byte
	for _, v := range []uint32{class, attribute, garble, 0} {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	// In place: a process may have the file mapped.
	f, err := os.OpenFile(l.control, os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = f.WriteAt(b, 0)
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

// Lies says how often it lied since it was last told something.
func (l *Liar) Lies() int {
	l.t.Helper()
	b, err := os.ReadFile(l.control)
	if err != nil {
		l.t.Fatal(err)
	}
	return int(binary.NativeEndian.Uint32(b[12:]))
}
