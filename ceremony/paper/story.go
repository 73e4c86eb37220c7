package paper

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"keyrite/artifact/charter"
	"keyrite/artifact/record"
)

// kindText says in one sentence what a ceremony of a kind did.
func kindText(kind string) string {
	return map[string]string{
		"genesis":      "A new vault was founded.",
		"new-key":      "New keys were made in a vault that exists.",
		"reshare":      "New shares were dealt; the old ones open nothing in force any more.",
		"transfer":     "A key was moved from one token to another, wrapped all the way.",
		"hsm-lost":     "A token was lost, and the vault goes on from another one.",
		"succession":   "Keys gave way to their sleeping successors.",
		"sign-offline": "Something was signed with a key that is never online.",
		"enrol":        "A factory, station, pipeline or relay server was admitted.",
		"retire":       "Keys were retired, and destroyed where the script says so.",
	}[kind]
}

// tell writes the first page. It says nothing that is not in the record.
func (r *report) tell() {
	switch r.Verdict {
	case "good", "wait":
		r.tellMade()
		r.tellNobody()
	case "void", "open":
		r.Made = []string{"Nothing that may be used."}
		r.tellNext()
	default:
		r.Next = []string{
			"Rely on nothing in this folder, and on nothing in this page.",
			"Compare the folder with the copies that the witnesses took home. If one of theirs verifies, use theirs.",
			"If none does, treat everything this ceremony made as lost, and say so to everybody who holds its anchors.",
		}
	}
	r.tellWrong()
}

func (r *report) tellMade() {
	if t := kindText(r.Open.Kind); t != "" {
		r.Made = append(r.Made, t)
	}
	r.Made = append(r.Made, r.safesMade()...)
	var keys, certs []string
	for _, k := range r.Keys {
		keys = append(keys, k.Key.ID)
	}
	for _, c := range r.Certificates[:min(len(r.Certificates), maxRows)] {
		certs = append(certs, c.ID)
	}
	if n := len(keys); n > 0 {
		r.Made = append(r.Made, fmt.Sprintf("%d %s born in the tokens: %s.", n, plural(n, "key was", "keys were"), strings.Join(keys, ", ")))
		r.Made = append(r.Made, r.origins()...)
	}
	if n := len(certs); n > 0 {
		r.Made = append(r.Made, fmt.Sprintf("%d %s issued: %s.", n, plural(n, "certificate was", "certificates were"), strings.Join(certs, ", ")))
	}
	for _, x := range [][2]string{{"retired", "retired"}, {"transferred", "moved to another token"}, {"succession", "succeeded"}} {
		if n := r.count(x[0]); n > 0 {
			r.Made = append(r.Made, fmt.Sprintf("%d %s %s (listed below).", n, plural(n, "key was", "keys were"), x[1]))
		}
	}
	if n := r.count("crl"); n > 0 {
		r.Made = append(r.Made, fmt.Sprintf("%d revocation %s (listed below).", n, plural(n, "list", "lists")))
	}
	if n := r.count("statement"); n > 0 {
		r.Made = append(r.Made, fmt.Sprintf("%d %s of the charter (listed below).", n, plural(n, "statement", "statements")))
	}
}

// safesMade has a line for each token made and each secret dealt.
func (r *report) safesMade() []string {
	var out []string
	tokens := map[string]string{}
	for i := range r.Timeline {
		if len(out) >= maxRows {
			break
		}
		switch d := r.Timeline[i].Data.(type) {
		case *record.TokenReady:
			tokens[d.Safe] = fmt.Sprintf(", new token %s (serial %s)", d.Token.Label, d.Token.Serial)
		case *record.Dealt:
			e := d.Epoch
			out = append(out, fmt.Sprintf("Safe %s%s: %d shares were dealt (epoch %d); %d of them open it.", e.Safe, tokens[e.Safe], len(e.Shares), e.Epoch, e.Need))
		}
	}
	return out
}

func (r *report) tellNobody() {
	c := r.Charter
	if c == nil {
		return
	}
	r.Nobody = append(r.Nobody, "Read a key: nobody at all can, alone or together. The keys are in the tokens and do not come out.")
	for _, s := range c.People.Safes {
		r.Nobody = append(r.Nobody, fmt.Sprintf("Open safe %s: it takes %d of %d key masters (%s). Fewer learn nothing.", s.Name, s.Openers.Need, len(s.Openers.Members), strings.Join(s.Openers.Members, ", ")))
	}
	r.Nobody = append(r.Nobody,
		fmt.Sprintf("Change who may do what: it takes %s, and none of them can open a safe.", setText(c.People.Sets.Approvers)),
		fmt.Sprintf("Release a firmware image: it takes %s, besides the one who asks.", setText(c.People.Sets.Releases)))
}

func setText(s charter.Set) string {
	return fmt.Sprintf("%d of %d approvers (%s)", s.Need, len(s.Members), strings.Join(s.Members, ", "))
}

func (r *report) tellWrong() {
	if n := len(r.Incidents); n > 0 {
		r.Wrong = append(r.Wrong, fmt.Sprintf("Yes: %d %s. The ceremony ended there.", n, plural(n, "incident", "incidents")))
		for _, x := range r.Incidents[:min(n, maxRows)] {
			signed := "called by the program"
			if x.Envelope != nil {
				signed = "signed by " + x.By
			}
			r.Wrong = append(r.Wrong, x.Reason+" ("+signed+").")
		}
	}
	switch r.Verdict {
	case "good", "wait":
		r.Wrong = append(r.Wrong, "No: nothing happened that the script does not foresee.")
	case "bad":
		r.Wrong = append(r.Wrong, "Yes: the record does not verify. "+r.Failed)
	case "open":
		r.Wrong = append(r.Wrong, "Yes: it stopped in state "+r.State+" and was not cleaned up yet.")
	}
	if n := r.count("contingency"); n > 0 {
		r.Wrong = append(r.Wrong, fmt.Sprintf("%d %s that the script foresees (listed below).", n, plural(n, "thing happened", "things happened")))
	}
	if n := r.count("miss"); n > 0 {
		r.Wrong = append(r.Wrong, fmt.Sprintf("%d %s given wrongly and then rightly, as the script allows (listed below).", n, plural(n, "passphrase or answer was", "passphrases or answers were")))
	}
	if r.Open.After != nil {
		text := "An earlier attempt, record " + r.Open.After.Record + ", was void. "
		if told := r.adopted(); len(told) > 0 {
			r.Wrong = append(r.Wrong, text+"What it left is taken over here, and the charter says so; its whole record lies in this one.")
			r.Wrong = append(r.Wrong, told...)
		} else {
			r.Wrong = append(r.Wrong, text+"Nothing of it is used here.")
		}
		r.Wrong = append(r.Wrong, r.fell()...)
	}
}

// fell says by whose incidents earlier attempts became void, person by person, and
// whether that person is still there.
func (r *report) fell() []string {
	by := map[string][]string{}
	for _, f := range r.Fell {
		by[f.By] = append(by[f.By], f.Record)
	}
	var out []string
	for _, name := range slices.Sorted(maps.Keys(by)) {
		n := len(by[name])
		text := fmt.Sprintf("%d %s before this one (%s) became void by an incident that %s called and signed.", n, plural(n, "attempt", "attempts"), strings.Join(by[name], ", "), name)
		if r.Charter != nil {
			if _, still := r.Charter.People.Person(name); !still {
				text += " From this ceremony on " + name + " is not among the people of the vault any more."
			}
		}
		out = append(out, text)
	}
	return out
}

// adopted says what was taken over from void attempts.
func (r *report) adopted() []string {
	if r.Open.Base == nil || r.Open.Base.Adopts == nil {
		return nil
	}
	var out []string
	for _, e := range r.Open.Base.Adopts.Epochs {
		out = append(out, fmt.Sprintf("Safe %s was found under the shares of epoch %d, dealt in record %s. They opened it here; new ones were dealt.", e.Safe, e.Epoch, e.Record))
	}
	for _, k := range r.Open.Base.Adopts.Keys {
		out = append(out, fmt.Sprintf("Key %s was looked for in safe %s, where the void transfer of record %s left it.", k.ID, k.Safe, k.Record))
	}
	return out
}

// tellNext says what to do after a void attempt.
func (r *report) tellNext() {
	if r.Verdict == "open" {
		r.Next = append(r.Next, "First end it: the command below destroys what was begun and writes VOID under it. It asks for shares where it must log in.")
	}
	for _, t := range r.Tokens {
		if t.Tainted != "" {
			r.Next = append(r.Next, "Token of safe "+t.Safe+": "+t.Tainted+".")
		}
		for _, b := range t.Burned {
			r.Next = append(r.Next, "The shares of "+b+" are burned: collect their media and destroy them. They open nothing.")
		}
	}
	r.Next = append(r.Next, r.Left...)
	if r.count("opening") > 0 {
		r.Next = append(r.Next, "Shares in force were given in this attempt. Their epoch counts as exposed: the next live ceremony of that safe is a reshare.")
	}
	for _, name := range r.again() {
		r.Next = append(r.Next, name+" called an incident here and in an attempt before. Hear why. If it was without cause, the others replace "+name+" in a reshare that needs neither the key nor the presence of "+name+": docs/operations/incidents.md, \"When the same person calls incident after incident\".")
	}
	r.Next = append(r.Next,
		"Keep this folder. The next attempt names it, begins at step 1, and uses another record folder, another folder for shares and fresh tokens.",
		"Talk about what happened before the next attempt. If the script was at fault, change it, and rehearse again: a changed script has another hash.")
}

// again are those who called an incident here, and before in another attempt.
func (r *report) again() []string {
	if r.Open.Base == nil {
		return nil
	}
	var out []string
	for _, x := range r.Incidents {
		before := func(f record.Fallen) bool { return f.By == x.By }
		if x.Envelope != nil && slices.ContainsFunc(r.Open.Base.Fell, before) && !slices.Contains(out, x.By) {
			out = append(out, x.By)
		}
	}
	return out
}

func plural(n int, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// origins says what stands for the birth of the keys, each kind in one sentence.
func (r *report) origins() []string {
	var out []string
	by := map[string][]string{}
	for _, k := range r.Keys {
		by[k.Key.Origin()] = append(by[k.Key.Origin()], k.Key.ID)
	}
	for _, origin := range slices.Sorted(maps.Keys(by)) {
		n := len(by[origin])
		out = append(out, fmt.Sprintf("The birth of %d of them is %s: %s.", n, origin, strings.Join(by[origin], ", ")))
	}
	return out
}
