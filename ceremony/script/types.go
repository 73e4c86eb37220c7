package script

import "time"

// The comments of this file are also the descriptions in the JSON Schema
// (schema.go reads them), so each is a sentence for who writes a script.

// Script is the whole file.
type Script struct {
	Format        string        `yaml:"format" json:"format"`                         // keyrite/script/v1
	Kind          string        `yaml:"kind" json:"kind"`                             // what the ceremony is: genesis, new-key, reshare, transfer, hsm-lost, succession, sign-offline, enrol or retire
	Title         string        `yaml:"title" json:"title"`                           // name of the ceremony, for people
	Purpose       string        `yaml:"purpose" json:"purpose"`                       // one sentence: why the ceremony is held
	Pins          Pins          `yaml:"pins" json:"pins"`                             // SHA-256 of the programs that may run the script
	Environment   Environment   `yaml:"environment" json:"environment"`               // what the ceremony computer must be like
	Roles         Roles         `yaml:"roles" json:"roles"`                           // how many people take part, by role; nobody has two
	Safes         []Safe        `yaml:"safes" json:"safes,omitempty"`                 // the tokens that the ceremony makes or opens
	Keys          []Key         `yaml:"keys" json:"keys,omitempty"`                   // the keys that the ceremony makes
	Existing      []ExistingKey `yaml:"existing" json:"existing,omitempty"`           // the keys of the charter that the ceremony uses, moves or destroys
	Certificates  []Certificate `yaml:"certificates" json:"certificates,omitempty"`   // the certificates that the ceremony issues
	CRLs          []CRL         `yaml:"crls" json:"crls,omitempty"`                   // the certificate revocation lists that the ceremony issues
	Successions   []Succession  `yaml:"successions" json:"successions,omitempty"`     // which key takes over from which
	Factories     []Factory     `yaml:"factories" json:"factories,omitempty"`         // factories that enter the charter
	Stations      []Station     `yaml:"stations" json:"stations,omitempty"`           // production stations that enter the charter
	Pipelines     []Pipeline    `yaml:"pipelines" json:"pipelines,omitempty"`         // build pipelines that enter the charter
	Relays        []Relay       `yaml:"relays" json:"relays,omitempty"`               // relay servers that enter the charter
	Media         []Medium      `yaml:"media" json:"media,omitempty"`                 // the media that may go into or out of the drive; any other is an incident
	Model         Model         `yaml:"model" json:"model,omitempty"`                 // things of the room and the states they may be in; the first is the one at the start
	Contingencies []Contingency `yaml:"contingencies" json:"contingencies,omitempty"` // what people predictably do, and what is done then
	Summon        []Step        `yaml:"summon" json:"summon"`                         // the steps before ARMED: nothing in them is an incident
	Run           []Step        `yaml:"run" json:"run"`                               // the steps in which things are made
	Seal          []Step        `yaml:"seal" json:"seal"`                             // the steps in which they are stored, proven and written out

	hash  string
	file  string
	marks map[string]Pos
}

// Model is what a script says of physical things: thing → states, the first is
// the one at the start.
type Model map[string][]string

// Quorum is n people of whom some must agree.
type Quorum struct {
	Need int `yaml:"need" json:"need"` // how many must agree; at least 2
	Of   int `yaml:"of" json:"of"`     // how many there are
}

// Roles says how many people take part, by role. A person has one role only.
type Roles struct {
	Conductor         int    `yaml:"conductor" json:"conductor"`                             // leads and reads aloud; 1
	ConductorOperates bool   `yaml:"conductor_operates" json:"conductor_operates,omitempty"` // conductor and operator are one person
	Operator          int    `yaml:"operator" json:"operator,omitempty"`                     // types and never decides; 1 where conductor_operates is false, else 0
	KeyMasters        Quorum `yaml:"key_masters" json:"key_masters,omitzero"`                // hold the shares of the safes without a group
	Witnesses         int    `yaml:"witnesses" json:"witnesses"`                             // watch and cosign; at least 2
	Approvers         Quorum `yaml:"approvers" json:"approvers,omitzero"`                    // decide on charter and releases
	Auditors          int    `yaml:"auditors" json:"auditors,omitempty"`                     // watch for others and sign nothing that is needed
}

// Pins are the SHA-256 of the programs that may run the script, in hex.
type Pins struct {
	Keyrite string `yaml:"keyrite" json:"keyrite"`     // hex SHA-256 of keyrite
	HSMD    string `yaml:"hsmd" json:"hsmd"`           // hex SHA-256 of keyrite-hsmd
	Module  string `yaml:"module" json:"module"`       // hex SHA-256 of the PKCS#11 module
	Boot    string `yaml:"boot" json:"boot,omitempty"` // hex SHA-256 of the image that the computer was booted from, where it is pinned
}

// Safe is a token under a secret of its own.
type Safe struct {
	Name    string `yaml:"name" json:"name"`                 // what the script calls it
	Token   string `yaml:"token" json:"token"`               // label of the token
	Group   string `yaml:"group" json:"group,omitempty"`     // which key masters open it; without one, those of roles.key_masters
	Need    int    `yaml:"need" json:"need,omitempty"`       // how many key masters open it; default roles.key_masters.need
	Of      int    `yaml:"of" json:"of,omitempty"`           // how many key masters hold a share; default roles.key_masters.of
	State   string `yaml:"state" json:"state,omitempty"`     // fresh: made here; existing: opened here. Default fresh in a genesis, else existing
	Dormant bool   `yaml:"dormant" json:"dormant,omitempty"` // holds successors or standbys and is opened only when they take over
	Adopts  bool   `yaml:"adopts" json:"adopts,omitempty"`   // if the void ceremony before this one left the safe under shares that it dealt, those are taken over; they are replaced here
}

// Key is the specification of one key to be made. Every usage is stated.
type Key struct {
	ID          string `yaml:"id" json:"id"`                               // what charter and anchors call it
	Safe        string `yaml:"safe" json:"safe"`                           // the safe it is born in
	Purpose     string `yaml:"purpose" json:"purpose"`                     // what it is for, in words
	Algorithm   string `yaml:"algorithm" json:"algorithm"`                 // p256, p384, rsa3072, rsa4096 (both also with -pss) or ed25519
	Domain      string `yaml:"domain" json:"domain"`                       // signing domain; one key, one domain
	SuccessorOf string `yaml:"successor_of" json:"successor_of,omitempty"` // the key whose place it takes one day
	Movable     bool   `yaml:"movable" json:"movable,omitempty"`           // it may be moved to another token once, wrapped
	Attestation string `yaml:"attestation" json:"attestation,omitempty"`   // what must stand for its birth: required (its HSM attests it), quorum (people who watched sign, where no HSM attests it) or none; default none
	Usage       Usage  `yaml:"usage" json:"usage"`                         // what it may do; everything is stated
}

// Usage states every attribute that decides what a key may do.
type Usage struct {
	Sign               bool `yaml:"sign" json:"sign"`                                     // CKA_SIGN
	Decrypt            bool `yaml:"decrypt" json:"decrypt"`                               // CKA_DECRYPT
	Encrypt            bool `yaml:"encrypt" json:"encrypt,omitempty"`                     // CKA_ENCRYPT
	Wrap               bool `yaml:"wrap" json:"wrap,omitempty"`                           // CKA_WRAP
	Unwrap             bool `yaml:"unwrap" json:"unwrap"`                                 // CKA_UNWRAP
	WrapWithTrusted    bool `yaml:"wrap_with_trusted" json:"wrap_with_trusted,omitempty"` // CKA_WRAP_WITH_TRUSTED: it leaves only under a trusted key
	Derive             bool `yaml:"derive" json:"derive"`                                 // CKA_DERIVE
	SignRecover        bool `yaml:"sign_recover" json:"sign_recover"`                     // CKA_SIGN_RECOVER
	Extractable        bool `yaml:"extractable" json:"extractable"`                       // CKA_EXTRACTABLE
	Sensitive          bool `yaml:"sensitive" json:"sensitive"`                           // CKA_SENSITIVE
	AlwaysAuthenticate bool `yaml:"always_authenticate" json:"always_authenticate"`       // CKA_ALWAYS_AUTHENTICATE
	Destroyable        bool `yaml:"destroyable" json:"destroyable"`                       // CKA_DESTROYABLE
}

// ExistingKey is a key of the charter, made in an earlier ceremony.
type ExistingKey struct {
	ID     string `yaml:"id" json:"id"`                   // what the charter calls it
	Safe   string `yaml:"safe" json:"safe,omitempty"`     // the safe it lies in; none if its token is lost
	Domain string `yaml:"domain" json:"domain,omitempty"` // its signing domain, where it signs here
}

// Certificate is one to be issued.
type Certificate struct {
	ID      string   `yaml:"id" json:"id"`                     // what charter and outputs call it
	Profile string   `yaml:"profile" json:"profile"`           // birth-root, relay-ca, factory-ca, relay or ca
	Key     string   `yaml:"key" json:"key,omitempty"`         // a key of this script, or
	CSR     string   `yaml:"csr" json:"csr,omitempty"`         // a request named in the binding, or
	Public  string   `yaml:"public" json:"public,omitempty"`   // ca: a public key named in the binding
	Issuer  string   `yaml:"issuer" json:"issuer"`             // id of the key that signs; its own for a root
	Days    int      `yaml:"days" json:"days,omitempty"`       // relay: 1 to 30; the other profiles have no end
	Factory string   `yaml:"factory" json:"factory,omitempty"` // factory-ca: which factory
	Role    string   `yaml:"role" json:"role,omitempty"`       // relay: access or vpn
	Names   []string `yaml:"names" json:"names,omitempty"`     // relay: DNS names and IP addresses

	CA Authority `yaml:"ca" json:"ca,omitzero"` // ca: everything that the certificate says
}

// Authority is what the certificate of a certification authority says, for
// hierarchies that are not ours. Nothing is filled in: what is not stated is not
// in the certificate.
type Authority struct {
	CommonName   string   `yaml:"common_name" json:"common_name"`                 // subject
	Organization string   `yaml:"organization" json:"organization"`               // subject
	Country      string   `yaml:"country" json:"country"`                         // subject: two capital letters
	Signature    string   `yaml:"signature" json:"signature"`                     // how the issuer signs: ecdsa-sha256, ecdsa-sha384 or rsa-sha256
	NotBefore    string   `yaml:"not_before" json:"not_before"`                   // 2026-11-22T00:00:00Z; a rehearsal takes its own day
	NotAfter     string   `yaml:"not_after" json:"not_after"`                     // 2036-11-21T23:59:59Z; a rehearsal's certificate ends after 30 days
	PathLength   int      `yaml:"path_length" json:"path_length"`                 // authorities that may follow below it; -1: no limit
	KeyUsages    []string `yaml:"key_usages" json:"key_usages"`                   // of cert-sign, crl-sign, digital-signature
	ExtKeyUsages []string `yaml:"ext_key_usages" json:"ext_key_usages,omitempty"` // of server-auth, client-auth
	Policies     []string `yaml:"policies" json:"policies,omitempty"`             // object identifiers
	CRLURL       string   `yaml:"crl_url" json:"crl_url,omitempty"`               // where its issuer's revocation list is found
	IssuerURL    string   `yaml:"issuer_url" json:"issuer_url,omitempty"`         // where its issuer's certificate is found
	OCSPURL      string   `yaml:"ocsp_url" json:"ocsp_url,omitempty"`             // where its issuer answers for it
	SubjectKeyID string   `yaml:"subject_key_id" json:"subject_key_id,omitempty"` // hex; only where another certificate of the key has one already
}

// CRL is a certificate revocation list to be issued.
type CRL struct {
	ID      string    `yaml:"id" json:"id"`                     // what the outputs call it
	Issuer  string    `yaml:"issuer" json:"issuer"`             // id of the key that signs
	Number  int64     `yaml:"number" json:"number"`             // RFC 5280 CRL number, higher than any before; at least 1
	Days    int       `yaml:"days" json:"days"`                 // until the next list is due; 1 to 400
	Revoked []Revoked `yaml:"revoked" json:"revoked,omitempty"` // the certificates that are revoked
}

// Revoked is one entry of a CRL.
type Revoked struct {
	Serial string `yaml:"serial" json:"serial"` // serial number in hex
	Date   string `yaml:"date" json:"date"`     // when it was revoked: 2026-11-22
	Reason string `yaml:"reason" json:"reason"` // RFC 5280 reason, as keyCompromise or superseded
}

// Succession says that one key takes the place of another.
type Succession struct {
	ID     string `yaml:"id" json:"id"`         // the key that goes
	By     string `yaml:"by" json:"by"`         // the dormant key that comes
	Reason string `yaml:"reason" json:"reason"` // compromised, lost or retired
}

// Factory becomes a charter statement, as Station, Pipeline and Relay do.
type Factory struct {
	ID         string `yaml:"id" json:"id"`                   // what the charter calls it
	Product    string `yaml:"product" json:"product"`         // the product it makes
	SerialFrom int64  `yaml:"serial_from" json:"serial_from"` // first serial number it may use; at least 1
	SerialTo   int64  `yaml:"serial_to" json:"serial_to"`     // last serial number it may use
	Evidence   string `yaml:"evidence" json:"evidence"`       // what proves the partner's maturity
	CA         string `yaml:"ca" json:"ca"`                   // id of its factory-ca certificate
}

// Station is a production station of a factory.
type Station struct {
	ID        string `yaml:"id" json:"id"`                 // what the charter calls it
	Factory   string `yaml:"factory" json:"factory"`       // its factory
	ReportKey string `yaml:"report_key" json:"report_key"` // request named in the binding
}

// Pipeline may request releases.
type Pipeline struct {
	ID       string   `yaml:"id" json:"id"`             // what the charter calls it
	Products []string `yaml:"products" json:"products"` // products it may request releases of; an empty list is refused
	Key      string   `yaml:"key" json:"key"`           // public key named in the binding
}

// Relay is a relay server.
type Relay struct {
	ID          string `yaml:"id" json:"id"`                   // what the charter calls it
	Role        string `yaml:"role" json:"role"`               // access or vpn
	Certificate string `yaml:"certificate" json:"certificate"` // id of its relay certificate
}

// Environment says what the ceremony computer must be like. "down", "off" and
// "utc" are enforced, "any" is only recorded.
type Environment struct {
	Network   string `yaml:"network" json:"network"`                 // down or any
	Swap      string `yaml:"swap" json:"swap"`                       // off or any
	CoreDumps string `yaml:"core_dumps" json:"core_dumps,omitempty"` // off or any; default any
	Clock     string `yaml:"clock" json:"clock,omitempty"`           // utc or any; default any
}

// Medium is something that goes into the drive, known beforehand.
type Medium struct {
	Name     string `yaml:"name" json:"name"`                     // what steps and binding call it
	Label    string `yaml:"label" json:"label"`                   // what is written on it
	Purpose  string `yaml:"purpose" json:"purpose,omitempty"`     // what it brings or takes away
	ReadOnly bool   `yaml:"read_only" json:"read_only,omitempty"` // brings inputs: it is hashed and never written
}

// Contingency is something that people predictably do, and what is done then.
// A step that lists it goes on after it; where it is not listed, the same is an
// incident.
type Contingency struct {
	ID    string `yaml:"id" json:"id"`       // what steps call it
	On    string `yaml:"on" json:"on"`       // the cause: passphrase, words, printer, medium, card, share or late
	Steps []Step `yaml:"steps" json:"steps"` // what is done, each step numbered A.1, A.2, B.1
	Then  string `yaml:"then" json:"then"`   // again: the step is begun again, as often as its tries; next: it is left out
}

// Step is one step.
type Step struct {
	ID       string            `yaml:"id" json:"id"`                       // its number: 1.2; in a contingency A.1
	Do       string            `yaml:"do" json:"do"`                       // the verb
	Title    string            `yaml:"title" json:"title"`                 // its name, for people
	Say      string            `yaml:"say" json:"say,omitempty"`           // what the conductor reads aloud
	Safe     string            `yaml:"safe" json:"safe,omitempty"`         // the safe it is about
	Key      string            `yaml:"key" json:"key,omitempty"`           // the key it is about
	Cert     string            `yaml:"cert" json:"cert,omitempty"`         // the certificate it is about
	CRL      string            `yaml:"crl" json:"crl,omitempty"`           // the CRL it is about
	To       string            `yaml:"to" json:"to,omitempty"`             // the safe that a key goes to
	Medium   string            `yaml:"medium" json:"medium,omitempty"`     // the medium it is about
	Confirm  []string          `yaml:"confirm" json:"confirm,omitempty"`   // roles of which each person confirms
	Limit    time.Duration     `yaml:"limit" json:"limit"`                 // how long it may take, as 10m; longer is an incident; at most 24h
	Minutes  int               `yaml:"minutes" json:"minutes,omitempty"`   // how long it takes when all goes well, for the plan of the day
	Tries    int               `yaml:"tries" json:"tries,omitempty"`       // how often a prompt may be answered wrongly and a contingency begin it again; 1 to 10, default 3
	Planned  []string          `yaml:"planned" json:"planned,omitempty"`   // ids of contingencies that are no incident here
	Requires map[string]string `yaml:"requires" json:"requires,omitempty"` // states of the model in which it may begin
	Sets     map[string]string `yaml:"sets" json:"sets,omitempty"`         // states of the model that it leaves behind

	path string // place in the file, as run.3
}
