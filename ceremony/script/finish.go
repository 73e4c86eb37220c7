package script

import (
	"slices"
	"strings"
)

// lintUse checks that some step makes or uses each thing of the script, and that
// what the kind is for is done.
func (s *Script) lintUse() *Error {
	used := map[string]bool{}
	for _, st := range s.allSteps() {
		used[st.Do], used[st.Do+" "+st.Safe+st.Key+st.Cert+st.CRL+st.Medium] = true, true
	}
	need := func(list []string, slot, verb string) *Error {
		for _, name := range list {
			if !used[verb+" "+name] {
				return s.bad(s.pathOf(slot+" "+name), slot+" "+name, "no step makes it: %s", verb)
			}
		}
		return nil
	}
	for _, x := range []struct {
		list       []string
		slot, verb string
	}{
		{each(s.Safes, "", func(x *Safe) (string, bool) { return x.Name, !s.IsExisting(x) }), "safe", "token.init"},
		{each(s.Safes, "", func(x *Safe) (string, bool) { return x.Name, s.IsExisting(x) }), "safe", "safe.open"},
		{each(s.Keys, "", func(x *Key) (string, bool) { return x.ID, true }), "key", "key.generate"},
		{each(s.Certificates, "", func(x *Certificate) (string, bool) { return x.ID, true }), "certificate", "cert.issue"},
		{each(s.CRLs, "", func(x *CRL) (string, bool) { return x.ID, true }), "crl", "crl.issue"},
		{each(s.Media, "", func(x *Medium) (string, bool) { return x.Name, true }), "medium", "medium.in"},
	} {
		if err := need(x.list, x.slot, x.verb); err != nil {
			return err
		}
	}
	kind, _ := KindByName(s.Kind)
	verbs := verbTable()
	for _, verb := range append(mustAll(), kind.Must...) {
		if !used[verb] {
			return s.bad("", "end", "a ceremony of kind %s has a step %s: %s", s.Kind, verb, verbs[verb].Does)
		}
	}
	if k, ok := s.KeyByID("tuf-root"); ok && !used["update.root"] {
		return s.bad(s.pathOf("key "+k.ID), "key "+k.ID, "no step signs the update root with it: update.root")
	}
	if err := s.lintWatched(); err != nil {
		return err
	}
	if len(s.Successions) > 0 && !used["succession.sign"] || len(s.Successions)+len(s.Keys) == 0 && used["succession.sign"] {
		return s.bad("successions", "successions", "succession.sign and successions belong together: the step signs the list, and tells of the keys made here")
	}
	if !used["charter.append"] && len(s.Factories)+len(s.Stations)+len(s.Pipelines)+len(s.Relays) > 0 {
		return s.bad("", "end", "no step puts the factories, stations, pipelines and relays into the charter: charter.append")
	}
	return nil
}

// finish checks a world in which every step is over: nothing made is lost,
// nothing begun is left, and what the kind is for was done.
func (w *walker) finish(n *node) error {
	ends := []struct {
		of     string
		states []string
		text   string
	}{
		{"fresh safes", is("open"), "it is never made whole (it is %s); its steps are token.init, token.admit, shares.deal, shares.receipts, token.pins"},
		{"keys", is("proven"), "it is %s at the end, not stored and proven, and would be lost: keys.store and keys.prove are required"},
		{"moved keys", is("proven"), "it is %s at the end, not proven where it went: keys.prove is required"},
		{"certificates", is("issued"), "it is never issued (%s)"},
		{"crls", is("issued"), "it is never issued (%s)"},
		{"epochs", is("old", "changed"), "its new secret is %s and never put in force: shares.deal, shares.receipts and token.repin belong together"},
		{"existing safes", is("open", "destroyed"), "it is %s at the end; no way opens it"},
		{"media", is("away"), "it is %s at the end; it goes into the drive and out of it again"},
	}
	for _, e := range ends {
		for _, slot := range w.of(e.of, &Step{}) {
			got := w.state(n.world, slot)
			if slices.Contains(e.states, got) {
				continue
			}
			err := w.s.bad(w.s.pathOf(slot), slot, e.text, got)
			err.Path = w.way(n)
			return err
		}
	}
	return nil
}

// pathOf is where a thing is declared.
func (s *Script) pathOf(slot string) string {
	kind, name, _ := strings.Cut(slot, " ")
	at := func(list string, n int, is func(i int) bool) string {
		for i := range n {
			if is(i) {
				return join(list, itoa(i))
			}
		}
		return ""
	}
	switch kind {
	case "safe", "epoch":
		return at("safes", len(s.Safes), func(i int) bool { return s.Safes[i].Name == name })
	case "key":
		if p := at("keys", len(s.Keys), func(i int) bool { return s.Keys[i].ID == name }); p != "" {
			return p
		}
		return at("existing", len(s.Existing), func(i int) bool { return s.Existing[i].ID == name })
	case "certificate":
		return at("certificates", len(s.Certificates), func(i int) bool { return s.Certificates[i].ID == name })
	case "crl":
		return at("crls", len(s.CRLs), func(i int) bool { return s.CRLs[i].ID == name })
	}
	return at("media", len(s.Media), func(i int) bool { return s.Media[i].Name == name })
}
