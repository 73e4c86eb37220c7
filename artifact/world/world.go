// Package world names the world that every file of ours belongs to: live, or
// one rehearsal. Nothing converts one into the other.
//
// The zero value is no world and matches nothing, itself included.
package world

import (
	"encoding/json"
	"strings"

	"keyrite/artifact/fault"
)

// World is "live" or "rehearsal:ID", ID being 8 to 32 of a-z and 0-9.
type World string

// Live is the world of keys that are trusted in the field.
const Live World = "live"

const prefix = "rehearsal:"

var (
	// ErrWorld says that a world's name is not well formed.
	ErrWorld = fault.New(fault.Verify, `world must be "live" or "rehearsal:" and 8 to 32 of a-z, 0-9`)
	// ErrOther says that two files belong to different worlds.
	ErrOther = fault.New(fault.Policy, "belongs to another world")
)

// Rehearsal returns the world of the rehearsal with that id.
func Rehearsal(id string) (World, error) {
	w := World(prefix + id)
	return w, w.Check()
}

// Check says whether w is well formed.
func (w World) Check() error {
	if w == Live {
		return nil
	}
	id, ok := strings.CutPrefix(string(w), prefix)
	if !ok || len(id) < 8 || len(id) > 32 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
		return ErrWorld
	}
	return nil
}

// IsLive says whether w is the live world.
func (w World) IsLive() bool { return w == Live }

// Match returns nil only if a and b are the same well-formed world.
func Match(a, b World) error {
	if err := a.Check(); err != nil {
		return err
	}
	if err := b.Check(); err != nil {
		return err
	}
	if a != b {
		return fault.Errorf(fault.Policy, "%w: %s, not %s", ErrOther, b, a)
	}
	return nil
}

// MatchJSON refuses a JSON payload that names a well-formed world other than w,
// and says nothing else about it. A reader calls it before it checks signatures,
// which cannot hold in another world, so that the reader's message is the true
// one; what it lets through is not yet believed.
func MatchJSON(w World, payload []byte) error {
	var v struct {
		World World `json:"world"`
	}
	if json.Unmarshal(payload, &v) != nil || v.World.Check() != nil {
		return nil
	}
	return Match(w, v.World)
}
