package main

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"html/template"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/firmware"
	"keyrite/artifact/record"
	"keyrite/artifact/succession"
	"keyrite/artifact/trace"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

type traceOptions struct {
	trust        trustOptions
	records      []string
	bundle, html string
}

func newTrace() *cobra.Command {
	var o traceOptions
	c := &cobra.Command{
		Use:   "trace FILE --anchor FILE [--record DIR]… [--succession FILE] [--charter FILE] [--html OUT]",
		Short: "Walk from a file in the field back to the people who made its key",
		Long: `Walk back, offline, from a firmware image (.krf, or an image with its
.sigstore.json), or from a device's birth certificate (.pem), to the ceremony where
its key was born: signature, release, key, record, script, people. Every step is
verified; one that cannot be taken is shown as a gap.

Give --record once for each ceremony, in any order. A key that was made after the
genesis is known by the newest succession.json (--succession); the way goes on from
its ceremony through those before it to the genesis.

Without --anchor the file is only described, from its record's own anchors, and
the first line says that nothing is anchored. A birth certificate needs --charter.

Exit codes: 0 the way back is shown, gaps marked with a question mark; 2 a record
given twice; 13 other world or vault, or a key that gave way; 14 a step does not
hold, or the records tell two histories.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runTrace(c, &o, args[0]) },
	}
	o.trust.addFlags(c)
	c.Flags().StringArrayVar(&o.records, "record", nil, "record folder of a ceremony; may repeat")
	c.Flags().StringVar(&o.bundle, "bundle", "", "Sigstore bundle of an image (default FILE.sigstore.json)")
	c.Flags().StringVar(&o.html, "html", "", "also write the way back as a page")
	return c
}

type traceResult struct {
	Schema   string       `json:"schema"`
	File     string       `json:"file"`
	World    string       `json:"world"`
	Anchored bool         `json:"anchored"`
	Complete bool         `json:"complete"` // no step is a gap
	Links    []trace.Link `json:"links"`
}

func runTrace(c *cobra.Command, o *traceOptions, path string) error {
	anchored := o.trust.anchor != ""
	a, vault, err := o.load()
	if err != nil {
		return err
	}
	res := traceResult{Schema: "keyrite/trace/v1", File: path, World: string(a.World), Anchored: anchored}
	if strings.HasSuffix(path, ".pem") {
		res.Links, err = o.device(path, a, vault)
	} else {
		res.Links, err = o.firmware(c, path, a, vault)
	}
	if err != nil {
		return err
	}
	res.Complete = !slices.ContainsFunc(res.Links, func(l trace.Link) bool { return !l.Proven })
	if o.html != "" {
		if err := writeTraceHTML(o.html, res); err != nil {
			return err
		}
	}
	return cli.Print(c, res, func(w io.Writer) { printTrace(w, res) })
}

// load reads the anchors in force, and verifies every record against them as they
// were read aloud.
func (o *traceOptions) load() (*anchor.Anchors, *trace.Vault, error) {
	path := o.trust.anchor
	if path == "" {
		if len(o.records) == 0 {
			return nil, nil, cli.Usagef("--anchor is missing, and there is no --record to take unanchored keys from")
		}
		path = o.records[0] + "/" + record.OutputsDir + "/anchors.json"
	}
	data, err := intake.Read(path, maxAnchorBytes)
	if err != nil {
		return nil, nil, err
	}
	a, err := anchor.Parse(data)
	if err != nil {
		return nil, nil, err
	}
	var records []*record.Verified
	for _, dir := range o.records {
		v, err := record.Verify(os.DirFS(dir), a)
		if err != nil {
			return nil, nil, fault.Errorf(fault.ClassOf(err), "record %q: %w", dir, err)
		}
		records = append(records, v)
	}
	var st *succession.Statement
	if o.trust.succession != "" {
		statement, err := intake.Read(o.trust.succession, succession.MaxBytes)
		if err != nil {
			return nil, nil, err
		}
		if st, err = succession.Verify(statement, a); err != nil {
			return nil, nil, fault.Errorf(fault.ClassOf(err), "succession %q: %w", o.trust.succession, err)
		}
		if a, err = succession.Apply(a, st); err != nil {
			return nil, nil, err
		}
	}
	vault, err := trace.New(a, st, records)
	return a, vault, err
}

func (o *traceOptions) firmware(c *cobra.Command, path string, a *anchor.Anchors, vault *trace.Vault) ([]trace.Link, error) {
	t, err := firmware.TrustOf(a)
	if err != nil {
		return nil, err
	}
	in, err := intake.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	s, err := o.statement(c, path, in, t)
	if err != nil {
		return nil, err
	}
	if err := in.Unchanged(); err != nil {
		return nil, err
	}
	return vault.Firmware(s)
}

func (o *traceOptions) statement(c *cobra.Command, path string, in *intake.File, t *firmware.Trust) (*firmware.Statement, error) {
	if o.bundle == "" && strings.HasSuffix(path, firmware.KRFSuffix) {
		k, err := firmware.VerifyKRF(in.Reader(c.Context()), t)
		if err != nil {
			return nil, err
		}
		return k.Statement, nil
	}
	bundle := o.bundle
	if bundle == "" {
		bundle = path + firmware.BundleSuffix
	}
	data, err := intake.Read(bundle, firmware.MaxBundleBytes)
	if err != nil {
		return nil, err
	}
	return firmware.Verify(in.Reader(c.Context()), data, t)
}

func (o *traceOptions) device(path string, a *anchor.Anchors, vault *trace.Vault) ([]trace.Link, error) {
	if o.trust.charter == "" {
		return nil, cli.Usagef("--charter is missing: it says which factories there are")
	}
	lines, err := intake.Read(o.trust.charter, maxCharterBytes)
	if err != nil {
		return nil, err
	}
	state, err := charter.Fold(lines, a.World, a.Vault)
	if err != nil {
		return nil, err
	}
	data, err := intake.Read(path, 64<<10)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fault.Errorf(fault.Verify, "%q holds no certificate", path)
	}
	cert, err := birthcert.Parse(block.Bytes)
	if err != nil {
		return nil, err
	}
	id, f, root, err := whichFactory(cert, a, state)
	if err != nil {
		return nil, err
	}
	return vault.Device(id, f, root)
}

// whichFactory finds the factory of the charter that issued the certificate, and
// the id of the birth root that certified it.
func whichFactory(cert *x509.Certificate, a *anchor.Anchors, state *charter.State) (*birthcert.Identity, *charter.Factory, string, error) {
	last := fault.New(fault.Verify, "the certificate is by no factory of the charter")
	for id := range state.Factories {
		f := state.Factories[id]
		ca, err := birthcert.Parse(f.CA)
		if err != nil {
			return nil, nil, "", err
		}
		root, err := a.Issuer("birth-root", ca)
		if err != nil {
			return nil, nil, "", err
		}
		grant := birthcert.Grant{Factory: f.ID, Product: f.Product, SerialFrom: f.SerialFrom, SerialTo: f.SerialTo}
		who, err := birthcert.VerifyDevice(cert, ca, root, grant)
		if err == nil {
			return who, &f, keyOf(root, a), nil
		}
		last = err
	}
	return nil, nil, "", last
}

// keyOf is the id of the key that a certificate of the anchors is of.
func keyOf(c *x509.Certificate, a *anchor.Anchors) string {
	for id, der := range a.Certificates {
		if bytes.Equal(der, c.Raw) {
			return id
		}
	}
	return ""
}

func printTrace(w io.Writer, r traceResult) {
	if !r.Anchored {
		fmt.Fprintln(w, "NOTHING IS ANCHORED: these keys come from the record itself. Pass --anchor with the file whose words you have on paper.")
	}
	fmt.Fprintf(w, "%s (world %s)\n", cli.Escape(r.File), r.World)
	for i, l := range r.Links {
		mark := "✓"
		if !l.Proven {
			mark = "?"
		}
		fmt.Fprintf(w, "%s%s %-11s %s\n%s    %s\n", strings.Repeat(" ", min(i, 9)), mark, l.What, cli.Escape(l.Is), strings.Repeat(" ", min(i, 9)), cli.Escape(l.Shown))
	}
}

const traceHTML = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>The way back of {{.File}}</title>
<style>:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;padding:0 1rem}li{margin:.8rem 0}code,b{overflow-wrap:anywhere}small{opacity:.75}.gap{color:#c01c28}</style></head>
<body><h1>The way back</h1><p><code>{{.File}}</code>, world <b>{{.World}}</b></p>
{{if not .Anchored}}<p class="gap">Nothing is anchored: these keys come from the record itself.</p>{{end}}
<ol>{{range .Links}}<li{{if not .Proven}} class="gap"{{end}}><b>{{.What}}</b>: {{.Is}}<br><small>{{.Shown}}</small></li>{{end}}</ol>
<p><small>Rendered by keyrite trace. Not evidence: run the command again.</small></p></body></html>
`

func writeTraceHTML(path string, r traceResult) error {
	t, err := template.New("trace").Parse(traceHTML)
	if err != nil {
		return fault.Errorf(fault.Unexpected, "trace template: %w", err)
	}
	f, err := durable.Create(path, 0o644)
	if err != nil {
		return err
	}
	defer f.Abort()
	if err := t.Execute(f, r); err != nil {
		return fault.Errorf(fault.Storage, "write %q: %w", path, err)
	}
	return f.Commit()
}
