package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"keyrite/artifact/anchor"
	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

func newRecord() *cobra.Command {
	var anchorPath string
	c := &cobra.Command{
		Use:   "record DIR --anchor FILE",
		Short: "Verify the record of a ceremony",
		Long: `Verify the record of a ceremony: the script that ran, the order of what was
done, every key's attributes and proof of possession, the shares' receipts, the
charter, and the signatures of conductor, witnesses and key masters.

Before you trust a genesis, compare the words that this prints with those that
were read aloud and stand on your sheet. For a genesis you took part in, pass its
own outputs/anchors.json.

Exit codes: 0 closed and cosigned by all, 10 cosignatures are missing, 11 the
ceremony is void, 13 of another world, 14 altered (the first wrong entry is named).`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runRecord(c, anchorPath, args[0]) },
	}
	anchorFlag(c, &anchorPath)
	return c
}

type recordResult struct {
	Schema     string   `json:"schema"`
	Record     string   `json:"record"`
	World      string   `json:"world"`
	Title      string   `json:"title"`
	State      string   `json:"state"`
	Entries    int64    `json:"entries"`
	Root       string   `json:"root"`
	ScriptHash string   `json:"script_hash"`
	Vault      string   `json:"vault"`
	Keys       []string `json:"keys"`
	Cosigners  []string `json:"cosigners"`
	Anchors    string   `json:"anchors"`
	Words      string   `json:"words"`
	// Births says what stands for the birth of each key: attested, quorum or none.
	Births map[string]string `json:"births"`
	Adopts []string          `json:"adopts,omitempty"` // what void ceremonies left and this one took over
	Fell   []fallen          `json:"fell,omitempty"`   // void ceremonies before it that a person called an incident in, newest first
}

// fallen is a void ceremony before the one that is verified.
type fallen struct {
	Record string `json:"record"`
	By     string `json:"by"` // who called and signed the incident
}

func runRecord(c *cobra.Command, anchorPath, dir string) error {
	a, err := loadAnchors(anchorPath)
	if err != nil {
		return err
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return cli.Usagef("there is no record folder %q", dir)
	}
	v, err := record.Verify(os.DirFS(dir), a)
	if err != nil {
		return fault.Errorf(fault.ClassOf(err), "record %q: %w", dir, err)
	}
	res := recordResult{
		Schema: "keyrite/verify-record/v1", Record: record.Origin(v.Open.Record), World: string(v.Open.World), Title: v.Open.Title, State: v.State,
		Entries: v.Entries, Root: v.Root, ScriptHash: v.Open.ScriptHash, Vault: a.Vault, Cosigners: v.Cosigners,
	}
	res.Births = map[string]string{}
	for _, k := range v.Keys {
		res.Keys = append(res.Keys, k.Key.ID)
		res.Births[k.Key.ID] = k.Key.Vouched()
	}
	res.Adopts = adopted(v)
	for _, f := range v.Fell {
		res.Fell = append(res.Fell, fallen{record.Origin(f.Record), f.By})
	}
	if res.Anchors, err = a.Hash(); err != nil {
		return err
	}
	if res.Words, err = a.Words(); err != nil {
		return err
	}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s, world %s\n  %s, %d entries, root %s\n  script   %s\n  keys     %s\n  cosigned %s\n  anchors  %s\n  in words %s\n",
			res.State, cli.Escape(res.Title), res.World, res.Record, res.Entries, res.Root, res.ScriptHash,
			strings.Join(res.Keys, " "), strings.Join(res.Cosigners, " "), res.Anchors, res.Words)
		for _, how := range []string{anchor.Attested, anchor.Watched, "none"} {
			if keys := bornAs(v, how); len(keys) > 0 {
				fmt.Fprintf(w, "  births   %s: %s\n", how, strings.Join(keys, " "))
			}
		}
		for _, text := range res.Adopts {
			fmt.Fprintf(w, "  adopts   %s\n", cli.Escape(text))
		}
		for _, f := range res.Fell {
			fmt.Fprintf(w, "  after    the void %s, which fell by an incident of %s\n", f.Record, cli.Escape(f.By))
		}
	})
}

// bornAs are the keys for whose birth one and the same stands.
func bornAs(v *record.Verified, how string) []string {
	var out []string
	for _, k := range v.Keys {
		if k.Key.Vouched() == how {
			out = append(out, k.Key.ID)
		}
	}
	return out
}

// adopted says what a ceremony took over from void ones.
func adopted(v *record.Verified) []string {
	if v.Open.Base == nil || v.Open.Base.Adopts == nil {
		return nil
	}
	var out []string
	for _, e := range v.Open.Base.Adopts.Epochs {
		out = append(out, fmt.Sprintf("epoch %d of safe %s, dealt in the void %s", e.Epoch, e.Safe, record.Origin(e.Record)))
	}
	for _, k := range v.Open.Base.Adopts.Keys {
		out = append(out, fmt.Sprintf("key %s in safe %s, left there by the void %s", k.ID, k.Safe, record.Origin(k.Record)))
	}
	return out
}

type cosignOptions struct {
	anchor, key                 string
	passphraseFD                int
	requestFor, request, answer string
}

func newCosign() *cobra.Command {
	var o cosignOptions
	c := &cobra.Command{
		Use:   "cosign DIR --anchor FILE (--key NAME.key | --request-for NAME --request FILE | --request FILE --signature FILE)",
		Short: "Verify a record and cosign it as a person who was there",
		Long: `Verify a record and, if it holds, add your cosignature to its checkpoint. Run it
on a machine of your own: your key need never touch the ceremony computer.

If your key is on a card, or on yet another machine, have a request written, answer
it there with 'keyrite person sign', and bring the answer:

  keyrite-verify cosign RECORD --anchor FILE --request-for witness1 --request 1.request
  keyrite person sign 1.request --key witness1.card --out 1.answer
  keyrite-verify cosign RECORD --anchor FILE --request 1.request --signature 1.answer

Exit codes: as for record; 12 wrong passphrase, 13 you took no part, 16 you have
signed already.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runCosign(c, &o, args[0]) },
	}
	anchorFlag(c, &o.anchor)
	c.Flags().StringVar(&o.key, "key", "", "your key file")
	c.Flags().StringVar(&o.requestFor, "request-for", "", "write a request to that person instead of signing")
	c.Flags().StringVar(&o.request, "request", "", "the request: written with --request-for, read with --signature")
	c.Flags().StringVar(&o.answer, "signature", "", "answer to the request, of 'keyrite person sign'")
	c.Flags().IntVar(&o.passphraseFD, "passphrase-fd", -1, "descriptor with your passphrase (default: the terminal)")
	return c
}

func runCosign(c *cobra.Command, o *cosignOptions, dir string) error {
	a, err := loadAnchors(o.anchor)
	if err != nil {
		return err
	}
	if err := o.check(); err != nil {
		return err
	}
	unlock, err := durable.Lock(filepath.Join(dir, record.TranscriptFile))
	if err != nil {
		return err
	}
	defer unlock()
	v, err := verifyToCosign(dir, a)
	if err != nil {
		return err
	}
	if o.requestFor != "" {
		return o.ask(c, v)
	}
	words, err := a.Words()
	if err != nil {
		return err
	}
	fmt.Fprintf(c.ErrOrStderr(), "You are about to sign record %s, %d entries, root %s.\nSign only if these words are those that were read aloud:\n  %s\n",
		record.Origin(v.Open.Record), v.Entries, v.Root, words)
	k, at, err := o.signer(v)
	if err != nil {
		return err
	}
	defer k.Zero()
	note, err := record.Cosign(v, k, at)
	if err != nil {
		return err
	}
	if err := durable.Replace(filepath.Join(dir, record.CheckpointFile), note, 0o644); err != nil {
		return err
	}
	res := struct {
		Schema string `json:"schema"`
		Record string `json:"record"`
		By     string `json:"by"`
		Root   string `json:"root"`
	}{"keyrite/cosign/v1", record.Origin(v.Open.Record), k.Public().Name, v.Root}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s cosigned %s, root %s\n", res.By, res.Record, res.Root)
	})
}

// verifyToCosign verifies a record; that cosignatures are missing is what the
// command is for. What a killed cosign left behind is removed first.
func verifyToCosign(dir string, a *anchor.Anchors) (*record.Verified, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, cli.Usagef("read record: %w", err)
	}
	for _, e := range entries {
		if record.Leftover(e.Name()) {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return nil, fault.Errorf(fault.Storage, "remove a leftover: %w", err)
			}
		}
	}
	v, err := record.Verify(os.DirFS(dir), a)
	if err != nil && (v == nil || fault.ClassOf(err) != fault.Quorum) {
		return nil, fault.Errorf(fault.ClassOf(err), "record %q: %w", dir, err)
	}
	return v, nil
}

func openPerson(o *cosignOptions) (*person.Key, error) {
	data, err := intake.Read(o.key, person.MaxKeyBytes)
	if err != nil {
		return nil, err
	}
	if person.IsCardFile(data) {
		return nil, fault.Hint(cli.Usagef("%q is a card, which this program does not speak to", o.key), "have a request written with --request-for, answer it with 'keyrite person sign', and bring the answer with --signature")
	}
	pass, err := cli.NewSecrets(cli.Std(), o.passphraseFD).Next("passphrase of " + o.key)
	if err != nil {
		return nil, err
	}
	defer pass.Zero()
	return person.Open(data, pass.Bytes())
}
