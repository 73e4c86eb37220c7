package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"keyrite/internal/cli"
	"keyrite/provisioning/station"
)

type setupOptions struct {
	stateDir, module, factory, station string
	sandbox                            station.Sandbox
}

func newSetup() *cobra.Command {
	var o setupOptions
	c := &cobra.Command{
		Use:   "setup --state-dir DIR --module PATH --factory ID --station ID",
		Short: "Make a station: token, keys, requests",
		Long: `Make a station: initialise a token, make the keys factory-ca and report in it,
and write factory-ca.csr and report.csr for the genesis, which certifies the one
and names the other in the charter. A SoftHSM token gets a store of its own within
--state-dir. The user PIN lies in token.pin (0600); the SO PIN is kept by nobody.
The module runs in a sandbox; an HSM on the network needs its port in
--module-socket. 'keyrite-station sandbox' changes that later.

Exit codes: 0 made; 2 unusable flags; 12 module or token; 16 there is one already;
18 disk.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runSetup(c, o) },
	}
	stateFlag(c, &o.stateDir)
	f := c.Flags()
	f.StringVar(&o.module, "module", "", "path of the PKCS#11 module")
	f.StringVar(&o.factory, "factory", "", "id of the factory, as it will stand in the charter")
	f.StringVar(&o.station, "station", "", "id of the station, as it will stand in the charter")
	sandboxFlags(c, &o.sandbox)
	for _, name := range []string{"module", "factory", "station"} {
		_ = c.MarkFlagRequired(name) // fails only for a flag that does not exist
	}
	return c
}

type setupResult struct {
	Schema     string `json:"schema"`
	Factory    string `json:"factory"`
	Station    string `json:"station"`
	FactoryCA  string `json:"factory_ca_csr"`
	Report     string `json:"report_csr"`
	StationPin string `json:"station_cert"`
}

func runSetup(c *cobra.Command, o setupOptions) error {
	err := station.Setup(c.Context(), o.stateDir, station.SetupOptions{Module: o.module, Factory: o.factory, Station: o.station, Sandbox: o.sandbox})
	if err != nil {
		return err
	}
	r := setupResult{
		"keyrite/station-setup/v1", o.factory, o.station,
		filepath.Join(o.stateDir, station.CSRFile), filepath.Join(o.stateDir, station.ReportCSR), filepath.Join(o.stateDir, station.CertFile),
	}
	return cli.Print(c, r, func(w io.Writer) {
		fmt.Fprintf(w, "station %s of factory %s is made; its keys were born in its token\n", o.station, o.factory)
		fmt.Fprintf(w, "  for the genesis  %s, %s\n  for the devices  %s (they pin it)\n", cli.Escape(r.FactoryCA), cli.Escape(r.Report), cli.Escape(r.StationPin))
	})
}
