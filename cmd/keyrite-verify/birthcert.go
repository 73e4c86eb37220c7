package main

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/acceptance"
	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

type birthcertOptions struct {
	anchorOptions
	charter, ca string
	acceptances []string
}

func newBirthcert() *cobra.Command {
	var o birthcertOptions
	c := &cobra.Command{
		Use:   "birthcert FILE.pem --anchor FILE [--acceptance FILE]…",
		Short: "Verify a device's birth certificate",
		Long: `Verify that a birth certificate leads to the birth root of the anchors, that it
is exactly of its profile, and that product line and serial lie within what its
factory was granted; with a charter also that the grant is the charter's.

FILE holds the device's certificate and the factory CA's after it; the latter may
be given as --ca instead, or stand in the charter or an acceptance.

That a certificate verifies says that the factory issued it. Only --acceptance
says whether headquarters accepted the device.

Exit codes: 0 verified, 2 not usable, 13 of another world, outside the grant or
in no acceptance, 14 altered, of another CA or not parseable.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runBirthcert(c, o, args[0]) },
	}
	anchorFlags(c, &o.anchorOptions)
	charterFlag(c, &o.charter)
	c.Flags().StringVar(&o.ca, "ca", "", "certificate of the factory CA")
	c.Flags().StringArrayVar(&o.acceptances, "acceptance", nil, "acceptance in which the device must stand (may repeat)")
	return c
}

type birthcertResult struct {
	Schema       string `json:"schema"`
	World        string `json:"world"`
	Factory      string `json:"factory"`
	Product      string `json:"product"`
	DeviceSerial string `json:"device_serial"`
	CertSerial   string `json:"cert_serial"`
	Assurance    string `json:"assurance"`
	BundleID     string `json:"bundle_id"`
	SPKIHash     string `json:"spki_hash"`
	CertHash     string `json:"cert_hash"`
	Charter      bool   `json:"charter_checked"`
	Accepted     bool   `json:"accepted"`
}

func runBirthcert(c *cobra.Command, o birthcertOptions, path string) error {
	anchors, err := o.loadAnchors()
	if err != nil {
		return err
	}
	state, err := loadCharter(o.charter, o.anchor, anchors)
	if err != nil {
		return err
	}
	chain, err := readCertificates(path)
	if err != nil {
		return err
	}
	if o.ca != "" {
		more, err := readCertificates(o.ca)
		if err != nil {
			return err
		}
		chain = append(chain[:1], more...)
	}
	id, err := verifyBirth(chain, anchors, state)
	if err != nil {
		return err
	}
	if err := checkAccepted(chain[0], o.acceptances, anchors); err != nil {
		return err
	}
	r := birthcertResult{
		"keyrite/verify-birthcert/v1", string(id.World), id.Factory, id.Product, string(id.DeviceSerial), id.CertSerial.String(),
		string(id.Assurance), id.Bundle, id.SPKIHash, id.CertHash, state != nil, len(o.acceptances) > 0,
	}
	return cli.Print(c, r, func(w io.Writer) {
		fmt.Fprintf(w, "verified: %s, made by %s under bundle %s (%s)\n", id.DeviceSerial, id.Factory, id.Bundle, id.World)
		fmt.Fprintf(w, "  assurance  %s\n  key        %s\n  certificate %s\n", id.Assurance, id.SPKIHash, id.CertHash)
		if !r.Charter {
			fmt.Fprintln(w, "  charter    not given, so the grant is the one in the factory CA's certificate")
		}
		if r.Accepted {
			fmt.Fprintln(w, "  accepted   yes")
		} else {
			fmt.Fprintln(w, "  accepted   no acceptance given")
		}
	})
}

func readCertificates(path string) ([]*x509.Certificate, error) {
	data, err := intake.Read(path, 16*birthcert.MaxBytes)
	if err != nil {
		return nil, err
	}
	return birthcert.ParsePEM(data)
}

// verifyBirth finds the factory CA: behind the certificate, or in the charter.
func verifyBirth(chain []*x509.Certificate, anchors *anchor.Anchors, state *charter.State) (*birthcert.Identity, error) {
	if len(chain) == 1 && state != nil {
		for _, f := range state.Factories {
			ca, err := birthcert.Parse(f.CA)
			if err != nil {
				return nil, err
			}
			if string(ca.SubjectKeyId) == string(chain[0].AuthorityKeyId) {
				chain = append(chain, ca)
			}
		}
	}
	if len(chain) < 2 {
		return nil, fault.Hint(fault.Errorf(fault.Verify, "%d certificates, and a device's and its factory CA's are needed", len(chain)), "give the factory CA with --ca, or the charter with --charter")
	}
	root, err := birthRoot(chain[1], anchors, state)
	if err != nil {
		return nil, err
	}
	if len(chain) == 3 && chain[2].Equal(root) {
		chain = chain[:2]
	}
	if len(chain) != 2 {
		return nil, fault.Hint(fault.Errorf(fault.Verify, "%d certificates, and a device's and its factory CA's are needed", len(chain)), "give the factory CA with --ca, or the charter with --charter")
	}
	t, err := birthcert.Read(chain[1], birthcert.FactoryCA, root)
	if err != nil {
		return nil, fmt.Errorf("factory CA: %w", err)
	}
	grant := t.Grant
	if state != nil {
		var ca []byte
		if grant, ca, err = bundle.GrantOf(state, t.Grant.Factory); err != nil {
			return nil, err
		}
		if !bytes.Equal(ca, chain[1].Raw) {
			return nil, fault.Errorf(fault.Verify, "the factory CA is not the one that the charter names for factory %s", t.Grant.Factory)
		}
	}
	return birthcert.VerifyDevice(chain[0], chain[1], root, grant)
}

// birthRoot is the root that a factory CA must verify under: the one in force,
// or, for a CA that the charter names, the one it was issued by.
func birthRoot(ca *x509.Certificate, anchors *anchor.Anchors, state *charter.State) (*x509.Certificate, error) {
	root, err := anchors.Certificate("birth-root")
	if err == nil && state != nil {
		root, err = anchors.Issuer("birth-root", ca)
	}
	if err != nil {
		return nil, err
	}
	return root, birthcert.CheckRoot(root, anchors.World)
}

func checkAccepted(cert *x509.Certificate, paths []string, anchors *anchor.Anchors) error {
	if len(paths) == 0 {
		return nil
	}
	registry := acceptance.NewRegistry(anchors)
	for _, p := range paths {
		data, err := intake.Read(p, jcs.MaxBytes)
		if err != nil {
			return err
		}
		if _, err := registry.Add(data); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	_, err := registry.Find(cert)
	return err
}
