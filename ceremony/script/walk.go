package script

// walker is the model of the world that a script changes.
type walker struct {
	s      *Script
	did    map[string]bool
	safe   map[string]int // how far each safe is, an index of safeOrder
	born   map[string]bool
	issued map[string]bool
	chartered,
	founded bool
}

// safeOrder is the only order in which a safe comes to be. A secret dealt is
// thereby always received by everybody before a PIN depends on it, and no key is
// born before the one-time PINs are gone.
func safeOrder() []string {
	return []string{"token.init", "token.admit", "shares.deal", "shares.receipts", "token.pins"}
}

// walk goes from the first step to the last and checks what each needs. Every
// step has two ways out: done, which is walked here, and anything else, which
// the engine takes to VOID whatever the step is; so the second needs no walk.
func (s *Script) walk() error {
	w := &walker{s: s, did: map[string]bool{}, safe: map[string]int{}, born: map[string]bool{}, issued: map[string]bool{}}
	for _, ph := range s.Phases() {
		for i := range ph.Steps {
			if err := w.step(&ph.Steps[i]); err != nil {
				return err
			}
		}
	}
	return w.finish()
}

func (w *walker) step(st *Step) error {
	where := "step " + st.ID
	if st.Safe != "" {
		if _, ok := w.s.SafeByName(st.Safe); !ok {
			return bad(where, "safe %q is not in the script", st.Safe)
		}
	}
	for i, do := range safeOrder() {
		if st.Do != do {
			continue
		}
		if !w.founded {
			return bad(where, "%s comes after genesis.sign: nothing is touched before everybody signed", do)
		}
		if w.safe[st.Safe] != i {
			return bad(where, "%s of safe %s is out of order; the order is %v", do, st.Safe, safeOrder())
		}
		w.safe[st.Safe]++
	}
	switch st.Do {
	case "genesis.sign":
		if w.founded || !w.did["people.identify"] || !w.did["environment.check"] {
			return bad(where, "genesis.sign comes once, after environment.check and people.identify")
		}
		w.founded = true
	case "key.generate":
		return w.generate(where, st)
	case "cert.issue":
		return w.issue(where, st)
	case "charter.append":
		if w.chartered {
			return bad(where, "the charter is written twice")
		}
		w.chartered = true
	case "update.root":
		if !w.chartered || w.did[st.Do] {
			return bad(where, "the update root is signed once, after the charter named its keys")
		}
	case "keys.store", "keys.prove":
		if st.Do == "keys.prove" && !w.did["keys.store"+st.Safe] {
			return bad(where, "keys of safe %s are proven before they are stored", st.Safe)
		}
		if w.did[st.Do+st.Safe] {
			return bad(where, "%s of safe %s twice", st.Do, st.Safe)
		}
	case "outputs.write":
		if w.did[st.Do] {
			return bad(where, "outputs are written twice")
		}
		for _, x := range w.s.Safes {
			if !w.did["keys.prove"+x.Name] {
				return bad(where, "outputs are written before the keys of safe %s are proven", x.Name)
			}
		}
	}
	w.did[st.Do], w.did[st.Do+st.Safe] = true, true
	return nil
}

func (w *walker) generate(where string, st *Step) error {
	k, ok := w.s.KeyByID(st.Key)
	switch {
	case !ok:
		return bad(where, "key %q is not in the script", st.Key)
	case w.born[k.ID]:
		return bad(where, "key %s is made twice", k.ID)
	case w.chartered:
		return bad(where, "key %s is made after the charter was written", k.ID)
	}
	for _, x := range w.s.Safes {
		if w.safe[x.Name] != len(safeOrder()) {
			return bad(where, "key %s is made before safe %s has its PINs from shares", k.ID, x.Name)
		}
	}
	w.born[k.ID] = true
	return nil
}

func (w *walker) issue(where string, st *Step) error {
	c, ok := w.s.CertByID(st.Cert)
	switch {
	case !ok:
		return bad(where, "certificate %q is not in the script", st.Cert)
	case w.issued[c.ID]:
		return bad(where, "certificate %s is issued twice", c.ID)
	case !w.born[c.Issuer]:
		return bad(where, "certificate %s is issued before its issuer %s is made", c.ID, c.Issuer)
	case c.Issuer != c.Key && !w.issued[c.Issuer]:
		return bad(where, "certificate %s is issued before its issuer %s has one", c.ID, c.Issuer)
	case w.chartered:
		return bad(where, "certificate %s is issued after the charter was written", c.ID)
	}
	w.issued[c.ID] = true
	return nil
}

// finish checks that nothing was left undone.
func (w *walker) finish() error {
	for _, k := range w.s.Keys {
		if !w.born[k.ID] {
			return bad("key "+k.ID, "no step makes it")
		}
	}
	for _, c := range w.s.Certificates {
		if !w.issued[c.ID] {
			return bad("certificate "+c.ID, "no step issues it")
		}
	}
	for _, x := range w.s.Safes {
		if !w.did["keys.store"+x.Name] || !w.did["keys.prove"+x.Name] {
			return bad("safe "+x.Name, "its keys are not stored and proven: they would be lost at the end")
		}
	}
	if k, ok := w.s.KeyByID("tuf-root"); ok && !w.did["update.root"] {
		return bad("key "+k.ID, "no step signs the update root with it")
	}
	if !w.did["documents.see"] {
		return bad("end", "nobody looks at identity documents: documents.see is required")
	}
	if !w.chartered || !w.did["outputs.write"] || !w.did["read.aloud"] {
		return bad("end", "charter.append, outputs.write and read.aloud are required")
	}
	return nil
}
