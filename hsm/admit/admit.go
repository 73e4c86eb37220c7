// Package admit makes the report that a token must have before keys of
// keyrite are born in it: the attacks and read-backs that keyrite-hsmd tried
// on it with throw-away keys, bound to the module as loaded, its libraries,
// the token and its firmware. A person signs the report; ceremonies and the
// vault ask Check.
//
// The attacks themselves run in the module process (hsm/p11). This package
// never repairs or explains away a failed case: one is enough to refuse.
package admit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyrite/hsm"
)

// Format and PayloadType name the report and the DSSE envelope around it.
const (
	Format      = "keyrite/admission/v1"
	PayloadType = "application/vnd.keyrite.admission.v1+json"
)

// Validity is how long a report is good for: modules, firmware and what is
// known about them change.
const Validity = 90 * 24 * time.Hour

// minCases is the size of the suite; a report with fewer was made by
// something else.
const minCases = 25

// Report is the payload of keyrite/admission/v1; docs/formats/admission.md
// describes each field. Its file form is canonical JSON inside an envelope.
type Report struct {
	Format       string     `json:"format"`
	World        string     `json:"world"`
	Module       Module     `json:"module"`
	Token        Token      `json:"token"`
	Cases        []hsm.Case `json:"cases"`
	Capabilities []string   `json:"capabilities"`
	Made         string     `json:"made"`    // RFC 3339, UTC, seconds
	Expires      string     `json:"expires"` // Made and 90 days
}

// Module is the module as it was loaded.
type Module struct {
	Path           string        `json:"path"`
	SHA256         string        `json:"sha256"`
	Manufacturer   string        `json:"manufacturer"`
	Description    string        `json:"description"`
	LibraryVersion string        `json:"library_version"`
	Libraries      []hsm.Library `json:"libraries"`
}

// Token is the token that was attacked.
type Token struct {
	Label        string `json:"label"`
	Serial       string `json:"serial"`
	Manufacturer string `json:"manufacturer"`
	Model        string `json:"model"`
	Hardware     string `json:"hardware"`
	Firmware     string `json:"firmware"`
}

// RefusedError says that a token is not admitted and why. Its class is
// "token" (exit code 12).
type RefusedError struct {
	Token  string
	Failed []hsm.Case
}

func (e *RefusedError) Error() string {
	ids := make([]string, len(e.Failed))
	for i, c := range e.Failed {
		ids[i] = fmt.Sprintf("%s (expected %s, got %s)", c.ID, c.Expected, c.Got)
	}
	return fmt.Sprintf("token %q is not admitted: %s", e.Token, strings.Join(ids, "; "))
}

// FaultClass gives the word of the exit table.
func (e *RefusedError) FaultClass() string { return "token" }

// FaultCases lists the failed cases for error.cases.
func (e *RefusedError) FaultCases() any { return e.Failed }

// Run attacks the token of the session and makes the report. The session must
// be fresh; afterwards it is logged in and empty again. If a case fails the
// error is a *RefusedError, and the report is returned only to be shown.
func Run(ctx context.Context, s *hsm.Session, world string, now time.Time) (*Report, error) {
	a, err := s.Attack(ctx)
	if err != nil {
		return nil, fmt.Errorf("attack token %q: %w", s.Token().Label, err)
	}
	r := report(s, a, world, now)
	return r, r.judge()
}

func report(s *hsm.Session, a *hsm.Attacks, world string, now time.Time) *Report {
	m, t := s.Module(), s.TokenInfo()
	now = now.UTC().Truncate(time.Second)
	return &Report{
		Format: Format, World: world,
		Module: Module{m.Path, m.SHA256, m.Manufacturer, m.Description, m.LibraryVersion, m.Libraries},
		Token:  Token{t.Label, t.Serial, t.Manufacturer, t.Model, t.Hardware, t.Firmware},
		Cases:  a.Cases, Capabilities: a.Capabilities,
		Made: now.Format(time.RFC3339), Expires: now.Add(Validity).Format(time.RFC3339),
	}
}

// judge refuses a report with a failed, missing or repeated case.
func (r *Report) judge() error {
	var failed []hsm.Case
	ids := map[string]bool{}
	for _, c := range r.Cases {
		if !c.Pass || c.ID == "" || ids[c.ID] {
			failed = append(failed, c)
		}
		ids[c.ID] = true
	}
	if len(ids) < minCases {
		failed = append(failed, hsm.Case{
			ID: "suite", Title: "the whole suite ran",
			Expected: fmt.Sprintf("at least %d cases", minCases), Got: fmt.Sprint(len(ids)),
		})
	}
	if len(failed) > 0 {
		return &RefusedError{r.Token.Label, failed}
	}
	return nil
}

// Check reports whether the report admits the token of the session now, in
// this world. The caller has verified who signed it.
func (r *Report) Check(s *hsm.Session, world string, now time.Time) error {
	if err := r.CheckTime(world, now); err != nil {
		return err
	}
	t := s.TokenInfo()
	if r.Token != (Token{t.Label, t.Serial, t.Manufacturer, t.Model, t.Hardware, t.Firmware}) {
		return r.refuse("it is for another token: %+v", r.Token)
	}
	m := s.Module()
	if r.Module.SHA256 != m.SHA256 {
		return r.refuse("the module %s has another hash than the one that was attacked", m.Path)
	}
	if !slices.Equal(r.Module.Libraries, m.Libraries) {
		return r.refuse("the libraries of the module are not those it was attacked with")
	}
	return nil
}

// CheckTime is the part of Check that needs no token.
func (r *Report) CheckTime(world string, now time.Time) error {
	if r.Format != Format {
		return r.refuse("its format is %q", r.Format)
	}
	if r.World != world {
		return &Error{"policy", fmt.Sprintf("admission report of world %q used in world %q", r.World, world)}
	}
	made, err := time.Parse(time.RFC3339, r.Made)
	if err != nil {
		return r.refuse("field made: %v", err)
	}
	if r.Expires != made.UTC().Add(Validity).Format(time.RFC3339) || r.Made != made.UTC().Format(time.RFC3339) {
		return r.refuse("its times are not %s apart", Validity)
	}
	if now.Before(made) || !now.Before(made.Add(Validity)) {
		return r.refuse("it is valid from %s to %s", r.Made, r.Expires)
	}
	return r.judge()
}

func (r *Report) refuse(format string, args ...any) error {
	return &Error{"token", fmt.Sprintf("admission report of token %q: ", r.Token.Label) + fmt.Sprintf(format, args...)}
}

// Error is a report that does not admit.
type Error struct {
	class, text string
}

func (e *Error) Error() string { return e.text }

// FaultClass gives the word of the exit table.
func (e *Error) FaultClass() string { return e.class }
