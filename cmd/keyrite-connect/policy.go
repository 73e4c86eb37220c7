package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/birthcert"
	"keyrite/artifact/jcs"
	"keyrite/artifact/policy"
	"keyrite/artifact/world"
	"keyrite/client"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

func newPolicyKey() *cobra.Command {
	var account, out, rehearsal string
	var fd int
	c := &cobra.Command{
		Use:   "policy-key --account NAME --out FILE [--rehearsal ID] [--passphrase-fd N]",
		Short: "Make the account's policy key (first administrator, once)",
		Long: `Make the account's policy key: FILE.key, under a passphrase, and FILE.pub. The
relay gets only FILE.pub; gateways and users get its hash or FILE.pub from you.
Whoever holds FILE.key and its passphrase decides who reaches your machines.

Exit codes: 0 made; 2 passphrase too short; 16 a file exists.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if account == "" || out == "" {
				return cli.Usagef("--account and --out are needed")
			}
			w := world.Live
			if rehearsal != "" {
				var err error
				if w, err = world.Rehearsal(rehearsal); err != nil {
					return cli.Usagef("--rehearsal: %v", err)
				}
			}
			pass, err := cli.NewSecrets(cli.Std(), fd).Next("new passphrase of the policy key")
			if err != nil {
				return err
			}
			defer pass.Zero()
			file, public, err := client.NewPolicyKey(account, w, pass.Bytes())
			if err != nil {
				return err
			}
			if err := durable.WriteNew(out+".key", file, 0o600); err != nil {
				return err
			}
			if err := durable.WriteNew(out+".pub", public, 0o644); err != nil {
				return err
			}
			der, err := client.ParsePolicyKey(public)
			if err != nil {
				return err
			}
			return cli.Print(c, map[string]any{"schema": "keyrite/connect-policy-key/v1", "fingerprint": birthcert.Hash(der), "world": w}, func(o io.Writer) {
				fmt.Fprintln(o, birthcert.Hash(der))
			})
		},
	}
	c.Flags().StringVar(&account, "account", "", "the account (required)")
	c.Flags().StringVar(&out, "out", "", "path of the two files without .key and .pub (required)")
	c.Flags().StringVar(&rehearsal, "rehearsal", "", "id of a rehearsal world, instead of live")
	c.Flags().IntVar(&fd, "passphrase-fd", -1, "read the passphrase from this descriptor instead of the terminal")
	return c
}

type policyNewOptions struct {
	account, anchor, out           string
	version                        int64
	days                           int
	users, gateways, devices, rule []string
}

func newPolicyNew() *cobra.Command {
	var o policyNewOptions
	c := &cobra.Command{
		Use:   "new --account NAME --anchor FILE --version N --out FILE --user … --gateway … --device … --allow …",
		Short: "Write an unsigned policy",
		Long: `Write an unsigned policy, to be signed with 'policy sign'. Whatever is not
allowed is denied; there is no way to allow everything.

  --user NAME=THUMBPRINT        repeat for more users or more keys of one
  --gateway ID=SPKI             hex SHA-256 of the gateway's birth key
  --device NAME=GATEWAY,ADDRESS,PORTS   ports as 80 or 5000-5010, several with +
  --allow USER:DEVICE`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return runPolicyNew(c, o) },
	}
	f := c.Flags()
	f.StringVar(&o.account, "account", "", "the account (required)")
	f.StringVar(&o.anchor, "anchor", "", "anchors file, which names the world (required)")
	f.StringVar(&o.out, "out", "", "file to write (required)")
	f.Int64Var(&o.version, "version", 0, "version, higher than the last one (required)")
	f.IntVar(&o.days, "days", 90, "days that it is in force, at most 400")
	f.StringArrayVar(&o.users, "user", nil, "NAME=THUMBPRINT")
	f.StringArrayVar(&o.gateways, "gateway", nil, "ID=SPKI")
	f.StringArrayVar(&o.devices, "device", nil, "NAME=GATEWAY,ADDRESS,PORTS")
	f.StringArrayVar(&o.rule, "allow", nil, "USER:DEVICE")
	return c
}

func runPolicyNew(c *cobra.Command, o policyNewOptions) error {
	if o.account == "" || o.out == "" || o.version < 1 {
		return cli.Usagef("--account, --out and --version are needed")
	}
	a, err := loadAnchors(o.anchor)
	if err != nil {
		return err
	}
	// An hour back, for clocks that are behind.
	from := time.Now().UTC().Add(-time.Hour)
	p := &policy.Policy{
		Account: o.account, Format: policy.Format, Version: o.version, World: a.World,
		NotBefore: from.Format("2006-01-02T15:04:05Z"), NotAfter: from.Add(time.Duration(o.days) * 24 * time.Hour).Format("2006-01-02T15:04:05Z"),
		Users: []policy.User{}, Gateways: []policy.Gateway{}, Devices: []policy.Device{}, Rules: []policy.Rule{},
	}
	if err := o.fill(p); err != nil {
		return err
	}
	p.Sort()
	if err := p.Check(); err != nil {
		return cli.Usagef("%v", err)
	}
	b, err := jcs.Marshal(p)
	if err != nil {
		return err
	}
	if err := durable.WriteNew(o.out, b, 0o644); err != nil {
		return err
	}
	return cli.Print(c, map[string]any{"schema": "keyrite/connect-policy-new/v1", "out": o.out, "version": o.version, "world": a.World}, func(w io.Writer) {
		fmt.Fprintf(w, "wrote version %d for %s, world %s; sign it with 'keyrite-connect policy sign'\n", o.version, o.account, a.World)
	})
}

func (o *policyNewOptions) fill(p *policy.Policy) error {
	for _, s := range o.users {
		name, key, ok := strings.Cut(s, "=")
		if !ok {
			return cli.Usagef("--user %q is not NAME=THUMBPRINT", s)
		}
		at := -1
		for i := range p.Users {
			if p.Users[i].Name == name {
				at = i
			}
		}
		if at < 0 {
			p.Users, at = append(p.Users, policy.User{Name: name}), len(p.Users)
		}
		p.Users[at].Keys = append(p.Users[at].Keys, key)
	}
	for _, s := range o.gateways {
		id, spki, ok := strings.Cut(s, "=")
		if !ok {
			return cli.Usagef("--gateway %q is not ID=SPKI", s)
		}
		p.Gateways = append(p.Gateways, policy.Gateway{ID: id, SPKI: spki})
	}
	for _, s := range o.devices {
		d, err := parseDevice(s)
		if err != nil {
			return err
		}
		p.Devices = append(p.Devices, d)
	}
	for _, s := range o.rule {
		user, device, ok := strings.Cut(s, ":")
		if !ok {
			return cli.Usagef("--allow %q is not USER:DEVICE", s)
		}
		p.Rules = append(p.Rules, policy.Rule{Device: device, User: user})
	}
	return nil
}

func parseDevice(s string) (policy.Device, error) {
	name, rest, ok := strings.Cut(s, "=")
	parts := strings.Split(rest, ",")
	if !ok || len(parts) != 3 {
		return policy.Device{}, cli.Usagef("--device %q is not NAME=GATEWAY,ADDRESS,PORTS", s)
	}
	d := policy.Device{Addr: parts[1], Gateway: parts[0], Name: name}
	for r := range strings.SplitSeq(parts[2], "+") {
		first, last, isRange := strings.Cut(r, "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.Atoi(first)
		b, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil {
			return d, cli.Usagef("--device %q: %q is no port or range", s, r)
		}
		d.Ports = append(d.Ports, policy.Ports{First: a, Last: b})
	}
	return d, nil
}

func newPolicySign() *cobra.Command {
	var key, out string
	var fd int
	c := &cobra.Command{
		Use:   "sign FILE --key FILE.key --out FILE [--passphrase-fd N]",
		Short: "Sign a policy with the account's policy key",
		Long: `Sign a policy with the account's policy key and show what it permits.

Exit codes: 0 signed; 12 wrong passphrase; 13 key of another account or world; 14
the policy is not valid; 16 the output exists.`,
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if key == "" || out == "" {
				return cli.Usagef("--key and --out are needed")
			}
			payload, err := intake.Read(args[0], policy.MaxBytes)
			if err != nil {
				return err
			}
			file, err := intake.Read(key, maxAnchorBytes)
			if err != nil {
				return err
			}
			pass, err := cli.NewSecrets(cli.Std(), fd).Next("passphrase of the policy key")
			if err != nil {
				return err
			}
			defer pass.Zero()
			signed, p, err := client.SignPolicy(payload, file, pass.Bytes())
			if err != nil {
				return err
			}
			if err := durable.WriteNew(out, signed, 0o644); err != nil {
				return err
			}
			return cli.Print(c, map[string]any{"schema": "keyrite/connect-policy-sign/v1", "account": p.Account, "version": p.Version, "rules": p.Rules, "out": out}, func(w io.Writer) {
				fmt.Fprintf(w, "signed version %d of account %s, until %s\n", p.Version, p.Account, p.NotAfter)
				for _, r := range p.Rules {
					fmt.Fprintf(w, "  %s may reach %s\n", r.User, r.Device)
				}
			})
		},
	}
	c.Flags().StringVar(&key, "key", "", "policy key file (required)")
	c.Flags().StringVar(&out, "out", "", "file to write (required)")
	c.Flags().IntVar(&fd, "passphrase-fd", -1, "read the passphrase from this descriptor instead of the terminal")
	return c
}
