package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/actions"
	"keyrite/ceremony/console"
	"keyrite/ceremony/paper"
	"keyrite/ceremony/script"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
	"keyrite/internal/secmem"
	"keyrite/vault/quorum"
)

func newCeremony(std cli.IO) *cobra.Command {
	c := &cobra.Command{Use: "ceremony", Short: "Prepare, rehearse and run key ceremonies"}
	c.AddCommand(
		newCeremonyNew(std), newCeremonyLint(), newCeremonySchema(), newCeremonyExplain(), newCeremonyPrint(), newCeremonyKit(), newCeremonyImportBoulder(), newCeremonyEnvironment(),
		newCeremonyRehearse(std), newCeremonyRun(std), newCeremonyStatus(), newCeremonyReport(), newCeremonyRecover(std),
	)
	return c
}

type ceremonyOptions struct {
	bind, answers, after, record, rehearsal string
	plain                                   bool
}

func (o *ceremonyOptions) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.bind, "bind", "", "binding file: module, people, requests (required)")
	f.StringVar(&o.after, "after", "", "record folder of the void attempt before this one")
	f.BoolVar(&o.plain, "plain", false, "lines instead of the full screen, for serial lines and screen readers")
	f.StringVar(&o.record, "record", "", "new folder for the record (required)")
}

const ceremonyExits = `Exit codes: 0 closed, 2 script or binding not usable, 10 not the people that the
script calls for, 11 void (error.cause names why), 13 refused by policy, 16 the
record folder exists, 130 interrupted before ARMED.`

func newCeremonyRehearse(std cli.IO) *cobra.Command {
	var o ceremonyOptions
	c := &cobra.Command{
		Use:   "rehearse SCRIPT --bind FILE [--answers FILE] [--after DIR] --record DIR",
		Short: "Run a script in a rehearsal world",
		Long: `Run a ceremony from its script, in a rehearsal world: with throw-away people and
tokens, through the same steps and the same engine as the live one. A live run
needs the record of a rehearsal of the very same script, at most 30 days old.

What the answers file lacks is asked at the terminal. Type incident at any
question to see what happens then. Ctrl-C after ARMED asks for the word VOID.

` + ceremonyExits,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runCeremony(c, std, &o, args[0], false) },
	}
	o.addFlags(c)
	c.Flags().StringVar(&o.answers, "answers", "", "prepared answers (rehearsals only)")
	return c
}

func newCeremonyRun(std cli.IO) *cobra.Command {
	var o ceremonyOptions
	c := &cobra.Command{
		Use:   "run SCRIPT --bind FILE --rehearsal DIR [--after DIR] --record DIR",
		Short: "Run a script live",
		Long: `Run a live ceremony. Everything is as in the rehearsal whose record is named by
--rehearsal, except that the people and tokens are the real ones, and that no
answers can be prepared.

` + ceremonyExits,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runCeremony(c, std, &o, args[0], true) },
	}
	o.addFlags(c)
	c.Flags().StringVar(&o.rehearsal, "rehearsal", "", "record folder of a closed rehearsal of this script (required)")
	c.Flags().StringVar(&o.answers, "answers", "", "refused: a live ceremony is answered by people")
	return c
}

func loadScript(path string) (*script.Script, []byte, error) {
	data, err := intake.Read(path, script.MaxBytes)
	if err != nil {
		return nil, nil, err
	}
	s, err := script.Parse(path, data)
	if err != nil {
		return nil, nil, err
	}
	return s, data, s.Lint()
}

func runCeremony(c *cobra.Command, std cli.IO, o *ceremonyOptions, path string, live bool) error {
	if o.bind == "" || o.record == "" {
		return &cli.Error{Class: "usage", Err: errors.New("--bind and --record are required"), Hint: "the binding says which file is whom (example: docs/formats/bind.md); the record is a new folder"}
	}
	if live && o.answers != "" {
		return cli.Usagef("a live ceremony takes no answers file: its questions are answered by people")
	}
	s, data, err := loadScript(path)
	if err != nil {
		return err
	}
	// From people.identify on the keys of all stay unlocked in this process.
	if err := secmem.Harden(); err != nil {
		return fault.Errorf(fault.Unexpected, "harden the process: %w", err)
	}
	cfg, err := o.config(s, live)
	if err != nil {
		return err
	}
	cfg.ScriptBytes = data
	// The engine must know which signal came, and go on living after it. Without
	// SIGPIPE here a broken pipe on stderr would kill it on the spot.
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE, syscall.SIGQUIT)
	defer signal.Ignore(syscall.SIGPIPE) // the exit code counts more than the last line
	defer signal.Stop(signals)
	cfg.Interrupt = signals
	calls := make(chan ceremony.Call, 1)
	cfg.Calls = calls
	room, err := o.room(std, cfg, signals, calls)
	if err != nil {
		return err
	}
	defer room.Close() // after a panic too
	cfg.Console = room
	r, err := ceremony.Execute(withoutCancel(c), *cfg)
	if r != nil {
		if reportErr := paper.WriteReport(o.record); reportErr != nil {
			err = errors.Join(err, reportErr)
		}
		room.Linger(signals)
	}
	room.Close()
	if err != nil {
		return err
	}
	return printClosed(c, r, o.record)
}

// room opens the console that this terminal can show. On a full screen Ctrl-C is
// a key and comes as the signal that it is elsewhere.
func (o *ceremonyOptions) room(std cli.IO, cfg *ceremony.Config, signals chan os.Signal, calls chan ceremony.Call) (*console.Room, error) {
	var names []string
	for _, p := range cfg.People {
		names = append(names, p.Person.Name)
	}
	interrupt := func() {
		select {
		case signals <- syscall.SIGINT:
		default: // several are on their way
		}
	}
	call := func(c ceremony.Call) {
		select {
		case calls <- c:
		default: // one is enough
		}
	}
	return console.Open(console.Options{In: std.In, Err: std.Err, Plain: o.plain, Answers: o.answers, Names: names, Interrupt: interrupt, Call: call})
}

// config gathers everything that is checked before the record folder is made.
func (o *ceremonyOptions) config(s *script.Script, live bool) (*ceremony.Config, error) {
	bind, err := actions.LoadBind(o.bind)
	if err != nil {
		return nil, err
	}
	if bind.World.IsLive() != live {
		hint := "rehearse it: keyrite ceremony rehearse; a live binding names live people, made without --rehearsal"
		if !live {
			hint = "a rehearsal's binding has 'world: rehearsal:NAME', and people made with 'keyrite person new --rehearsal NAME'"
		}
		return nil, fault.Hint(fault.Errorf(fault.Policy, "the binding is of the world %s: 'run' takes only a live one, 'rehearse' only a rehearsal's", bind.World), hint)
	}
	cfg := &ceremony.Config{Script: s, BindHash: bind.Hash(), Dir: o.record, World: bind.World, Clock: ceremony.SystemClock()}
	cfg.Media = actions.Media(s)
	if cfg.Environment, err = actions.Environment(bind); err != nil {
		return nil, err
	}
	if cfg.People, err = bind.Participants(s); err != nil {
		return nil, err
	}
	if o.after != "" {
		if cfg.After, err = voidRef(o.after, s); err != nil {
			return nil, err
		}
	}
	if live {
		if cfg.Rehearsal, err = rehearsalRef(o.rehearsal, s); err != nil {
			return nil, err
		}
	}
	if cfg.Programs, err = actions.Programs("", bind.Module); err != nil {
		return nil, err
	}
	q, err := quorum.Self()
	if err != nil {
		return nil, err
	}
	acts, err := actions.New(s, bind, q, "")
	if err != nil {
		return nil, err
	}
	if o.after != "" {
		if err := acts.Adopt(o.after); err != nil {
			return nil, err
		}
	}
	cfg.Actions, cfg.Base = acts, acts.Base()
	return cfg, nil
}

// voidRef names a void attempt. If shares in force were combined in it, the next
// ceremony deals those safes anew, and does nothing else.
func voidRef(dir string, s *script.Script) (*record.Ref, error) {
	st, err := ceremony.ReadState(dir)
	if err != nil {
		return nil, err
	}
	if st.State != "VOID" || !st.Ended {
		return nil, fault.Hint(fault.Errorf(fault.Usage, "the ceremony in %q is %s, not VOID", dir, st.State), "clean it up first: keyrite ceremony recover --record "+dir)
	}
	for _, epoch := range st.Exposed {
		safe, _, _ := strings.Cut(epoch, "/")
		if s.Kind != "reshare" || !slices.ContainsFunc(s.Run, func(x script.Step) bool { return x.Do == "shares.deal" && x.Safe == safe }) {
			return nil, fault.Hint(fault.Errorf(fault.Policy, "the shares of epoch %s were combined in the void ceremony in %q: the next one deals safe %s anew", epoch, dir, safe),
				"hold a reshare of it: keyrite ceremony new reshare")
		}
	}
	return st.Ref(), nil
}

// rehearsalRef checks that dir is a closed rehearsal of this very script, not
// older than allowed.
func rehearsalRef(dir string, s *script.Script) (*record.Ref, error) {
	if dir == "" {
		return nil, cli.Usagef("--rehearsal is missing: a live ceremony needs the record of its rehearsal")
	}
	v, err := record.VerifyOwn(os.DirFS(dir))
	if err != nil {
		return nil, fault.Errorf(fault.ClassOf(err), "rehearsal %q: %w", dir, err)
	}
	if v.Open.Mode != "rehearsal" || v.Open.ScriptHash != s.Hash() {
		return nil, fault.Errorf(fault.Policy, "%q is not a rehearsal of this script", dir)
	}
	at, err := time.Parse(time.RFC3339, v.Timeline[0].Time)
	if err != nil || time.Since(at) > record.RehearsalCounts || time.Since(at) < 0 {
		return nil, fault.Errorf(fault.Policy, "the rehearsal in %q is older than 30 days", dir)
	}
	return &record.Ref{Record: v.Open.Record, Root: v.Root}, nil
}

func printClosed(c *cobra.Command, r *ceremony.Run, dir string) error {
	res := struct {
		Schema  string `json:"schema"`
		State   string `json:"state"`
		Record  string `json:"record"`
		Folder  string `json:"folder"`
		Entries int64  `json:"entries"`
		Root    string `json:"root"`
	}{"keyrite/ceremony/v1", r.State(), record.Origin(r.ID), dir, r.Size(), r.Root()}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "CLOSED: record %s, %d entries, root %s\n", res.Record, res.Entries, res.Root)
		fmt.Fprintf(w, "report: %s\n", filepath.Join(dir, record.ReportFile))
		fmt.Fprintf(w, "verify: keyrite-verify record %s --anchor %s\n", dir, filepath.Join(dir, record.OutputsDir, "anchors.json"))
	})
}
