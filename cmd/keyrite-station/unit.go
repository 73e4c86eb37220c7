package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/birthcert"
	"keyrite/internal/cli"
)

func newUnit() *cobra.Command {
	c := &cobra.Command{Use: "unit", Short: "List units, or scrap one"}
	c.AddCommand(newUnitList(), newUnitScrap())
	return c
}

func newUnitList() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "list --state-dir DIR",
		Short: "List every unit and its stage",
		Long:  "List every unit and its stage.\n\nExit codes: 0; 14 the ledger was altered; 15 the station is in use.",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return runUnitList(c, dir) },
	}
	stateFlag(c, &dir)
	return c
}

type unitRow struct {
	DeviceSerial string `json:"device_serial"`
	Stage        string `json:"stage"`
	ChipID       string `json:"chip_id"`
	CertHash     string `json:"cert_hash"`
	Reason       string `json:"reason"`
	BundleID     string `json:"bundle_id"`
}

type unitListResult struct {
	Schema string    `json:"schema"`
	Units  []unitRow `json:"units"`
}

func runUnitList(c *cobra.Command, dir string) (err error) {
	s, err := open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	units, err := s.Units()
	if err != nil {
		return err
	}
	r := unitListResult{"keyrite/station-units/v1", []unitRow{}}
	for _, u := range units {
		r.Units = append(r.Units, unitRow{string(u.DeviceSerial), string(u.Stage), u.Element.ChipID, u.CertHash, u.Reason, u.Bundle})
	}
	return cli.Print(c, r, func(w io.Writer) {
		for _, u := range r.Units {
			fmt.Fprintf(w, "%s  %-9s  element %s  %s\n", u.DeviceSerial, u.Stage, u.ChipID, cli.Escape(u.Reason))
		}
		fmt.Fprintf(w, "%d units\n", len(r.Units))
	})
}

func newUnitScrap() *cobra.Command {
	var dir, reason string
	c := &cobra.Command{
		Use:   "scrap SERIAL --reason TEXT --state-dir DIR",
		Short: "End a unit badly; its serial stays spent",
		Long: `End a unit badly, for example because its case cracked. Its serial stays spent and
stands in the report with the reason. The element may come again and gets another
serial.

Exit codes: 0; 2 no such unit or no reason; 13 its report is closed; 15 the station
is in use.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return runUnitScrap(c, dir, args[0], reason) },
	}
	stateFlag(c, &dir)
	c.Flags().StringVar(&reason, "reason", "", "why (required)")
	_ = c.MarkFlagRequired("reason") // fails only for a flag that does not exist
	return c
}

func runUnitScrap(c *cobra.Command, dir, serial, reason string) (err error) {
	s, err := open(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.Scrap(birthcert.DeviceSerial(serial), reason); err != nil {
		return err
	}
	r := map[string]string{"schema": "keyrite/station-scrap/v1", "device_serial": serial}
	return cli.Print(c, r, func(w io.Writer) { fmt.Fprintf(w, "scrapped %s; its serial stays spent\n", cli.Escape(serial)) })
}
