package p11

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf8"
	"unsafe"

	"github.com/miekg/pkcs11"

	"keyrite/hsm/internal/frame"
	"keyrite/hsm/keyspec"
)

// form is how an attribute's bytes are written as text.
type form int

const (
	boolForm form = iota
	classForm
	keyTypeForm
	mechForm
	mechListForm
	textForm
	hexForm
	ulongForm
	templateForm
)

type attrType struct {
	code uint
	form form
}

var attrTypes = map[string]attrType{
	"CKA_CLASS":               {pkcs11.CKA_CLASS, classForm},
	"CKA_TOKEN":               {pkcs11.CKA_TOKEN, boolForm},
	"CKA_PRIVATE":             {pkcs11.CKA_PRIVATE, boolForm},
	"CKA_LABEL":               {pkcs11.CKA_LABEL, textForm},
	"CKA_ID":                  {pkcs11.CKA_ID, hexForm},
	"CKA_KEY_TYPE":            {pkcs11.CKA_KEY_TYPE, keyTypeForm},
	"CKA_SUBJECT":             {pkcs11.CKA_SUBJECT, hexForm},
	"CKA_START_DATE":          {pkcs11.CKA_START_DATE, hexForm},
	"CKA_END_DATE":            {pkcs11.CKA_END_DATE, hexForm},
	"CKA_EC_PARAMS":           {pkcs11.CKA_EC_PARAMS, hexForm},
	"CKA_EC_POINT":            {pkcs11.CKA_EC_POINT, hexForm},
	"CKA_SENSITIVE":           {pkcs11.CKA_SENSITIVE, boolForm},
	"CKA_ALWAYS_SENSITIVE":    {pkcs11.CKA_ALWAYS_SENSITIVE, boolForm},
	"CKA_EXTRACTABLE":         {pkcs11.CKA_EXTRACTABLE, boolForm},
	"CKA_NEVER_EXTRACTABLE":   {pkcs11.CKA_NEVER_EXTRACTABLE, boolForm},
	"CKA_LOCAL":               {pkcs11.CKA_LOCAL, boolForm},
	"CKA_KEY_GEN_MECHANISM":   {pkcs11.CKA_KEY_GEN_MECHANISM, mechForm},
	"CKA_MODIFIABLE":          {pkcs11.CKA_MODIFIABLE, boolForm},
	"CKA_COPYABLE":            {pkcs11.CKA_COPYABLE, boolForm},
	"CKA_DESTROYABLE":         {pkcs11.CKA_DESTROYABLE, boolForm},
	"CKA_SIGN":                {pkcs11.CKA_SIGN, boolForm},
	"CKA_SIGN_RECOVER":        {pkcs11.CKA_SIGN_RECOVER, boolForm},
	"CKA_VERIFY":              {pkcs11.CKA_VERIFY, boolForm},
	"CKA_VERIFY_RECOVER":      {pkcs11.CKA_VERIFY_RECOVER, boolForm},
	"CKA_ENCRYPT":             {pkcs11.CKA_ENCRYPT, boolForm},
	"CKA_DECRYPT":             {pkcs11.CKA_DECRYPT, boolForm},
	"CKA_WRAP":                {pkcs11.CKA_WRAP, boolForm},
	"CKA_UNWRAP":              {pkcs11.CKA_UNWRAP, boolForm},
	"CKA_DERIVE":              {pkcs11.CKA_DERIVE, boolForm},
	"CKA_TRUSTED":             {pkcs11.CKA_TRUSTED, boolForm},
	"CKA_WRAP_WITH_TRUSTED":   {pkcs11.CKA_WRAP_WITH_TRUSTED, boolForm},
	"CKA_ALWAYS_AUTHENTICATE": {pkcs11.CKA_ALWAYS_AUTHENTICATE, boolForm},
	"CKA_ALLOWED_MECHANISMS":  {pkcs11.CKA_ALLOWED_MECHANISMS, mechListForm},
	"CKA_MODULUS":             {pkcs11.CKA_MODULUS, hexForm},
	"CKA_MODULUS_BITS":        {pkcs11.CKA_MODULUS_BITS, ulongForm},
	"CKA_PUBLIC_EXPONENT":     {pkcs11.CKA_PUBLIC_EXPONENT, hexForm},
	"CKA_VALUE_LEN":           {pkcs11.CKA_VALUE_LEN, ulongForm},
	keyspec.UnwrapTemplate:    {pkcs11.CKA_UNWRAP_TEMPLATE, templateForm},
}

// PKCS#11 3.0 values that the binding does not name.
const (
	ckmECEdwardsKeyPairGen = 0x1055
	ckmEDDSA               = 0x1057
	ckkECEdwards           = 0x40
)

// unavailable is CK_UNAVAILABLE_INFORMATION.
const unavailable = ^uint64(0)

var classNames = map[uint64]string{
	pkcs11.CKO_DATA: "CKO_DATA", pkcs11.CKO_CERTIFICATE: "CKO_CERTIFICATE",
	pkcs11.CKO_PUBLIC_KEY: "CKO_PUBLIC_KEY", pkcs11.CKO_PRIVATE_KEY: "CKO_PRIVATE_KEY",
	pkcs11.CKO_SECRET_KEY: "CKO_SECRET_KEY",
}

var keyTypeNames = map[uint64]string{
	pkcs11.CKK_RSA: "CKK_RSA", pkcs11.CKK_EC: "CKK_EC", pkcs11.CKK_AES: "CKK_AES",
	pkcs11.CKK_GENERIC_SECRET: "CKK_GENERIC_SECRET", ckkECEdwards: "CKK_EC_EDWARDS",
}

var mechNames = map[uint64]string{
	pkcs11.CKM_EC_KEY_PAIR_GEN: "CKM_EC_KEY_PAIR_GEN", ckmECEdwardsKeyPairGen: "CKM_EC_EDWARDS_KEY_PAIR_GEN",
	pkcs11.CKM_ECDSA: "CKM_ECDSA", pkcs11.CKM_ECDH1_DERIVE: "CKM_ECDH1_DERIVE", ckmEDDSA: "CKM_EDDSA",
	pkcs11.CKM_AES_KEY_GEN: "CKM_AES_KEY_GEN", pkcs11.CKM_AES_GCM: "CKM_AES_GCM",
	pkcs11.CKM_AES_KEY_WRAP: "CKM_AES_KEY_WRAP", pkcs11.CKM_AES_KEY_WRAP_PAD: "CKM_AES_KEY_WRAP_PAD",
	pkcs11.CKM_AES_CBC: "CKM_AES_CBC", pkcs11.CKM_AES_ECB: "CKM_AES_ECB",
	pkcs11.CKM_RSA_PKCS_KEY_PAIR_GEN: "CKM_RSA_PKCS_KEY_PAIR_GEN", pkcs11.CKM_RSA_PKCS: "CKM_RSA_PKCS",
	pkcs11.CKM_RSA_PKCS_PSS: "CKM_RSA_PKCS_PSS", pkcs11.CKM_RSA_PKCS_OAEP: "CKM_RSA_PKCS_OAEP",
	unavailable: keyspec.Unavailable, pkcs11.CKM_SHA256_HMAC: "CKM_SHA256_HMAC", pkcs11.CKM_GENERIC_SECRET_KEY_GEN: "CKM_GENERIC_SECRET_KEY_GEN", pkcs11.CKM_ECDSA_SHA256: "CKM_ECDSA_SHA256",
}

func nameOf(m map[uint64]string, v uint64) string {
	if n, ok := m[v]; ok {
		return n
	}
	return fmt.Sprintf("0x%x", v)
}

func valueOf(m map[uint64]string, name string) (uint64, bool) {
	for v, n := range m {
		if n == name {
			return v, true
		}
	}
	return 0, false
}

// ulong is the size of CK_ULONG on the platforms that we build for.
const ulong = 8

func (t attrType) names() map[uint64]string {
	switch t.form {
	case classForm:
		return classNames
	case keyTypeForm:
		return keyTypeNames
	default:
		return mechNames
	}
}

// encode turns one attribute of a template into the bytes of the standard.
func encode(a keyspec.Attribute) (*pkcs11.Attribute, error) {
	t, ok := attrTypes[a.Name]
	if !ok {
		return nil, fmt.Errorf("attribute %s is not known", a.Name)
	}
	switch t.form {
	case boolForm:
		if a.Value != "true" && a.Value != "false" {
			return nil, fmt.Errorf("attribute %s: %q is no truth value", a.Name, a.Value)
		}
		return pkcs11.NewAttribute(t.code, a.Value == "true"), nil
	case textForm:
		return pkcs11.NewAttribute(t.code, []byte(a.Value)), nil
	case hexForm:
		b, err := hex.DecodeString(a.Value)
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", a.Name, err)
		}
		return pkcs11.NewAttribute(t.code, b), nil
	case ulongForm:
		n, err := strconv.ParseUint(a.Value, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", a.Name, err)
		}
		return pkcs11.NewAttribute(t.code, n), nil
	case templateForm:
		b, err := nested(keyspec.ParseTemplate(a.Value))
		return pkcs11.NewAttribute(t.code, b), err
	}
	var b []byte
	for n := range strings.SplitSeq(a.Value, ",") {
		v, ok := valueOf(t.names(), n)
		if !ok {
			return nil, fmt.Errorf("attribute %s: %q is not known", a.Name, n)
		}
		b = binary.NativeEndian.AppendUint64(b, v)
	}
	return pkcs11.NewAttribute(t.code, b), nil
}

// encodeAll turns a whole template over.
func encodeAll(as []keyspec.Attribute) ([]*pkcs11.Attribute, error) {
	out := make([]*pkcs11.Attribute, len(as))
	for i, a := range as {
		x, err := encode(a)
		if err != nil {
			return nil, err
		}
		out[i] = x
	}
	return out, nil
}

// decode is the inverse of encode; what it cannot read it shows as hex.
func decode(name string, b []byte) keyspec.Attribute {
	t := attrTypes[name]
	bad := keyspec.Attribute{Name: name, Value: "0x" + hex.EncodeToString(b)}
	switch t.form {
	case boolForm:
		if len(b) != 1 || b[0] > 1 {
			return bad
		}
		return keyspec.Attribute{Name: name, Value: map[byte]string{0: "false", 1: "true"}[b[0]]}
	case textForm:
		if !utf8.Valid(b) {
			return bad
		}
		return keyspec.Attribute{Name: name, Value: string(b)}
	case hexForm:
		return keyspec.Attribute{Name: name, Value: hex.EncodeToString(b)}
	case templateForm:
		return keyspec.Attribute{Name: name, Value: nestedNames(b)}
	}
	if len(b)%ulong != 0 || (t.form != mechListForm && len(b) != ulong) {
		return bad
	}
	if t.form == ulongForm {
		return keyspec.Attribute{Name: name, Value: strconv.FormatUint(binary.NativeEndian.Uint64(b), 10)}
	}
	var names []string
	for ; len(b) > 0; b = b[ulong:] {
		names = append(names, nameOf(t.names(), binary.NativeEndian.Uint64(b)))
	}
	return keyspec.Attribute{Name: name, Value: strings.Join(names, ",")}
}

// attributeSize is the size of CK_ATTRIBUTE: type, pointer, length.
const attributeSize = 3 * ulong

// nested lays a template as the array of CK_ATTRIBUTE that an attribute like
// CKA_UNWRAP_TEMPLATE holds, which the binding cannot build. The memory is
// outside the Go heap and stays as long as the process lives: a few hundred
// bytes, a few times.
func nested(as []keyspec.Attribute) ([]byte, error) {
	m, err := syscall.Mmap(-1, 0, syscall.Getpagesize(), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	base, off := uintptr(unsafe.Pointer(&m[0])), 0
	out := make([]byte, 0, attributeSize*len(as))
	for _, a := range as {
		x, err := encode(a)
		if err != nil {
			return nil, err
		}
		if off+len(x.Value) > len(m) {
			return nil, fmt.Errorf("attribute %s: the template is too long", a.Name)
		}
		copy(m[off:], x.Value)
		for _, v := range []uint64{uint64(x.Type), uint64(base) + uint64(off), uint64(len(x.Value))} {
			out = binary.NativeEndian.AppendUint64(out, v)
		}
		off += (len(x.Value) + ulong - 1) / ulong * ulong
	}
	return out, nil
}

// nestedNames lists what a token shows of such an attribute: the binding gives
// it no room for the values, so it tells types and lengths.
func nestedNames(b []byte) string {
	var names []string
	for ; len(b) >= attributeSize; b = b[attributeSize:] {
		code, name := binary.NativeEndian.Uint64(b), ""
		for n, t := range attrTypes {
			if uint64(t.code) == code {
				name = n
			}
		}
		if name == "" {
			name = fmt.Sprintf("0x%x", code)
		}
		names = append(names, name)
	}
	return keyspec.JoinNames(names)
}

// attribute reads one attribute; an error means that it is not reported.
func (s *session) attribute(o pkcs11.ObjectHandle, code uint) ([]byte, error) {
	v, err := s.attributes(o, code)
	if err != nil {
		return nil, err
	}
	return v[0].Value, nil
}

// attributes reads several in one request, in the order asked.
func (s *session) attributes(o pkcs11.ObjectHandle, codes ...uint) ([]*pkcs11.Attribute, error) {
	want := make([]*pkcs11.Attribute, len(codes))
	for i, c := range codes {
		want[i] = pkcs11.NewAttribute(c, nil)
	}
	got, err := s.ctx.GetAttributeValue(s.h, o, want)
	if err != nil {
		return nil, err
	}
	if len(got) != len(codes) {
		return nil, pkcs11.Error(pkcs11.CKR_GENERAL_ERROR)
	}
	return got, nil
}

// read reads attributes together, since each request is a round trip to some
// tokens. One that lacks an attribute refuses the whole request, so a refused one
// is halved until what is refused stands alone: whatever the reason, that one is
// unreported and equals no template; a half copy in SoftHSM answers
// CKR_ATTRIBUTE_VALUE_INVALID even for its class. Only a session that is no more
// is an error.
func (s *session) read(o pkcs11.ObjectHandle, names []string) ([]keyspec.Attribute, error) {
	out := make([]keyspec.Attribute, 0, len(names))
	if len(names) == 0 {
		return out, nil
	}
	codes := make([]uint, len(names))
	for i, n := range names {
		codes[i] = attrTypes[n].code
	}
	got, err := s.attributes(o, codes...)
	if err == nil {
		for i, n := range names {
			out = append(out, decode(n, got[i].Value))
		}
		return out, nil
	}
	f := asFault("attributes", "read "+names[0], err)
	if f.Code == 0 || f.Kind == frame.KindStorage || f.Kind == frame.KindLost && f.Code != pkcs11.CKR_OBJECT_HANDLE_INVALID {
		return nil, f
	}
	if len(names) == 1 {
		return append(out, keyspec.Attribute{Name: names[0], Value: keyspec.Unreported}), nil
	}
	for _, half := range [][]string{names[:len(names)/2], names[len(names)/2:]} {
		as, err := s.read(o, half)
		if err != nil {
			return nil, err
		}
		out = append(out, as...)
	}
	return out, nil
}

var inventoryNames = []string{"CKA_CLASS", "CKA_LABEL", "CKA_ID", "CKA_TOKEN", "CKA_PRIVATE", "CKA_KEY_TYPE", "CKA_LOCAL", "CKA_MODIFIABLE", "CKA_DESTROYABLE"}

// describe gives one line of the inventory.
func (s *session) describe(o pkcs11.ObjectHandle) (frame.Object, error) {
	as, err := s.read(o, inventoryNames)
	if err != nil {
		return frame.Object{}, err
	}
	return frame.Object{
		Class: as[0].Value, Label: as[1].Value, ID: as[2].Value,
		Token: as[3].Value == "true", Private: as[4].Value == "true", Attributes: as,
	}, nil
}
