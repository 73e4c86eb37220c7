package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/artifact/share"
	"keyrite/ceremony"
	"keyrite/ceremony/actions"
	"keyrite/ceremony/paper"
	"keyrite/internal/cli"
)

func newCeremonyStatus() *cobra.Command {
	var dir, charterFile, ledger string
	c := &cobra.Command{
		Use:   "status --record DIR [--charter FILE] [--ledger FILE]",
		Short: "Say how far a ceremony came, and which of its shares are alive",
		Long: `Say how far a ceremony came. Of one that made a charter it also says how many of
the shares in force are known to be alive: by the receipts of this record and by
the proofs in the ledger of 'keyrite share challenge', each good for a year. It
warns when one lost share more would leave a safe without any to spare. Below the
threshold nothing helps.

Exit codes: 0 read, 2 no record, 14 it cannot be read.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if dir == "" {
				return cli.Usagef("--record is required")
			}
			st, err := ceremony.ReadState(dir)
			if err != nil {
				return err
			}
			alive, err := sharesOf(dir, charterFile, ledger, time.Now())
			if err != nil {
				return err
			}
			return printStatus(c, st, dir, alive)
		},
	}
	c.Flags().StringVar(&dir, "record", "", "record folder (required)")
	c.Flags().StringVar(&charterFile, "charter", "", "charter as it stands now (default: the one in the record)")
	c.Flags().StringVar(&ledger, "ledger", "", "ledger of challenges and proofs (default: the charter file's name with .proofs; of a charter in a record, RECORD.proofs)")
	return c
}

func newCeremonyReport() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "report --record DIR",
		Short: "Render report.html from the record again",
		Long: `Render report.html in the record folder from the record as it stands now, for
example after the last witness cosigned. The report is for reading and is never
evidence, so it alone may be written again.

Exit codes: 0 written, 2 no record, 14 the record cannot be read.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if dir == "" {
				return cli.Usagef("--record is required")
			}
			if _, err := ceremony.ReadState(dir); err != nil {
				return err
			}
			if err := paper.WriteReport(dir); err != nil {
				return err
			}
			res := struct {
				Schema string `json:"schema"`
				Report string `json:"report"`
			}{"keyrite/ceremony-report/v1", filepath.Join(dir, record.ReportFile)}
			return cli.Print(c, res, func(w io.Writer) { fmt.Fprintln(w, res.Report) })
		},
	}
	c.Flags().StringVar(&dir, "record", "", "record folder (required)")
	return c
}

func printStatus(c *cobra.Command, st *ceremony.Status, dir string, alive []share.Alive) error {
	left := st.TellLeft(dir)
	res := struct {
		Schema  string `json:"schema"`
		Record  string `json:"record"`
		World   string `json:"world"`
		Title   string `json:"title"`
		State   string `json:"state"`
		Step    string `json:"step"`
		Do      string `json:"do"`
		Doing   string `json:"doing"`
		Met     string `json:"contingency"`
		Cause   string `json:"cause"`
		Entries int64  `json:"entries"`
		Root    string `json:"root"`
		Ended   bool   `json:"ended"`

		Left   []string      `json:"left,omitempty"`
		Shares []share.Alive `json:"shares,omitempty"`
	}{"keyrite/ceremony-status/v1", st.Record, st.World, st.Title, st.State, st.Step, st.StepDo, st.StepTitle, st.Met, st.Cause, st.Entries, st.Root, st.Ended, left, alive}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s (%s), world %s\nstate %s", cli.Escape(st.Title), st.Record, cli.Escape(st.World), st.State)
		if st.Step != "" {
			fmt.Fprintf(w, ", in step %s (%s: %s)", cli.Escape(st.Step), cli.Escape(st.StepDo), cli.Escape(st.StepTitle))
		}
		if st.Met != "" {
			fmt.Fprintf(w, ", contingency %s", cli.Escape(st.Met))
		}
		if st.Cause != "" {
			fmt.Fprintf(w, "\ncause: %s", cli.Escape(st.Cause))
		}
		fmt.Fprintf(w, "\n%d entries, root %s\n", st.Entries, st.Root)
		for _, text := range left {
			fmt.Fprintln(w, cli.Escape(text))
		}
		printAlive(w, alive, time.Now())
	})
}

type recoverOptions struct {
	record, bind string
	openers      []string // SAFE=KEYFILE:SHAREFILE
	passphraseFD int
	abandon      bool
}

// cleaner reads the openers' files and passphrases.
func (o *recoverOptions) cleaner(std cli.IO) (*actions.Cleaner, error) {
	bind, err := actions.LoadBind(o.bind)
	if err != nil {
		return nil, err
	}
	out := &actions.Cleaner{Bind: bind, Record: o.record}
	secrets := cli.NewSecrets(std, o.passphraseFD)
	for _, s := range o.openers {
		safe, files, ok := strings.Cut(s, "=")
		if !ok {
			return nil, cli.Usagef("--opener %q is not SAFE=KEYFILE:SHAREFILE", s)
		}
		list, err := (&openOptions{openers: []string{files}}).load()
		if err != nil {
			return nil, err
		}
		pass, err := secrets.Next("passphrase for " + files)
		if err != nil {
			return nil, err
		}
		out.Openers = append(out.Openers, actions.SafeOpener{Safe: safe, Opener: list[0], Passphrase: pass})
	}
	return out, nil
}

func newCeremonyRecover(std cli.IO) *cobra.Command {
	var o recoverOptions
	c := &cobra.Command{
		Use:   "recover --record DIR [--bind FILE] [--opener SAFE=KEYFILE:SHAREFILE …] [--abandon]",
		Short: "Clean up after a ceremony that was killed",
		Long: `Take a ceremony that stopped after ARMED (power cut, kill, closed terminal) to
VOID: look into every token that it initialised and destroy what it made there.

A ceremony is never resumed. Where a token's PIN already comes from shares, the
key masters open it with --opener. If that fails nothing is decided and the
command may be run again; --abandon decides that they cannot come. A token whose
one-time PINs died with the process is written down as never to be used again.

Exit codes: 11 the ceremony is void now, 0 it was closed and nothing was done, 10
a token may hold keys and nobody opened it, 12 and 14 as for any opening.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runRecover(c, std, &o) },
	}
	c.Flags().StringVar(&o.record, "record", "", "record folder (required)")
	c.Flags().StringVar(&o.bind, "bind", "", "binding file that names the PKCS#11 module")
	c.Flags().BoolVar(&o.abandon, "abandon", false, "its key masters cannot come: write tokens down as never to be used again")
	c.Flags().StringArrayVar(&o.openers, "opener", nil, "SAFE=KEYFILE:SHAREFILE of one key master and one safe; may repeat")
	c.Flags().IntVar(&o.passphraseFD, "passphrase-fd", -1, "descriptor with the passphrases, one line each in the order of --opener (default: the terminal)")
	return c
}

func runRecover(c *cobra.Command, std cli.IO, o *recoverOptions) error {
	if o.record == "" {
		return cli.Usagef("--record is required")
	}
	var clean ceremony.Cleaner
	if o.bind != "" && len(o.openers) > 0 {
		c, err := o.cleaner(std)
		if err != nil {
			return err
		}
		clean = c
	}
	err := ceremony.Recover(c.Context(), o.record, ceremony.SystemClock(), clean, o.abandon)
	if class := fault.ClassOf(err); class != "" && class != fault.Void {
		return err // nothing was recovered
	}
	if reportErr := paper.WriteReport(o.record); reportErr != nil {
		err = errors.Join(err, reportErr)
	}
	if err != nil {
		return err
	}
	st, err := ceremony.ReadState(o.record)
	if err != nil {
		return err
	}
	return printStatus(c, st, o.record, nil)
}
