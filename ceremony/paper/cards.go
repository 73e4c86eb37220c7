package paper

import (
	"fmt"

	"keyrite/artifact/charter"
	"keyrite/ceremony/script"
)

// card is what one role must know, on one page.
type card struct {
	Role, Who               string
	Do, Never, Incident     []string
	Bring, Lose, Afterwards []string
}

// features are what a script has in it, as far as people must know.
type features struct {
	Deals, Opens, Makes, Succeeds bool
	Need, Of                      int
}

func featuresOf(s *script.Script) features {
	f := features{Need: s.Roles.KeyMasters.Need, Of: s.Roles.KeyMasters.Of}
	for _, ph := range s.Phases() {
		for _, st := range ph.Steps {
			switch st.Do {
			case "shares.deal":
				f.Deals = true
			case "safe.open":
				f.Opens = true
			case "key.generate":
				f.Makes = true
			case "succession.sign":
				f.Succeeds = true
			}
		}
	}
	return f
}

// always are the causes at which anybody says incident.
func always() []string {
	return []string{
		"Somebody does something that is not in the script, or leaves something out.",
		"Somebody enters or leaves outside a break.",
		"You see a passphrase, a share or a PIN, on a screen, on paper or in a hand. Nobody should ever see one.",
		"A medium, a cable or a device appears that the script does not name.",
		"The words read aloud are not those on your paper, and reading again does not help.",
		"You feel pressed, or you did not see what you are asked to sign.",
	}
}

// keyBring is what everybody with a key brings.
func keyBring() []string {
	return []string{
		"An identity document with a picture.",
		"Your key: the file NAME.key on a medium of your own, or your card. Its passphrase only in your head.",
		"Your public file NAME.person, and the words of its fingerprint on paper.",
		"Reading glasses, water, something to eat; medicine if you need it. A day in one room is long.",
	}
}

// loseKey is what happens when a person's key is lost.
func loseKey() []string {
	return []string{
		"Lost key or forgotten passphrase: you cannot sign any more, and nobody can reset it. Tell the conductor the same day. The next ceremony takes you out or puts your new key in; the old and the new threshold sign that.",
		"Key that somebody may have copied: the same, and at once. Until then the others watch for your signature.",
	}
}

// cards are those that the script calls for.
func cards(s *script.Script) []card {
	f := featuresOf(s)
	var out []card
	seen := map[string]bool{}
	for _, d := range demands(s) {
		if d.n == 0 || seen[d.role] {
			continue
		}
		seen[d.role] = true
		c := card{Role: d.role, Who: roleWord(d.role), Incident: always()}
		switch d.role {
		case charter.RoleConductor:
			conductorCard(&c, s)
		case charter.RoleOperator:
			operatorCard(&c)
		case charter.RoleKeyMaster:
			keyMasterCard(&c, f)
		case charter.RoleWitness:
			witnessCard(&c)
		case charter.RoleApprover:
			approverCard(&c, f)
		default:
			auditorCard(&c)
		}
		out = append(out, c)
	}
	return out
}

func conductorCard(c *card, s *script.Script) {
	c.Do = []string{
		"You lead. You read each step aloud as it is written, wait until everybody has seen what must be seen, and only then go on.",
		"You decide nothing that the script does not leave to you, and you explain nothing away.",
		"You call each person by name when it is his turn, and give everybody time.",
		"You say before each step how long it may take, and watch the clock.",
		"You sign the record at the end, as the one who kept it.",
	}
	if s.Roles.ConductorOperates {
		c.Do = append(c.Do, "You also type. A witness reads along; you press Enter only after “yes” from the room.")
	}
	c.Never = []string{
		"Never skip, merge or swap steps, even when they look needless.",
		"Never type for another person, look at another's hands, or take another's medium.",
		"Never talk anybody out of saying incident. You thank him, and the program does the rest.",
		"Never hold a share or be an approver.",
	}
	c.Bring = append(keyBring(), "The script in print, one copy for each person, and this kit.", "The record of the rehearsal, on a medium.")
	c.Lose = loseKey()
	c.Afterwards = []string{"Give every participant the words of the anchors. Hand the record to the witnesses, who verify and cosign it on their own machines.", "Keep a copy of the record, bags and papers where the script says. Plan the next proof of the shares."}
}

func operatorCard(c *card) {
	c.Do = []string{"You type what the conductor says, and nothing else.", "You read aloud what the screen says before you press Enter."}
	c.Never = []string{"Never decide, guess or “just try”.", "Never type another person's passphrase.", "Never leave the keyboard unwatched: in a break two witnesses stay."}
	c.Bring, c.Lose = keyBring(), loseKey()
	c.Afterwards = []string{"Say in the record's statement what you saw on the screen and found odd, even if nothing came of it."}
}

func keyMasterCard(c *card, f features) {
	quorum := fmt.Sprintf("%d of %d", f.Need, f.Of)
	c.Do = []string{
		"You hold one share of each safe you are named for. " + quorum + " key masters together open it; fewer open nothing and learn nothing.",
		"You open your own key at the keyboard, unseen. You never see the share itself, and you need not: it is encrypted to your key.",
	}
	if f.Opens {
		c.Do = append(c.Do, "When a safe is opened you read on the screen what for, and give your share for that only.")
	}
	if f.Deals {
		c.Do = append(c.Do, "You read your new share back from its medium and sign the receipt. Without all "+fmt.Sprint(f.Of)+" receipts nothing is made.",
			"You put the medium into a bag, seal it, and write its number into the custody log.")
	}
	c.Do = append(c.Do, "At home you prove twice a year that your share is alive: keyrite share prove. It does not leave your hands for that.")
	c.Never = []string{
		"Never keep share and key in the same bag, or in the same place as another key master's.",
		"Never copy, photograph, mail or upload a share file, though it is encrypted.",
		"Never tell anybody your passphrase, not even the other key masters, not even your deputy.",
		"Never approve releases or changes of the charter: that is for others.",
	}
	c.Bring = keyBring()
	if f.Opens {
		c.Bring = append(c.Bring, "Your share: the file NAME.share on its medium, in its sealed bag. Do not open the bag before you are asked.", "Your custody log.")
	}
	if f.Deals {
		c.Bring = append(c.Bring, "Nothing for the new share: media and bags are in the room, still in their wrapping.")
	}
	c.Lose = append(loseKey(),
		fmt.Sprintf("Lost or damaged share: tell the conductor the same day. With %d shares left the safe still opens, and a reshare gives everybody new ones. If %d shares are lost, the safe can never be opened again; nothing helps then, and nobody has a copy.", f.Need, f.Of-f.Need+1),
		"Share or bag that somebody may have touched: the same. One share alone opens nothing, but a reshare makes it worthless.")
	c.Afterwards = []string{"Take the bag to the place on your custody receipt the same day. Write into the log when and where.", "Tell the conductor before you move house, change your job or fall ill for long. A reshare with everybody well is an hour; without you it may be too late."}
}

func witnessCard(c *card) {
	c.Do = []string{
		"You are the eyes of those who are not there. You see every step, initial it on your own copy, and write down what you find odd.",
		"You look at everybody's identity document. You compare every hash and word with your own paper, not with your neighbour's.",
		"You take the record to a machine of your own, verify it there with keyrite-verify, and cosign it only then.",
		"You fill in your witness statement. You may write “I do not agree”, and say why. That is your right; nobody may ask you to give it up.",
	}
	c.Never = []string{"Never sign for what you did not see. “I could not see this” is a good entry.", "Never help, type or hold anything for somebody.", "Never accept a record, program or anchors file that you have not compared with your paper."}
	c.Bring = append(keyBring(), "Pens with ink that does not rub out, a watch without a radio, and a torch for looking behind the computer.")
	c.Lose = append(loseKey(), "Lost statement or script copy: say so; the conductor makes a note of which pages are gone. Never fill in a new one from memory.")
	c.Afterwards = []string{"Verify and cosign within three days. Until all witnesses have, verifiers say that the record is not cosigned.", "Keep your sheet of the anchors' words where the company cannot change it."}
}

func approverCard(c *card, f features) {
	c.Do = []string{
		"You decide with the other approvers what the charter says, and later which releases are signed. You open nothing.",
		"You read each statement on the screen, in full, before you sign it.",
	}
	if f.Succeeds {
		c.Do = append(c.Do, "You sign that a key gives way to its successor. Read the reason: it stays public for ever.")
	}
	c.Never = []string{"Never sign what you have not read, or because others have.", "Never hold a share, and never request a release that you approve.", "Never use your approver's key for anything else."}
	c.Bring, c.Lose = keyBring(), loseKey()
	c.Afterwards = []string{"Keep the anchors' words at hand: with them you check what you are asked to approve."}
}

func auditorCard(c *card) {
	c.Do = []string{"You watch for somebody else: a customer, an authority, the board.", "You may ask any question in a break, and say incident at any time.", "You get the record and verify it yourself."}
	c.Never = []string{"Never touch anything.", "Never let anybody tell you that a step is not for you to see. Only passphrases are."}
	c.Bring = []string{"An identity document with a picture.", "Paper and pen. No telephone."}
	c.Lose = []string{"You hold nothing that could be lost. Your notes are yours."}
	c.Afterwards = []string{"Verify the record with keyrite-verify on your own machine, against the words that you wrote down."}
}
