package frame

import (
	"encoding/json"

	"keyrite/hsm/keyspec"
)

// Op names a typed request to a module process. There is no raw PKCS#11 call
// among them, so a captured client cannot send an attack sequence.
type Op string

// The requests of an open session.
const (
	OpRandom   Op = "random"
	OpGenerate Op = "generate"
	OpCopy     Op = "copy"
	OpRead     Op = "attributes"
	OpSign     Op = "sign"
	OpMAC      Op = "mac"
	OpEncrypt  Op = "encrypt"
	OpDecrypt  Op = "decrypt"
	OpLook     Op = "look"
	OpObjects  Op = "objects"
	OpDestroy  Op = "destroy-tagged"
	OpSync     Op = "sync"
	OpAdmit    Op = "admit"
	OpReceive  Op = "receive"
	OpRemove   Op = "destroy-key"
	OpHealth   Op = "health"

	OpCertificates Op = "certificates"

	// The requests to a person's card or token; see card.go.
	OpCardKeys   Op = "card-keys"
	OpCardSign   Op = "card-sign"
	OpCardDerive Op = "card-derive"
	OpCardMake   Op = "card-make"
)

// Request asks the module process for one operation.
type Request struct {
	ID uint64 `json:"id"`
	Op Op     `json:"op"`
	// Key, Input and AAD are beside Body for the compact form. AAD is what OpEncrypt
	// and OpDecrypt bind to their input.
	Key   *keyspec.KeyID  `json:"key,omitempty"`
	Input []byte          `json:"input,omitempty"`
	AAD   []byte          `json:"aad,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
}

// Response answers the request of the same id; id 0 is the greeting.
type Response struct {
	ID    uint64          `json:"id"`
	Fault *Fault          `json:"fault,omitempty"`
	Data  []byte          `json:"data,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
}

// Fault is an error on its way to the client. It never holds a secret.
type Fault struct {
	Op    string `json:"op"`
	Code  uint64 `json:"code,omitempty"` // CKR_ value, 0 where none
	Name  string `json:"name,omitempty"` // of that value
	Kind  string `json:"kind"`           // sentinel of package hsm
	Class string `json:"class"`          // word of the exit table
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"` // what a person can do
	// WaitMS is how long it takes until the same may be asked again, in
	// milliseconds; only of KindWaiting.
	WaitMS int64 `json:"wait_ms,omitempty"`
}

func (f *Fault) Error() string {
	if f.Name != "" {
		return f.Op + ": " + f.Text + ": " + f.Name
	}
	return f.Op + ": " + f.Text
}

// The kinds of fault that a caller can tell apart.
const (
	KindPIN       = "pin"
	KindLocked    = "locked"
	KindNotFound  = "not-found"
	KindAmbiguous = "ambiguous"
	KindExists    = "exists"
	KindLost      = "lost"
	KindRefused   = "refused"
	KindStorage   = "storage"
	KindVerify    = "verify"
	KindUsage     = "usage"
	KindInternal  = "internal"
	KindWaiting   = "waiting" // refused for a stated time, and nothing was done
)

// Token names a token as everywhere outside: by label and serial number.
type Token struct {
	Label  string `json:"label"`
	Serial string `json:"serial"`
}

// TokenInfo is what a token says about itself.
type TokenInfo struct {
	Token
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Hardware     string `json:"hardware"`
	Firmware     string `json:"firmware"`
	Initialised  bool   `json:"initialised"`
	UserPINSet   bool   `json:"user_pin_set"`
	PINCountLow  bool   `json:"pin_count_low"` // a wrong user PIN was given since the last login
	PINLocked    bool   `json:"pin_locked"`
}

// ModuleInfo is the identity of a loaded module.
type ModuleInfo struct {
	Path           string    `json:"path"`
	SHA256         string    `json:"sha256"`
	Manufacturer   string    `json:"manufacturer"`
	Description    string    `json:"description"`
	LibraryVersion string    `json:"library_version"`
	Libraries      []Library `json:"libraries"`
	// Configuration is what decides beside its code how the module behaves: files,
	// and variables as $NAME.
	Configuration []Library `json:"configuration"`
	// Hardening is what the kernel said of the module process.
	Hardening Hardening `json:"hardening"`
}

// Hardening is what is in force in a module process, as the kernel says.
type Hardening struct {
	User            int    `json:"user"`         // effective user id
	Capabilities    string `json:"capabilities"` // "none", or the effective set in hex
	NoNewPrivileges bool   `json:"no_new_privileges"`
	Seccomp         string `json:"seccomp"`  // "filter", or why there is none
	Landlock        string `json:"landlock"` // version of its ABI, or why there is none
	Sockets         string `json:"sockets"`  // what the filter lets through
	Network         string `json:"network"`  // "no interface", or their names
	CoreFiles       bool   `json:"core_files"`
	Dumpable        bool   `json:"dumpable"` // others of the same user may read its memory
	LockedKB        int64  `json:"locked_kb"`
}

// Library is one further file whose code the module process has mapped.
type Library struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

// Hello is the greeting of a module process whose login succeeded.
type Hello struct {
	Version int        `json:"version"`
	Module  ModuleInfo `json:"module"`
	Token   TokenInfo  `json:"token"`
}

// KeyState is a key pair as read back from the token.
type KeyState struct {
	Algorithm  keyspec.Algorithm `json:"algorithm"`
	PublicKey  []byte            `json:"public_key"` // SubjectPublicKeyInfo, DER
	Attributes keyspec.Pair      `json:"attributes"`
}

// Object is one line of a token's inventory.
type Object struct {
	Class      string              `json:"class"`
	Label      string              `json:"label"`
	ID         string              `json:"id"` // hex
	Token      bool                `json:"token"`
	Private    bool                `json:"private"`
	Attributes []keyspec.Attribute `json:"attributes"`
}

// LookBody is what a token has under one id, and what it has under none.
type LookBody struct {
	Objects []Object  `json:"objects"`
	Key     *KeyState `json:"key,omitempty"` // where the objects are one whole key
}

// Destroyed reports what a tagged destruction did.
type Destroyed struct {
	Objects    []Object `json:"objects"`
	Tainted    []Object `json:"tainted"`     // tagged and still there
	Remaining  []Object `json:"remaining"`   // everything else in the token
	EmptyFiles []string `json:"empty_files"` // object files of 0 bytes, removed
}

// DestroyBody selects what OpDestroy destroys.
type DestroyBody struct {
	Tag keyspec.Tag `json:"tag"`
	// Nameless also takes objects without any CKA_ID: what a killed copy may
	// leave. Only for tokens that hold nothing but keys of ours.
	Nameless bool `json:"nameless"`
}

// Case is the outcome of one attack.
type Case struct {
	ID       string `json:"id"`
	Title    string `json:"title"`
	Expected string `json:"expected"`
	Got      string `json:"got"`
	Pass     bool   `json:"pass"`
}

// Admission is the answer to OpAdmit.
type Admission struct {
	Loosened     bool     `json:"loosened"` // the templates were not the real ones
	Cases        []Case   `json:"cases"`
	Capabilities []string `json:"capabilities"` // names of mechanisms, sorted
	// Algorithms and Templates are those that the token showed to be good with;
	// what it does not offer is not among them.
	Algorithms []keyspec.Algorithm `json:"algorithms"`
	Templates  []keyspec.Template  `json:"templates"`
}

// AdmitBody tunes OpAdmit.
type AdmitBody struct {
	// Loose replaces a value of the sign template, so that a test can see the
	// suite fail: "CKA_EXTRACTABLE=true".
	Loose []keyspec.Attribute `json:"loose,omitempty"`
	// Algorithms are those to try; none means all.
	Algorithms []keyspec.Algorithm `json:"algorithms,omitempty"`
}

// ExportBody names the movable key that is to leave and for whom.
type ExportBody struct {
	Key      keyspec.Spec `json:"key"`
	Receiver []byte       `json:"receiver"` // SubjectPublicKeyInfo, DER
}

// Parcel is a key on its way, and what its token said of everything that took
// part. The two blobs are useless without the receiver's private half.
type Parcel struct {
	Key        KeyState            `json:"key"`
	Wrapping   []keyspec.Attribute `json:"wrapping"` // the AES key that wrapped it
	Receiver   []keyspec.Attribute `json:"receiver"` // the receiver's public half, as imported
	WrappedKEK []byte              `json:"wrapped_kek"`
	WrappedKey []byte              `json:"wrapped_key"`
}

// ReceiveBody is a parcel at its destination.
type ReceiveBody struct {
	Receiver   keyspec.Spec `json:"receiver"`
	Key        keyspec.Spec `json:"key"`        // as what it is to arrive
	PublicKey  []byte       `json:"public_key"` // SubjectPublicKeyInfo, DER
	WrappedKEK []byte       `json:"wrapped_kek"`
	WrappedKey []byte       `json:"wrapped_key"`
}

// Arrival is what came out of a parcel.
type Arrival struct {
	Key       KeyState            `json:"key"`
	Unwrapped []keyspec.Attribute `json:"unwrapped"` // the AES key, as it was here
}
