package record

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/attestation"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/tlog"
)

// AttestationPath is the file with the evidence for a key.
func AttestationPath(key string) string { return OutputsDir + "/" + key + attestationSuffix }

const attestationSuffix = ".attestation.json"

// watched takes the signature of those who watched. It covers the transcript up to its
// own step at least, so every birth that it is about stands in what they signed.
func (c *checker) watched(d *Watched) error {
	var w BirthsWatched
	if err := jcs.Unmarshal(d.Envelope.Payload, &w); err != nil {
		return err
	}
	root, err := c.tr.RootAt(w.Size)
	if err != nil || c.saw != nil || w.Size <= c.began || w.Size >= c.tr.Size() || w.Root != tlog.Hex(root) {
		return bad("%w: the births were signed for twice, or over another transcript", ErrEntry)
	}
	c.saw = d
	return nil
}

// checkOrigins compares what every key says of its birth with what the script wants
// and with what is there to show it: the evidence of its HSM, which is verified, or
// the signatures of those who watched.
func (c *checker) checkOrigins() error {
	evidence := map[string]bool{}
	for path := range c.outputs {
		if strings.HasSuffix(path, attestationSuffix) && !strings.HasPrefix(path, AfterDir+"/") {
			evidence[path] = true
		}
	}
	watched := map[string]anchor.KeyRecord{}
	for i := range c.script.Keys {
		k := &c.script.Keys[i]
		made := c.stored[k.ID].Key
		if !allowed(k.Attestation, made.Attestation) {
			return bad("%w: key %s is %s; the script wants attestation %.40q", ErrRecord, k.ID, made.Origin(), k.Attestation)
		}
		switch made.Attestation {
		case anchor.Attested:
			if err := c.checkAttested(&made); err != nil {
				return err
			}
			delete(evidence, AttestationPath(k.ID))
		case anchor.Watched:
			watched[k.ID] = made
		}
	}
	if len(evidence) > 0 {
		return bad("%w: %s is of no key that is attested here", ErrRecord, slices.Sorted(maps.Keys(evidence))[0])
	}
	return c.checkWatched(watched)
}

// allowed says whether a key of that birth is one that the script's word allows. No
// word is "none", as in scripts of before there were attestations.
func allowed(wanted, is string) bool {
	switch wanted {
	case "required":
		return is == anchor.Attested
	case "quorum":
		return is == anchor.Attested || is == anchor.Watched
	case "", "none":
		return is == ""
	}
	return false
}

// vendorRoots are those under which a key of this ceremony may be attested: of the
// charter that it continues, or in a genesis of the one that it founds.
func (c *checker) vendorRoots() []attestation.Root {
	if c.base != nil {
		return c.base.AttestationRoots()
	}
	return c.Charter.AttestationRoots()
}

func (c *checker) checkAttested(k *anchor.KeyRecord) error {
	path := AttestationPath(k.ID)
	if _, ok := c.outputs[path]; !ok {
		return bad("%w: key %s is called attested, and %s is not there", ErrRecord, k.ID, path)
	}
	data, err := readFile(c.fsys, path, attestation.MaxBytes)
	if err != nil {
		return err
	}
	e, err := attestation.Parse(data)
	if err != nil {
		return bad("%w: %s: %w", ErrRecord, path, err)
	}
	at, err := charter.ParseTime(c.bornAt[k.ID])
	if err != nil {
		return err
	}
	a, err := attestation.Verify(e, c.vendorRoots(), attestation.About{Key: k.ID, Public: k.Public, Record: k.Record, World: c.Open.World, Time: at})
	if err == nil {
		err = a.CheckSigning()
	}
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: %s: %w", ErrRecord, path, err)
	}
	if c.Attested == nil {
		c.Attested = map[string]attestation.Attested{}
	}
	c.Attested[k.ID] = *a
	return nil
}

// checkWatched wants exactly these keys in what the people signed, and under it every
// witness and, of each safe that one of them was born in, as many openers as open it.
func (c *checker) checkWatched(keys map[string]anchor.KeyRecord) error {
	if len(keys) == 0 {
		if c.saw != nil {
			return bad("%w: the birth of no key was to be signed for, and it was", ErrRecord)
		}
		return nil
	}
	if c.saw == nil {
		return bad("%w: nobody signed for the birth of key %s", ErrRecord, slices.Sorted(maps.Keys(keys))[0])
	}
	var all []envelope.Key
	for name, p := range c.People {
		all = append(all, envelope.Key{Name: name, Public: p.PublicKey()})
	}
	payload, names, err := envelope.Verify(&c.saw.Envelope, WatchedType, all, 2)
	if err != nil {
		return fault.Errorf(fault.Verify, "%w: who watched the births: %w", ErrRecord, err)
	}
	var w BirthsWatched
	if err := jcs.Unmarshal(payload, &w); err != nil {
		return err
	}
	if w.Format != BirthsFormat || w.Record != c.Open.Record || w.World != c.Open.World || len(w.Keys) != len(keys) {
		return bad("%w: the births of another ceremony, or of other keys, were signed for", ErrRecord)
	}
	for i, b := range w.Keys {
		k, ok := keys[b.ID]
		sum := sha256.Sum256(k.Public)
		if !ok || i > 0 && w.Keys[i-1].ID >= b.ID || b.Token != k.Token || b.SHA256 != hex.EncodeToString(sum[:]) {
			return bad("%w: what was signed for is not the birth of key %.40q", ErrRecord, b.ID)
		}
	}
	return c.checkWatchers(keys, names)
}

func (c *checker) checkWatchers(keys map[string]anchor.KeyRecord, names []string) error {
	for name, role := range c.Roles {
		if role == charter.RoleWitness && !slices.Contains(names, name) {
			return bad("%w: %s did not sign for the births", ErrRecord, name)
		}
	}
	for _, s := range c.Charter.People.Safes {
		born := slices.ContainsFunc(slices.Collect(maps.Values(keys)), func(k anchor.KeyRecord) bool { return k.Token == c.tokens[s.Name] })
		n := 0
		for _, m := range s.Openers.Members {
			if slices.Contains(names, m) {
				n++
			}
		}
		if born && n < s.Openers.Need {
			return bad("%w: %d of the openers of safe %s signed for the births in it, %d must", ErrRecord, n, s.Name, s.Openers.Need)
		}
	}
	return nil
}
