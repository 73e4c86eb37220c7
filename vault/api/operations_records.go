package api

import "keyrite/vault/audit"

// Types of proposals for the charter and of the trail, for the document.
type (
	proposalBody struct {
		Type     string `json:"type,omitempty" doc:"type of the statement, with its body; or a whole proposal"`
		Body     anyMap `json:"body,omitempty" doc:"as docs/formats/charter.md has it"`
		Proposal string `json:"proposal,omitempty" doc:"text of a file of 'keyrite charter propose'"`
	}
	approvalBody struct {
		Approval string `json:"approval" doc:"text of a file of 'keyrite charter approve'"`
	}
	approvalFiles struct {
		Approvals map[string]string `json:"approvals" doc:"texts by approver"`
	}
	givenApproval struct {
		Approver  string `json:"approver"`
		BroughtBy string `json:"brought_by" doc:"identity; it decides nothing"`
		Brought   string `json:"brought"`
	}
	pendingProposal struct {
		ID        string          `json:"id" doc:"digest that approvers compare"`
		Type      string          `json:"type"`
		About     string          `json:"about"`
		Statement int             `json:"statement" doc:"its place in the charter"`
		State     string          `json:"state" doc:"open, ready or stale"`
		Next      string          `json:"next" doc:"what is to be done"`
		Need      int             `json:"need"`
		Approvers []string        `json:"approvers"`
		Approvals []givenApproval `json:"approvals"`
		BroughtBy string          `json:"brought_by" doc:"identity"`
		Brought   string          `json:"brought"`
		Ends      string          `json:"ends"`
		Proposal  string          `json:"proposal,omitempty" doc:"the file, byte for byte; not in lists"`
		Sentence  string          `json:"sentence,omitempty" doc:"what it decides, in a sentence"`
		Says      []string        `json:"says,omitempty" doc:"all that it says, as approvers read it"`
		Words     string          `json:"words,omitempty" doc:"the digest, to be read aloud"`
	}
	proposalList struct {
		Keys    []string                   `json:"keys" doc:"ids, the oldest first"`
		KeyInfo map[string]pendingProposal `json:"key_info"`
	}
	trailQuery struct {
		From      string `json:"from,omitempty" doc:"RFC 3339; this time and later"`
		To        string `json:"to,omitempty" doc:"RFC 3339; before this time"`
		Identity  string `json:"identity,omitempty"`
		Path      string `json:"path,omitempty" doc:"this path and those below it"`
		Operation string `json:"operation,omitempty"`
		Kind      string `json:"kind,omitempty" doc:"request, refused, intent, result or life"`
		Class     string `json:"class,omitempty" doc:"of the error; none for what went well"`
		Peer      string `json:"peer,omitempty" doc:"address or network of the client"`
		Before    int    `json:"before,omitempty" doc:"entries with a lower number; from the newest if not given"`
		Limit     int    `json:"limit,omitempty" doc:"1 to 200; 50 if not given"`
	}
	numberedEntry struct {
		Number int         `json:"number"`
		Entry  audit.Entry `json:"entry"`
	}
	trailAnswer struct {
		Entries  []numberedEntry `json:"entries"`
		Scanned  int             `json:"scanned" doc:"entries looked through, at most 20,000"`
		Complete bool            `json:"complete" doc:"the first entry was reached"`
		Before   int             `json:"before" doc:"where to go on, if not complete"`
	}
)
