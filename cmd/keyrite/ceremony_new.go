package main

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"keyrite/artifact/fault"
	"keyrite/ceremony"
	"keyrite/ceremony/actions"
	"keyrite/ceremony/script"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/scripts/ceremonies"
)

// ceremonyNewOptions are the answers to what 'new' asks; a flag not given is
// asked at the terminal, and without one takes its default.
type ceremonyNewOptions struct {
	out, module string
	after       string
	boot        string // file or device; its hash is pinned
	enforce     bool
	defaults    bool
	answers     map[string]*string // by flag
}

func newCeremonyNew(std cli.IO) *cobra.Command {
	o := ceremonyNewOptions{answers: map[string]*string{}}
	c := &cobra.Command{
		Use:   "new KIND --module PATH --out FILE",
		Short: "Ask what a ceremony is to make, and write its script",
		Long: `Write a commented script that lints, to be read, changed and reviewed. The script
is the only thing that decides what happens in the room.

` + kindsHelp() + `
Each thing that a kind asks has a flag. At a terminal, what no flag says is asked,
with its default in brackets; without a terminal the defaults are taken, and what
has none (--module, --out) must be given. The script pins this build of keyrite,
its keyrite-hsmd and the PKCS#11 module by hash, so it runs with these programs
and no others.

  keyrite ceremony new genesis
  keyrite ceremony new reshare --second-group=yes --boot /media/stick/keyrite.iso
  keyrite ceremony new genesis --module /usr/lib/softhsm/libsofthsm2.so --out genesis.yaml

After a void ceremony that left a safe under shares which it dealt, or a key in
another token ('keyrite ceremony status' says so), the next one takes that over:

  keyrite ceremony new reshare --after VOID_DIR --module PATH --out FILE

Then read it, and: keyrite ceremony explain FILE, print FILE, rehearse FILE.

Exit codes: 0 written, 2 unknown kind, an answer missing or not usable, 16 FILE
exists, 130 interrupted.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeKind,
		RunE:              func(c *cobra.Command, args []string) error { return runCeremonyNew(c, std, &o, args[0]) },
	}
	f := c.Flags()
	f.StringVar(&o.out, "out", "", "file to write")
	f.StringVar(&o.module, "module", "", "PKCS#11 module, absolute path")
	f.StringVar(&o.after, "after", "", "reshare: record folder of a void ceremony; what that left in the safes is taken over")
	f.StringVar(&o.boot, "boot", "", "file or device with the image that the ceremony computer is booted from, which the script then pins")
	f.BoolVar(&o.enforce, "enforce", true, "demand that network, swap and core dumps are off and the clock in UTC; false only records them")
	f.BoolVar(&o.defaults, "defaults", false, "take the defaults at a terminal too")
	// The genesis first: where kinds ask the same, its words say the most.
	for _, kind := range append([]string{"genesis"}, ceremonies.Kinds()...) {
		template, _ := ceremonies.Text(kind)
		questions, err := script.Questions(template)
		if err != nil {
			continue // a test says so
		}
		for _, q := range questions {
			if o.answers[q.Flag] == nil {
				o.answers[q.Flag] = f.String(q.Flag, "", q.Text)
			}
		}
	}
	return c
}

// kindsHelp lists the kinds with what each is for.
func kindsHelp() string {
	var b strings.Builder
	b.WriteString("KIND is one of\n")
	for _, name := range ceremonies.Kinds() {
		if k, ok := script.KindByName(name); ok {
			fmt.Fprintf(&b, "  %-13s %s\n", k.Name, k.Does)
		}
	}
	return b.String()
}

func completeKind(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	for _, name := range ceremonies.Kinds() {
		if k, ok := script.KindByName(name); ok {
			out = append(out, k.Name+"\t"+k.Does)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func runCeremonyNew(c *cobra.Command, std cli.IO, o *ceremonyNewOptions, kind string) error {
	template, ok := ceremonies.Text(kind)
	if !ok {
		return &cli.Error{Class: "usage", Err: fmt.Errorf("no script of kind %s is shipped", cli.Escape(kind)), Hint: kindHint(kind)}
	}
	questions, err := script.Questions(template)
	if err != nil {
		return err
	}
	a := newAsker(c, std, o.defaults)
	if err := o.askCommon(a, kind); err != nil {
		return err
	}
	answers, err := o.ask(a, questions, kind)
	if err != nil {
		return err
	}
	programs, err := actions.Programs("", o.module)
	if err != nil {
		return err
	}
	fixed := map[string]string{"KEYRITE": programs[0].SHA256, "HSMD": programs[1].SHA256, "MODULE": programs[2].SHA256, "NETWORK": "down", "SWAP": "off", "DUMPS": "off", "CLOCK": "utc"}
	if !o.enforce {
		for _, word := range []string{"NETWORK", "SWAP", "DUMPS", "CLOCK"} {
			fixed[word] = "any"
		}
	}
	if o.boot != "" {
		sum, err := actions.HashFile(o.boot)
		if err != nil {
			return err
		}
		fixed["MODULE"] += "\n  boot: " + sum // the member that follows it
	}
	left, err := o.left(c, kind)
	if err != nil {
		return err
	}
	text, err := script.FillAdopting(template, answers, fixed, left)
	if err != nil {
		return err
	}
	s, err := script.Parse(o.out, []byte(text))
	if err == nil {
		err = s.Lint()
	}
	if err != nil {
		showWay(c, err)
		return err
	}
	if err := durable.WriteNew(o.out, []byte(text), 0o644); err != nil {
		return err
	}
	return printScript(c, o.out, s)
}

// left is what the void ceremony of --after left, which a reshare takes over.
func (o *ceremonyNewOptions) left(c *cobra.Command, kind string) (left script.Left, err error) {
	if o.after == "" {
		return left, nil
	}
	if kind != "reshare" {
		return left, cli.Usagef("--after: only a reshare takes over what a void ceremony left, not a ceremony of kind %s", kind)
	}
	st, err := ceremony.ReadState(o.after)
	if err != nil {
		return left, err
	}
	if st.State != "VOID" || !st.Ended {
		return left, fault.Hint(cli.Usagef("the ceremony in %q is %s, not VOID", o.after, st.State), "clean it up first: keyrite ceremony recover --record "+o.after)
	}
	if len(st.TellLeft(o.after)) == 0 {
		fmt.Fprintln(c.ErrOrStderr(), "The void ceremony left nothing that the charter does not know: the script adopts nothing.")
		return left, nil
	}
	kept, err := st.LeftKeys(o.after)
	for _, k := range kept {
		left.Keys = append(left.Keys, script.FoundKey{ID: k.ID, From: k.From, To: k.Safe})
	}
	left.Safes = st.LeftSafes()
	return left, err
}

// kindHint names the kind that was meant, or all there are.
func kindHint(kind string) string {
	if meant := script.Nearest(kind, ceremonies.Kinds()); meant != "" {
		return "did you mean " + meant + "?"
	}
	return "there are: " + strings.Join(ceremonies.Kinds(), ", ")
}

// askCommon asks what every kind asks.
func (o *ceremonyNewOptions) askCommon(a *asker, kind string) (err error) {
	if o.out, err = a.ask("out", kind+".yaml", "The file that the script is written to.", false, notEmpty); err != nil {
		return err
	}
	if o.module, err = a.ask("module", "", "The PKCS#11 module of your HSM, with its whole path; its hash goes into the script.", false, func(s string) error {
		if !filepath.IsAbs(s) {
			return cli.Usagef("--module wants an absolute path, not %s", cli.Escape(s))
		}
		return nil
	}); err != nil {
		return err
	}
	enforce, err := a.ask("enforce", "true", "A live ceremony wants network, swap and core dumps off and the clock in UTC, and true demands it; false only records them, for rehearsals on a computer in use.", true, func(s string) error {
		if s != "true" && s != "false" {
			return cli.Usagef("--enforce is true or false, not %s", cli.Escape(s))
		}
		return nil
	})
	o.enforce = enforce == "true"
	if err != nil {
		return err
	}
	o.boot, err = a.ask("boot", "", "The file or device with the image that the ceremony computer is booted from, whose hash the script then pins; nothing, if it is not booted from one.", true, func(s string) error {
		if s == "" {
			return nil
		}
		_, err := actions.HashFile(s)
		return err
	})
	return err
}

func notEmpty(s string) error {
	if s == "" {
		return cli.Usagef("a name is wanted")
	}
	return nil
}

// ask asks what the template of the kind asks, and refuses flags that it does
// not: an answer that changes nothing would be a misunderstanding.
func (o *ceremonyNewOptions) ask(a *asker, questions []script.Question, kind string) (map[string]string, error) {
	answers := map[string]string{}
	for _, q := range questions {
		answer, err := a.ask(q.Flag, q.Default, q.Text, true, q.Check)
		if err != nil {
			return nil, err
		}
		answers[q.Flag] = answer
	}
	for flag := range o.answers {
		asked := slices.ContainsFunc(questions, func(q script.Question) bool { return q.Flag == flag })
		if a.given(flag) && !asked {
			return nil, cli.Usagef("a ceremony of kind %s does not ask --%s", kind, flag)
		}
	}
	return answers, nil
}

// asker takes answers from flags, from people at the terminal, or by default.
type asker struct {
	c     *cobra.Command
	err   io.Writer
	lines <-chan string // nil: nobody is asked
}

func newAsker(c *cobra.Command, std cli.IO, defaults bool) *asker {
	a := &asker{c: c, err: std.Err}
	if defaults || std.In == nil || !term.IsTerminal(int(std.In.Fd())) {
		return a
	}
	a.lines = typedLines(std.In)
	return a
}

func (a *asker) given(flag string) bool { return a.c.Flags().Changed(flag) }

// ask returns the answer to one question; check refuses an answer with a reason.
// Without a terminal the default is taken, if the question has one to take.
func (a *asker) ask(flag, def, text string, optional bool, check func(string) error) (string, error) {
	if a.given(flag) {
		answer := a.c.Flags().Lookup(flag).Value.String()
		return answer, check(answer)
	}
	if a.lines == nil {
		if !optional {
			return "", &cli.Error{Class: "usage", Err: fmt.Errorf("--%s is missing, and there is no terminal to ask at", flag), Hint: text}
		}
		return def, check(def)
	}
	fmt.Fprintf(a.err, "\n%s\n", text)
	for {
		fmt.Fprintf(a.err, "  %s [%s]: ", flag, def)
		answer, err := nextLine(a.c.Context(), a.lines)
		if err != nil {
			return "", err
		}
		if answer == "" {
			answer = def
		}
		if err := check(answer); err == nil {
			return answer, nil
		} else {
			fmt.Fprintln(a.err, "  "+cli.Escape(err.Error()))
		}
	}
}
