package charter

import "keyrite/artifact/fault"

// TypeKVConfig is the statement of how a kv engine keeps secrets.
const TypeKVConfig = "kv-config"

// KVConfig says how the kv engine at a mount keeps the versions of secrets. Without
// one it keeps DefaultKVVersions, for ever. A later one of the mount replaces it.
type KVConfig struct {
	CASRequired bool `json:"cas_required"` // every write says which version it follows
	// DeleteVersionAfter is how long a version is readable, in seconds: 0 for ever,
	// at most MaxKVSeconds.
	DeleteVersionAfter int64  `json:"delete_version_after"`
	MaxVersions        int    `json:"max_versions"` // of each secret: 1 to MaxKVVersions
	Mount              string `json:"mount"`
	Version            int    `json:"version"` // 1, then one more each time
}

// Limits of a kv engine.
const (
	DefaultKVVersions = 10
	MaxKVVersions     = 1000
	MaxKVSeconds      = 100 * 366 * 24 * 60 * 60 // a hundred years: within time.Duration
)

// checkMount wants an engine of the kind at the mount.
func (s *State) checkMount(typ, mount, engine string) error {
	if m, ok := s.Access.Mounts[mount]; !ok || m.Engine != engine {
		return badAccess(typ, mount, "there is no engine "+engine+" at this mount")
	}
	return nil
}

// unmount forgets what was said about the engine at a mount that ends.
func (s *State) unmount(mount string) { delete(s.KV, mount) }

func (s *State) configureKV(c *KVConfig) error {
	if err := s.checkMount(TypeKVConfig, c.Mount, "kv"); err != nil {
		return err
	}
	switch {
	case c.Version != s.KV[c.Mount].Version+1 || c.Version < 1: // version 0 if there is none
		return badAccess(TypeKVConfig, c.Mount, "the version does not follow")
	case c.MaxVersions < 1 || c.MaxVersions > MaxKVVersions:
		return fault.Errorf(fault.Verify, "%w: %s %.40q: it keeps 1 to %d versions", ErrStatement, TypeKVConfig, c.Mount, MaxKVVersions)
	case c.DeleteVersionAfter < 0 || c.DeleteVersionAfter > MaxKVSeconds:
		return badAccess(TypeKVConfig, c.Mount, "versions live 0 (for ever) to 3,162,240,000 seconds")
	}
	s.KV[c.Mount] = *c
	return nil
}
