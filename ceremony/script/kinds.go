package script

import "slices"

// Kind is one kind of ceremony: what it is for, and the part of the language
// that it has.
type Kind struct {
	Name   string
	Does   string   // what it is for, in one sentence
	Verbs  []string // beside those that every kind has
	Must   []string // verbs without which it is not one
	Fresh  bool     // may make new safes
	Opens  bool     // may open existing safes
	Things []string // members of the script that it may have
	Adopts bool     // may take over what a void ceremony left
}

// everywhere are the verbs that every kind has.
func everywhere() []string {
	return []string{"environment.check", "people.identify", "documents.see", "break", "pause", "medium.in", "medium.out", "paper.print", "outputs.write", "read.aloud"}
}

// mustAll are the verbs without which nothing is a ceremony.
func mustAll() []string {
	return []string{"environment.check", "people.identify", "outputs.write", "read.aloud"}
}

// Kinds are all kinds of ceremony.
func Kinds() []Kind {
	making := []string{"token.init", "token.admit", "shares.deal", "shares.receipts", "token.pins", "key.generate", "keys.store", "keys.prove", "births.sign"}
	issuing := []string{"cert.issue", "charter.append", "update.root"}
	opening := []string{"vault.load", "safe.open"}
	enrolled := []string{"factories", "stations", "pipelines", "relays"}
	return []Kind{
		{
			Name: "genesis", Does: "found a vault: its tokens, its first keys and its charter",
			Verbs: slices.Concat([]string{"genesis.sign"}, making, issuing), Must: []string{"documents.see", "genesis.sign", "charter.append"},
			Fresh: true, Things: slices.Concat([]string{"keys", "certificates"}, enrolled),
		},
		{
			Name: "new-key", Does: "make further keys in a token that is in force, or in a new one",
			Verbs: slices.Concat(opening, making, issuing, []string{"succession.sign"}), Must: []string{"vault.load", "key.generate", "charter.append"},
			Fresh: true, Opens: true, Things: slices.Concat([]string{"keys", "existing", "certificates"}, enrolled),
		},
		{
			Name: "reshare", Does: "give a token a new secret and new shares; replace key masters",
			Verbs: slices.Concat(opening, []string{"people.change", "shares.deal", "shares.receipts", "token.repin", "key.find", "charter.append", "update.root"}),
			Must:  []string{"vault.load", "shares.deal", "token.repin", "charter.append"},
			Opens: true, Things: []string{"existing"}, Adopts: true,
		},
		{
			Name: "transfer", Does: "move a movable key to another token",
			Verbs: slices.Concat(opening, []string{"key.transfer", "charter.append", "keys.prove", "token.init", "token.admit", "shares.deal", "shares.receipts", "token.pins"}),
			Must:  []string{"vault.load", "key.transfer", "charter.append", "keys.prove"},
			Fresh: true, Opens: true, Things: []string{"existing"},
		},
		{
			Name: "hsm-lost", Does: "go on from the second token after the first one is lost",
			Verbs: slices.Concat(opening, making, issuing, []string{"succession.sign"}), Must: []string{"vault.load", "safe.open", "charter.append"},
			Fresh: true, Opens: true, Things: []string{"keys", "existing", "certificates", "successions", "relays"},
		},
		{
			Name: "succession", Does: "replace a key that is compromised by its successor",
			Verbs: slices.Concat(opening, making, issuing, []string{"succession.sign", "key.destroy"}), Must: []string{"vault.load", "safe.open", "succession.sign", "charter.append"},
			Fresh: true, Opens: true, Things: []string{"keys", "existing", "certificates", "successions", "relays"},
		},
		{
			Name: "sign-offline", Does: "sign certificates and revocation lists with a key that is kept offline",
			Verbs: slices.Concat(opening, issuing, []string{"crl.issue"}), Must: []string{"vault.load", "safe.open"},
			Opens: true, Things: slices.Concat([]string{"existing", "certificates", "crls"}, enrolled),
		},
		{
			Name: "enrol", Does: "admit a factory, a station, a pipeline or a relay",
			Verbs: slices.Concat(opening, issuing), Must: []string{"vault.load", "charter.append"},
			Opens: true, Things: slices.Concat([]string{"existing", "certificates"}, enrolled),
		},
		{
			Name: "retire", Does: "destroy keys that are no longer needed, and the token with the last of them",
			Verbs: slices.Concat(opening, []string{"key.destroy", "token.destroy", "charter.append", "update.root"}), Must: []string{"vault.load", "safe.open", "key.destroy", "charter.append"},
			Opens: true, Things: []string{"existing"},
		},
	}
}

// KindByName returns the kind of that name.
func KindByName(name string) (*Kind, bool) {
	for _, k := range Kinds() {
		if k.Name == name {
			return &k, true
		}
	}
	return nil, false
}

// has says whether the kind has a verb.
func (k *Kind) has(verb string) bool {
	return slices.Contains(everywhere(), verb) || slices.Contains(k.Verbs, verb)
}
