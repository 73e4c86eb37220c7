package frame

// Verb names a command to the supervisor.
type Verb string

// The commands.
const (
	VerbHello  Verb = "hello"
	VerbTokens Verb = "tokens"
	VerbInit   Verb = "init-token"
	VerbTake   Verb = "take-pins"
	VerbChange Verb = "change-pins"
	VerbSettle Verb = "settle-pins"
	VerbErase  Verb = "erase-token"
	VerbOpen   Verb = "open"
	VerbKill   Verb = "kill" // end a module process at once
	VerbEnd    Verb = "end"  // wait for one whose data socket is closed
	VerbWipe   Verb = "wipe"
	VerbCancel Verb = "cancel"
	VerbExport Verb = "export"
	VerbPINs   Verb = "pin-counter"
)

// Epoch says which PINs of a token are meant: those in force or those that
// will be after the change.
type Epoch string

// The epochs.
const (
	Current Epoch = "current"
	Next    Epoch = "next"
)

// PINForm says how PINs stand in a descriptor.
type PINForm string

// The forms.
const (
	// Framed: PIN frames, derived or random, cut to the token's limits.
	Framed PINForm = "framed"
	// UserText: the user PIN alone as text, one line, taken as it stands.
	UserText PINForm = "user-text"
)

// Settings belong to hello and hold for the life of the supervisor.
type Settings struct {
	// ReopenMS is the time between two re-initialisations of one token, in
	// milliseconds. Required.
	ReopenMS int64 `json:"reopen_ms,omitempty"`
	// StateDir is the folder of the PIN counters, absolute, or empty.
	StateDir string `json:"state_dir,omitempty"`
	// ModuleSHA256 is the hash in hex that the module must have, or empty.
	ModuleSHA256 string `json:"module_sha256,omitempty"`
	// Sockets and Folders are what the module may use beside what its own
	// configuration names: "unix", "tcp:PORT"; absolute paths.
	Sockets []string `json:"sockets,omitempty"`
	Folders []string `json:"folders,omitempty"`
}

// Verdict is what a module process that opens a token tells its supervisor,
// one byte each: the supervisor gave the data socket away and hears nothing
// else of the outcome.
type Verdict byte

// The verdicts; the values are the bytes on the wire.
const (
	VerdictOpen    Verdict = 'o' // logged in, serving
	VerdictRefused Verdict = 'r' // told the client why there is no session; module and token are well
	VerdictLost    Verdict = 'l' // the token or the module's session was lost
)

// Command asks the supervisor for one thing.
type Command struct {
	ID   uint64 `json:"id"`
	Verb Verb   `json:"verb"`
	// Version, Module and ModuleArgs belong to hello.
	Version    int      `json:"version,omitempty"`
	Module     string   `json:"module,omitempty"`
	ModuleArgs string   `json:"module_args,omitempty"`
	Settings   Settings `json:"settings"`
	Token      Token    `json:"token"`
	Epoch      Epoch    `json:"epoch,omitempty"`
	Form       PINForm  `json:"form,omitempty"`
	// Child names a module process; Cancels another command.
	Child   uint64 `json:"child,omitempty"`
	Cancels uint64 `json:"cancels,omitempty"`
	// TimeoutMS bounds the work of a module process started for the command.
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
	// Export says what leaves the token, wrapped.
	Export *ExportBody `json:"export,omitempty"`
	// Sessions is how many requests the module process of an open serves at a
	// time; 0 is 1.
	Sessions int `json:"sessions,omitempty"`
	// Reset is the reason for which the counter of wrong PINs is reset; empty: it
	// is only read.
	Reset string `json:"reset,omitempty"`
}

// PINCounter is what keyrite counted of a token's wrong PINs.
type PINCounter struct {
	Path    string     `json:"path"`
	User    int        `json:"user"` // wrong in a row
	SO      int        `json:"so"`
	Limit   int        `json:"limit"`
	Damaged string     `json:"damaged,omitempty"` // why it cannot be believed; no PIN is tried then
	Resets  []PINReset `json:"resets"`
}

// PINReset is one reset by a person.
type PINReset struct {
	Time   string `json:"time"` // RFC 3339
	UID    int    `json:"uid"`
	Reason string `json:"reason"`
	User   int    `json:"user"` // wrong PINs that it made forgotten, -1 where they were not readable
	SO     int    `json:"so"`
}

// Answer answers the command of the same id.
type Answer struct {
	ID      uint64      `json:"id"`
	Fault   *Fault      `json:"fault,omitempty"`
	Version int         `json:"version,omitempty"`
	Module  *ModuleInfo `json:"module,omitempty"`
	Tokens  []TokenInfo `json:"tokens,omitempty"`
	Child   uint64      `json:"child,omitempty"`
	Parcel  *Parcel     `json:"parcel,omitempty"`
	PINs    *PINCounter `json:"pins,omitempty"`
}

// Purpose is what a module process is started for.
type Purpose string

// The purposes.
const (
	ForTokens Purpose = "tokens" // list tokens, no PIN
	ForInit   Purpose = "init"   // initialise a free token
	ForChange Purpose = "change" // change both PINs
	ForErase  Purpose = "erase"  // initialise a token anew, with everything in it
	ForSettle Purpose = "settle" // after a change broke off: bring both PINs to one epoch
	ForOpen   Purpose = "open"   // log in and serve requests
	ForExport Purpose = "export" // wrap one movable key for a receiver
	ForPINs   Purpose = "pins"   // read or reset the counter of wrong PINs, no PIN
)

// Job is the first thing that a module process reads.
type Job struct {
	Purpose    Purpose `json:"purpose"`
	Module     string  `json:"module"`
	ModuleArgs string  `json:"module_args,omitempty"`
	// ModuleSHA256 is the hash in hex that the module must have, or empty.
	ModuleSHA256 string `json:"module_sha256,omitempty"`
	StateDir     string `json:"state_dir,omitempty"` // folder of the PIN counters, empty where there is none
	Token        Token  `json:"token"`               // serial is empty where a fresh token is meant
	// Unix and TCP are the sockets that the module may open, Sockets the same in
	// words, Landlock what keeps it to its folders.
	Unix     bool   `json:"unix"`
	TCP      bool   `json:"tcp"`
	Sockets  string `json:"sockets"`
	Landlock string `json:"landlock"`
	// CutCurrent and CutNext say that the PINs of that epoch may be cut to the
	// token's limits.
	CutCurrent bool `json:"cut_current"`
	CutNext    bool `json:"cut_next"`

	Export   *ExportBody `json:"export,omitempty"`
	Sessions int         `json:"sessions,omitempty"` // of an open; 0 is 1
	Reset    string      `json:"reset,omitempty"`    // as in Command
}

// Result is the one answer of a module process that serves no requests.
type Result struct {
	Fault  *Fault      `json:"fault,omitempty"`
	Module ModuleInfo  `json:"module"`
	Tokens []TokenInfo `json:"tokens"`
	Parcel *Parcel     `json:"parcel,omitempty"`
	PINs   *PINCounter `json:"pins,omitempty"`
}
