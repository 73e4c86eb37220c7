package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
	"keyrite/vault/charterstore"
)

type charterProposeOptions struct {
	trustOptions
	out, id, key, factory, certificate, role, evidence, bodyFile, kind string
	products, models                                                   []string
	from, to                                                           int64
}

func newCharterPropose() *cobra.Command {
	var o charterProposeOptions
	c := &cobra.Command{
		Use:   "propose TYPE [--id ID …|--body FILE] --charter FILE --anchor FILE --out PROPOSAL",
		Short: "Propose a statement for the charter",
		Long: `Write the next statement of the charter as a proposal. Anybody may propose;
nothing counts before enough approvers signed it and it was appended:

  keyrite charter propose pipeline --id ci2 --key ci2.key.pub --product gw100 --charter charter.jsonl --anchor anchors.json --out ci2.proposal
  keyrite charter approve ci2.proposal --key anna.key --charter … --anchor … --out ci2.anna
  keyrite charter append ci2.proposal --approval ci2.anna --approval ci2.ben --charter … --anchor …

What each type needs:

  pipeline  --id --key (public key, PEM) --product (may repeat)
  station   --id --factory --key (public report key, PEM)
  relay     --id --role access|vpn --certificate (PEM)
  host      --id --key (public key of a vault host, PEM, as 'keyrite-vault create' writes it)
  vendor-root --id --kind hsm|ek --certificate (root of a maker of devices, PEM) [--model M …]: whose attestations of keys count
  factory   --id --product --from --to (serials) --certificate (its CA, PEM) --evidence (which ceremony certified it)
  all others
            --body FILE: the statement's body as JSON, as docs/formats/charter.md has it

People, keys and epochs are not proposed: they change in a ceremony.

Exit codes: 0 written, 2 usage, 13 other vault or world, or not made by proposal,
14 the statement would not hold or a file was altered, 16 PROPOSAL exists.`,
		Args:      cobra.ExactArgs(1),
		ValidArgs: charter.Proposable(),
		RunE:      func(c *cobra.Command, args []string) error { return runCharterPropose(c, &o, args[0]) },
	}
	o.addFlags(c)
	f := c.Flags()
	f.StringVar(&o.out, "out", "", "file for the proposal; it is never overwritten (required)")
	f.StringVar(&o.id, "id", "", "the name that the charter will know it by")
	f.StringVar(&o.bodyFile, "body", "", "JSON file with the body of a statement that has no flags of its own")
	f.StringVar(&o.key, "key", "", "public key, PEM")
	f.StringVar(&o.certificate, "certificate", "", "certificate, PEM")
	f.StringVar(&o.factory, "factory", "", "factory of a station")
	f.StringVar(&o.role, "role", "", "role of a relay: access or vpn")
	f.StringVar(&o.kind, "kind", "", "kind of a vendor root: hsm or ek")
	f.StringArrayVar(&o.models, "model", nil, "model of device that a vendor root is for; without one, all")
	f.StringArrayVar(&o.products, "product", nil, "product; a pipeline may have several")
	f.StringVar(&o.evidence, "evidence", "", "which ceremony certified the factory's CA")
	f.Int64Var(&o.from, "from", 0, "first device serial of a factory")
	f.Int64Var(&o.to, "to", 0, "last device serial of a factory")
	_ = c.MarkFlagRequired("out") // fails only for a flag that does not exist
	return c
}

// proposalFlags are those that each type takes, and needs.
func proposalFlags() map[string][]string {
	return map[string][]string{
		charter.TypePipeline:   {"id", "key", "product"},
		charter.TypeStation:    {"factory", "id", "key"},
		charter.TypeRelay:      {"certificate", "id", "role"},
		charter.TypeFactory:    {"certificate", "evidence", "from", "id", "product", "to"},
		charter.TypeHost:       {"id", "key"},
		charter.TypeVendorRoot: {"certificate", "id", "kind"},
	}
}

// checkFlags refuses a flag that the type has no use for, and a missing one.
func checkFlags(c *cobra.Command, typ string) error {
	need := proposalFlags()[typ]
	if need == nil && slices.Contains(charter.Proposable(), typ) {
		need = []string{"body"}
	}
	if need == nil {
		return cli.Usagef("a statement of type %.40q is not made by proposal; the types are %s", typ, strings.Join(charter.Proposable(), ", "))
	}
	for _, name := range []string{"body", "certificate", "evidence", "factory", "from", "id", "key", "kind", "model", "product", "role", "to"} {
		switch given := c.Flags().Changed(name); {
		case name == "model" && typ == charter.TypeVendorRoot: // the one flag that may be missing
		case given && !slices.Contains(need, name):
			return cli.Usagef("a %s has no --%s; it takes --%s", typ, name, strings.Join(need, ", --"))
		case !given && slices.Contains(need, name):
			return cli.Usagef("a %s needs --%s", typ, name)
		}
	}
	return nil
}

func (o *charterProposeOptions) body(typ string) (any, error) {
	if proposalFlags()[typ] == nil {
		return readBody(o.bodyFile, typ)
	}
	switch typ {
	case charter.TypePipeline:
		key, err := readPEM(o.key, "PUBLIC KEY")
		return charter.Pipeline{ID: o.id, Key: key, Products: o.products}, err
	case charter.TypeHost:
		key, err := readPEM(o.key, "PUBLIC KEY")
		return charter.Host{ID: o.id, Key: key}, err
	case charter.TypeVendorRoot:
		cert, err := readPEM(o.certificate, "CERTIFICATE")
		slices.Sort(o.models)
		return charter.VendorRoot{ID: o.id, Kind: o.kind, Certificate: cert, Models: o.models}, err
	case charter.TypeStation:
		key, err := readPEM(o.key, "PUBLIC KEY")
		return charter.Station{Factory: o.factory, ID: o.id, ReportKey: key}, err
	case charter.TypeRelay:
		cert, err := readPEM(o.certificate, "CERTIFICATE")
		return charter.Relay{Certificate: cert, ID: o.id, Role: o.role}, err
	}
	if len(o.products) != 1 {
		return nil, cli.Usagef("a factory makes one product line")
	}
	cert, err := readPEM(o.certificate, "CERTIFICATE")
	return charter.Factory{CA: cert, Evidence: o.evidence, ID: o.id, Product: o.products[0], SerialFrom: o.from, SerialTo: o.to}, err
}

// readBody reads a body that a person wrote.
func readBody(path, typ string) (any, error) {
	data, err := intake.Read(path, charterstore.MaxBytes/2)
	if err != nil {
		return nil, err
	}
	v, err := charterstore.Body(typ, data)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", path, err)
	}
	return v, nil
}

// readPEM reads the one block of a file, which must be of the type.
func readPEM(path, typ string) ([]byte, error) {
	data, err := intake.Read(path, 64<<10)
	if err != nil {
		return nil, err
	}
	b, rest := pem.Decode(data)
	if b == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fault.Errorf(fault.Usage, "%q is not one PEM block", path)
	}
	if b.Type != typ {
		hint := "a private key never belongs here; keyrite writes the public half beside it"
		if !strings.Contains(b.Type, "PRIVATE") {
			hint = "openssl can write it: see 'openssl pkey -pubout' and 'openssl x509'"
		}
		return nil, fault.Hint(fault.Errorf(fault.Usage, "%q holds a %q, a %q is needed", path, b.Type, typ), hint)
	}
	return b.Bytes, nil
}

type charterProposalResult struct {
	Schema    string          `json:"schema"`
	Proposal  string          `json:"proposal"` // path
	Seq       int             `json:"seq"`
	Type      string          `json:"type"`
	Body      json.RawMessage `json:"body"`
	Digest    string          `json:"digest"`
	Words     string          `json:"words"`
	Need      int             `json:"need"`
	Approvers []string        `json:"approvers"`
}

func runCharterPropose(c *cobra.Command, o *charterProposeOptions, typ string) error {
	if err := checkFlags(c, typ); err != nil {
		return err
	}
	out, err := durable.Create(o.out, 0o644)
	if err != nil {
		return err
	}
	defer out.Abort()
	_, state, err := o.load()
	if err != nil {
		return err
	}
	body, err := o.body(typ)
	if err != nil {
		return err
	}
	data, err := charterstore.New(state, typ, body, time.Now())
	if err != nil {
		return err
	}
	p, err := o.openProposal(data)
	if err != nil {
		return err
	}
	if err := out.Finish(data); err != nil {
		return err
	}
	need, who := p.Need()
	res := charterProposalResult{"keyrite/charter-propose/v1", o.out, p.Statement.Seq, p.Statement.Type, p.Statement.Body, p.Digest, p.Words, need, who}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintln(w, "Each approver will read:")
		for _, l := range p.Shown {
			fmt.Fprintf(w, "  %s\n", cli.Escape(l))
		}
		fmt.Fprintf(w, "digest %s\n  in words: %s\nwritten to %s; %d of %s must approve it\n", res.Digest, res.Words, cli.Escape(o.out), need, strings.Join(who, ", "))
	})
}

// openProposal opens a proposal against the charter as it is now.
func (o *trustOptions) openProposal(data []byte) (*charterstore.Proposal, error) {
	_, state, err := o.load()
	if err != nil {
		return nil, err
	}
	return charterstore.Open(data, state)
}
