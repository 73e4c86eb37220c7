package script

import "slices"

// Verb is one word of the language. The set is closed: a verb stands here and in
// ceremony/actions, or it does not exist.
type Verb struct {
	Name   string
	Phases []string // where it may stand
	Args   []string // members of a step that it needs; it takes no others
	Does   string   // what happens, in one sentence for people
	Raises []string // causes that its action can report as a contingency
	Cases  []Case   // what it needs of the world and makes of it; none: nothing
}

// Case is what a verb needs and makes; a verb that means different things for
// fresh and existing safes has a case for each.
type Case struct {
	Safe  string // only where the step's safe is fresh or existing; "": always
	Needs []Need
	Makes []Make
}

// Need is a condition: the things that Of names (scope.go lists the words) are
// each in one of the states Is. Else says what is wrong otherwise.
type Need struct {
	Of   string
	Is   []string
	Else string
}

// Make is an effect: the things that Of names come into the state Is.
type Make struct{ Of, Is string }

const (
	summon = "summon"
	run    = "run"
	seal   = "seal"
)

// Verbs is the whole language.
func Verbs() []Verb {
	return slices.Concat(peopleVerbs(), tokenVerbs(), keyVerbs(), paperVerbs(), roomVerbs())
}

// verbTable is Verbs by name.
func verbTable() map[string]*Verb {
	out := map[string]*Verb{}
	for _, v := range Verbs() {
		out[v.Name] = &v
	}
	return out
}

func is(states ...string) []string { return states }

// once is a need and an effect: a flag is raised, for the first time.
func once(flag, verb string) (Need, Make) {
	return Need{"@" + flag, is("no"), verb + " comes once"}, Make{"@" + flag, "yes"}
}

func begun() Need {
	return Need{"@begun", is("yes"), "nothing is touched before genesis.sign or vault.load"}
}

func unwritten() Need {
	return Need{"@written", is("no"), "nothing is made after outputs.write"}
}

func unchartered() Need {
	return Need{"@chartered", is("no", "-"), "comes before charter.append, which says what was made"}
}

// peopleVerbs are about who is there and what they decide.
func peopleVerbs() []Verb {
	env, envMade := once("environment", "environment.check")
	known, knownMade := once("identified", "people.identify")
	seen, seenMade := once("documents", "documents.see")
	load, loadMade := once("begun", "vault.load")
	found, foundMade := once("begun", "genesis.sign")
	environment := Need{"@environment", is("yes"), "comes after environment.check"}
	identified := Need{"@identified", is("yes"), "comes after people.identify"}
	return []Verb{
		{"environment.check", is(summon), nil, "the computer, its programs and its certificates-to-be are examined", nil, []Case{{"", []Need{env}, []Make{envMade}}}},
		{"people.identify", is(summon), nil, "everybody opens the key of his own and is named", is("passphrase", "card", "late"), []Case{{"", []Need{known}, []Make{knownMade}}}},
		{"documents.see", is(summon), nil, "two witnesses look at everybody's identity document", nil, []Case{{"", []Need{identified, seen}, []Make{seenMade}}}},
		{"vault.load", is(summon), nil, "anchors, charter and earlier records are verified, and the people compared with the charter", nil, []Case{{"", []Need{environment, load}, []Make{loadMade}}}},
		{"genesis.sign", is(run), nil, "everybody signs the roster, the thresholds and the hash of the script", nil, []Case{{"", []Need{environment, identified, found}, []Make{foundMade}}}},
		{"people.change", is(run), nil, "the people after the change are signed by old and new thresholds and by everybody new", nil, []Case{{
			"",
			[]Need{begun(), {"@people", is("no"), "people.change comes once"}, unchartered()},
			[]Make{{"@people", "yes"}},
		}}},
		{"charter.append", is(run), nil, "the approvers sign each statement about what was made", nil, []Case{{
			"",
			[]Need{
				begun(),
				{"@chartered", is("no"), "the charter is written twice"},
				{"keys", is("born", "stored", "proven"), "comes after the last key is made"},
				{"certificates", is("issued"), "comes after the last certificate is issued"},
				{"epochs", is("old", "changed"), "a safe was dealt anew and its PINs are still the old ones: token.repin comes before charter.append"},
				{"fresh safes", is("open"), "a new safe does not open for its shares yet"},
				{"@people", is("yes", "-"), "comes after people.change"},
				{"@succeeded", is("yes", "-"), "comes after succession.sign"},
			},
			[]Make{{"@chartered", "yes"}},
		}}},
		{"update.root", is(run), nil, "the root of the update repository is signed by the root token and by each approver", nil, []Case{{
			"",
			[]Need{
				begun(),
				{"@chartered", is("yes", "-"), "comes after charter.append, which names its keys"},
				{"@rooted", is("no"), "update.root comes once"},
			},
			[]Make{{"@rooted", "yes"}},
		}}},
	}
}

// tokenVerbs make safes, open them, and give them new shares.
func tokenVerbs() []Verb {
	order := "; the order of a new safe is token.init, token.admit, shares.deal, shares.receipts, token.pins"
	newSafe := func(from, to string) Case {
		return Case{"fresh", []Need{begun(), {"safe", is(from), "is out of order" + order}}, []Make{{"safe", to}}}
	}
	unborn := Need{"keys of safe", is("unborn", "kept", "lost", "found"), "a key was made in the safe already, and its session must not end before it is stored"}
	opened := Need{"safe", is("open"), "comes after safe.open"}
	identified := Need{"@identified", is("yes"), "comes after people.identify"}
	return []Verb{
		{"token.init", is(run), is("safe"), "the token is initialised under PINs that nobody sees", nil, []Case{newSafe("new", "initialised")}},
		{"token.admit", is(run), is("safe"), "throw-away keys are made in the token and attacked; the conductor signs what came of it", nil, []Case{newSafe("initialised", "admitted")}},
		{"shares.deal", is(run), is("safe"), "a new secret is made and dealt to the key masters", nil, []Case{
			newSafe("admitted", "dealt"),
			{"existing", []Need{
				begun(), opened, unborn,
				{"epoch", is("old"), "the safe is dealt twice"},
				{"@people", is("yes", "-"), "comes after people.change, which says who holds a share"},
			}, []Make{{"epoch", "dealt"}}},
		}},
		{"shares.receipts", is(run), is("safe"), "each key master reads the share back from the medium and signs for it", nil, []Case{
			newSafe("dealt", "received"),
			{"existing", []Need{{"epoch", is("dealt"), "is out of order; the order is safe.open, shares.deal, shares.receipts, token.repin"}}, []Make{{"epoch", "received"}}},
		}},
		{"token.pins", is(run), is("safe"), "the token takes PINs that only the shares give; the old ones are tried and refused", nil, []Case{newSafe("received", "open")}},
		{"safe.open", is(run), is("safe"), "key masters give their shares for this one operation", is("share"), []Case{
			{"existing", []Need{begun(), identified, {"safe", is("closed"), "is opened twice"}}, []Make{{"safe", "open"}}},
		}},
		{"token.repin", is(run), is("safe"), "the token takes the PINs of the new shares; the old ones are tried and refused", nil, []Case{
			{"existing", []Need{opened, unborn, {"epoch", is("received"), "comes after shares.receipts: until every new share is receipted, the old ones must open the token"}}, []Make{{"epoch", "changed"}}},
		}},
		{"token.destroy", is(run), is("safe"), "everything in the token is destroyed", nil, []Case{
			{"existing", []Need{begun(), opened, {"keys of safe", is("destroyed", "moved", "proven", "lost"), "a key of the safe is still in force: it is destroyed or transferred first"}}, []Make{{"safe", "destroyed"}}},
		}},
	}
}

// keyVerbs make keys, use them, move them and end them.
func keyVerbs() []Verb {
	signs := func(what, made string) Case {
		return Case{"", []Need{
			begun(), unwritten(),
			{what, is("no"), "is issued twice"},
			{"subject", is("born", "stored", "proven"), "comes after the certificate's own key is made"},
			{"issuer", is("born", "stored", "proven", "kept"), "comes after its issuer is made"},
			{"issuer's certificate", is("issued"), "comes after its issuer has a certificate"},
			{"issuer's safe", is("open"), "comes after the safe of its issuer is opened"},
		}, []Make{{what, made}}}
	}
	certificate := signs("cert", "issued")
	certificate.Needs = append(certificate.Needs, unchartered())
	kept := Need{"key", is("kept"), "is not a key of the charter that is still there"}
	return []Verb{
		{"key.generate", is(run), is("key"), "the key is born in the token", nil, []Case{{
			"",
			[]Need{
				begun(),
				{"key", is("unborn"), "is made twice"},
				{"fresh safes", is("open"), "comes after every new safe has its PINs from shares"},
				{"key's safe", is("open"), "comes after its safe is opened"},
				{"epochs", is("old", "changed"), "a safe was dealt anew and its PINs are still the old ones: token.repin comes before the first key"},
				{"@succeeded", is("no", "-"), "comes before succession.sign, which tells the field of it"},
				unchartered(),
			},
			[]Make{{"key", "born"}},
		}}},
		{"key.transfer", is(run), is("key", "safe", "to"), "the key is moved, wrapped, to another token and destroyed where it was", nil, []Case{{
			"",
			[]Need{
				begun(), kept,
				{"safe", is("open"), "comes after the safe that it leaves is opened"},
				{"to", is("open"), "comes after the safe that it goes to is opened"},
				unchartered(),
			},
			[]Make{{"key", "moved"}},
		}}},
		{"key.find", is(run), is("key", "safe", "to"), "a key that a void transfer left in another token signs there, and is looked for in vain where it was", nil, []Case{{
			"",
			[]Need{
				begun(), kept,
				{"safe", is("open"), "comes after the safe that it was in is opened"},
				{"to", is("open"), "comes after the safe that it is in is opened"},
				unchartered(),
			},
			[]Make{{"key", "found"}},
		}}},
		{"key.destroy", is(run), is("key"), "the key is destroyed and looked for in vain", nil, []Case{{
			"",
			[]Need{
				begun(), kept,
				{"key's safe", is("open"), "comes after its safe is opened"},
				{"@succeeded", is("yes", "-"), "comes after succession.sign: a key is destroyed when its successor is in force, not before"},
			},
			[]Make{{"key", "destroyed"}},
		}}},
		{"cert.issue", is(run), is("cert"), "the certificate is examined, signed and examined again", nil, []Case{certificate}},
		{"crl.issue", is(run), is("crl"), "the revocation list is examined, signed and examined again", nil, []Case{signs("crl", "issued")}},
		{"succession.sign", is(run), nil, "the statement that says which key takes over, and which key is new, is signed", nil, []Case{{
			"",
			[]Need{begun(), {"@succeeded", is("no"), "succession.sign comes once"}, {"some safe", is("open"), "comes after a safe is opened"}, unchartered()},
			[]Make{{"@succeeded", "yes"}},
		}}},
		{"keys.store", is(seal), is("safe"), "the keys are copied into the token for good and read back by a fresh process", nil, []Case{{
			"",
			[]Need{unwritten(), {"some key made in safe", is("born"), "has no key to store, or they are stored already"}, {"keys made in safe", is("born"), "comes after the last key of the safe is made"}},
			[]Make{{"keys made in safe", "stored"}},
		}}},
		{"keys.prove", is(seal), is("safe"), "every key signs that it is there", nil, []Case{{
			"",
			[]Need{
				unwritten(),
				{"keys made in safe", is("stored", "proven"), "its keys are proven before they are stored"},
				{"some key to prove", is("stored", "moved"), "has no key to prove, or they are proven already"},
				{"keys moved to safe", is("moved"), "a key that goes to the safe is proven before it is there"},
			},
			[]Make{{"keys made in safe", "proven"}, {"keys moved to safe", "proven"}},
		}}},
		{"births.sign", is(seal), nil, "witnesses and key masters who watched sign for the birth of each key that no HSM attests", nil, []Case{{
			"",
			[]Need{
				unwritten(),
				{"@watched", is("no"), "births.sign comes once"},
				{"keys", is("proven"), "comes after every key is stored and proven"},
			},
			[]Make{{"@watched", "yes"}},
		}}},
	}
}

// paperVerbs put out what leaves the room.
func paperVerbs() []Verb {
	return []Verb{
		{"outputs.write", is(seal), nil, "everything public is written into the record", nil, []Case{{
			"",
			[]Need{
				begun(),
				{"@written", is("no"), "outputs are written twice"},
				{"keys", is("proven"), "comes after every key is stored and proven"},
				{"moved keys", is("proven"), "comes after every key that was moved is proven where it went"},
				{"@chartered", is("yes", "-"), "comes after charter.append"},
				{"@rooted", is("yes", "-"), "comes after update.root"},
				{"@watched", is("yes", "-"), "comes after births.sign"},
			},
			[]Make{{"@written", "yes"}},
		}}},
		{"read.aloud", is(seal), nil, "the words of the anchors are read aloud and compared", is("words"), []Case{{
			"",
			[]Need{{"@written", is("yes"), "comes after outputs.write: what is read is what was written"}, {"@read", is("no"), "comes once"}},
			[]Make{{"@read", "yes"}},
		}}},
		{"paper.print", is(summon, run, seal), nil, "a page is written out and printed", is("printer"), nil},
	}
}

// roomVerbs are about the room.
func roomVerbs() []Verb {
	return []Verb{
		{"break", is(summon, run, seal), nil, "a break; everybody present is named before and after", is("late"), nil},
		{"pause", is(run), nil, "a pause", nil, nil},
		{"medium.in", is(summon, run, seal), is("medium"), "a medium that the script lists goes into the drive", is("medium"), []Case{{
			"", []Need{{"medium", is("out", "away"), "is in the drive already"}}, []Make{{"medium", "in"}},
		}}},
		{"medium.out", is(summon, run, seal), is("medium"), "the medium goes out of the drive", is("medium"), []Case{{
			"", []Need{{"medium", is("in"), "is not in the drive"}}, []Make{{"medium", "away"}},
		}}},
	}
}

// Causes are what a contingency may be planned for, each with what it means.
func Causes() []Cause {
	return []Cause{
		{"passphrase", "somebody mistypes his passphrase more often than the step allows"},
		{"words", "the words read aloud are misread"},
		{"printer", "the printer fails"},
		{"medium", "a medium cannot be read or written"},
		{"card", "a smart card fails"},
		{"share", "a share is spoiled, or its holder took the wrong one"},
		{"late", "somebody is late"},
	}
}

// Cause is one thing that people predictably do.
type Cause struct{ Name, Means string }
