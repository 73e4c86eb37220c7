package ceremony

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
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
	if err := r.log.Reserve(reserveBytes); err != nil {
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
	r.step, r.tries = st.ID, st.Tries
	if err := r.act(ctx, phase, st); err != nil {
		return fault.Errorf(fault.ClassOf(err), "step %s (%s): %w", st.ID, st.Title, err)
	}
	r.step = ""
	return nil
}

func (r *Run) act(ctx context.Context, phase string, st *script.Step) error {
	r.Console.Show(phase, r.n, r.of, st)
	if err := r.Record(&record.Begin{Do: st.Do, Title: st.Title}); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, st.Limit)
	defer cancel()
	if err := r.begin(limited, st); err != nil {
		return r.overtime(ctx, limited, st, err)
	}
	if err := r.Actions.Do(limited, r, st); err != nil {
		return r.overtime(ctx, limited, st, err)
	}
	if err := r.agreed(limited, st); err != nil {
		return r.overtime(ctx, limited, st, err)
	}
	if err := r.interrupted(ctx); err != nil {
		return err
	}
	if err := limited.Err(); err != nil { // a verb that cannot be stopped ran over
		return r.overtime(ctx, limited, st, err)
	}
	return r.Record(&record.Done{Do: st.Do})
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

func (r *Run) overtime(ctx, limited context.Context, st *script.Step, err error) error {
	if limited.Err() != nil && ctx.Err() == nil && errors.Is(limited.Err(), context.DeadlineExceeded) {
		return fault.Errorf(fault.Unreachable, "the time limit of %s passed", st.Limit)
	}
	return err
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

// Confirm asks a person for "yes". Any other answer is a planned miss until the
// step's tries are used up.
func (r *Run) Confirm(ctx context.Context, st *script.Step, name, text string) error {
	p, ok := r.Participant(name)
	if !ok {
		return fault.Errorf(fault.Unexpected, "%s takes no part", name)
	}
	for try := 1; ; try++ {
		answer, call, err := r.ask(ctx, Prompt{Step: st.ID, Who: name, Role: p.Role, Text: text, Want: []string{"yes"}})
		if err != nil {
			return err
		}
		if call != nil {
			return r.called(ctx, call)
		}
		if answer == "yes" {
			return r.Record(&record.Confirm{Answer: answer, Prompt: text, Who: name})
		}
		if err := r.Record(&record.Miss{Of: st.Tries, Try: try, What: "answer", Who: name}); err != nil {
			return err
		}
		if try >= st.Tries {
			return fault.Errorf(fault.Policy, "%s did not answer yes in %d tries", name, st.Tries)
		}
	}
}

type reply struct {
	answer string
	call   *Call
}

// ask waits for the answer, the clock or an interrupt, whichever comes first.
func (r *Run) ask(ctx context.Context, p Prompt) (string, *Call, error) {
	x, err := await(ctx, r, func(ctx context.Context) (reply, error) {
		a, c, err := r.Console.Ask(ctx, p)
		return reply{a, c}, err
	})
	return x.answer, x.call, err
}

// await waits for what people answer. An interrupt takes the question back, so
// that the one about VOID has the terminal to itself, and asks it again if the
// ceremony goes on.
func await[T any](ctx context.Context, r *Run, question func(context.Context) (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	var none T
	for {
		if err := r.interrupted(ctx); err != nil {
			return none, err
		}
		asking, cancel := context.WithCancel(ctx)
		done := make(chan result, 1)
		go func() {
			v, err := question(asking)
			done <- result{v, err}
		}()
		select {
		case x := <-done:
			cancel()
			return x.v, x.err
		case <-ctx.Done():
			cancel()
			return none, ctx.Err()
		case s := <-r.Interrupt:
			cancel()
			x := <-done
			if a, ok := any(x.v).(reply); ok && x.err == nil && a.call != nil {
				return x.v, nil // an incident was called at the same moment, and goes first
			}
			if err := r.interrupt(ctx, s); err != nil {
				return none, err
			}
		}
	}
}

// interrupted looks for a signal that came during a verb.
func (r *Run) interrupted(ctx context.Context) error {
	select {
	case s := <-r.Interrupt:
		return r.interrupt(ctx, s)
	default:
		return nil
	}
}

// interrupt decides on a signal: before ARMED it ends the command; later SIGINT
// asks for the word VOID, and a closed terminal asks nobody.
func (r *Run) interrupt(ctx context.Context, s os.Signal) error {
	if r.state != "ARMED" && r.state != "RUNNING" && r.state != "SEALING" {
		return fault.Errorf(fault.Interrupted, "interrupted in state %s", r.state)
	}
	if s == syscall.SIGINT {
		a, call, err := r.Console.Ask(ctx, Prompt{Step: r.step, Who: "operator", Text: "Interrupting makes the whole ceremony void. Type VOID to do it, anything else to go on.", Want: []string{"go on", "VOID"}})
		if err == nil && call != nil {
			return r.called(ctx, call)
		}
		if err == nil && a != "VOID" {
			r.Console.Say("", "going on")
			return nil
		}
	}
	return fault.Errorf(fault.Interrupted, "interrupted (signal: %s)", s)
}

// called takes an incident. It must be signed by the person who called it; if
// that cannot be had, the ceremony is void all the same.
func (r *Run) called(ctx context.Context, c *Call) error {
	var env *envelope.Envelope
	c = &Call{By: plain(c.By), Reason: plain(c.Reason)}
	err := r.Unlock(ctx, c.By)
	if err == nil { // calling it is the consent: nobody is asked whether he means it
		env, err = r.incident(c)
	}
	if recErr := r.Record(&record.Incident{By: c.By, Class: string(fault.Void), Envelope: env, Reason: c.Reason}); recErr != nil {
		err = errors.Join(err, recErr)
	}
	if err != nil {
		return fault.Errorf(fault.Void, "%w called by %s, unsigned (%w): %s", ErrIncident, c.By, err, c.Reason)
	}
	return fault.Errorf(fault.Void, "%w called by %s: %s", ErrIncident, c.By, c.Reason)
}

func (r *Run) incident(c *Call) (*envelope.Envelope, error) {
	payload, err := jcs.Marshal(record.IncidentCall{Format: "keyrite/incident/v1", Reason: c.Reason, Record: r.ID, Root: r.Root(), World: r.World})
	if err != nil {
		return nil, err
	}
	return envelope.Sign(record.IncidentType, payload, r.held[c.By].Signer())
}

// close ends the transcript, signs it as the conductor, and lets those in the
// room cosign.
func (r *Run) close(ctx context.Context) error {
	conductor := r.Names(charter.RoleConductor)[0]
	var note []byte
	err := r.WithKey(ctx, conductor, "the closed record", func(k *person.Key) error {
		if err := r.interrupted(ctx); err != nil {
			return err
		}
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
	c := tlog.Checkpoint{Origin: record.Origin(r.ID), World: r.World, Size: r.tr.Size(), Root: r.tr.Root()}
	note, err := tlog.Sign(c, k.Public().Name, k.Signer())
	if err != nil {
		return nil, err
	}
	return note, durable.WriteNew(filepath.Join(r.Dir, record.CheckpointFile), note, 0o644)
}
