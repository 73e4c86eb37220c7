// Package admit attacks a token and makes the report of it. The attacks
// themselves run in the module process (hsm/p11); the report, and what it is
// worth later, is package artifact/admission.
//
// Ceremonies call Run on a fresh token, `keyrite hsm admit` on any; both
// describe a token to Check by Describe. It must never make a report of attacks
// on other templates than the real ones.
package admit

import (
	"context"
	"fmt"
	"slices"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/world"
	"keyrite/hsm"
)

// Run attacks the token of the session and makes the report. The session must be
// fresh; afterwards it is logged in, and nothing of the attacks is left in the
// token. Only the algorithms named are tried and admitted, or all without any. If
// a case fails the error is a *admission.RefusedError, and the report is returned
// only to be shown.
func Run(ctx context.Context, s *hsm.Session, w world.World, now time.Time, algorithms ...hsm.Algorithm) (*admission.Report, error) {
	a, err := s.Attack(ctx, algorithms)
	if err != nil {
		return nil, fmt.Errorf("attack token %q: %w", s.Token().Label, err)
	}
	m, t := Describe(s.Module(), s.TokenInfo())
	r := &admission.Report{
		Format: admission.Format, World: w, Module: *m, Token: *t,
		Cases: []admission.Case{}, Capabilities: a.Capabilities,
		Algorithms: []string{}, Templates: []string{},
		Made: charter.FormatTime(now), Expires: charter.FormatTime(now.Truncate(time.Second).Add(admission.Validity)),
	}
	for _, c := range a.Cases {
		r.Cases = append(r.Cases, admission.Case(c))
	}
	for name, x := range Algorithms() {
		if slices.Contains(a.Algorithms, x) {
			r.Algorithms = append(r.Algorithms, name)
		}
	}
	slices.Sort(r.Algorithms)
	for _, x := range a.Templates {
		r.Templates = append(r.Templates, string(x))
	}
	return r, r.Judge()
}

// Algorithms gives what a key of a key record is in a token.
func Algorithms() map[string]hsm.Algorithm {
	return map[string]hsm.Algorithm{
		anchor.P256: hsm.ECDSAP256, anchor.P384: hsm.ECDSAP384, anchor.Ed25519: hsm.Ed25519,
		anchor.RSA3072: hsm.RSA3072PKCS1, anchor.RSA4096: hsm.RSA4096PKCS1, anchor.RSA3072PSS: hsm.RSA3072PSS, anchor.RSA4096PSS: hsm.RSA4096PSS,
	}
}

// Describe says what a report has to fit.
func Describe(m hsm.ModuleInfo, t hsm.TokenInfo) (*admission.Module, *admission.Token) {
	module := &admission.Module{
		Path: m.Path, SHA256: m.SHA256, Manufacturer: m.Manufacturer, Description: m.Description,
		LibraryVersion: m.LibraryVersion, Libraries: files(m.Libraries), Configuration: files(m.Configuration),
	}
	token := &admission.Token{
		Label: t.Label, Serial: t.Serial, Manufacturer: t.Manufacturer, Model: t.Model,
		Hardware: t.Hardware, Firmware: t.Firmware,
	}
	return module, token
}

func files(ls []hsm.Library) []admission.File {
	out := make([]admission.File, len(ls))
	for i, l := range ls {
		out[i] = admission.File(l)
	}
	return out
}

// Check reports whether the report admits the token that is open.
func Check(r *admission.Report, s *hsm.Access, w world.World, now time.Time) error {
	m, t := Describe(s.Module(), s.TokenInfo())
	return r.Check(m, t, w, now)
}
