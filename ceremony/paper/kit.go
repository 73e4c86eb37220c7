package paper

import (
	_ "embed"
	"slices"
	"strings"

	"keyrite/artifact/charter"
	"keyrite/ceremony/script"
)

//go:embed kit.html
var kitHTML string

// File is one page of the kit.
type File struct {
	Name, Title, About string
	HTML               []byte
}

// thing is something to buy, to label or to receive.
type thing struct {
	N              int
	What, Why, For string
}

// invited is a seat with the card of its role.
type invited struct {
	Seat seat
	Card card
}

// kitPage is what the pages of the kit show.
type kitPage struct {
	Script    *script.Script
	Plan      *plan
	Features  features
	Card      card
	Invited   []invited
	Shopping  []thing
	Labels    []thing
	Receipts  []thing
	Witnesses []seat
	Questions []string
	Others    []string
	Files     []File
}

// Kit renders everything that people hold in their hands besides the script. The
// first file is the index.
func Kit(in Input) ([]File, error) {
	s := in.Script
	k := kitPage{Script: s, Plan: in.plan(), Features: featuresOf(s), Questions: witnessQuestions(), Others: otherContacts()}
	byRole := map[string]card{}
	for _, c := range cards(s) {
		byRole[c.Role] = c
	}
	for _, seat := range k.Plan.Seats {
		k.Invited = append(k.Invited, invited{seat, named(byRole[seat.Role], seat.Name)})
		if seat.Role == charter.RoleWitness {
			k.Witnesses = append(k.Witnesses, seat)
		}
	}
	k.Receipts = shareThings(s, k.Plan.Seats)
	k.Labels = append(append([]thing{}, k.Receipts...), tokenLabels(s)...)
	k.Shopping = shopping(s, k.Plan, len(k.Receipts))
	var files []File
	add := func(f File, template string, k kitPage) error {
		html, err := renderPage(template, page{head{Title: f.Title + " – " + s.Title, World: in.World, Footer: "script " + s.Hash()}, k}, kitHTML)
		f.HTML = html
		files = append(files, f)
		return err
	}
	for _, p := range kitPages() {
		if err := add(p.File, p.template, k); err != nil {
			return nil, err
		}
	}
	for _, c := range cards(s) {
		k.Card = c
		f := File{Name: "card-" + c.Role + ".html", Title: "Role card: " + c.Who, About: "What to do, what never to do, when to say incident, and what happens if it is lost. One for each " + c.Who + "."}
		if err := add(f, "card", k); err != nil {
			return nil, err
		}
	}
	sheet, err := anchorsPage(head{Title: "Words of the anchors – " + s.Title, World: in.World, Footer: "script " + s.Hash()}, s.Title, "", in.names())
	if err != nil {
		return nil, err
	}
	files = append(files, File{"anchors.html", "Words of the anchors", "The sheet that each participant fills in, compares and takes home.", sheet})
	k.Files = files
	if err := add(File{Name: "index.html", Title: "Kit", About: "This list."}, "kit-index", k); err != nil {
		return nil, err
	}
	return files, nil
}

// named puts a person's name into the names of his files.
func named(c card, name string) card {
	if name == "" {
		return c
	}
	c.Bring = slices.Clone(c.Bring)
	for i := range c.Bring {
		c.Bring[i] = strings.ReplaceAll(c.Bring[i], "NAME.", name+".")
	}
	return c
}

type kitEntry struct {
	File
	template string
}

func kitPages() []kitEntry {
	return []kitEntry{
		{File{Name: "invitation.html", Title: "Invitations", About: "One for each participant: when, where, what to bring, what to leave outside."}, "invitation"},
		{File{Name: "shopping.html", Title: "Shopping and room list", About: "What must be there, how many of it, and what the room is like."}, "shopping"},
		{File{Name: "labels.html", Title: "Labels for seal bags", About: "One for each share and token, to cut out."}, "labels"},
		{File{Name: "custody-receipt.html", Title: "Custody receipts", About: "Who keeps what where, and what he promises. Two copies of each."}, "receipts"},
		{File{Name: "custody-log.html", Title: "Custody log", About: "Stays with each bag. One for each."}, "log"},
		{File{Name: "witness-statement.html", Title: "Witness statements", About: "What a witness saw, and whether he agrees."}, "statement"},
		{File{Name: "contacts.html", Title: "Contact sheet", About: "Whom to call. For the conductor and one other person only."}, "contacts"},
	}
}

// names are those on the take-home sheets; "" leaves a place.
func (in *Input) names() []string {
	var out []string
	for _, s := range in.seats() {
		out = append(out, s.Who())
	}
	return out
}

// shareThings are the shares that the script deals, one for each holder.
func shareThings(s *script.Script, seats []seat) []thing {
	var out []thing
	for _, ph := range s.Phases() {
		for _, st := range ph.Steps {
			x, ok := s.SafeByName(st.Safe)
			if st.Do != "shares.deal" || !ok {
				continue
			}
			for _, seat := range seats {
				if seat.Role == charter.RoleKeyMaster && seat.Group == x.Group {
					out = append(out, thing{N: 1, What: "Share of safe “" + x.Name + "”", For: seat.Who()})
				}
			}
		}
	}
	return out
}

func tokenLabels(s *script.Script) []thing {
	var out []thing
	for _, x := range s.Safes {
		out = append(out, thing{N: 1, What: "Token “" + x.Token + "” (safe “" + x.Name + "”)"})
	}
	for _, m := range s.Media {
		out = append(out, thing{N: 1, What: "Medium “" + m.Label + "”"})
	}
	return append(out, thing{N: 1, What: "Record of the ceremony, for a witness"}, thing{N: 1, What: "Papers of the ceremony"})
}

func shopping(s *script.Script, p *plan, shares int) []thing {
	people := len(p.Seats)
	fresh := 0
	for _, x := range s.Safes {
		if x.State == "fresh" || x.State == "" && s.Kind == "genesis" {
			fresh++
		}
	}
	out := []thing{
		{N: 2, What: "Ceremony computers", Why: "One works, one is spare; both without network. The rehearsal ran on both."},
		{N: 1, What: "Screen, large", Why: "Everybody reads along."},
		{N: 2, What: "Start media with the ceremony system", Why: "Read only; the hash was compared by two people."},
	}
	if fresh > 0 {
		out = append(out, thing{N: fresh + 1, What: "Hardware tokens, new, sealed by the maker", Why: "One for each fresh safe and a spare. Serial numbers noted on arrival."})
	}
	if shares > 0 {
		out = append(out, thing{N: shares + max(2, shares/5), What: "Media for shares, new, in their wrapping", Why: "One for each share, and spares. One kind, bought in two shops."})
	}
	for _, m := range s.Media {
		out = append(out, thing{N: 1, What: "Medium “" + m.Label + "”", Why: m.Purpose})
	}
	bags := shares + len(s.Safes) + len(s.Media) + 3
	return append(out,
		thing{N: 2, What: "Media for the record", Why: "Two copies leave the room with two witnesses."},
		thing{N: bags + max(3, bags/5), What: "Seal bags with printed numbers", Why: "One for each share, token, medium and stack of papers, and spares."},
		thing{N: people + 2, What: "Scripts in print", Why: "One for each person, and two spare."},
		thing{N: people + 2, What: "Pens, blue, ink that does not rub out", Why: "Blue tells an original from a copy."},
		thing{N: people, What: "Name badges with role", Why: "Nobody must guess who may do what."},
		thing{N: 1, What: "Printer without radio, with paper and spare toner", Why: "Plugged in only when the script says so. If it fails, the words are written by hand."},
		thing{N: 1, What: "Clock in UTC", Why: "Times on paper are compared with those of the record."},
		thing{N: 1, What: "Uninterruptible power supply", Why: "A power cut voids the ceremony."},
		thing{N: 1, What: "Box of bandages, water, food", Why: "Nobody leaves because of hunger."},
	)
}

func witnessQuestions() []string {
	return []string{
		"I saw everybody's identity document, or saw two others look at it.",
		"I compared the hash of the script with my copy before the first step.",
		"I saw that no network cable, radio or unknown medium was at the computer.",
		"I saw each step that I initialled, in the order of the script.",
		"Nobody looked at another person's hands while a passphrase was typed.",
		"Each key master sealed his own bag and wrote down its number.",
		"The words of the anchors read aloud were those on my sheet.",
		"Nothing happened that the script does not foresee.",
		"Nobody pressed me to go on or to sign.",
	}
}

func otherContacts() []string {
	return []string{"Maker of the token, support", "Keeper of the building", "Keeper of the strong room", "Security officer on call", "Who decides when the ceremony is void", "Doctor, ambulance"}
}
