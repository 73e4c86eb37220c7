package main

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keyrite/internal/cli"
	"keyrite/internal/intake"
	"keyrite/relay/node"
)

// withState opens the state for one command.
func withState(c *cobra.Command, dir string, f func(context.Context, *node.State) error) error {
	if err := needState(dir); err != nil {
		return err
	}
	s, err := node.OpenState(c.Context(), dir, time.Now)
	if err != nil {
		return err
	}
	defer s.Close()
	return f(c.Context(), s)
}

func newImportAcceptance() *cobra.Command {
	var dir, anchors, statement string
	c := &cobra.Command{
		Use:   "import-acceptance FILE --state-dir DIR --anchor FILE [--succession FILE]",
		Short: "Admit the devices of an acceptance signed by headquarters",
		Long: `Admit the devices of an acceptance that headquarters signed. All of its devices
are admitted, or none. A succession statement that was taken once is kept in the
state folder and counts without being given.

Exit codes: 0 admitted; 13 another world or vault, a report or device that was
accepted before, or an older statement; 14 altered, or not signed by the acceptance key.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			a, err := anchorsInForce(dir, anchors, statement)
			if err != nil {
				return err
			}
			data, err := intake.Read(args[0], maxAcceptanceBytes)
			if err != nil {
				return err
			}
			return withState(c, dir, func(ctx context.Context, s *node.State) error {
				n, err := s.ImportAcceptance(ctx, data, a)
				if err != nil {
					return err
				}
				return done(c, "keyrite/relay-import-acceptance/v1", map[string]any{"devices": n}, "admitted %d devices", n)
			})
		},
	}
	stateFlag(c, &dir)
	c.Flags().StringVar(&anchors, "anchor", "", "anchors file (required)")
	c.Flags().StringVar(&statement, "succession", "", "succession statement: which keys of the anchors have been replaced since")
	return c
}

func newAccount() *cobra.Command {
	var dir, key string
	add := &cobra.Command{
		Use:   "add ACCOUNT --policy-key FILE --state-dir DIR",
		Short: "Add an account with the public half of its policy key",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if key == "" {
				return &cli.Error{Class: "usage", Err: errNoPolicyKey, Hint: "the account's administrator makes one with 'keyrite-connect policy-key' and gives you its .pub"}
			}
			data, err := intake.Read(key, maxAnchorBytes)
			if err != nil {
				return err
			}
			block, rest := pem.Decode(data)
			if block == nil || block.Type != "PUBLIC KEY" || len(rest) != 0 {
				return cli.Usagef("%q is not one PEM block PUBLIC KEY", key)
			}
			return withState(c, dir, func(ctx context.Context, s *node.State) error {
				if err := s.Registry.AddAccount(ctx, args[0], block.Bytes); err != nil {
					return err
				}
				return done(c, "keyrite/relay-account/v1", map[string]any{"account": args[0]}, "added account %s", args[0])
			})
		},
	}
	stateFlag(add, &dir)
	add.Flags().StringVar(&key, "policy-key", "", "public policy key, PEM (required)")
	c := &cobra.Command{Use: "account", Short: "Manage accounts"}
	c.AddCommand(add)
	for _, off := range []bool{true, false} {
		c.AddCommand(newSwitch("ACCOUNT", off, func(ctx context.Context, s *node.State, args []string) error {
			return s.Registry.DisableAccount(ctx, args[0], off)
		}))
	}
	return c
}

var errNoPolicyKey = fmt.Errorf("--policy-key is missing")

// newSwitch is a disable or enable command.
func newSwitch(args string, off bool, f func(context.Context, *node.State, []string) error) *cobra.Command {
	word, short := "enable", "Switch on again"
	if off {
		word, short = "disable", "Switch off; what is open ends within a second"
	}
	var dir string
	n := 1
	if args != "ACCOUNT" {
		n = 2
	}
	c := &cobra.Command{
		Use: word + " " + args + " --state-dir DIR", Short: short, Args: cobra.ExactArgs(n),
		RunE: func(c *cobra.Command, a []string) error {
			return withState(c, dir, func(ctx context.Context, s *node.State) error {
				if err := f(ctx, s, a); err != nil {
					return err
				}
				return done(c, "keyrite/relay-switch/v1", map[string]any{"what": a}, "%sd", word)
			})
		},
	}
	stateFlag(c, &dir)
	return c
}

// newUser makes "user add" and its siblings.
func newUser() *cobra.Command {
	c := &cobra.Command{Use: "user", Short: "Manage users"}
	set := func(use, short string, f func(context.Context, *node.State, []string, string) error) {
		var dir string
		var fd int
		s := &cobra.Command{
			Use: use + " ACCOUNT USER --state-dir DIR [--password-fd N]", Short: short, Args: cobra.ExactArgs(2),
			RunE: func(c *cobra.Command, a []string) error {
				secret, err := cli.NewSecrets(cli.Std(), fd).Next("password of " + a[1])
				if err != nil {
					return err
				}
				defer secret.Zero()
				return withState(c, dir, func(ctx context.Context, s *node.State) error {
					hash, err := s.Hasher.Hash(ctx, secret.Bytes())
					if err != nil {
						return err
					}
					if err := f(ctx, s, a, hash); err != nil {
						return err
					}
					return done(c, "keyrite/relay-user/v1", map[string]any{"account": a[0], "user": a[1]}, "user %s of account %s is set", a[1], a[0])
				})
			},
		}
		stateFlag(s, &dir)
		s.Flags().IntVar(&fd, "password-fd", -1, "read the password from this descriptor instead of the terminal")
		c.AddCommand(s)
	}
	set("add", "Add a user", func(ctx context.Context, s *node.State, a []string, hash string) error {
		return s.Registry.AddUser(ctx, a[0], a[1], hash)
	})
	set("password", "Set another password; the user's logins end", func(ctx context.Context, s *node.State, a []string, hash string) error {
		return s.Registry.SetPassword(ctx, a[0], a[1], hash)
	})
	for _, off := range []bool{true, false} {
		c.AddCommand(newSwitch("ACCOUNT USER", off, func(ctx context.Context, s *node.State, a []string) error {
			return s.Registry.DisableUser(ctx, a[0], a[1], off)
		}))
	}
	return c
}

func newGateway() *cobra.Command {
	c := &cobra.Command{Use: "gateway", Short: "Manage gateway entries"}
	c.AddCommand(newGatewayAdd(), newGatewayList(), newGatewayRemove())
	for _, off := range []bool{true, false} {
		c.AddCommand(newSwitch("ACCOUNT GATEWAY", off, func(ctx context.Context, s *node.State, a []string) error {
			return s.Registry.DisableGateway(ctx, a[0], a[1], off)
		}))
	}
	return c
}

func newGatewayAdd() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use:   "add ACCOUNT GATEWAY --state-dir DIR",
		Short: "Add an entry and print its activation key, once",
		Long: `Add an entry and print its activation key. The key works once, for this entry,
within 30 days, and only together with the birth key of an accepted device. It
is not stored and cannot be shown again.

Exit codes: 0 added; 13 no such account; 16 the entry exists.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, a []string) error {
			return withState(c, dir, func(ctx context.Context, s *node.State) error {
				key, expires, err := s.Registry.AddGateway(ctx, a[0], a[1])
				if err != nil {
					return err
				}
				return done(c, "keyrite/relay-gateway/v1", map[string]any{"account": a[0], "gateway": a[1], "activation_key": key, "expires": expires}, "%s", key)
			})
		},
	}
	stateFlag(c, &dir)
	return c
}

func newGatewayRemove() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "remove ACCOUNT GATEWAY --state-dir DIR", Short: "Remove an entry, so that its device may enrol again", Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, a []string) error {
			return withState(c, dir, func(ctx context.Context, s *node.State) error {
				if err := s.Registry.RemoveGateway(ctx, a[0], a[1]); err != nil {
					return err
				}
				return done(c, "keyrite/relay-gateway-remove/v1", map[string]any{"account": a[0], "gateway": a[1]}, "removed gateway %s of account %s", a[1], a[0])
			})
		},
	}
	stateFlag(c, &dir)
	return c
}

func newGatewayList() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "list ACCOUNT --state-dir DIR", Short: "List an account's entries with the devices that took them", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, a []string) error {
			return withState(c, dir, func(ctx context.Context, s *node.State) error {
				gs, err := s.Registry.Gateways(ctx, a[0])
				if err != nil {
					return err
				}
				list := []map[string]any{}
				for _, g := range gs {
					list = append(list, map[string]any{"id": g.ID, "serial": g.Serial, "spki": g.SPKI, "enrolled": g.Enrolled, "disabled": g.Disabled})
				}
				return cli.Print(c, map[string]any{"schema": "keyrite/relay-gateways/v1", "account": a[0], "gateways": list}, func(w io.Writer) {
					for _, g := range gs {
						fmt.Fprintf(w, "%s\t%s\t%s\n", g.ID, g.Serial, g.Enrolled)
					}
				})
			})
		},
	}
	stateFlag(c, &dir)
	return c
}
