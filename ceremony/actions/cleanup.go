package actions

import (
	"context"
	"errors"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/hsm"
)

// cleanupLimit bounds the destruction in one token.
const cleanupLimit = 30 * time.Second

// Cleanup destroys every object of the attempt in every token that it initialised
// or opened, and looks again with a fresh process. A token that was there before
// keeps its keys and the epoch in force; one that cannot be brought there is left
// to recover by ceremony.ErrUnsettled.
func (a *Actions) Cleanup(ctx context.Context, r *ceremony.Run) error {
	var first error
	for _, def := range a.script.Safes {
		sf := a.safes[def.Name]
		if sf == nil {
			if a.begun[def.Name] {
				if err := r.Record(ceremony.Unready(def.Name, def.Token)); err != nil && first == nil {
					first = err
				}
			}
			continue
		}
		e, err := a.cleanupSafe(ctx, sf)
		if err != nil { // recover writes what came of it
			r.Console.Say("bad", "token "+sf.token.Label+": "+err.Error())
			first = errors.Join(err, first)
			continue
		}
		if e.Left != 0 || e.Tainted != "" && first == nil {
			r.Console.Say("bad", "token "+sf.token.Label+": "+e.Tainted)
		}
		if err := r.Record(e); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// cleanupSafe never gives up half-way in a token of this attempt: what cannot be
// destroyed is named.
func (a *Actions) cleanupSafe(ctx context.Context, sf *safe) (*record.Cleanup, error) {
	ctx, cancel := context.WithTimeout(ctx, cleanupLimit)
	defer cancel()
	e := &record.Cleanup{Burned: []string{}, Destroyed: []string{}, Left: -1, Safe: sf.name}
	if sf.epoch.Epoch > 0 {
		e.Burned = append(e.Burned, sf.name+"/"+itoa(sf.epoch.Epoch))
	}
	_ = sf.end() // the ceremony is void by now
	if sf.inForce.Epoch > 0 {
		return e, a.cleanupExisting(ctx, sf, e)
	}
	err := a.withSession(ctx, sf.token, func(s *hsm.Session) error {
		d, err := s.DestroyTagged(ctx, a.tag, true)
		if err != nil {
			return err
		}
		for _, o := range d.Objects {
			e.Destroyed = append(e.Destroyed, o.Class+" "+o.ID)
		}
		return nil
	})
	if err == nil {
		err = a.withSession(ctx, sf.token, func(s *hsm.Session) error {
			objs, err := s.Objects(ctx)
			e.Left = len(objs)
			return err
		})
	}
	switch {
	case err != nil:
		e.Tainted = "could not be cleaned (" + err.Error() + "): never use this token again"
	case e.Left != 0:
		e.Tainted = itoa(e.Left) + " objects are left: never use this token again"
	default:
		e.Tainted = "empty, but initialised by a void attempt: the next one takes another fresh token"
	}
	return e, nil
}

// end closes whatever the safe has open. A process that does not end well may have
// lost what it answered for.
func (sf *safe) end() error {
	var err error
	for _, s := range []*hsm.Session{sf.birth, sf.fresh} {
		if s != nil {
			err = errors.Join(err, s.Close())
		}
	}
	sf.birth, sf.fresh = nil, nil
	if sf.dealing != nil {
		sf.dealing.Abandon()
		sf.dealing = nil
	}
	return err
}

// cleanupExisting leaves a token that was there before as it was: under the epoch
// in force, without anything of this attempt.
func (a *Actions) cleanupExisting(ctx context.Context, sf *safe, e *record.Cleanup) error {
	if sf.exposed {
		e.Exposed = []string{sf.name + "/" + itoa(sf.inForce.Epoch)}
	}
	e.Destroyed = append(e.Destroyed, sf.destroyed...)
	if !sf.opened {
		e.Left = 0 // nothing was done in it
		return nil
	}
	var err error
	if sf.repinning {
		err = a.sup.SettlePINs(ctx, sf.token)
	}
	if err == nil {
		err = a.cleanupMoves(ctx, sf, e)
	}
	if err == nil {
		err = destroyTagged(ctx, a.sup, sf.token, a.tag, e)
	}
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "%w: %w", ceremony.ErrUnsettled, err)
	}
	return nil
}
