package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"keyrite/artifact/succession"
	"keyrite/client"
	"keyrite/internal/cli"
	"keyrite/internal/intake"
)

func newKey() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "key [--state-dir DIR]", Short: "Make your client key, if there is none, and print its thumbprint", Args: cobra.NoArgs,
		Long: `Make your client key, if there is none, and print its thumbprint. Give the
thumbprint to your account's administrator, who puts it into the policy.`,
		RunE: func(c *cobra.Command, _ []string) error {
			path, err := stateDir(dir)
			if err != nil {
				return err
			}
			h, err := client.Make(path)
			if err != nil {
				return err
			}
			return cli.Print(c, map[string]any{"schema": "keyrite/connect-key/v1", "thumbprint": h.Thumbprint()}, func(w io.Writer) {
				fmt.Fprintln(w, h.Thumbprint())
			})
		},
	}
	stateFlag(c, &dir)
	return c
}

type loginOptions struct {
	dir, access, account, user, anchor, succession, policyKey string
	fd                                                        int
}

func newLogin() *cobra.Command {
	var o loginOptions
	c := &cobra.Command{
		Use:   "login --access HOST:PORT --account NAME --user NAME --anchor FILE [--succession FILE] --policy-key FILE [--password-fd N]",
		Short: "Log in at a relay",
		Long: `Log in at a relay. The anchors say which relay is ours, the policy key whose
policy counts; both come from your administrator and not from the relay. So does
the succession statement, if a key of the anchors was replaced: it is kept, and an
older one is refused.

Exit codes: 0 logged in; 12 account, user or password wrong; 17 too many failed
attempts; 13 an older succession statement; 19 relay not reachable; 20 not a relay
of these anchors.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runLogin(c, o) },
	}
	stateFlag(c, &o.dir)
	f := c.Flags()
	f.StringVar(&o.access, "access", "", "HOST:PORT of the access server (required)")
	f.StringVar(&o.account, "account", "", "your account (required)")
	f.StringVar(&o.user, "user", "", "your name in it (required)")
	f.StringVar(&o.anchor, "anchor", "", "anchors file (required)")
	f.StringVar(&o.succession, "succession", "", "succession statement, if a key of the anchors was replaced")
	f.StringVar(&o.policyKey, "policy-key", "", "the account's public policy key, PEM (required)")
	f.IntVar(&o.fd, "password-fd", -1, "read the password from this descriptor instead of the terminal")
	return c
}

func runLogin(c *cobra.Command, o loginOptions) error {
	if o.access == "" || o.account == "" || o.user == "" || o.policyKey == "" {
		return cli.Usagef("--access, --account, --user and --policy-key are needed")
	}
	a, err := loadAnchors(o.anchor)
	if err != nil {
		return err
	}
	var statement []byte
	if o.succession != "" {
		if statement, err = intake.Read(o.succession, succession.MaxBytes); err != nil {
			return err
		}
	}
	data, err := intake.Read(o.policyKey, maxAnchorBytes)
	if err != nil {
		return err
	}
	key, err := client.ParsePolicyKey(data)
	if err != nil {
		return err
	}
	path, err := stateDir(o.dir)
	if err != nil {
		return err
	}
	h, err := client.Make(path)
	if err != nil {
		return err
	}
	secret, err := cli.NewSecrets(cli.Std(), o.fd).Next("password of " + o.user)
	if err != nil {
		return err
	}
	defer secret.Zero()
	s, err := h.Login(c.Context(), client.LoginOptions{Access: o.access, Account: o.account, User: o.user, Password: secret.Bytes(), Anchors: a, Succession: statement, PolicyKey: key})
	if err != nil {
		return err
	}
	in := s.Login()
	out := map[string]any{"schema": "keyrite/connect-login/v1", "account": in.Account, "user": in.User, "expires": in.Expires, "world": in.World, "thumbprint": h.Thumbprint()}
	return cli.Print(c, out, func(w io.Writer) {
		fmt.Fprintf(w, "%s of %s is logged in until %s, world %s\nclient key %s\n", in.User, in.Account, in.Expires, in.World, h.Thumbprint())
	})
}

// session loads the folder with the login in force.
func session(dir string) (*client.Home, *client.Session, error) {
	path, err := stateDir(dir)
	if err != nil {
		return nil, nil, err
	}
	h, err := client.Load(path)
	if err != nil {
		return nil, nil, err
	}
	s, err := h.Session()
	return h, s, err
}

func newLogout() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "logout [--state-dir DIR]", Short: "End your login and everything opened with it", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, s, err := session(dir)
			if err != nil {
				return err
			}
			if err := s.Logout(c.Context()); err != nil {
				return err
			}
			return cli.Print(c, map[string]any{"schema": "keyrite/connect-logout/v1"}, func(w io.Writer) { fmt.Fprintln(w, "logged out") })
		},
	}
	stateFlag(c, &dir)
	return c
}

func newList() *cobra.Command {
	var dir string
	c := &cobra.Command{
		Use: "list [--state-dir DIR]", Short: "List the gateways you may use", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			_, s, err := session(dir)
			if err != nil {
				return err
			}
			gs, err := s.Gateways(c.Context())
			if err != nil {
				return err
			}
			return cli.Print(c, map[string]any{"schema": "keyrite/connect-list/v1", "world": s.Login().World, "gateways": gs}, func(w io.Writer) {
				for _, g := range gs {
					state := "offline"
					if g.Online {
						state = "online"
					}
					fmt.Fprintf(w, "%s\t%s\n", cli.Escape(g.ID), state)
				}
			})
		},
	}
	stateFlag(c, &dir)
	return c
}
