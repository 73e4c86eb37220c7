package ceremony

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/artifact/tlog"
	"keyrite/ceremony/script"
	"keyrite/internal/durable"
)

// summon does what comes before ARMED; nothing in it is an incident.
func (r *Run) summon(ctx context.Context) error {
	for _, p := range r.People {
		b, err := p.Person.Marshal()
		if err != nil {
			return err
		}
		if err := r.Output(record.PeopleDir+"/"+p.Person.Name+".person", b); err != nil {
			return err
		}
	}
	if err := r.enter("SUMMONED", ""); err != nil {
		return err
	}
	return r.steps(ctx, "summon", r.Script.Summon)
}

// armed arms, runs and seals. ARMED is durable, with room for the whole
// transcript, before the first act.
func (r *Run) armed(ctx context.Context) error {
	if err := r.do(func() error { return r.log.Reserve(reserveBytes) }); err != nil {
		return err
	}
	if err := r.enter("ARMED", ""); err != nil {
		return err
	}
	if err := r.enter("RUNNING", ""); err != nil {
		return err
	}
	if err := r.steps(ctx, "run", r.Script.Run); err != nil {
		return err
	}
	if err := r.enter("SEALING", ""); err != nil {
		return err
	}
	return r.steps(ctx, "seal", r.Script.Seal)
}

func (r *Run) steps(ctx context.Context, phase string, list []script.Step) error {
	for i := range list {
		r.n++
		if err := r.planned(ctx, phase, &list[i]); err != nil {
			return err
		}
	}
	return nil
}

// one takes one step from its beginning to its end.
func (r *Run) one(ctx context.Context, phase string, st *script.Step) error {
	if err := r.act(ctx, phase, st); err != nil {
		return fault.Errorf(fault.ClassOf(err), "step %s (%s): %w", st.ID, st.Title, err)
	}
	return nil
}

func (r *Run) act(ctx context.Context, phase string, st *script.Step) error {
	if err := r.open(phase, st); err != nil {
		return err
	}
	if err := r.begin(ctx, st); err != nil {
		return err
	}
	if err := r.Actions.Do(ctx, r, st); err != nil {
		return err
	}
	if err := r.agreed(ctx, st); err != nil {
		return err
	}
	return r.done(st)
}

// open begins a step: from here on its time runs.
func (r *Run) open(phase string, st *script.Step) error {
	return r.do(func() error {
		if r.cause != nil {
			return r.cause
		}
		r.step, r.title, r.tries = st.ID, st.Title, st.Tries
		r.exchange = strings.HasPrefix(st.Do, "medium.")
		r.room.Show(phase, r.n, r.of, st)
		r.beginLimit(st.Limit)
		return r.write(&record.Begin{Do: st.Do, Title: st.Title})
	})
}

// done ends a step that went well.
func (r *Run) done(st *script.Step) error {
	return r.do(func() error {
		if r.cause != nil {
			return r.cause
		}
		if err := r.settleMedia(); err != nil {
			return err
		}
		if err := r.write(&record.Done{Do: st.Do}); err != nil {
			return err
		}
		r.endLimit()
		r.step, r.title, r.tries, r.exchange = "", "", 0, false
		return nil
	})
}

// agreed asks everybody whom the step names.
func (r *Run) agreed(ctx context.Context, st *script.Step) error {
	for _, role := range st.Confirm {
		names := r.Names(role)
		for i, name := range names {
			r.Console.Count(Count{What: "confirmations", Done: names[:i], Need: len(names), Of: len(names)})
			err := r.Confirm(ctx, st, name, "Do you agree with step "+st.ID+"?")
			if st.Do == "read.aloud" && fault.ClassOf(err) == fault.Policy {
				err = &Contingency{CauseWords, err}
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// begin waits for the conductor, who reads aloud first.
func (r *Run) begin(ctx context.Context, st *script.Step) error {
	for _, name := range r.Names(charter.RoleConductor) {
		if err := r.Confirm(ctx, st, name, "Begin step "+st.ID+"?"); err != nil {
			return err
		}
	}
	return nil
}

// Report asks a person whether something is as it should be: ok, or the cause of
// a contingency, which is then returned. Other answers are misses.
func (r *Run) Report(ctx context.Context, st *script.Step, name, text, ok, cause string) error {
	answer, err := r.choose(ctx, st, name, text, ok, cause)
	if err == nil && answer == cause {
		return &Contingency{cause, fault.Errorf(fault.Unexpected, "%s says: %s", name, cause)}
	}
	return err
}

// Ask asks, on behalf of a person who is not in the room, for one of want, of which
// the first is what Enter means, or for something else that the caller judges. An
// incident that somebody calls instead is signed, and is the error.
func (r *Run) Ask(ctx context.Context, name, text string, want ...string) (string, error) {
	answer, call, err := r.Console.Ask(ctx, Prompt{Step: r.Step(), Who: name, Text: text, Want: want})
	if err == nil && call != nil {
		err = r.called(ctx, call)
	}
	return answer, err
}

// Missed records that what a person gave, the try-th time, could not be used. It
// returns cause once there are no tries left.
func (r *Run) Missed(name string, try int, cause error) error {
	if err := r.miss("answer", name, try); err != nil {
		return err
	}
	if of := r.allowed(); try >= of {
		return fault.Errorf(fault.ClassOf(cause), "%s: %w, %d times", name, cause, of)
	}
	r.Console.Say("bad", name+": "+cause.Error())
	if hint := fault.HintOf(cause); hint != "" {
		r.Console.Say("", hint)
	}
	return nil
}

// Confirm asks a person for "yes". Any other answer is a planned miss until the
// step's tries are used up.
func (r *Run) Confirm(ctx context.Context, st *script.Step, name, text string) error {
	answer, err := r.choose(ctx, st, name, text, "yes")
	if err != nil {
		return err
	}
	return r.Record(&record.Confirm{Answer: answer, Prompt: text, Who: name})
}

// choose asks a person for one of want until the step's tries are used up.
func (r *Run) choose(ctx context.Context, st *script.Step, name, text string, want ...string) (string, error) {
	p, ok := r.Participant(name)
	if !ok {
		return "", fault.Errorf(fault.Policy, "%s takes no part in this ceremony", name)
	}
	for try := 1; ; try++ {
		answer, call, err := r.Console.Ask(ctx, Prompt{Step: st.ID, Who: name, Role: p.Role, Text: text, Want: want})
		if err != nil {
			return "", err
		}
		if call != nil {
			return "", r.called(ctx, call)
		}
		if slices.Contains(want, answer) {
			return answer, nil
		}
		if err := r.miss("answer", name, try); err != nil {
			return "", err
		}
		if try >= r.allowed() {
			return "", fault.Errorf(fault.Policy, "%s did not answer %s in %d tries", name, strings.Join(want, " or "), try)
		}
	}
}

// called takes an incident. It must be signed by the person who called it; if
// that cannot be had, the ceremony is void all the same.
func (r *Run) called(ctx context.Context, c *Call) error {
	var env *envelope.Envelope
	c = &Call{By: plain(c.By), Reason: plain(c.Reason)}
	err := r.Unlock(ctx, c.By)
	if err == nil { // calling it is the consent: nobody is asked whether he means it
		err = r.use(ctx, c.By, func(k *person.Key) (err error) {
			env, err = r.incident(c, k)
			return err
		})
	}
	if recErr := r.Record(&record.Incident{By: c.By, Class: string(fault.Void), Envelope: env, Reason: c.Reason}); recErr != nil {
		err = errors.Join(err, recErr)
	}
	if err != nil {
		return fault.Errorf(fault.Void, "%w called by %s, unsigned (%w): %s", ErrIncident, c.By, err, c.Reason)
	}
	return fault.Errorf(fault.Void, "%w called by %s: %s", ErrIncident, c.By, c.Reason)
}

func (r *Run) incident(c *Call, k *person.Key) (*envelope.Envelope, error) {
	call := record.IncidentCall{Format: "keyrite/incident/v1", Reason: c.Reason, Record: r.ID, Root: r.Root(), World: r.World}
	return envelope.SignJSON(record.IncidentType, call, k.Signer())
}

// close ends the transcript, signs it as the conductor, and lets those in the
// room cosign.
func (r *Run) close(ctx context.Context) error {
	conductor := r.Names(charter.RoleConductor)[0]
	var note []byte
	err := r.WithKey(ctx, conductor, "the closed record", func(k *person.Key) error {
		if err := r.enter("CLOSED", ""); err != nil {
			return err
		}
		if err := r.Record(&record.End{State: "CLOSED"}); err != nil {
			return err
		}
		var err error
		note, err = r.checkpoint(k)
		return err
	})
	if err != nil {
		return err
	}
	for _, role := range []string{charter.RoleWitness, charter.RoleKeyMaster} {
		for i, name := range r.Names(role) {
			// Live, the first witness never signs here: at least one must have
			// verified the record on a machine that the ceremony PC cannot reach.
			if r.Console.Elsewhere(name) || r.World.IsLive() && role == charter.RoleWitness && i == 0 {
				r.Console.Say("", name+" cosigns on another machine: keyrite-verify cosign")
				continue
			}
			err := r.WithKey(ctx, name, "the closed record, as a cosigner", func(k *person.Key) error {
				var err error
				note, err = tlog.Cosign(note, name, k.Signer(), r.Clock.Now())
				return err
			})
			if err != nil {
				// The record is closed; who is missing may still cosign later.
				r.Console.Say("bad", name+" did not cosign: "+err.Error())
			}
		}
	}
	if err := durable.Replace(filepath.Join(r.Dir, record.CheckpointFile), note, 0o644); err != nil {
		// The conductor's signature is on disk, so the record is closed for good.
		r.Console.Say("bad", "the cosignatures were not written ("+err.Error()+"): everybody cosigns later with keyrite-verify cosign")
	}
	return nil
}

func (r *Run) checkpoint(k *person.Key) ([]byte, error) {
	c := tlog.Checkpoint{Origin: record.Origin(r.ID), World: r.World, Size: r.Size(), Root: look(r, r.tr.Root)}
	note, err := tlog.Sign(c, k.Public().Name, k.Signer())
	if err != nil {
		return nil, err
	}
	return note, durable.WriteNew(filepath.Join(r.Dir, record.CheckpointFile), note, 0o644)
}
