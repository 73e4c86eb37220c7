package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"github.com/spf13/cobra"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

// maxCharterBytes bounds a charter file.
const maxCharterBytes = 64 << 20

// charterFlag adds --charter to a command that may need what the charter says.
func charterFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "charter", "", "charter file (default charter.jsonl beside the anchors, if it is there)")
}

// loadCharter folds the charter named by path, or the one beside the anchors. It
// is nil without an error if none is named and none is there.
func loadCharter(path, anchorPath string, a *anchor.Anchors) (*charter.State, error) {
	if path == "" {
		path = filepath.Join(filepath.Dir(anchorPath), "charter.jsonl")
		if _, err := os.Lstat(path); os.IsNotExist(err) {
			return nil, nil
		}
	}
	data, err := intake.Read(path, maxCharterBytes)
	if err != nil {
		return nil, err
	}
	return charter.Fold(data, a.World, a.Vault)
}

// needCharter is loadCharter for a command that cannot do without.
func needCharter(path, anchorPath string, a *anchor.Anchors) (*charter.State, error) {
	s, err := loadCharter(path, anchorPath, a)
	if err == nil && s == nil {
		err = &cli.Error{Class: "usage", Err: errNoCharter, Hint: "pass --charter charter.jsonl: factories and stations stand there, not in the anchors"}
	}
	return s, err
}

type charterOptions struct {
	anchorOptions
	head string
	size int
}

func newCharter() *cobra.Command {
	var o charterOptions
	c := &cobra.Command{
		Use:   "charter FILE --anchor FILE [--size N --head HEX]",
		Short: "Verify a charter and say what it amounts to",
		Long: `Fold a charter from its genesis: every statement must be signed by the threshold
in force before it.

A charter of before, or one that was cut after a statement, verifies as well: the
file alone cannot show what followed. Give --size and --head as you had them from
elsewhere, such as the paper on which you wrote what 'keyrite charter append'
printed. The charter must then be that one, or continue it.

Exit codes: 0 good, 10 too few signatures, 13 of another vault or world, or shorter
than --size, 14 altered, or another charter than that of --head.`,
		Example: "  keyrite-verify charter charter.jsonl --anchor anchors.json --size 31 --head 5f0c…",
		Args:    cobra.ExactArgs(1),
		RunE:    func(c *cobra.Command, args []string) error { return runCharter(c, &o, args[0]) },
	}
	anchorFlags(c, &o.anchorOptions)
	c.Flags().IntVar(&o.size, "size", 0, "statements that the charter had when you saw its head")
	c.Flags().StringVar(&o.head, "head", "", "head that it had then, 64 hex digits")
	return c
}

var headRE = regexp.MustCompile(`^[0-9a-f]{64}$`)

// known says whether the caller knows a head.
func (o *charterOptions) known() (bool, error) {
	switch {
	case o.size == 0 && o.head == "":
		return false, nil
	case o.size < 1 || !headRE.MatchString(o.head):
		return false, cli.Usagef("--size (from 1 on) and --head (64 hex digits, small letters) go together")
	}
	return true, nil
}

// check holds a charter against the head that the caller knows.
func (o *charterOptions) check(s *charter.State) error {
	if s.Size() < o.size {
		return fault.Hint(fault.Errorf(fault.Policy, "the charter has %d statements, and it had %d already: it is of before, or was cut", s.Size(), o.size), "get the newest charter from the vault")
	}
	return s.CheckHead(o.size, o.head)
}

type charterResult struct {
	Schema     string `json:"schema"`
	World      string `json:"world"`
	Vault      string `json:"vault"`
	Statements int    `json:"statements"`
	Head       string `json:"head"`
	Keys       int    `json:"keys"`
	Pipelines  int    `json:"pipelines"`
	Factories  int    `json:"factories"`
	Stations   int    `json:"stations"`
	Relays     int    `json:"relays"`
	// HeadChecked says that it continues the charter whose size and head were given.
	HeadChecked bool `json:"head_checked"`
}

func runCharter(c *cobra.Command, o *charterOptions, path string) error {
	known, err := o.known()
	if err != nil {
		return err
	}
	if _, err := o.loadAnchors(); err != nil { // with a succession statement, which is verified, too
		return err
	}
	a, err := loadAnchors(o.anchor) // those of the genesis: their keys stand in the charter
	if err != nil {
		return err
	}
	data, err := intake.Read(path, maxCharterBytes)
	if err != nil {
		return err
	}
	s, err := charter.Fold(data, a.World, a.Vault)
	if err != nil {
		return err
	}
	if known {
		if err := o.check(s); err != nil {
			return err
		}
	}
	if err := matchAnchors(a, s); err != nil {
		return err
	}
	res := charterResult{
		"keyrite/verify-charter/v1", string(s.World), s.Vault, s.Size(), s.Head(), len(s.Keys), len(s.Pipelines), len(s.Factories), len(s.Stations), len(s.Relays), known,
	}
	return cli.Print(c, res, func(w io.Writer) { res.print(w, o.size) })
}

func (r *charterResult) print(w io.Writer, size int) {
	fmt.Fprintf(w, "good: charter of vault %s, world %s\n  %d statements, head %s\n  %d keys, %d pipelines, %d factories, %d stations, %d relays\n",
		r.Vault, r.World, r.Statements, r.Head, r.Keys, r.Pipelines, r.Factories, r.Stations, r.Relays)
	if r.HeadChecked {
		fmt.Fprintf(w, "  continues the %d statements whose head you gave\n", size)
		return
	}
	fmt.Fprintln(w, "  whether it is the newest is not shown: an older charter, or one cut after a statement,\n  looks the same. Pass --size N --head HEX as you had them from elsewhere")
}

// matchAnchors checks that the anchors' keys are those of the charter.
func matchAnchors(a *anchor.Anchors, s *charter.State) error {
	for i := range a.Keys {
		k, ok := s.Keys[a.Keys[i].ID]
		if !ok || string(k.Public) != string(a.Keys[i].Public) || k.Domain != a.Keys[i].Domain {
			return fault.Errorf(fault.Verify, "key %s of the anchors is not the one in the charter", a.Keys[i].ID)
		}
	}
	return nil
}
