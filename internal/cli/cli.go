// Package cli is what every keyrite command shares: the exit table, the form of
// results and errors on the two streams, and how secrets are read.
//
// stdout carries the result, stderr the talk. With --json a success prints
// exactly one object on stdout, and a failure leaves stdout empty and prints one
// error object on stderr. Commands return errors; only Run turns them into
// exit codes. It must never know what any command does.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// IO is the three standard streams of a command.
type IO struct {
	In  *os.File
	Out io.Writer
	Err io.Writer
}

// Std returns the process's own streams.
func Std() IO { return IO{os.Stdin, os.Stdout, os.Stderr} }

// Exit is one row of the exit table.
type Exit struct {
	Code  int    `json:"code"`
	Class string `json:"class"`
	Text  string `json:"text"`
}

// Exits is the exit table of every keyrite program (docs/design: outside
// contract). Unknown classes are exit 1.
func Exits() []Exit {
	return []Exit{
		{0, "", "good"},
		{1, "unexpected", "unexpected: a defect of the program or the machine"},
		{2, "usage", "usage, configuration or input that cannot be used"},
		{10, "quorum", "quorum not met: too few shares or approvals, or the same share twice"},
		{11, "void", "the ceremony is void: start again from step 1"},
		{12, "token", "token absent or not admitted, login refused, wrong passphrase"},
		{13, "policy", "refused by policy or charter: other factory, expired, replayed, rolled back, other world"},
		{14, "verify", "verification failed: wrong, old or foreign share, altered or changing file"},
		{15, "sealed", "sealed, locked or in use"},
		{16, "exists", "the output exists; outputs are never overwritten"},
		{17, "quota", "the quota is spent"},
		{18, "storage", "storage failed, for example a full disk"},
		{19, "unreachable", "peer unreachable or timed out"},
		{20, "peer", "peer not authenticated"},
		{130, "interrupted", "interrupted"},
	}
}

// Error gives an error a class and a hint; commands use it for faults of their
// own flags and arguments.
type Error struct {
	Class, Hint string
	Err         error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// FaultClass is the class for the exit table.
func (e *Error) FaultClass() string { return e.Class }

// FaultHint is shown after the error.
func (e *Error) FaultHint() string { return e.Hint }

// Usagef returns an error of class usage.
func Usagef(format string, args ...any) error {
	return &Error{Class: "usage", Err: fmt.Errorf(format, args...)}
}

// ClassOf returns the class word of err ("unexpected" if it has none).
func ClassOf(err error) string {
	var c interface{ FaultClass() string }
	if errors.As(err, &c) {
		return c.FaultClass()
	}
	if errors.Is(err, context.Canceled) {
		return "interrupted"
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "unreachable"
	}
	return "unexpected"
}

// CodeOf returns the exit code for err.
func CodeOf(err error) int {
	if err == nil {
		return 0
	}
	class := ClassOf(err)
	for _, e := range Exits() {
		if e.Class == class && e.Code != 0 {
			return e.Code
		}
	}
	return 1
}

// Run executes root with the process's arguments and returns the exit code.
func Run(ctx context.Context, root *cobra.Command, args []string, std IO) int {
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetArgs(args)
	root.SetIn(std.In)
	root.SetOut(std.Out)
	root.SetErr(std.Err)
	addCommon(root)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return 0
	}
	if isCobraUsage(err) {
		err = &Error{Class: "usage", Hint: "see '" + cmd.CommandPath() + " --help'", Err: err}
	}
	if JSON(cmd) {
		printJSONError(std.Err, err)
	} else {
		printError(std.Err, root.Name(), err)
	}
	return CodeOf(err)
}

func addCommon(root *cobra.Command) {
	root.PersistentFlags().Bool("json", false, "print the result as one JSON object")
	root.AddCommand(newExitCodes())
	for _, c := range append([]*cobra.Command{root}, allCommands(root)...) {
		if c.HasSubCommands() && c.RunE == nil {
			c.RunE = needSub
		}
	}
}

// newExitCodes is a command and, by its long text, a help topic.
func newExitCodes() *cobra.Command {
	var table strings.Builder
	for _, e := range Exits() {
		fmt.Fprintf(&table, "%4d  %-12s %s\n", e.Code, e.Class, e.Text)
	}
	return &cobra.Command{
		Use:   "exit-codes",
		Short: "List the exit codes of all keyrite programs",
		Long:  "The exit codes of all keyrite programs:\n\n" + table.String(),
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			res := struct {
				Schema string `json:"schema"`
				Exits  []Exit `json:"exits"`
			}{"keyrite/exit-codes/v1", Exits()}
			return Print(c, res, func(w io.Writer) { fmt.Fprint(w, table.String()) })
		},
	}
}

func allCommands(c *cobra.Command) []*cobra.Command {
	var out []*cobra.Command
	for _, s := range c.Commands() {
		out = append(append(out, s), allCommands(s)...)
	}
	return out
}

// needSub refuses a group without a command; cobra itself would print help and
// exit 0, which a script would take for success.
func needSub(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usagef("unknown command %s for %q", Escape(args[0]), c.CommandPath())
	}
	return &Error{Class: "usage", Hint: "see '" + c.CommandPath() + " --help'", Err: errors.New("a command is missing")}
}

// isCobraUsage recognises what cobra and pflag say about flags and arguments;
// they export no type for it, and none of our errors lacks a class.
func isCobraUsage(err error) bool {
	var c interface{ FaultClass() string }
	if errors.As(err, &c) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	text := err.Error()
	for _, start := range []string{"unknown ", "accepts ", "requires ", "required flag", "invalid argument", "flag needs", "bad flag", "if any flags", "at least one of the flags"} {
		if strings.HasPrefix(text, start) {
			return true
		}
	}
	return false
}

func printError(w io.Writer, name string, err error) {
	fmt.Fprintf(w, "%s: %s\n", name, Escape(err.Error()))
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(w, "%s: hint: %s\n", name, hint)
	}
}

func hintOf(err error) string {
	var h interface{ FaultHint() string }
	if errors.As(err, &h) {
		return h.FaultHint()
	}
	return ""
}

type jsonError struct {
	Class   string `json:"class"`
	Message string `json:"message"`
	Exit    int    `json:"exit"`
	Cause   string `json:"cause,omitempty"`
	Hint    string `json:"hint,omitempty"`
	Cases   any    `json:"cases,omitempty"`
}

func printJSONError(w io.Writer, err error) {
	out := jsonError{Class: ClassOf(err), Message: err.Error(), Exit: CodeOf(err), Hint: hintOf(err)}
	var cause interface{ FaultCause() string }
	if errors.As(err, &cause) {
		out.Cause = cause.FaultCause()
	}
	var cases interface{ FaultCases() any }
	if errors.As(err, &cases) {
		out.Cases = cases.FaultCases()
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(map[string]any{"error": out}) // stderr is the last resort
}

// JSON says whether the command was asked for JSON.
func JSON(c *cobra.Command) bool {
	on, err := c.Flags().GetBool("json")
	return err == nil && on
}

// Print prints a result: as one JSON object when asked for, else by human.
// v must have a "schema" member.
func Print(c *cobra.Command, v any, human func(io.Writer)) error {
	if !JSON(c) {
		human(c.OutOrStdout())
		return nil
	}
	enc := json.NewEncoder(c.OutOrStdout())
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	return nil
}
