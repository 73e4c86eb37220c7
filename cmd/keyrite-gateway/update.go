package main

import (
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"keyrite/gateway/enroll"
	"keyrite/gateway/update"
	"keyrite/internal/cli"
	"keyrite/wire/control"
)

type updateOptions struct {
	options
	repository string
}

func newUpdate() *cobra.Command {
	var o updateOptions
	c := &cobra.Command{
		Use:   "update --state-dir DIR",
		Short: "Install the release that is offered into the slot not in use",
		Long: `Ask the access server's update repository (or one on a medium, with
--repository) which release is offered, and install it into the slot that is not
in use.

TUF metadata says what is offered and how fresh; the release statement, checked
with the firmware key in the secure element, says that the image is ours. Both
must agree. The image is written, read back and verified before its slot may be
started. A power cut at any moment leaves the old release or the new one.

Exit codes: 0 installed or up to date, 13 nothing for this gateway, expired or
rolled back, 14 metadata, statement or image does not verify, 15 slots in use,
18 storage failed, 19 relay does not answer, 20 not a relay of ours.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runUpdate(c, o) },
	}
	o.addFlags(c)
	o.addHardware(c)
	c.Flags().StringVar(&o.repository, "repository", "", "folder with metadata/ and targets/, in place of the access server")
	return c
}

type updateResult struct {
	Schema          string `json:"schema"`
	World           string `json:"world"`
	Installed       bool   `json:"installed"` // false: it was there already
	Slot            string `json:"slot"`
	Target          string `json:"target"`
	Product         string `json:"product"`
	Version         string `json:"version"`
	SecurityVersion int64  `json:"security_version"`
	SHA256          string `json:"sha256"`
	Image           string `json:"image"`
}

func runUpdate(c *cobra.Command, o updateOptions) error {
	e, h, err := o.home()
	if err != nil {
		return err
	}
	defer e.Close()
	s, err := o.slots(e, update.OpenSlots)
	if err != nil {
		return err
	}
	defer s.Close()
	source, err := o.source(h)
	if err != nil {
		return err
	}
	device, err := o.device(e)
	if err != nil {
		return err
	}
	client := &update.Client{
		Source: source, Dir: filepath.Join(o.stateDir, "tuf"), Root: h.Root, Anchors: h.Anchors, Element: e, Device: device, Now: time.Now,
		Succession: s.Succession(),
	}
	offer, err := client.Find(c.Context())
	if err != nil {
		return err
	}
	done, err := s.Install(c.Context(), offer)
	if err != nil {
		return err
	}
	p := done.Statement.Predicate
	out := updateResult{
		"keyrite/gateway-update/v1", string(p.World), !done.UpToDate, done.Slot, offer.Target, p.Product, p.Version, p.SecurityVersion,
		done.Statement.Image().Digest.SHA256, s.Image(done.Slot),
	}
	return cli.Print(c, out, func(w io.Writer) {
		if done.UpToDate {
			fmt.Fprintf(w, "up to date: slot %s holds %s %s\n", out.Slot, out.Product, out.Version)
			return
		}
		fmt.Fprintf(w, "installed %s %s, security version %d, into slot %s\n", out.Product, out.Version, out.SecurityVersion, out.Slot)
		fmt.Fprintf(w, "sha256 %s, read back and verified; it is started at the next boot\n", out.SHA256)
	})
}

func (o *updateOptions) source(h *enroll.Home) (update.Source, error) {
	if o.repository != "" {
		return update.NewFolder(o.repository), nil
	}
	addr := h.Enrolment.Access
	client, err := h.Control(addr)
	if err != nil {
		return nil, err
	}
	return update.NewRemote(client.HTTP, "https://"+addr+control.PathTUFMetadata, "https://"+addr+control.PathTUFTargets), nil
}
