package paper

import (
	"strconv"
	"strings"

	"keyrite/ceremony/script"
)

// verbText says what a verb looks like in the room: who acts, what is done, and
// what everybody must see before the step is ticked. {safe} and the like stand
// for the arguments of the step.
type verbText struct{ who, does, see string }

const everybody = "everybody"

// verbTexts has one text for each verb of the language.
func verbTexts() map[string]verbText {
	const typist, masters, watchers, deciders = "conductor", "key masters", "witnesses", "approvers"
	return map[string]verbText{
		// Summon.
		"environment.check": {typist, "The program compares itself, the module and the computer with the script.", "The hashes on the screen are those of annex A. Network and swap as the script demands; the clock shows UTC."},
		"people.identify":   {everybody, "Each person in turn opens his own key, unseen by the others.", "Each name with its role; the words of each key are those of annex A."},
		"documents.see":     {watchers, "Two witnesses look at everybody's identity document and sign which kind it was.", "A kind of document beside each name. No number is written down."},
		"vault.load":        {typist, "The program reads anchors, charter and earlier records, verifies them, and compares the people with the charter.", "The words of the anchors are those on the sheets that people brought from home."},
		// People and charter.
		"genesis.sign":    {everybody, "Everybody reads the roster, the safes and the thresholds on the screen, then signs.", "Every name once, with its one role. The thresholds are those of page 2."},
		"people.change":   {everybody, "Everybody concerned reads the roster and the sets after the change, then signs: the old and the new threshold, and everybody new.", "Who comes, who goes, and the thresholds after the change."},
		"charter.append":  {deciders, "The approvers read each statement on the screen and sign it.", "Each statement is one that this script names; the last line says how many there are."},
		"succession.sign": {deciders, "The statement of succession is signed by the succession key.", "Which key goes, which key comes, and why."},
		"update.root":     {deciders, "The root of the update repository is signed by its key and by each approver.", "The version, and the names of all who signed."},
		// Tokens.
		"token.init":    {typist, "Token {token} is initialised under two random PINs that nobody sees.", "The serial number on the screen is the one on the token."},
		"token.admit":   {typist, "Throw-away keys are made in token {token} and attacked.", "Every attack is refused. One success ends the ceremony."},
		"token.pins":    {typist, "The PINs of {token} are replaced by ones that only {need} shares give. The old PINs are tried.", "The old PINs are refused."},
		"token.repin":   {typist, "The PINs of {token} are replaced by ones of the new secret. The old PINs are tried once.", "The old PINs are refused."},
		"token.destroy": {typist, "Token {token} is erased; its keys are retired already.", "The token is empty. From now on nothing in it can be brought back."},
		"safe.open":     {masters, "At least {need} key masters give their shares for this operation and this attempt only.", "Each name as a share is taken; no share is ever shown. The safe opens at {need}."},
		// Shares.
		"shares.deal":     {typist, "The secret of safe {safe} is dealt to {of} key masters, of whom {need} open it. Every combination is tried.", "{of} shares, one for each key master by name."},
		"shares.receipts": {masters, "Each key master reads the share back from the medium and signs for it. The medium goes into its bag.", "A receipt from each of the {of}. The bag number stands in the custody log."},
		// Keys.
		"key.generate": {typist, "Key {key} is born in token {token}. Nobody will ever see it.", "Every attribute as specified (the key's row in “What is made”)."},
		"key.transfer": {typist, "Key {key} leaves safe {safe} wrapped, and arrives in safe {to}.", "The copy in the receiving token has every attribute as specified; the old one is gone."},
		"key.find":     {typist, "Key {key}, which a void transfer left in safe {to}, is read there and signs there; then safe {safe} is searched for it.", "Every attribute as after a transfer. In safe {safe} a fresh process finds nothing of it."},
		"key.destroy":  {typist, "Key {key} is destroyed.", "A fresh process searches for it and finds nothing."},
		"keys.store":   {typist, "The keys of safe {safe} are copied into the token for good, unchangeable.", "A fresh process reads every attribute again: all as specified."},
		"keys.prove":   {typist, "Each key of safe {safe} signs once, as it lies in the token.", "One good signature for each key."},
		"births.sign":  {everybody, "Every witness, and as many key masters as open the safe, sign for the birth of each key that no HSM attests.", "The keys by name. Sign only for what you watched."},
		// Certificates.
		"cert.issue": {typist, "Certificate {cert} is checked, issued, and checked again.", "Subject and issuer as in “What is made”."},
		"crl.issue":  {typist, "Revocation list {crl} is issued.", "The number and the revoked certificates as in “What is made”."},
		// The room.
		"break":         {everybody, "Everybody present is named before and after the break. The room stays watched.", "The same names before and after."},
		"pause":         {everybody, "A break. Two witnesses stay with the computer.", "The same people before and after."},
		"medium.in":     {typist, "Medium “{medium}” goes into the drive.", "Its label; for a medium with inputs, the hash is that of annex A."},
		"medium.out":    {typist, "Medium “{medium}” leaves the drive and goes into its bag.", "Its label. The bag number stands in the custody log."},
		"paper.print":   {typist, "The sheets with the words are printed, one for each participant.", "The print can be read. Say “printer” if not."},
		"outputs.write": {typist, "Everything public is written to the record.", "The list of files. None of them is secret."},
		"read.aloud":    {typist, "The conductor reads the words of the anchors. Everybody compares each word.", "All 32 words are those in annex B, and on the sheet that everybody takes home."},
	}
}

// textOf fills the text of a step's verb. A verb without one shows its title
// alone, which the script always has.
func textOf(s *script.Script, st *script.Step) verbText {
	t := verbTexts()[st.Do]
	need, of := s.Roles.KeyMasters.Need, s.Roles.KeyMasters.Of
	safe := st.Safe
	if k, ok := s.KeyByID(st.Key); ok && safe == "" {
		safe = k.Safe
	}
	token := safe
	if x, ok := s.SafeByName(safe); ok {
		token = x.Token
		if x.Need > 0 {
			need, of = x.Need, x.Of
		}
	}
	fill := strings.NewReplacer("{safe}", safe, "{token}", token, "{key}", st.Key, "{cert}", st.Cert, "{crl}", st.CRL, "{to}", st.To,
		"{medium}", st.Medium, "{need}", strconv.Itoa(need), "{of}", strconv.Itoa(of))
	return verbText{t.who, fill.Replace(t.does), fill.Replace(t.see)}
}

// causeText says when a contingency begins, in the words of the room.
func causeText(cause string) string {
	texts := map[string]string{
		"passphrase": "somebody cannot open his key within the tries",
		"words":      "the words that were read do not match what somebody has",
		"printer":    "the printer fails, or its print cannot be read",
		"medium":     "a medium cannot be read or written",
		"card":       "a card is not recognised",
		"share":      "a share cannot be read, or its holder is absent",
		"late":       "somebody is late",
	}
	if t, ok := texts[cause]; ok {
		return t
	}
	return cause
}
