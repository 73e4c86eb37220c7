package charter_test

import (
	"errors"
	"fmt"
	"testing"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

func kvPolicy(id string, version int) charter.Policy {
	return charter.Policy{ID: id, Version: version, Rules: []access.Rule{{Path: "kv/data/line1/*", Can: []access.Capability{access.Read}}}}
}

func unixIdentity(id string, uid int) charter.Identity {
	return charter.Identity{ID: id, Policies: []string{"reader"}, TTL: 600, Unix: &charter.Unix{UID: uid}}
}

// withAccess is a vault with an engine, a policy and an identity.
func withAccess(t testing.TB) *vault {
	t.Helper()
	v := newVault(t)
	v.decide(charter.TypeMount, charter.Mount{Engine: "kv", ID: "kv"})
	v.decide(charter.TypePolicy, kvPolicy("reader", 1))
	v.decide(charter.TypeIdentity, unixIdentity("mes", 1000))
	return v
}

func TestAccessFollowsTheCharter(t *testing.T) {
	v := withAccess(t)
	p, err := access.ParsePath("kv/data/line1/plc")
	if err != nil {
		t.Fatal(err)
	}
	decide := func(id string, c access.Capability) error {
		rules, err := v.refold().Rules(id)
		if err != nil {
			return err
		}
		return rules.Decide(p, c)
	}
	if err := decide("mes", access.Read); err != nil {
		t.Error(err)
	}
	for _, id := range []string{"", "Mes", "mes2", "reader"} {
		if err := decide(id, access.Read); fault.ClassOf(err) != fault.Policy {
			t.Errorf("%q reads: %v", id, err)
		}
	}
	next := kvPolicy("reader", 2)
	next.Rules[0].Can = []access.Capability{access.List}
	v.decide(charter.TypePolicy, next)
	if decide("mes", access.Read) == nil || decide("mes", access.List) != nil {
		t.Error("the policy's second version does not count")
	}
	v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "mes", Type: charter.TypeIdentity})
	if err := decide("mes", access.List); !errors.Is(err, charter.ErrUnknown) {
		t.Errorf("an identity that was ended: %v", err)
	}
	if err := v.propose(charter.TypeIdentity, unixIdentity("mes", 1000)); err == nil {
		t.Error("its id is given again")
	}
	v.decide(charter.TypeIdentity, unixIdentity("mes2", 1000))
}

func TestEndingNeedsNobodyToDepend(t *testing.T) {
	v := withAccess(t)
	end := func(typ, id string) charter.AccessEnded { return charter.AccessEnded{ID: id, Type: typ} }
	for _, e := range []charter.AccessEnded{
		end(charter.TypePolicy, "reader"), end(charter.TypeMount, "kv"), end(charter.TypeIdentity, "nobody"),
		end(charter.TypeKey, "firmware"), end("", "kv"),
		{},
		end("pipeline", "pipeline1"),
	} {
		if err := v.propose(charter.TypeAccessEnded, e); fault.ClassOf(err) != fault.Verify {
			t.Errorf("end %s %s: %v", e.Type, e.ID, err)
		}
	}
	v.decide(charter.TypeAccessEnded, end(charter.TypeIdentity, "mes"))
	v.decide(charter.TypeAccessEnded, end(charter.TypePolicy, "reader"))
	v.decide(charter.TypeAccessEnded, end(charter.TypeMount, "kv"))
	if err := v.propose(charter.TypeMount, charter.Mount{Engine: "kv", ID: "kv"}); err == nil {
		t.Error("a mount comes back under its old id")
	}
	if err := v.propose(charter.TypePolicy, kvPolicy("reader", 1)); err == nil {
		t.Error("a policy comes back under its old id")
	}
}

func TestAccessThatFailsClosed(t *testing.T) {
	v := withAccess(t)
	ca := v.SelfSigned("relay-ca")
	spki := v.SPKI("pipeline1")
	identity := func(f func(*charter.Identity)) charter.Identity {
		x := unixIdentity("x", 1001)
		f(&x)
		return x
	}
	job := func(f func(*charter.JWT)) charter.Identity {
		j := &charter.JWT{Audience: "keyrite", Claims: map[string]string{"ref": "refs/heads/main"}, Issuer: "https://ci.example.com", Keys: []charter.JWTKey{{ID: "1", Key: spki}}, Subject: "repo:plant"}
		f(j)
		return charter.Identity{ID: "x", Policies: []string{"reader"}, TTL: 60, JWT: j}
	}
	cert := func(uri string, ca []byte) charter.Identity {
		return charter.Identity{ID: "x", Policies: []string{"reader"}, TTL: 60, Certificate: &charter.Certificate{CA: ca, URI: uri}}
	}
	role := func(networks ...string) charter.Identity {
		return charter.Identity{ID: "x", Policies: []string{"reader"}, TTL: 60, AppRole: &charter.AppRole{Networks: networks}}
	}
	rules := func(f func(*charter.Policy)) charter.Policy {
		p := kvPolicy("p", 1)
		f(&p)
		return p
	}
	for name, c := range map[string]struct {
		typ  string
		body any
	}{
		"mount without engine":     {charter.TypeMount, charter.Mount{ID: "x"}},
		"mount of another engine":  {charter.TypeMount, charter.Mount{ID: "x", Engine: "ssh"}},
		"mount at sys":             {charter.TypeMount, charter.Mount{ID: "sys", Engine: "kv"}},
		"mount at auth":            {charter.TypeMount, charter.Mount{ID: "auth", Engine: "kv"}},
		"mount at a path":          {charter.TypeMount, charter.Mount{ID: "a/b", Engine: "kv"}},
		"mount twice":              {charter.TypeMount, charter.Mount{ID: "kv", Engine: "kv"}},
		"policy without rules":     {charter.TypePolicy, rules(func(p *charter.Policy) { p.Rules = nil })},
		"policy without engine":    {charter.TypePolicy, rules(func(p *charter.Policy) { p.Rules[0].Path = "other/data/*" })},
		"policy on everything":     {charter.TypePolicy, rules(func(p *charter.Policy) { p.Rules[0].Path = "*" })},
		"policy version 0":         {charter.TypePolicy, rules(func(p *charter.Policy) { p.Version = 0 })},
		"policy version 2 first":   {charter.TypePolicy, rules(func(p *charter.Policy) { p.Version = 2 })},
		"policy version again":     {charter.TypePolicy, kvPolicy("reader", 1)},
		"policy version left out":  {charter.TypePolicy, kvPolicy("reader", 3)},
		"too many rules":           {charter.TypePolicy, rules(func(p *charter.Policy) { p.Rules = make([]access.Rule, charter.MaxRules+1) })},
		"no proof":                 {charter.TypeIdentity, identity(func(x *charter.Identity) { x.Unix = nil })},
		"two proofs":               {charter.TypeIdentity, identity(func(x *charter.Identity) { x.AppRole = &charter.AppRole{Networks: []string{"10.0.0.0/8"}} })},
		"root":                     {charter.TypeIdentity, identity(func(x *charter.Identity) { x.Unix.UID = 0 })},
		"no policies":              {charter.TypeIdentity, identity(func(x *charter.Identity) { x.Policies = nil })},
		"empty policy":             {charter.TypeIdentity, identity(func(x *charter.Identity) { x.Policies = []string{""} })},
		"unknown policy":           {charter.TypeIdentity, identity(func(x *charter.Identity) { x.Policies = []string{"root"} })},
		"policy twice":             {charter.TypeIdentity, identity(func(x *charter.Identity) { x.Policies = []string{"reader", "reader"} })},
		"no life":                  {charter.TypeIdentity, identity(func(x *charter.Identity) { x.TTL = 0 })},
		"too long a life":          {charter.TypeIdentity, identity(func(x *charter.Identity) { x.TTL = charter.MaxTTL + 1 })},
		"the same user":            {charter.TypeIdentity, identity(func(x *charter.Identity) { x.Unix.UID = 1000 })},
		"job without issuer":       {charter.TypeIdentity, job(func(j *charter.JWT) { j.Issuer = "" })},
		"job without audience":     {charter.TypeIdentity, job(func(j *charter.JWT) { j.Audience = "" })},
		"job without subject":      {charter.TypeIdentity, job(func(j *charter.JWT) { j.Subject = "" })},
		"job without keys":         {charter.TypeIdentity, job(func(j *charter.JWT) { j.Keys = nil })},
		"job with a key twice":     {charter.TypeIdentity, job(func(j *charter.JWT) { j.Keys = append(j.Keys, j.Keys[0]) })},
		"job with a bad key":       {charter.TypeIdentity, job(func(j *charter.JWT) { j.Keys[0].Key = []byte{1} })},
		"job with an empty claim":  {charter.TypeIdentity, job(func(j *charter.JWT) { j.Claims["ref"] = "" })},
		"job with exp as a claim":  {charter.TypeIdentity, job(func(j *charter.JWT) { j.Claims["exp"] = "1" })},
		"job without claims":       {charter.TypeIdentity, job(func(j *charter.JWT) { j.Claims = nil })},
		"client of no CA":          {charter.TypeIdentity, cert("spiffe://example.com/mes", []byte{1})},
		"client by path":           {charter.TypeIdentity, cert("/mes", ca)},
		"client by odd spelling":   {charter.TypeIdentity, cert("spiffe://example.com/m%65s%zz", ca)},
		"client without host":      {charter.TypeIdentity, cert("spiffe:///mes", ca)},
		"role from nowhere":        {charter.TypeIdentity, role()},
		"role from everywhere":     {charter.TypeIdentity, role("0.0.0.0/0")},
		"role from all of IPv6":    {charter.TypeIdentity, role("::/0")},
		"role from half of all":    {charter.TypeIdentity, role("0.0.0.0/1", "128.0.0.0/1")},
		"role from much of IPv6":   {charter.TypeIdentity, role("2000::/3")},
		"role from an odd network": {charter.TypeIdentity, role("10.0.0.1/8")},
		"role from an address":     {charter.TypeIdentity, role("10.0.0.1")},
		"role, networks unsorted":  {charter.TypeIdentity, role("192.168.0.0/16", "10.0.0.0/8")},
	} {
		if err := v.propose(c.typ, c.body); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Beside each of them the whole one holds.
	for i, good := range []charter.Identity{
		job(func(*charter.JWT) {}), cert("spiffe://example.com/mes", ca), role("10.0.0.0/8", "192.168.0.0/16"), identity(func(*charter.Identity) {}),
	} {
		good.ID = fmt.Sprintf("good%d", i)
		v.decide(charter.TypeIdentity, good)
		good.ID += "again"
		if err := v.propose(charter.TypeIdentity, good); good.AppRole == nil && fault.ClassOf(err) != fault.Verify {
			t.Errorf("the same process under two names (%d): %v", i, err)
		}
	}
}

// decide and propose are must and try with both approvers' signatures.
func (v *vault) decide(typ string, body any) {
	v.t.Helper()
	v.must(typ, body, "approver1", "approver2")
}

func (v *vault) propose(typ string, body any) error {
	return v.try(typ, body, "approver1", "approver2")
}
