package tunnel

import (
	"crypto"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/policy"
	"keyrite/artifact/world"
	"keyrite/gateway/secureelement"
	"keyrite/internal/durable"
)

// Element is what this package needs of the secure element.
type Element interface {
	PolicyVersion() (int64, error)
	RaisePolicyVersion(int64) error
}

// ErrMoved says that a policy gives this gateway's id to another device.
var ErrMoved = fault.New(fault.Policy, "the account policy lists another device under this gateway's id")

// Keeper holds the account policy in force.
type Keeper struct {
	conf KeeperConfig

	mu      sync.Mutex // guards the fields below
	current *policy.Policy
	hash    string
}

// KeeperConfig says whose policies count.
type KeeperConfig struct {
	Path    string // file that the signed policy is kept in
	Element Element
	Key     crypto.PublicKey // the account's policy key, checked against the element
	World   world.World
	Account string
	Gateway string // this gateway's id in the account
	SPKI    string // hex SHA-256 of its birth key
	Now     func() time.Time
}

// NewKeeper loads the policy that was kept. One that is no longer good (expired,
// or below the element's version) is left out: the gateway then permits nothing
// until it gets another.
func NewKeeper(c KeeperConfig) (*Keeper, error) {
	k := &Keeper{conf: c}
	data, err := os.ReadFile(c.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return k, nil
	}
	if err != nil {
		return nil, fault.Errorf(fault.Storage, "read the account policy: %w", err)
	}
	if _, err := k.take(data); err != nil && fault.ClassOf(err) != fault.Policy {
		return nil, err
	}
	return k, nil
}

// Update takes a signed policy that the relay offers, if it is the account's, in
// force, names this very device, and is not older than the element has seen. It
// is kept before the element's version is raised: a power cut between leaves a
// policy that is taken again.
func (k *Keeper) Update(data []byte) (changed bool, err error) {
	k.mu.Lock()
	before := k.hash
	k.mu.Unlock()
	hash, err := k.take(data)
	return hash != before, err
}

func (k *Keeper) take(data []byte) (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p, err := policy.Verify(data, k.conf.Key, k.conf.World, k.conf.Account)
	if err != nil {
		return k.hash, err
	}
	if err := p.CheckTime(k.conf.Now()); err != nil {
		return k.hash, err
	}
	spki, err := p.GatewayKey(k.conf.Gateway)
	if err != nil {
		return k.hash, err
	}
	if spki != k.conf.SPKI {
		return k.hash, ErrMoved
	}
	seen, err := k.conf.Element.PolicyVersion()
	if err != nil {
		return k.hash, err
	}
	if p.Version < seen {
		return k.hash, fault.Errorf(fault.Policy, "%w: version %d, the secure element has seen %d", policy.ErrVersion, p.Version, seen)
	}
	// Before anything is kept: a policy whose version the element cannot count up
	// to would take the place of a good one and be refused at the next start.
	if p.Version-seen > secureelement.MaxStep {
		return k.hash, fault.Errorf(fault.Policy, "%w: version %d is more than %d above %d, further than the secure element counts at once", policy.ErrVersion, p.Version, secureelement.MaxStep, seen)
	}
	hash, err := p.Hash()
	if err != nil || hash == k.hash {
		return k.hash, err
	}
	if k.current != nil {
		if err := p.CheckNewer(k.current.Version, k.hash); err != nil {
			return k.hash, err
		}
	}
	if err := durable.Replace(k.conf.Path, data, 0o600); err != nil {
		return k.hash, err
	}
	if err := k.conf.Element.RaisePolicyVersion(p.Version); err != nil {
		return k.hash, err
	}
	k.current, k.hash = p, hash
	return hash, nil
}

// Current returns the policy in force, nil if there is none.
func (k *Keeper) Current() *policy.Policy {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current
}

// Version is that of the policy in force, 0 if there is none.
func (k *Keeper) Version() int64 {
	if p := k.Current(); p != nil {
		return p.Version
	}
	return 0
}
