// Package policy is the account policy: which user, with which key, may reach
// which equipment behind which gateway (docs/formats/policy.md).
//
// The account's administrator makes one with Sign; gateway and relay read it
// with Verify and ask Decide for each flow. It does no I/O and keeps no state:
// remembering the highest version is the gateway's and the relay's business,
// with CheckNewer. It must never permit by default, by an empty list or by a
// value that means "any".
//
// Compatibility: version 1 is read for ever.
package policy

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"regexp"
	"slices"
	"time"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

// Names.
const (
	Format      = "keyrite/policy/v1"
	PayloadType = "application/vnd.keyrite.policy.v1+json"
)

// Limits.
const (
	MaxBytes    = 1 << 20 // of the envelope
	MaxEntries  = 10_000  // of users, gateways and devices each
	MaxRules    = 100_000
	MaxPorts    = 64                   // ranges of one device
	MaxKeys     = 16                   // of one user
	MaxValidity = 400 * 24 * time.Hour // a year and a month to renew
	maxVersion  = 1<<53 - 1            // RFC 8785 numbers
)

// Classes of refusal.
var (
	ErrPolicy  = fault.New(fault.Verify, "account policy is not valid")
	ErrDenied  = fault.New(fault.Policy, "the account policy does not permit this")
	ErrTime    = fault.New(fault.Policy, "the account policy is not in force at this time")
	ErrAccount = fault.New(fault.Policy, "the policy belongs to another account")
	ErrVersion = fault.New(fault.Policy, "the policy is older than, or contradicts, the one in force")
)

// User is a person or program of the account with the keys it may use.
type User struct {
	Keys []string `json:"keys"` // thumbprints
	Name string   `json:"name"`
}

// Gateway is a gateway by its birth key.
type Gateway struct {
	ID   string `json:"id"`
	SPKI string `json:"spki"` // hex SHA-256 of the birth key
}

// Ports is an inclusive range.
type Ports struct {
	First int `json:"first"`
	Last  int `json:"last"`
}

// Device is one piece of equipment behind a gateway.
type Device struct {
	Addr    string  `json:"addr"`
	Gateway string  `json:"gateway"`
	Name    string  `json:"name"`
	Ports   []Ports `json:"ports"`
}

// Rule permits a user a device.
type Rule struct {
	Device string `json:"device"`
	User   string `json:"user"`
}

// Policy is the payload.
type Policy struct {
	Account   string      `json:"account"`
	Devices   []Device    `json:"devices"`
	Format    string      `json:"format"`
	Gateways  []Gateway   `json:"gateways"`
	NotAfter  string      `json:"not_after"`
	NotBefore string      `json:"not_before"`
	Rules     []Rule      `json:"rules"`
	Users     []User      `json:"users"`
	Version   int64       `json:"version"`
	World     world.World `json:"world"`
}

var (
	accountRE = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	nameRE    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	hexRE     = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

const timeFormat = "2006-01-02T15:04:05Z"

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeFormat, s)
	if err != nil || t.UTC().Format(timeFormat) != s {
		return t, fault.Errorf(fault.Verify, "%w: time %.40q", ErrPolicy, s)
	}
	return t, nil
}

// Sign checks p and returns its envelope, signed by the account's policy key.
func Sign(p *Policy, key crypto.Signer) ([]byte, error) {
	if err := CheckKey(key.Public()); err != nil {
		return nil, err
	}
	if err := p.Check(); err != nil {
		return nil, err
	}
	env, err := envelope.SignJSON(PayloadType, p, key)
	if err != nil {
		return nil, err
	}
	return env.Marshal()
}

// CheckKey accepts ECDSA P-256 keys only: the gateway's secure element checks
// the policy key too, and TPMs know no Ed25519.
func CheckKey(pub crypto.PublicKey) error {
	if k, ok := pub.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		return fault.Errorf(fault.Verify, "policy key: %w: not ECDSA P-256", ErrPolicy)
	}
	return nil
}

// Verify reads an envelope signed by key and checks that the policy is valid in
// itself and of this world and account. It does not look at the clock.
func Verify(data []byte, key crypto.PublicKey, w world.World, account string) (*Policy, error) {
	if len(data) > MaxBytes {
		return nil, fault.Errorf(fault.Verify, "%w: %d bytes, more than %d", ErrPolicy, len(data), MaxBytes)
	}
	if err := CheckKey(key); err != nil {
		return nil, err
	}
	env, err := envelope.Parse(data)
	if err != nil {
		return nil, err
	}
	payload, _, err := envelope.Verify(env, PayloadType, []envelope.Key{{Name: "policy key", Public: key}}, 1)
	if err != nil {
		return nil, err
	}
	p, err := Parse(payload)
	if err != nil {
		return nil, err
	}
	if err := world.Match(w, p.World); err != nil {
		return nil, err
	}
	if p.Account != account {
		return nil, ErrAccount
	}
	return p, nil
}

// Parse reads an unsigned payload, for the tool that signs it.
func Parse(payload []byte) (*Policy, error) {
	var p Policy
	if err := jcs.Unmarshal(payload, &p); err != nil {
		return nil, err
	}
	return &p, p.Check()
}

// Hash is the hex SHA-256 of a signed policy's payload bytes.
func (p *Policy) Hash() (string, error) {
	b, err := jcs.Marshal(p)
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), err
}

// Check validates every member.
func (p *Policy) Check() error {
	if p.Format != Format || !accountRE.MatchString(p.Account) || p.Version < 1 || p.Version > maxVersion {
		return fault.Errorf(fault.Verify, "%w: format, account or version", ErrPolicy)
	}
	if err := p.World.Check(); err != nil {
		return err
	}
	from, err := parseTime(p.NotBefore)
	if err != nil {
		return err
	}
	to, err := parseTime(p.NotAfter)
	if err != nil {
		return err
	}
	if !to.After(from) || to.Sub(from) > MaxValidity {
		return fault.Errorf(fault.Verify, "%w: it must be in force for some time and at most %d days", ErrPolicy, int(MaxValidity.Hours()/24))
	}
	if p.Users == nil || p.Gateways == nil || p.Devices == nil || p.Rules == nil || len(p.Rules) > MaxRules ||
		max(len(p.Users), len(p.Gateways), len(p.Devices)) > MaxEntries {
		return fault.Errorf(fault.Verify, "%w: a list is missing or too long", ErrPolicy)
	}
	for _, check := range []func() error{p.checkUsers, p.checkGateways, p.checkDevices, p.checkRules} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

// ascending says whether list is sorted by f without repeats.
func ascending[T any](list []T, f func(a, b T) int) bool {
	for i := 1; i < len(list); i++ {
		if f(list[i-1], list[i]) >= 0 {
			return false
		}
	}
	return true
}

func byUser(a, b User) int       { return cmp.Compare(a.Name, b.Name) }
func byGateway(a, b Gateway) int { return cmp.Compare(a.ID, b.ID) }
func byDevice(a, b Device) int   { return cmp.Compare(a.Name, b.Name) }
func byPorts(a, b Ports) int     { return cmp.Compare(a.First, b.First) }
func byRule(a, b Rule) int {
	return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Device, b.Device))
}

// Sort brings every list into the order that Check wants.
func (p *Policy) Sort() {
	for i := range p.Users {
		slices.Sort(p.Users[i].Keys)
	}
	for i := range p.Devices {
		slices.SortFunc(p.Devices[i].Ports, byPorts)
	}
	slices.SortFunc(p.Users, byUser)
	slices.SortFunc(p.Gateways, byGateway)
	slices.SortFunc(p.Devices, byDevice)
	slices.SortFunc(p.Rules, byRule)
}

func (p *Policy) checkUsers() error {
	if !ascending(p.Users, byUser) {
		return fault.Errorf(fault.Verify, "%w: users are not sorted or repeated", ErrPolicy)
	}
	owner := map[string]string{}
	for _, u := range p.Users {
		if !nameRE.MatchString(u.Name) || len(u.Keys) == 0 || len(u.Keys) > MaxKeys || !ascending(u.Keys, cmp.Compare[string]) {
			return fault.Errorf(fault.Verify, "%w: user %.40q", ErrPolicy, u.Name)
		}
		for _, k := range u.Keys {
			if other, ok := owner[k]; ok || !hexRE.MatchString(k) {
				return fault.Errorf(fault.Verify, "%w: key %.16q of user %s is no thumbprint or also that of %q", ErrPolicy, k, u.Name, other)
			}
			owner[k] = u.Name
		}
	}
	return nil
}

func (p *Policy) checkGateways() error {
	if !ascending(p.Gateways, byGateway) {
		return fault.Errorf(fault.Verify, "%w: gateways are not sorted or repeated", ErrPolicy)
	}
	seen := map[string]bool{}
	for _, g := range p.Gateways {
		if !accountRE.MatchString(g.ID) || !hexRE.MatchString(g.SPKI) || seen[g.SPKI] {
			return fault.Errorf(fault.Verify, "%w: gateway %.40q", ErrPolicy, g.ID)
		}
		seen[g.SPKI] = true
	}
	return nil
}

// CheckAddr accepts the address of one host on a LAN side, in its shortest
// form; see docs/formats/policy.md for what it refuses.
func CheckAddr(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.String() != s || a.Zone() != "" || a.Is4In6() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || s == "255.255.255.255" {
		return a, fault.Errorf(fault.Verify, "%w: address %.60q", ErrPolicy, s)
	}
	return a, nil
}

func (p *Policy) checkDevices() error {
	if !ascending(p.Devices, byDevice) {
		return fault.Errorf(fault.Verify, "%w: devices are not sorted or repeated", ErrPolicy)
	}
	for _, d := range p.Devices {
		if _, err := CheckAddr(d.Addr); err != nil {
			return err
		}
		if _, ok := p.gateway(d.Gateway); !ok || !nameRE.MatchString(d.Name) || len(d.Ports) == 0 || len(d.Ports) > MaxPorts {
			return fault.Errorf(fault.Verify, "%w: device %.40q", ErrPolicy, d.Name)
		}
		last := 0
		for _, r := range d.Ports {
			if r.First <= last || r.Last < r.First || r.Last > 65535 {
				return fault.Errorf(fault.Verify, "%w: ports of device %s", ErrPolicy, d.Name)
			}
			last = r.Last
		}
	}
	return nil
}

func (p *Policy) checkRules() error {
	if !ascending(p.Rules, byRule) {
		return fault.Errorf(fault.Verify, "%w: rules are not sorted or repeated", ErrPolicy)
	}
	for _, r := range p.Rules {
		_, u := p.User(r.User)
		_, d := p.Device(r.Device)
		if !u || !d {
			return fault.Errorf(fault.Verify, "%w: rule for user %.40q and device %.40q names one that does not exist", ErrPolicy, r.User, r.Device)
		}
	}
	return nil
}

// User returns the user of that name.
func (p *Policy) User(name string) (User, bool) {
	i, ok := slices.BinarySearchFunc(p.Users, User{Name: name}, byUser)
	if !ok {
		return User{}, false
	}
	return p.Users[i], true
}

// Device returns the device of that name.
func (p *Policy) Device(name string) (Device, bool) {
	i, ok := slices.BinarySearchFunc(p.Devices, Device{Name: name}, byDevice)
	if !ok {
		return Device{}, false
	}
	return p.Devices[i], true
}

func (p *Policy) gateway(id string) (Gateway, bool) {
	i, ok := slices.BinarySearchFunc(p.Gateways, Gateway{ID: id}, byGateway)
	if !ok {
		return Gateway{}, false
	}
	return p.Gateways[i], true
}

// GatewayKey returns the SPKI hash of a gateway, class policy if it is unknown.
func (p *Policy) GatewayKey(id string) (string, error) {
	g, ok := p.gateway(id)
	if !ok {
		return "", fault.Errorf(fault.Policy, "%w: gateway %.40q is not in it", ErrDenied, id)
	}
	return g.SPKI, nil
}

// CheckTime says whether the policy is in force.
func (p *Policy) CheckTime(now time.Time) error {
	from, err := parseTime(p.NotBefore)
	if err != nil {
		return err
	}
	to, err := parseTime(p.NotAfter)
	if err != nil {
		return err
	}
	if now.Before(from) || !now.Before(to) {
		return fault.Errorf(fault.Policy, "%w: %s to %s", ErrTime, p.NotBefore, p.NotAfter)
	}
	return nil
}

// CheckNewer says whether p may take the place of the policy with that version
// and payload hash (0 and "" for none): a higher version may, the very same
// policy may, anything else may not.
func (p *Policy) CheckNewer(version int64, hash string) error {
	mine, err := p.Hash()
	if err != nil {
		return err
	}
	if p.Version > version || p.Version == version && mine == hash {
		return nil
	}
	return fault.Errorf(fault.Policy, "%w: version %d, in force is %d", ErrVersion, p.Version, version)
}

// Flow is what is asked: may User with the key Key reach Addr:Port behind
// Gateway.
type Flow struct {
	User, Key, Gateway string
	Addr               netip.Addr
	Port               int
}

// Decide returns nil if p permits f at the time now, else an error of class
// policy. Deny is the default; a nil policy permits nothing.
func Decide(p *Policy, f Flow, now time.Time) error {
	if p == nil {
		return fault.Errorf(fault.Policy, "%w: the account has none", ErrDenied)
	}
	if err := p.CheckTime(now); err != nil {
		return err
	}
	u, ok := p.User(f.User)
	if !ok || !slices.Contains(u.Keys, f.Key) {
		return fault.Errorf(fault.Policy, "%w: user %.40q with this key is not in it", ErrDenied, f.User)
	}
	if _, err := p.GatewayKey(f.Gateway); err != nil {
		return err
	}
	for i := range p.Devices {
		d := &p.Devices[i]
		if d.Gateway == f.Gateway && d.reaches(f.Addr, f.Port) && p.rule(u.Name, d.Name) {
			return nil
		}
	}
	return fault.Errorf(fault.Policy, "%w: no rule for user %s and %s behind gateway %s", ErrDenied, u.Name, netip.AddrPortFrom(f.Addr, uint16(f.Port&0xffff)), f.Gateway)
}

func (d *Device) reaches(a netip.Addr, port int) bool {
	have, err := netip.ParseAddr(d.Addr)
	if err != nil || have != a {
		return false
	}
	return slices.ContainsFunc(d.Ports, func(r Ports) bool { return r.First <= port && port <= r.Last })
}

func (p *Policy) rule(user, device string) bool {
	_, ok := slices.BinarySearchFunc(p.Rules, Rule{User: user, Device: device}, byRule)
	return ok
}

// Sees says whether some rule lets the user with this key reach anything behind
// the gateway at the time now. It is for lists; only Decide permits a flow.
func (p *Policy) Sees(user, key, gateway string, now time.Time) bool {
	u, ok := p.User(user)
	if !ok || !slices.Contains(u.Keys, key) || p.CheckTime(now) != nil {
		return false
	}
	return slices.ContainsFunc(p.Devices, func(d Device) bool { return d.Gateway == gateway && p.rule(user, d.Name) })
}
