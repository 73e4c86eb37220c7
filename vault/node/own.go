package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/trail"
	"keyrite/vault/engine"
	"keyrite/vault/seal"
)

// ownFirst says whether paths that begin so are the vault's own. The charter mounts
// nothing there.
func ownFirst(segment string) bool {
	switch segment {
	case "auth", "cubbyhole", "identity", "keyrite", "sys":
		return true
	}
	return false
}

// route is one of the vault's own paths.
type route struct {
	method engine.Method
	path   string // "+" is any one segment, "*" at the end one or more
	needs  access.Capability
	free   bool // any known caller may: it is about the caller alone
	// do makes the plan; rest is what "+" and "*" stand for.
	do func(x *call, rest []string) error
}

// routes are the vault's own paths, but for those that need no caller: see vault/api.
func routes() []route {
	const r, l, w = engine.Read, engine.List, engine.Write
	return slices.Concat(leaseRoutes(), proposalRoutes(), []route{
		{r, "sys/mounts", access.Read, false, (*call).mounts},
		{r, "sys/auth", access.Read, false, (*call).auths},
		{r, "sys/audit", access.Read, false, (*call).audits},
		{r, "sys/internal/ui/mounts", access.Read, true, (*call).uiMounts},
		{r, "sys/internal/ui/mounts/*", access.Read, true, (*call).uiMount},
		{w, "sys/capabilities-self", access.Update, true, (*call).capabilities},
		{r, "sys/policies/acl", access.List, false, (*call).policies},
		{l, "sys/policies/acl", access.List, false, (*call).policies},
		{r, "sys/policies/acl/+", access.Read, false, (*call).policy},
		{r, "sys/metrics", access.Read, false, (*call).metrics},
		{w, "sys/seal", access.Update, false, (*call).sealVault},
		{r, "auth/token/lookup-self", access.Read, true, self("lookup-self")},
		{w, "auth/token/renew-self", access.Update, true, self("renew-self")},
		{w, "auth/token/revoke-self", access.Update, true, self("revoke-self")},
		{r, "keyrite/status", access.Read, false, (*call).status},
		{r, "keyrite/trail", access.Read, false, (*call).searchTrail},
		{r, trail.CharterPath, access.Read, false, (*call).readCharter},
		{w, trail.CharterPath, access.Update, false, (*call).appendCharter},
		{r, "keyrite/due", access.Read, false, (*call).due},
		{r, "keyrite/shares", access.Read, false, (*call).shares},
		{w, "keyrite/shares", access.Update, false, (*call).takeProof},
		{r, "keyrite/shares/challenges", access.Read, false, (*call).challenges},
		{w, "keyrite/shares/challenges", access.Update, false, (*call).challenge},
	})
}

// Paths are the vault's own paths with their methods, in the form of the charter's
// patterns, for whoever documents them.
func Paths() map[string][]engine.Method {
	out := map[string][]engine.Method{}
	for _, r := range routes() {
		out[r.path] = append(out[r.path], r.method)
	}
	return out
}

// match says whether segments are those of the route's path, and what its wildcards
// stand for.
func (r *route) match(segments []string) (rest []string, ok bool) {
	want := strings.Split(r.path, "/")
	for i, w := range want {
		switch {
		case i >= len(segments):
			return nil, false
		case w == "*":
			return append(rest, segments[i:]...), true
		case w == "+":
			rest = append(rest, segments[i])
		case w != segments[i]:
			return nil, false
		}
	}
	return rest, len(want) == len(segments)
}

// own plans a call to one of the vault's own paths.
func (x *call) own(segments []string) error {
	for _, r := range routes() {
		if r.method != x.Method {
			continue
		}
		if rest, ok := r.match(segments); ok {
			x.free = r.free
			x.plan = &engine.Plan{}
			if err := r.do(x, rest); err != nil {
				return err
			}
			if x.plan.Needs == "" {
				x.plan.Needs = r.needs
			}
			return nil
		}
	}
	if segments[0] == "sys" && len(segments) > 1 && segments[1] == "wrapping" {
		return fault.Hint(fault.Errorf(fault.Policy, "%w: nothing is wrapped here", access.ErrDenied), "give the process an identity of its own and let it ask itself")
	}
	if x.Method != engine.Read && x.Method != engine.List {
		if what := configures(segments); what != "" {
			if x.Method == engine.Delete {
				what = charter.TypeAccessEnded
			}
			return ByCharter(what)
		}
	}
	return engine.ErrNoPath
}

// ByCharter is the answer to a call that would configure the vault: what is the type of
// statement that does it.
func ByCharter(what string) error {
	return fault.Hint(engine.ErrByCharter, fmt.Sprintf("keyrite charter propose %s --body FILE.json --charter charter.jsonl --anchor anchors.json --out FILE.proposal", what))
}

// configures says which statement of the charter does what a client wants to do by
// changing one of these paths; "" for paths that do not exist.
func configures(s []string) string {
	if len(s) < 2 {
		return ""
	}
	switch s[0] {
	case "auth":
		return charter.TypeIdentity
	case "identity":
		return charter.TypeIdentity
	case "sys":
		switch s[1] {
		case "audit":
			return charter.TypeAuditSink
		case "mounts", "remount":
			return charter.TypeMount
		case "auth":
			return charter.TypeIdentity
		case "policies", "policy":
			if len(s) > 2 && s[2] == "password" {
				return charter.TypePasswordPolicy
			}
			return charter.TypePolicy
		}
	}
	return ""
}

// tell makes the plan of a call that reads nothing but the charter.
func (x *call) tell(data any) {
	x.plan.Apply = func(*seal.Tx) (*engine.Answer, error) { return &engine.Answer{Data: data}, nil }
}

func self(op string) func(*call, []string) error {
	return func(x *call, _ []string) (err error) {
		x.plan, err = x.ident.Self(x.caller, op, x.Params)
		return err
	}
}

// mounted is how clients see an engine.
func mounted(engineType string) map[string]any {
	m := map[string]any{
		"type": engineType, "description": "", "local": false, "seal_wrap": true, "external_entropy_access": false,
		"options": map[string]string{}, "config": map[string]any{"default_lease_ttl": 0, "max_lease_ttl": 0, "force_no_cache": false},
	}
	if engineType == "kv" {
		m["options"] = map[string]string{"version": "2"}
	}
	return m
}

func (x *call) mounts([]string) error {
	if err := x.Params.Only(); err != nil {
		return err
	}
	out := map[string]any{}
	for id, m := range x.force.charter.Access.Mounts {
		out[id+"/"] = withAccessor(mounted(m.Engine), m.Engine, id)
	}
	out["sys/"] = withAccessor(mounted("system"), "system", "sys")
	x.tell(out)
	return nil
}

func withAccessor(m map[string]any, kind, id string) map[string]any {
	m["accessor"] = kind + "_" + id
	return m
}

// means are the ways of logging in.
func means() []string { return []string{"approle", "cert", "jwt", "token", "unix"} }

func (x *call) auths([]string) error {
	if err := x.Params.Only(); err != nil {
		return err
	}
	out := map[string]any{}
	for _, m := range means() {
		out[m+"/"] = withAccessor(mounted(m), "auth", m)
	}
	x.tell(out)
	return nil
}

// audits tells of the one trail that there is, which nobody can turn off.
func (x *call) audits([]string) error {
	x.tell(map[string]any{"store/": map[string]any{"type": "store", "path": "store/", "description": "the log of the store", "local": false, "options": map[string]string{}}})
	return x.Params.Only()
}

// seesMount says whether any rule of the caller is about a mount.
func (x *call) seesMount(id string) bool {
	rules, err := x.force.charter.Rules(x.caller.Identity)
	return err == nil && rules.Gives(id)
}

func (x *call) uiMounts([]string) error {
	secret := map[string]any{}
	for id, m := range x.force.charter.Access.Mounts {
		if x.seesMount(id) {
			secret[id+"/"] = mounted(m.Engine)
		}
	}
	x.tell(map[string]any{"auth": map[string]any{}, "secret": secret})
	return x.Params.Only()
}

// uiMount is what the commands of other projects ask before each use of a kv engine.
func (x *call) uiMount(rest []string) error {
	m, ok := x.force.charter.Access.Mounts[rest[0]]
	if !ok || !x.seesMount(rest[0]) {
		return fault.Errorf(fault.Policy, "%w: no rule is about %q, or nothing is mounted there", access.ErrDenied, rest[0])
	}
	out := withAccessor(mounted(m.Engine), m.Engine, m.ID)
	out["path"] = m.ID + "/"
	x.tell(out)
	return x.Params.Only()
}

// capabilities says what the caller may on each of the paths.
func (x *call) capabilities([]string) error {
	if err := x.Params.Only("paths", "path"); err != nil {
		return err
	}
	var list []string
	for _, name := range []string{"paths", "path"} {
		if x.Params.Has(name) && list == nil {
			if err := x.Params.Into(name, &list); err != nil {
				one, err := x.Params.String(name)
				if err != nil {
					return err
				}
				list = []string{one}
			}
		}
	}
	if len(list) == 0 || len(list) > access.MaxSegments {
		return fault.Errorf(fault.Usage, "1 to %d paths are needed", access.MaxSegments)
	}
	rules, err := x.force.charter.Rules(x.caller.Identity)
	if err != nil {
		return err
	}
	out := map[string]any{}
	for _, raw := range list {
		p, err := access.ParsePath(raw)
		if err != nil {
			return err
		}
		can := may(rules, p)
		out[raw] = can
		if len(list) == 1 {
			out["capabilities"] = can
		}
	}
	x.tell(out)
	return nil
}

// may lists what rules give on a path; deny if nothing.
func may(rules access.Rules, p access.Path) []access.Capability {
	var can []access.Capability
	for _, c := range []access.Capability{access.Create, access.Delete, access.List, access.Read, access.Update} {
		if rules.Decide(p, c) == nil {
			can = append(can, c)
		}
	}
	if can == nil {
		can = []access.Capability{access.Deny}
	}
	return can
}

func (x *call) policies([]string) error {
	names := slices.Sorted(maps.Keys(x.force.charter.Access.Policies))
	x.tell(map[string]any{"keys": names, "policies": names})
	return x.Params.Only("list")
}

func (x *call) policy(rest []string) error {
	p, ok := x.force.charter.Access.Policies[rest[0]]
	if !ok {
		return fault.Errorf(fault.Policy, "%w: policy %q", engine.ErrNotThere, rest[0])
	}
	x.tell(map[string]any{"name": p.ID, "policy": policyText(&p), "rules": p.Rules, "version": p.Version})
	return x.Params.Only()
}

// policyText is a policy in the form that clients show.
func policyText(p *charter.Policy) string {
	var b strings.Builder
	for _, r := range p.Rules {
		var can []string
		for _, c := range r.Can {
			can = append(can, fmt.Sprintf("%q", c))
		}
		fmt.Fprintf(&b, "path %q {\n  capabilities = [%s]\n}\n", r.Path, strings.Join(can, ", "))
	}
	return b.String()
}

// metrics is what the front counted.
func (x *call) metrics([]string) (err error) {
	if x.cfg.Metrics == nil {
		return engine.ErrNoPath
	}
	x.plan, err = x.cfg.Metrics(x.Params)
	return err
}

// sealVault plans the sealing: its entry is written first, then Do seals.
func (x *call) sealVault([]string) error {
	x.sealing = true
	x.plan.Strict = true
	x.plan.Apply = func(*seal.Tx) (*engine.Answer, error) { return &engine.Answer{}, nil }
	return x.Params.Only()
}
