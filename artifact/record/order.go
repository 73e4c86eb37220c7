package record

import (
	"slices"

	"keyrite/artifact/anchor"
)

// anyState is where a medium may go in or out, and a page may be printed.
const anyState = "any"

// verbs of steps, each with the state it runs in. The script says which steps
// there are; this says what a step of that kind may do, whatever the script says.
func verbStates() map[string]string {
	return map[string]string{
		"environment.check": "SUMMONED",
		"people.identify":   "SUMMONED",
		"documents.see":     "SUMMONED",
		"genesis.sign":      "RUNNING",
		"token.init":        "RUNNING",
		"token.admit":       "RUNNING",
		"shares.deal":       "RUNNING",
		"shares.receipts":   "RUNNING",
		"token.pins":        "RUNNING",
		"key.generate":      "RUNNING",
		"cert.issue":        "RUNNING",
		"charter.append":    "RUNNING",
		"update.root":       "RUNNING",
		"pause":             "RUNNING",
		"break":             anyState,
		"medium.in":         anyState,
		"medium.out":        anyState,
		"paper.print":       anyState,
		"vault.load":        "SUMMONED",
		"people.change":     "RUNNING",
		"safe.open":         "RUNNING",
		"token.repin":       "RUNNING",
		"key.transfer":      "RUNNING",
		"key.find":          "RUNNING",
		"succession.sign":   "RUNNING",
		"key.destroy":       "RUNNING",
		"token.destroy":     "RUNNING",
		"crl.issue":         "RUNNING",
		"keys.store":        "SEALING",
		"keys.prove":        "SEALING",
		"births.sign":       "SEALING",
		"outputs.write":     "SEALING",
		"read.aloud":        "SEALING",
	}
}

// doneBy lists the verbs in which an entry of a type may stand.
func doneBy() map[string][]string {
	return map[string][]string{
		"identified":   {"people.identify"},
		"documents":    {"documents.see"},
		"statement":    {"genesis.sign", "people.change", "key.transfer", "charter.append"},
		"opening":      {"safe.open", "token.repin", "key.transfer", "token.destroy"},
		"intent":       {"token.init", "safe.open", "token.repin", "key.generate", "key.transfer", "key.find", "keys.store", "keys.prove", "key.destroy", "token.destroy"},
		"token":        {"token.init"},
		"admission":    {"token.admit", "safe.open"},
		"dealt":        {"shares.deal"},
		"receipt":      {"shares.receipts"},
		"pins-changed": {"token.pins", "token.repin"},
		"key":          {"key.generate", "keys.store"},
		"transferred":  {"key.transfer"},
		"found":        {"key.find"},
		"removed":      {"keys.prove", "key.find"},
		"certificate":  {"cert.issue"},
		"crl":          {"crl.issue"},
		"succession":   {"succession.sign"},
		"retired":      {"key.destroy", "token.destroy"},
		"possession":   {"keys.prove", "key.find"},
		"watched":      {"births.sign"},
		"words":        {"read.aloud"},
		"present":      {"break"},
		"medium":       {"medium.in", "medium.out"},
	}
}

// place checks that an entry stands in a step that may make it.
func (c *checker) place(e *Entry, d Data) error {
	if b, ok := d.(*Begin); ok {
		if want := c.states[b.Do]; want == "" || want != anyState && want != c.State || want == anyState && !acting(c.State) {
			return bad("%w: step %s (%.40q) in state %s", ErrEntry, e.Step, b.Do, c.State)
		}
		if k := kinds()[c.Open.Kind]; !k.has(b.Do) {
			return bad("%w: a ceremony of kind %.40q has no step %s", ErrEntry, c.Open.Kind, b.Do)
		}
		c.do = b.Do
		return nil
	}
	if verbs, ok := c.makers[e.Type]; ok && (c.step == "" || e.Step != c.step || !slices.Contains(verbs, c.do)) {
		return bad("%w: %s outside the step that makes it", ErrEntry, e.Type)
	}
	if _, ok := d.(*Cleanup); ok && c.State != "CLEANUP" {
		return bad("%w: clean-up in state %s", ErrEntry, c.State)
	}
	return nil
}

// acting says whether steps run in that state.
func acting(state string) bool {
	return state == "SUMMONED" || state == "RUNNING" || state == "SEALING"
}

// contingency leaves the step under way: those of the contingency follow.
func (c *checker) contingency(e *Entry, d *Contingency) error {
	if c.step == "" || e.Step != c.step || d.Step != c.step || !acting(c.State) {
		return bad("%w: contingency %.40q outside the step that met it", ErrEntry, d.ID)
	}
	c.step = ""
	return nil
}

// breaks checks the roll of a break: who was there before is there after.
func (c *checker) breaks(d *Present) error {
	if len(d.Names) == 0 || !slices.IsSorted(d.Names) {
		return bad("%w: a roll names everybody once, in order", ErrEntry)
	}
	if d.When == "before" && c.roll == nil {
		c.roll = d.Names
		c.rolls = append(c.rolls, d.Names)
		return nil
	}
	if d.When != "after" || !slices.Equal(c.roll, d.Names) {
		return bad("%w: after the break not the same people are there as before", ErrEntry)
	}
	c.roll = []string{}
	return nil
}

// medium checks that what goes in comes out before it goes in again.
func (c *checker) medium(d *Medium) error {
	if d.Name == "" || c.do != "medium."+d.Direction || c.inDrive[d.Name] == (d.Direction == "in") {
		return bad("%w: medium %.40q goes %.10q out of order", ErrEntry, d.Name, d.Direction)
	}
	c.inDrive[d.Name] = d.Direction == "in"
	return nil
}

// progress of a safe; each step of it follows the one before, once. A fresh safe
// goes from new to admitted, one that exists from new to opened; both are dealt,
// and the latter, whose PINs hold already, is announced once more.
const (
	safeNew = iota
	safeAnnounced
	safeReady
	safeAdmitted
	safeDealt
	safePINs
	safeOpened    // by its shares in force
	safeRedealt   // a new epoch, while the old one still opens
	safeRepinning // the old PINs may give way at any moment
	safeRepinned
)

// opens says whether only shares open the safe, and keys may be born in it.
func opens(progress int) bool {
	return progress == safePINs || progress == safeOpened || progress == safeRepinned
}

// advance takes a safe from one state to the next.
func (c *checker) advance(safe string, from, to int, what string) error {
	if safe == "" || c.progress[safe] != from {
		return bad("%w: %s of safe %.40q is out of order", ErrEntry, what, safe)
	}
	c.progress[safe] = to
	return nil
}

// announced checks an intent: for a token before it is initialised and after
// everybody signed the founding statement, for a key in the safe's own token.
func (c *checker) announced(d *Intent) error {
	switch d.Effect {
	case "init-token":
		if len(c.stmts) == 0 || c.stmts[0].Type != "genesis" {
			return bad("%w: a token was touched before the founding statement was signed", ErrEntry)
		}
		return c.advance(d.Safe, safeNew, safeAnnounced, "initialisation")
	case "generate":
		if _, twice := c.intents[d.Object]; twice || d.Object == "" || d.Key == "" {
			return bad("%w: intent for key %.40q repeats an object", ErrEntry, d.Key)
		}
		for _, p := range c.progress {
			if !opens(p) {
				return bad("%w: key %.40q before every safe opens for shares only", ErrEntry, d.Key)
			}
		}
		if !opens(c.progress[d.Safe]) || c.tokens[d.Safe] != d.Token {
			return bad("%w: key %.40q is announced outside the token of safe %.40q", ErrEntry, d.Key, d.Safe)
		}
		c.intents[d.Object] = intent{d.Key, d.Safe, d.Token}
		return nil
	case "store":
		if c.intents[d.Object] != (intent{d.Key, d.Safe, d.Token}) {
			return bad("%w: key %.40q is stored as what was not announced", ErrEntry, d.Key)
		}
		return nil
	case "destroy":
		if c.do != "keys.prove" && c.do != "key.find" {
			return c.announcedEnd(d)
		}
		return c.announcedMove(d)
	case "open":
		if _, twice := c.tokens[d.Safe]; twice || c.do != "safe.open" || d.Object != "" || d.Key != "" || d.Epoch < 1 || c.progress[d.Safe] != safeNew {
			return bad("%w: safe %.40q is opened out of order", ErrEntry, d.Safe)
		}
		c.tokens[d.Safe], c.epochs[d.Safe] = d.Token, d.Epoch
		return nil
	case "repin":
		e := c.dealt[d.Safe]
		if c.tokens[d.Safe] != d.Token || d.Epoch != e.Epoch || d.Object != "" || d.Key != "" || c.do != "token.repin" || e.Token != d.Token {
			return bad("%w: the PINs of safe %.40q are announced for another token", ErrEntry, d.Safe)
		}
		if err := c.allReceipts(d.Safe); err != nil {
			return err
		}
		if len(c.opened[opening{d.Safe, c.step}]) == 0 {
			return bad("%w: the PINs of safe %.40q change without its shares", ErrEntry, d.Safe)
		}
		return c.advance(d.Safe, safeRedealt, safeRepinning, "announcement of new PINs")
	}
	if slices.Contains([]string{"receiver", "transfer", "destroy"}, d.Effect) {
		return c.announcedMove(d)
	}
	return bad("%w: intent %.40q", ErrEntry, d.Effect)
}

// opening is a step in which a safe was opened.
type opening struct{ safe, step string }

// shareGiven takes one opening: in safe.open of a safe not touched yet, or when
// its PINs are about to change.
func (c *checker) shareGiven(e *Entry, d *Opening) error {
	at := opening{d.Safe, e.Step}
	if slices.Contains(c.opened[at], d.Holder) {
		return bad("%w: the share of %.40q was given twice", ErrEntry, d.Holder)
	}
	first := len(c.opened[at]) == 0
	if _, announced := c.epochs[d.Safe]; !announced {
		return bad("%w: safe %.40q was opened without an intent", ErrEntry, d.Safe)
	}
	switch {
	case c.do == "safe.open" && first:
		if c.admitted[d.Safe] == nil {
			return bad("%w: safe %.40q was opened without an admission of its token", ErrEntry, d.Safe)
		}
		if err := c.advance(d.Safe, safeNew, safeOpened, "opening"); err != nil {
			return err
		}
	case c.do == "safe.open" && c.progress[d.Safe] != safeOpened, c.do == "token.repin" && c.progress[d.Safe] != safeRedealt,
		(c.do == "key.transfer" || c.do == "token.destroy") && c.progress[d.Safe] != safeOpened:
		return bad("%w: opening of safe %.40q is out of order", ErrEntry, d.Safe)
	}
	c.opened[at] = append(c.opened[at], d.Holder)
	c.openings = append(c.openings, given{e.Seq, e.Step, d})
	return nil
}

// given is an opening with its place in the transcript.
type given struct {
	seq  int64
	step string
	data *Opening
}

// intent announces an effect; the key that follows must be the one announced.
type intent struct {
	key, safe string
	token     anchor.Token
}

func (c *checker) program(name string) string {
	for _, p := range c.Open.Programs {
		if p.Name == name {
			return p.SHA256
		}
	}
	return ""
}

// deal takes a new secret: the first epoch of a fresh safe, or a later one of a
// safe that was opened.
func (c *checker) deal(d *Dealt) error {
	e := d.Epoch
	from, to := safeAdmitted, safeDealt
	if c.progress[e.Safe] == safeOpened {
		from, to = safeOpened, safeRedealt
	}
	if (e.Epoch == 1) != (to == safeDealt) || e.Epoch < 1 || e.Token != c.tokens[e.Safe] || e.Need < 2 || len(e.Shares) < e.Need {
		return bad("%w: shares dealt for safe %.40q are not those of its next epoch", ErrEntry, e.Safe)
	}
	c.dealt[e.Safe] = e
	return c.advance(e.Safe, from, to, "dealing")
}

func (c *checker) receipt(d *Receipt) error {
	p := c.progress[d.Safe]
	if p != safeDealt && p != safeRedealt || c.receipts[d.Safe+"/"+d.Holder] {
		return bad("%w: receipt of %.40q for safe %.40q is out of order", ErrEntry, d.Holder, d.Safe)
	}
	c.receipts[d.Safe+"/"+d.Holder] = true
	return nil
}

func (c *checker) allReceipts(safe string) error {
	for _, s := range c.dealt[safe].Shares {
		if !c.receipts[safe+"/"+s.Holder] {
			return bad("%w: PINs of safe %.40q changed before %s gave a receipt", ErrEntry, safe, s.Holder)
		}
	}
	return nil
}

func (c *checker) pinsChanged(d *PINsChanged) error {
	if err := c.allReceipts(d.Safe); err != nil {
		return err
	}
	if d.Epoch != c.dealt[d.Safe].Epoch {
		return bad("%w: PINs of safe %.40q are of epoch %d", ErrEntry, d.Safe, d.Epoch)
	}
	if c.do == "token.repin" {
		return c.advance(d.Safe, safeRepinning, safeRepinned, "PIN change")
	}
	return c.advance(d.Safe, safeDealt, safePINs, "PIN change")
}
