package main

import (
	"github.com/spf13/cobra"

	"keyrite/internal/cli"
)

func newProvision(std cli.IO) *cobra.Command {
	c := &cobra.Command{
		Use:   "provision",
		Short: "Let a factory make devices, and accept what it made",
		Long: `Let a factory make devices. export gives it a bundle: so many devices, these
serials, until that day. Its station reports; accept counts after and signs which
devices are admitted. Nothing else admits a device.

Charter and anchors say which factories, stations and keys there are; there is no
other configuration.`,
	}
	c.AddCommand(newProvisionExport(&quorumOpener{std: std}), newProvisionInspect(), newProvisionAccept(&quorumOpener{std: std}))
	return c
}
