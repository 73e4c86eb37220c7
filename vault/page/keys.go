package page

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
)

// keysPage are the keys of the charter and the safes that they are in.
type keysPage struct {
	Groups []keyGroup
	Safes  []safe
}

// keyGroup are keys of one state.
type keyGroup struct {
	Title, Means string
	Keys         []key
}

// key is one key record.
type key struct {
	*anchor.KeyRecord
	Purpose, Safe string
	State         string // "" if it is in force under its own id
	Birth         string // what stands for its birth in the token
	Public        string // hex SHA-256
}

// safe is a safe with its key masters.
type safe struct {
	Name    string
	Epoch   charter.Epoch
	Holders []string
	Stale   bool
}

// States of keys, as the page groups them.
const (
	inForce = iota
	dormant
	retired
)

func showKeys(x *look) (any, error) {
	if err := x.only(); err != nil {
		return nil, err
	}
	st, err := x.force()
	if err != nil {
		return nil, err
	}
	p := keysPage{Groups: []keyGroup{
		{Title: "In force", Means: "They sign, each for its one purpose."},
		{Title: "Dormant", Means: "They sign nothing until a statement lets each stand for the key that it was made to follow."},
		{Title: "Retired", Means: "Nothing that they sign from then on counts."},
	}}
	for _, id := range slices.Sorted(maps.Keys(st.Keys)) {
		k := st.Keys[id]
		group, words := stateOf(st, &k)
		name, ok := st.SafeOf(&k)
		if !ok {
			name = "none (token " + k.Token.Label + ")"
		}
		sum := sha256.Sum256(k.Public)
		p.Groups[group].Keys = append(p.Groups[group].Keys, key{&k, purpose(k.Domain), name, words, birth(&k), hex.EncodeToString(sum[:])})
	}
	for _, name := range slices.Sorted(maps.Keys(st.Epochs)) {
		s := safe{Name: name, Epoch: st.Epochs[name], Stale: st.Stale(name)}
		for _, sh := range s.Epoch.Shares {
			s.Holders = append(s.Holders, sh.Holder)
		}
		p.Safes = append(p.Safes, s)
	}
	return &p, nil
}

// stateOf says in which group a key belongs, and why.
func stateOf(st *charter.State, k *anchor.KeyRecord) (group int, words string) {
	if r, ok := st.Retired[k.ID]; ok {
		return retired, fmt.Sprintf("%s, by %s", r.Reason, r.Record)
	}
	if k.SuccessorOf == "" {
		return inForce, ""
	}
	if now, err := st.Key(k.SuccessorOf, k.Domain); err == nil && now.ID == k.ID {
		return inForce, "stands for " + k.SuccessorOf
	}
	return dormant, "waits to stand for " + k.SuccessorOf
}

// purpose says in words what a key of a domain signs.
func purpose(domain string) string {
	words := map[string]string{
		"dsse": "envelopes: releases, bundles, acceptances", "raw-image": "raw images of boot loaders", "cms": "CMS signatures", "fit": "FIT images",
		"x509": "certificates", "note": "checkpoints of logs", "tsa": "time stamps",
		anchor.DomainJWT: "tokens for services", anchor.DomainGeneral: "whatever processes ask for; no verifier of ours takes it",
	}
	if w, ok := words[domain]; ok {
		return w
	}
	if role, ok := strings.CutPrefix(domain, "tuf-"); ok {
		return "updates on offer (TUF " + role + ")"
	}
	return domain
}

// birth says what stands for a key having been born in its token.
func birth(k *anchor.KeyRecord) string {
	switch k.Attestation {
	case anchor.Attested:
		return "its HSM attests its birth"
	case anchor.Watched:
		return "a quorum watched its birth"
	}
	return "no attestation, no quorum"
}
