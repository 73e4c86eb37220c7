package api

import (
	"keyrite/artifact/access"
	"keyrite/vault/duty"
	"keyrite/vault/proof"
)

// operation is one row of the OpenAPI document. {mount} is an engine's place in the
// charter.
type operation struct {
	Method, Path, Summary string
	Public                bool   // needs no caller
	Request, Response     any    // of these types; nil for none
	Raw                   string // content type of an answer that is no JSON
}

// operations is the whole of what is served. A test compares it with what vault/node
// and public.go answer.
func operations() []operation {
	all := public()
	all = append(all, system()...)
	return append(all, engines()...)
}

// noData stands for an answer that has the shape around its data and no data: what it
// says is in the lease.
var noData = (*any)(nil)

// Types of requests and answers, for the document. Engines read their parameters one by
// one; what is here follows docs/operations/vault-api.md.
type (
	anyMap     = map[string]any
	unsealBody struct {
		Answer  string `json:"key" doc:"what 'keyrite share open' wrote"`
		Migrate bool   `json:"migrate,omitempty" doc:"false"`
		Reset   bool   `json:"reset,omitempty" doc:"false"`
	}
	healthQuery struct {
		Active int `json:"activecode,omitempty" doc:"status instead of 200"`
		Sealed int `json:"sealedcode,omitempty" doc:"status instead of 503"`
		Uninit int `json:"uninitcode,omitempty" doc:"status instead of 501"`
	}
	pathsBody struct {
		Paths []string `json:"paths"`
	}
	keys struct {
		Keys []string `json:"keys"`
	}
	policyAnswer struct {
		Name    string        `json:"name"`
		Policy  string        `json:"policy"`
		Rules   []access.Rule `json:"rules"`
		Version int           `json:"version"`
	}
	loginBody struct {
		Role     string `json:"role,omitempty" doc:"identity of the charter"`
		JWT      string `json:"jwt,omitempty"`
		RoleID   string `json:"role_id,omitempty"`
		SecretID string `json:"secret_id,omitempty"`
		Name     string `json:"name,omitempty"`
	}
	renewBody struct {
		Increment string `json:"increment,omitempty" doc:"seconds, or with a unit"`
	}
	secretIDBody struct {
		NumUses  int    `json:"num_uses,omitempty" doc:"1 to 1,000; 1 if not given"`
		TTL      string `json:"ttl,omitempty" doc:"1 second to 90 days; 24 hours if not given"`
		Accessor string `json:"secret_id_accessor,omitempty" doc:"to look up and take back"`
	}
	accessorBody struct {
		Accessor string `json:"accessor"`
	}
	leaseBody struct {
		LeaseID   string `json:"lease_id"`
		Increment string `json:"increment,omitempty" doc:"to renew: seconds, or with a unit"`
	}
	charterQuery struct {
		From  int `json:"from,omitempty" doc:"number of the first statement, from 0"`
		Limit int `json:"limit,omitempty" doc:"at most so many, to 1,000"`
	}
	charterBody struct {
		Statements []string `json:"statements" doc:"lines of the charter log, signed by its approvers; 1 to 256"`
	}
	charterHead struct {
		Size int    `json:"size"`
		Head string `json:"head" doc:"root of the log, hex"`
	}
	dueAnswer struct {
		Items []duty.Item `json:"items"`
		Soon  int         `json:"soon"`
		Late  int         `json:"late"`
	}
	sharesAnswer struct {
		Days  int          `json:"alive_days" doc:"how long a proof counts"`
		Safes []proof.Safe `json:"safes"`
	}
	proofBody struct {
		Proof string `json:"proof" doc:"what 'keyrite share prove' wrote"`
	}
	provenAnswer struct {
		Safe   string `json:"safe"`
		Epoch  int    `json:"epoch"`
		Holder string `json:"holder"`
		Index  int    `json:"index"`
	}
	challengesAnswer struct {
		Challenges []proof.Open `json:"challenges"`
	}
	challengeBody struct {
		Safe    string `json:"safe"`
		Purpose string `json:"purpose" doc:"shown to the holders: 1 to 120 printable ASCII characters"`
		Valid   string `json:"valid,omitempty" doc:"seconds, or with a unit, to 168h; 168h if not given"`
	}
	challengeAnswer struct {
		Challenge string `json:"challenge" doc:"the text of the file that holders answer"`
		ID        string `json:"id"`
		Safe      string `json:"safe"`
		Epoch     int    `json:"epoch"`
		Expires   string `json:"expires"`
	}
	charterAnswer struct {
		Size       int      `json:"size"`
		Head       string   `json:"head"`
		From       int      `json:"from"`
		Statements []string `json:"statements" doc:"at most 1,000"`
	}
)

func public() []operation {
	return []operation{
		{"GET", "sys/health", "How the vault is, in the status", true, healthQuery{}, Health{}, ""},
		{"GET", "sys/seal-status", "How far the opening is", true, nil, SealStatus{}, ""},
		{"GET", "sys/leader", "There is one server", true, nil, Leader{}, ""},
		{"GET", "sys/init", "Whether there is a vault", true, nil, Initialized{}, ""},
		{"PUT", "sys/unseal", "Take the answer of one key master to the open request", true, unsealBody{}, SealStatus{}, ""},
		{"GET", "sys/internal/specs/openapi", "This document", true, nil, anyMap{}, ""},
		{"POST", "auth/{means}/login", "Log in by cert, jwt, approle or unix", true, loginBody{}, anyMap{}, ""},
	}
}

func system() []operation {
	return []operation{
		{"GET", "sys/mounts", "Engines that the charter mounts", false, nil, anyMap{}, ""},
		{"GET", "sys/auth", "Ways of logging in", false, nil, anyMap{}, ""},
		{"GET", "sys/audit", "The one trail", false, nil, anyMap{}, ""},
		{"GET", "sys/internal/ui/mounts", "Engines that the caller has rules for", false, nil, anyMap{}, ""},
		{"GET", "sys/internal/ui/mounts/{path}", "One of them", false, nil, anyMap{}, ""},
		{"POST", "sys/capabilities-self", "What the caller may on paths", false, pathsBody{}, anyMap{}, ""},
		{"GET", "sys/policies/acl", "Policies of the charter", false, nil, keys{}, ""},
		{"GET", "sys/policies/acl/{name}", "One policy", false, nil, policyAnswer{}, ""},
		{"GET", "sys/metrics", "Figures for Prometheus", false, nil, nil, "text/plain"},
		{"PUT", "sys/seal", "Seal the vault", false, nil, nil, ""},
		{"GET", "auth/token/lookup-self", "The caller's token", false, nil, anyMap{}, ""},
		{"PUT", "auth/token/renew-self", "Let it live on", false, renewBody{}, anyMap{}, ""},
		{"PUT", "auth/token/revoke-self", "End it", false, nil, nil, ""},
		{"GET", "auth/approle/role/{path}", "A role, its role id, the accessors of its secret ids", false, nil, anyMap{}, ""},
		{"PUT", "auth/approle/role/{path}", "Ask for a secret id, look one up, take it back", false, secretIDBody{}, anyMap{}, ""},
		{"PUT", "auth/token/lookup-accessor", "A token of another", false, accessorBody{}, anyMap{}, ""},
		{"PUT", "auth/token/revoke-accessor", "End it", false, accessorBody{}, nil, ""},
		{"PUT", "sys/leases/lookup", "A lease of the caller", false, leaseBody{}, anyMap{}, ""},
		{"PUT", "sys/leases/renew", "Let it live on", false, leaseBody{}, noData, ""},
		{"PUT", "sys/leases/revoke", "End it", false, leaseBody{}, nil, ""},
		{"PUT", "sys/leases/lookup/{path}", "A lease of another", false, nil, anyMap{}, ""},
		{"GET", "sys/leases/lookup/{path}", "Leases below a path", false, nil, keys{}, ""},
		{"PUT", "sys/leases/revoke/{path}", "End a lease of another", false, nil, nil, ""},
		{"PUT", "sys/leases/revoke-prefix/{path}", "End all leases below a path", false, nil, anyMap{}, ""},
		{"GET", "keyrite/proposals", "Proposals for the charter that wait", false, nil, proposalList{}, ""},
		{"PUT", "keyrite/proposals", "Propose a statement, which people then approve offline", false, proposalBody{}, pendingProposal{}, ""},
		{"GET", "keyrite/proposals/{name}", "One of them, by its id: its file, and what it says", false, nil, pendingProposal{}, ""},
		{"DELETE", "keyrite/proposals/{name}", "Take it back", false, nil, nil, ""},
		{"GET", "keyrite/proposals/{name}/approvals", "The approval files that are in", false, nil, approvalFiles{}, ""},
		{"PUT", "keyrite/proposals/{name}/approvals", "Bring an approval that a person made offline", false, approvalBody{}, anyMap{}, ""},
		{"PUT", "keyrite/proposals/{name}/renew", "Propose what a stale one says anew", false, nil, pendingProposal{}, ""},
		{"PUT", "keyrite/proposals/{name}/append", "Take an approved one over; needs the right to keyrite/charter, too", false, nil, charterHead{}, ""},
		{"GET", "keyrite/trail", "Entries of the trail, newest first", false, trailQuery{}, trailAnswer{}, ""},
		{"GET", "keyrite/status", "How the vault is, for whom the charter lets know", false, nil, anyMap{}, ""},
		{"GET", "keyrite/charter", "Statements in force", false, charterQuery{}, charterAnswer{}, ""},
		{"GET", "keyrite/due", "What has to be done next, what is most urgent first", false, nil, dueAnswer{}, ""},
		{"GET", "keyrite/shares", "Whose share is proven since when, for each safe", false, nil, sharesAnswer{}, ""},
		{"PUT", "keyrite/shares", "Take a proof of 'keyrite share prove'", false, proofBody{}, provenAnswer{}, ""},
		{"GET", "keyrite/shares/challenges", "Challenges that wait for answers", false, nil, challengesAnswer{}, ""},
		{"PUT", "keyrite/shares/challenges", "Ask the holders of a safe to prove their shares", false, challengeBody{}, challengeAnswer{}, ""},
		{"PUT", "keyrite/charter", "Take statements over that approvers signed", false, charterBody{}, charterHead{}, ""},
	}
}
