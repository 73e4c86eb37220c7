package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyrite/ceremony/paper"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
)

func newEvidence() *cobra.Command {
	c := &cobra.Command{Use: "evidence", Short: "Put together what an auditor asks for"}
	c.AddCommand(newEvidenceExport())
	return c
}

type evidenceOptions struct {
	trustOptions
	from, to, out, ledger string
	records, audits       []string
	now                   time.Time
}

func newEvidenceExport() *cobra.Command {
	o := evidenceOptions{now: time.Now()}
	c := &cobra.Command{
		Use:   "export --from DAY --to DAY --out DIR --anchor FILE --charter FILE",
		Short: "Write a folder with records, charter, keys, proofs and audit extracts",
		Long: `Verify records of ceremonies, the charter, the ledger of share proofs and extracts
of the vault's audit trail, and put them into one folder with a page in plain words
that says what each is and which keyrite-verify command checks it. What does not
verify is not put there, and nothing is written then. Records of void ceremonies
belong in, too: the page says what voided them, and which of them nobody signed, so
that they prove nothing.

What was not in the period is put there all the same, since what is may rest on it, and is
marked. DAY is a day in UTC; --to is the first day that is not meant any more.

Exit codes: 0 written, 2 usage, 10 too few cosignatures, 13 of another vault or
world, 14 altered, 16 DIR exists, 130 interrupted.`,
		Example: `  keyrite-vault audit --from 2026-07-01 --to 2027-01-01 --out trail.jsonl …
  keyrite evidence export --from 2026-07-01 --to 2027-01-01 --out evidence-2026-2 \
    --anchor anchors.json --charter charter.jsonl --record genesis --record reshare --audit trail.jsonl`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runEvidenceExport(c, &o) },
	}
	o.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.from, "from", "", "first day, as 2026-07-01 (required)")
	f.StringVar(&o.to, "to", "", "the day after the last one (required)")
	f.StringVar(&o.out, "out", "", "folder to write; it must not exist (required)")
	f.StringArrayVar(&o.records, "record", nil, "record folder of a ceremony; may repeat")
	f.StringArrayVar(&o.audits, "audit", nil, "extract of the vault's audit trail; may repeat")
	f.StringVar(&o.ledger, "ledger", "", "ledger of share proofs (default: the charter file's name with .proofs, if it is there)")
	for _, name := range []string{"from", "to", "out"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	return c
}

type evidenceResult struct {
	Schema  string   `json:"schema"`
	World   string   `json:"world"`
	Vault   string   `json:"vault"`
	Out     string   `json:"out"`
	Index   string   `json:"index"`
	Records int      `json:"records"`
	Keys    int      `json:"keys"`
	Lacks   []string `json:"lacks"`
	// Outside names what is in the folder and was not in the period.
	Outside []string `json:"outside"`
	// Unsigned are files that prove nothing, each with the reason.
	Unsigned []string `json:"unsigned"`
}

func runEvidenceExport(c *cobra.Command, o *evidenceOptions) error {
	from, to, err := o.period()
	if err != nil {
		return err
	}
	var e *paper.Evidence
	err = durable.CreateDir(o.out, func(dir string) error {
		g := &gathering{o: o, dir: dir, from: from, to: to, taken: map[string]bool{}}
		if err := g.all(c.Context()); err != nil {
			return err
		}
		e = &g.page
		return g.index()
	})
	if err != nil {
		return err
	}
	r := evidenceResult{
		Schema: "keyrite/evidence-export/v1", World: e.World, Vault: e.Vault, Out: o.out, Index: filepath.Join(o.out, evidenceIndex),
		Records: len(e.Records), Keys: len(e.Keys), Lacks: append([]string{}, e.Lacks...), Unsigned: append([]string{}, e.Unsigned...), Outside: append([]string{}, e.Outside...),
	}
	return cli.Print(c, r, func(w io.Writer) {
		fmt.Fprintf(w, "written: %s, with %d records and %d keys; open %s\n", cli.Escape(r.Out), r.Records, r.Keys, cli.Escape(r.Index))
		for _, l := range r.Lacks {
			fmt.Fprintf(w, "not in it: %s\n", l)
		}
		for _, x := range r.Outside {
			fmt.Fprintf(w, "outside the period: %s\n", cli.Escape(x))
		}
		for _, u := range r.Unsigned {
			fmt.Fprintf(w, "not signed, so it proves nothing: %s\n", cli.Escape(u))
		}
	})
}

func (o *evidenceOptions) period() (from, to time.Time, err error) {
	if from, err = time.Parse(time.DateOnly, o.from); err != nil {
		return from, to, cli.Usagef("--from %q is no day such as 2026-07-01", o.from)
	}
	if to, err = time.Parse(time.DateOnly, o.to); err != nil {
		return from, to, cli.Usagef("--to %q is no day such as 2027-01-01", o.to)
	}
	if !from.Before(to) {
		return from, to, cli.Usagef("--to %s is not after --from %s", o.to, o.from)
	}
	return from, to, nil
}

// Names in the folder.
const (
	evidenceIndex = "index.html"
	evidenceSums  = "SHA256SUMS"
)

// index writes the page and the list of hashes, the last two files.
func (g *gathering) index() error {
	if g.page.Records == nil {
		g.lacks("records of ceremonies: none was given")
	}
	if g.page.Trails == nil {
		g.lacks("the audit trail of the vault: no extract was given")
	}
	g.lacks("proofs that were handed to the vault itself: who handed them in stands in its audit trail")
	var b strings.Builder
	if err := paper.WriteEvidence(&b, &g.page); err != nil {
		return err
	}
	if err := g.write(evidenceIndex, []byte(b.String())); err != nil {
		return err
	}
	sums, err := sumsOf(os.DirFS(g.dir))
	if err != nil {
		return err
	}
	return g.write(evidenceSums, sums)
}

func (g *gathering) lacks(what string) { g.page.Lacks = append(g.page.Lacks, what) }

// write writes a file of the folder, which nobody sees before it is whole.
func (g *gathering) write(name string, data []byte) error {
	return durable.WriteNew(g.in(name), data, 0o644)
}
