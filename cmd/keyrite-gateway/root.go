package main

import (
	"errors"
	"path/filepath"

	"github.com/spf13/cobra"

	"keyrite/gateway/enroll"
	"keyrite/gateway/secureelement"
	"keyrite/gateway/update"
	"keyrite/internal/cli"
)

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "keyrite-gateway",
		Short: "Run a gateway",
		Long: `Run a gateway: join an account, keep the tunnel up, update, start.

What the gateway believes stands in its secure element, a TPM 2.0 (--element
/dev/tpmrm0, or HOST:PORT of a TPM on a socket). The state folder (--state-dir)
holds files that are checked against it at every start. No command listens on
any network.`,
	}
	for _, sub := range commands() {
		root.AddCommand(sub)
	}
	return root
}

func commands() []*cobra.Command {
	return []*cobra.Command{newBirth(), newEnroll(), newRun(), newBoot(), newUpdate(), newStatus(), newCheck()}
}

// options that every command has.
type options struct {
	stateDir, element, hardware string
}

func (o *options) addFlags(c *cobra.Command) {
	c.Flags().StringVar(&o.stateDir, "state-dir", "", "folder of the gateway's state (required)")
	c.Flags().StringVar(&o.element, "element", "/dev/tpmrm0", "secure element: device file, or HOST:PORT")
}

func (o *options) addHardware(c *cobra.Command) {
	c.Flags().StringVar(&o.hardware, "hardware", "", "hardware that releases must name (default: the product line of the birth certificate)")
}

var errNoState = errors.New("--state-dir is required")

// open opens the secure element.
func (o *options) open() (*secureelement.Element, error) {
	if o.stateDir == "" {
		return nil, &cli.Error{Class: "usage", Err: errNoState}
	}
	return secureelement.Open(o.element)
}

// home opens element and state of an enrolled gateway.
func (o *options) home() (*secureelement.Element, *enroll.Home, error) {
	e, err := o.open()
	if err != nil {
		return nil, nil, err
	}
	h, err := enroll.Load(o.stateDir, e)
	if err != nil {
		_ = e.Close()
		return nil, nil, err
	}
	return e, h, nil
}

// device is what the gateway is, by its birth certificate.
func (o *options) device(e *secureelement.Element) (update.Device, error) {
	product, err := enroll.Product(e)
	d := update.Device{Product: product, Hardware: o.hardware}
	if d.Hardware == "" {
		d.Hardware = product
	}
	return d, err
}

// opener is update.OpenSlots or update.ViewSlots.
type opener func(dir string, e update.Element, d update.Device) (*update.Slots, error)

func (o *options) slots(e *secureelement.Element, open opener) (*update.Slots, error) {
	d, err := o.device(e)
	if err != nil {
		return nil, err
	}
	return open(filepath.Join(o.stateDir, update.BootDir), e, d)
}
