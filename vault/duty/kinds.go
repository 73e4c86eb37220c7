package duty

import "time"

// The kinds of items.
const (
	Issuer       = "issuer"             // CA of a pki mount
	Issued       = "issued-certificate" // the newest for its names
	ClientCA     = "client-ca"          // whose clients an identity is
	ServerCert   = "server-certificate" // of the vault's own listener
	RelayCert    = "relay-certificate"
	FactoryCA    = "factory-ca"
	VendorRoot   = "vendor-root"
	Certificate  = "certificate" // another one that is watched
	Admission    = "admission"   // report of a token
	CRL          = "crl"         // of a pki mount
	WatchedCRL   = "watched-crl"
	Delegation   = "delegation"
	BreakGlass   = "break-glass"
	Unvouched    = "unvouched"  // a delegation or break-glass that this vault can never use
	Unattended   = "unattended" // a host that opens the vault by itself
	Password     = "password"
	Shares       = "shares"
	Rehearsal    = "rehearsal"
	TUFRoot      = "tuf-root"
	TUFTargets   = "tuf-targets"
	TUFSnapshot  = "tuf-snapshot"
	TUFTimestamp = "tuf-timestamp"
	Bundle       = "bundle"
)

const day = 24 * time.Hour

// kind says from when, and by what, a kind of thing is renewed.
type kind struct {
	lead time.Duration // before its end; of what is known to live shortly, a third of its life at most
	act  string
	over bool // once it has ended nobody has to do anything
}

func kinds() map[string]kind {
	return map[string]kind{
		Issuer:       {lead: 90 * day, act: "certify a CA for another mount in a ceremony: docs/operations/vault-pki.md"},
		Issued:       {lead: 14 * day, act: "the process asks for its next certificate; if it is gone, nothing has to be done: docs/operations/vault-pki.md"},
		ClientCA:     {lead: 60 * day, act: "state an identity under the next CA with 'keyrite charter propose identity': docs/operations/vault-identities.md"},
		ServerCert:   {lead: 14 * day, act: "replace the files of tls in the binding; no restart is needed: docs/operations/vault.md"},
		RelayCert:    {lead: 14 * day, act: "certify the relay anew and state it with 'keyrite charter propose relay': docs/operations/relay.md"},
		FactoryCA:    {lead: 180 * day, act: "certify the factory's next CA in a ceremony ('keyrite ceremony new enrol'): docs/formats/factory.md"},
		VendorRoot:   {lead: 60 * day, act: "ask its maker for the next one and state it with 'keyrite charter propose vendor-root': docs/formats/attestation.md"},
		Certificate:  {lead: 30 * day, act: "renew it, and put the new one where the binding watches it: docs/operations/vault-reminders.md"},
		Admission:    {lead: 14 * day, act: "attack the token anew with 'keyrite hsm admit': docs/operations/hsm.md"},
		CRL:          {lead: day, act: "read the mount's crl, which makes a new list: docs/operations/vault-pki.md"},
		WatchedCRL:   {lead: 14 * day, act: "have its issuer sign a new list ('keyrite ceremony new sign-offline'), and put it where the binding watches it: docs/operations/vault-reminders.md"},
		Delegation:   {lead: 7 * day, act: "state another one with 'keyrite charter propose delegation' if it is still needed: docs/formats/charter.md", over: true},
		BreakGlass:   {lead: 14 * day, act: "end it with 'keyrite charter propose break-glass-ended' once it is not needed: docs/formats/charter.md", over: true},
		Unvouched:    {act: "keep the head at a cosigner, or end it with 'keyrite charter propose access-ended': docs/operations/vault-tpm.md", over: true},
		Unattended:   {lead: 14 * day, act: "state another one with 'keyrite charter propose unattended', or end it; without it a restart needs a quorum: docs/operations/vault-unattended.md"},
		Password:     {lead: 7 * day, act: "rotate them, and set them where they are used: docs/operations/vault-password.md"},
		Shares:       {lead: 14 * day, act: "ask the holders with a challenge, and plan a reshare while it can be done: docs/operations/shares.md"},
		Rehearsal:    {lead: 7 * day, act: "rehearse again with 'keyrite ceremony rehearse'; a live run wants a rehearsal of at most 30 days: docs/operations/first-ceremony.md"},
		TUFRoot:      {lead: 60 * day, act: "sign the next root in a ceremony ('keyrite ceremony new sign-offline'): docs/formats/tuf.md"},
		TUFTargets:   {lead: 21 * day, act: "publish anew with 'keyrite release publish': docs/formats/tuf.md"},
		TUFSnapshot:  {lead: 7 * day, act: "publish anew with 'keyrite release publish': docs/formats/tuf.md"},
		TUFTimestamp: {lead: 7 * day, act: "publish anew with 'keyrite release publish': docs/formats/tuf.md"},
		Bundle:       {lead: 14 * day, act: "give the factory its next bundle with 'keyrite provision export': docs/formats/bundle.md"},
	}
}
