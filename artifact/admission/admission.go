// Package admission is the report that a token must have before keys of keyrite
// are born in it, and at each later opening: what an attack with throw-away keys
// came to, bound to module, libraries, configuration, token and firmware.
//
// Who attacked makes a Report and signs it, into a file (Sign) or a record. Who is
// about to open a token takes it from there with the signature under it (Open,
// Take, ParseKept) and asks Check with what the module and the token say of
// themselves; ceremonies, releases and exports do so before the token's PIN is
// given to the module. It never repairs or explains away a failed case: one is
// enough to refuse.
//
// Compatibility: docs/formats/admission.md, version 1 is read for ever.
package admission

import (
	"crypto"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// Format and PayloadType name the report and the DSSE envelope around it.
const (
	Format      = "keyrite/admission/v1"
	PayloadType = "application/vnd.keyrite.admission.v1+json"
)

// Validity is how long a report is good for: modules, firmware and what is known
// about them change.
const Validity = 90 * 24 * time.Hour

// MinCases is a floor, below which no suite of ours ever was: a report with fewer
// cases was made by something else. The suite of today has more than twice as many.
const MinCases = 25

// MaxBytes bounds a report file; an honest one has some 40 KiB.
const MaxBytes = 1 << 20

// Report is the payload of keyrite/admission/v1; docs/formats/admission.md
// describes each member.
type Report struct {
	Algorithms   []string    `json:"algorithms"` // admitted, sorted, named as in key records
	Capabilities []string    `json:"capabilities"`
	Cases        []Case      `json:"cases"`
	Expires      string      `json:"expires"` // Made and 90 days
	Format       string      `json:"format"`
	Made         string      `json:"made"` // RFC 3339, UTC, seconds
	Module       Module      `json:"module"`
	Templates    []string    `json:"templates"` // admitted
	Token        Token       `json:"token"`
	World        world.World `json:"world"`
}

// Case is one attack or read-back.
type Case struct {
	ID       string `json:"id"`
	Title    string `json:"title"`
	Expected string `json:"expected"`
	Got      string `json:"got"`
	Pass     bool   `json:"pass"`
}

// File is something that was hashed: a library, a configuration file, or a
// setting by the name of its variable.
type File struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"` // hex
}

// Module is the module as it was loaded.
type Module struct {
	Configuration  []File `json:"configuration"`
	Description    string `json:"description"`
	Libraries      []File `json:"libraries"`
	LibraryVersion string `json:"library_version"`
	Manufacturer   string `json:"manufacturer"`
	Path           string `json:"path"`
	SHA256         string `json:"sha256"`
}

// Token is the token that was attacked.
type Token struct {
	Firmware     string `json:"firmware"`
	Hardware     string `json:"hardware"`
	Label        string `json:"label"`
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Serial       string `json:"serial"`
}

// RefusedError says that a token is not admitted and why. Its class is "token"
// (exit code 12).
type RefusedError struct {
	Token  string
	Failed []Case
}

func (e *RefusedError) Error() string {
	ids := make([]string, len(e.Failed))
	for i, c := range e.Failed {
		ids[i] = c.ID + " (expected " + c.Expected + ", got " + c.Got + ")"
	}
	return "token " + strconv.Quote(e.Token) + " is not admitted: " + strings.Join(ids, "; ")
}

// FaultClass gives the word of the exit table.
func (e *RefusedError) FaultClass() string { return string(fault.Token) }

// FaultCases lists the failed cases for error.cases.
func (e *RefusedError) FaultCases() any { return e.Failed }

// Judge refuses a report with a failed, missing or repeated case, or one that
// admits nothing.
func (r *Report) Judge() error {
	var failed []Case
	ids := map[string]bool{}
	for _, c := range r.Cases {
		if !c.Pass || c.ID == "" || ids[c.ID] {
			failed = append(failed, c)
		}
		ids[c.ID] = true
	}
	if len(ids) < MinCases {
		failed = append(failed, Case{
			ID: "suite", Title: "the whole suite ran",
			Expected: "at least " + strconv.Itoa(MinCases) + " cases", Got: strconv.Itoa(len(ids)),
		})
	}
	if len(r.Algorithms) == 0 {
		failed = append(failed, Case{ID: "algorithms", Title: "the token is good with some algorithm", Expected: "at least one", Got: "none"})
	}
	if len(failed) > 0 {
		return &RefusedError{r.Token.Label, failed}
	}
	return nil
}

// Check reports whether the report admits this token, behind this module, now and
// in this world. The caller has verified who signed it.
func (r *Report) Check(m *Module, t *Token, w world.World, now time.Time) error {
	if err := r.CheckTime(w, now); err != nil {
		return err
	}
	if r.Token != *t {
		return r.refuse("it is for the token %+v, and this one is %+v", r.Token, *t)
	}
	switch {
	case r.Module.SHA256 != m.SHA256 || m.SHA256 == "":
		return r.refuse("the module %q is not the file that was attacked: its hash is %.16s…, not %.16s…", m.Path, m.SHA256, r.Module.SHA256)
	case !slices.Equal(r.Module.Libraries, m.Libraries):
		return r.refuse("the libraries of the module are not those that it was attacked with: %s", difference(r.Module.Libraries, m.Libraries))
	case !slices.Equal(r.Module.Configuration, m.Configuration):
		return r.refuse("the configuration of the module is not the one that it was attacked with: %s", difference(r.Module.Configuration, m.Configuration))
	}
	return nil
}

// difference names the first file that is not the same.
func difference(was, is []File) string {
	for _, f := range is {
		if !slices.Contains(was, f) {
			return strconv.Quote(f.Path) + " is new or was changed"
		}
	}
	for _, f := range was {
		if !slices.Contains(is, f) {
			return strconv.Quote(f.Path) + " is gone"
		}
	}
	return "another order"
}

// CheckTime is the part of Check that needs no token.
func (r *Report) CheckTime(w world.World, now time.Time) error {
	if r.Format != Format {
		return r.refuse("its format is %.60q", r.Format)
	}
	if err := world.Match(w, r.World); err != nil {
		return err
	}
	made, err := charter.ParseTime(r.Made)
	if err != nil {
		return r.refuse("field made: %w", err)
	}
	if r.Expires != charter.FormatTime(made.Add(Validity)) {
		return r.refuse("its times are not 90 days apart")
	}
	if now.Before(made) || !now.Before(made.Add(Validity)) {
		return fault.Hint(r.refuse("it is good from %s to %s, and it is %s", r.Made, r.Expires, charter.FormatTime(now)),
			"attack the token again: keyrite hsm admit")
	}
	return r.Judge()
}

// CheckAlgorithm reports whether keys of an algorithm, by its name in key records,
// may be made and used in the token.
func (r *Report) CheckAlgorithm(algorithm string) error {
	if !slices.Contains(r.Algorithms, algorithm) {
		return fault.Hint(r.refuse("the token is not admitted for keys of algorithm %.40q, only for %s", algorithm, strings.Join(r.Algorithms, ", ")),
			"if it can do this well, attack it again with that algorithm: keyrite hsm admit")
	}
	return nil
}

// CheckTemplate reports whether keys of a template may be made in the token.
func (r *Report) CheckTemplate(template string) error {
	if !slices.Contains(r.Templates, template) {
		return r.refuse("the token is not admitted for keys of template %.40q, only of %s", template, strings.Join(r.Templates, ", "))
	}
	return nil
}

func (r *Report) refuse(format string, args ...any) error {
	return fault.Errorf(fault.Token, "admission report of token %q: "+format, append([]any{r.Token.Label}, args...)...)
}

// Sign puts a report into an envelope.
func Sign(r *Report, by crypto.Signer) ([]byte, error) {
	env, err := envelope.SignJSON(PayloadType, r, by)
	if err != nil {
		return nil, err
	}
	return env.Marshal()
}

// Signed is a report with the signatures of people under it.
type Signed struct {
	Report   *Report
	By       []string // names, in the order of the envelope
	Envelope *envelope.Envelope
}

// Open reads a report file that one of the people signed. Whether it admits anything
// is for Check to say. The errors are those of Take, and of class verify for what is
// no envelope.
func Open(data []byte, people *charter.People) (*Signed, error) {
	if len(data) > MaxBytes {
		return nil, fault.Errorf(fault.Verify, "admission report of more than %d bytes", MaxBytes)
	}
	env, err := envelope.Parse(data)
	if err != nil {
		return nil, err
	}
	return Take(env, people)
}

// Take reads the report in an envelope that one of the people signed, and nobody who
// is none of them; all else is an error of class verify or quorum. Whether it admits
// anything is for Check to say.
func Take(env *envelope.Envelope, people *charter.People) (*Signed, error) {
	var keys []envelope.Key
	for i := range people.Roster {
		p := &people.Roster[i].Person
		keys = append(keys, envelope.Key{Name: p.Name, Public: p.PublicKey()})
	}
	payload, names, err := envelope.Verify(env, PayloadType, keys, 1)
	if err != nil {
		return nil, err
	}
	r, err := parse(payload)
	return &Signed{r, names, env}, err
}

// Unverified is the report in an envelope, whoever signed it: for those who know the
// people only later, and take it then. The error is of class verify.
func Unverified(env *envelope.Envelope) (*Report, error) { return parse(env.Payload) }

func parse(payload []byte) (*Report, error) {
	var r Report
	return &r, jcs.Unmarshal(payload, &r)
}
