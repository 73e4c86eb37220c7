package policy

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/world"
)

const (
	testWorld = world.World("rehearsal:0123456789ab")
	vectorDir = "../../testdata/vectors/policy"
	keyFile   = "../../testdata/keys/policy.pem"
)

var update = flag.Bool("update", false, "write the vectors anew")

func now() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

func hash(c string) string { return strings.Repeat(c, 64) }

func good() *Policy {
	return &Policy{
		Account: "acme", Format: Format, NotAfter: "2027-11-22T00:00:00Z", NotBefore: "2026-11-22T00:00:00Z", Version: 3, World: testWorld,
		Users:    []User{{Keys: []string{hash("a"), hash("b")}, Name: "ann"}, {Keys: []string{hash("c")}, Name: "bob"}},
		Gateways: []Gateway{{ID: "press-7", SPKI: hash("1")}, {ID: "press-8", SPKI: hash("2")}},
		Devices: []Device{
			{Addr: "192.168.10.2", Gateway: "press-7", Name: "hmi", Ports: []Ports{{80, 80}, {443, 443}}},
			{Addr: "192.168.10.3", Gateway: "press-7", Name: "plc", Ports: []Ports{{102, 102}}},
			{Addr: "192.168.10.2", Gateway: "press-8", Name: "plc-8", Ports: []Ports{{5000, 5010}}},
		},
		Rules: []Rule{{"hmi", "ann"}, {"plc-8", "ann"}, {"plc", "bob"}},
	}
}

func signer(t testing.TB) crypto.Signer {
	t.Helper()
	b, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b[bytes.Index(b, []byte("-----BEGIN")):])
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return k.(crypto.Signer)
}

func flow(change func(*Flow)) Flow {
	f := Flow{User: "ann", Key: hash("a"), Gateway: "press-7", Addr: netip.MustParseAddr("192.168.10.2"), Port: 80}
	change(&f)
	return f
}

func TestDecide(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Flow)
		at     time.Time
		ok     bool
	}{
		"permitted":                          {func(f *Flow) {}, now(), true},
		"second key":                         {func(f *Flow) { f.Key = hash("b") }, now(), true},
		"second port":                        {func(f *Flow) { f.Port = 443 }, now(), true},
		"first of a range":                   {func(f *Flow) { f.Gateway, f.Port = "press-8", 5000 }, now(), true},
		"last of a range":                    {func(f *Flow) { f.Gateway, f.Port = "press-8", 5010 }, now(), true},
		"past a range":                       {func(f *Flow) { f.Gateway, f.Port = "press-8", 5011 }, now(), false},
		"before a range":                     {func(f *Flow) { f.Gateway, f.Port = "press-8", 4999 }, now(), false},
		"other port":                         {func(f *Flow) { f.Port = 22 }, now(), false},
		"port that wraps in 16 bits":         {func(f *Flow) { f.Port = 65536 + 80 }, now(), false},
		"negative port":                      {func(f *Flow) { f.Port = -1 }, now(), false},
		"other device of the gateway":        {func(f *Flow) { f.Addr, f.Port = netip.MustParseAddr("192.168.10.3"), 102 }, now(), false},
		"port of another gateway's device":   {func(f *Flow) { f.Port = 5000 }, now(), false},
		"unknown address":                    {func(f *Flow) { f.Addr = netip.MustParseAddr("192.168.10.4") }, now(), false},
		"IPv4-mapped spelling":               {func(f *Flow) { f.Addr = netip.MustParseAddr("::ffff:192.168.10.2") }, now(), false},
		"zero address":                       {func(f *Flow) { f.Addr = netip.Addr{} }, now(), false},
		"another user's key":                 {func(f *Flow) { f.Key = hash("c") }, now(), false},
		"no key":                             {func(f *Flow) { f.Key = "" }, now(), false},
		"unknown user":                       {func(f *Flow) { f.User = "eve" }, now(), false},
		"no user":                            {func(f *Flow) { f.User = "" }, now(), false},
		"user without a rule for the device": {func(f *Flow) { f.User, f.Key = "bob", hash("c") }, now(), false},
		"unknown gateway":                    {func(f *Flow) { f.Gateway = "press-9" }, now(), false},
		"at the start":                       {func(f *Flow) {}, time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), true},
		"before the start":                   {func(f *Flow) {}, time.Date(2026, 11, 21, 23, 59, 59, 0, time.UTC), false},
		"at the end":                         {func(f *Flow) {}, time.Date(2027, 11, 22, 0, 0, 0, 0, time.UTC), false},
	} {
		err := Decide(good(), flow(c.change), c.at)
		if c.ok != (err == nil) || err != nil && fault.ClassOf(err) != fault.Policy {
			t.Errorf("%s: %v", name, err)
		}
	}
	if Decide(nil, flow(func(*Flow) {}), now()) == nil {
		t.Error("no policy permitted a flow")
	}
	empty := good()
	empty.Rules = []Rule{}
	if err := empty.Check(); err != nil {
		t.Error("a policy that permits nothing is refused:", err)
	}
	if Decide(empty, flow(func(*Flow) {}), now()) == nil {
		t.Error("a policy without rules permitted a flow")
	}
}

// Every (user, key, gateway, address, port) of a small world is compared with an
// independent reading of the rules.
func TestDecideAgainstModel(t *testing.T) {
	p := good()
	model := map[string]bool{}
	for _, k := range []string{"a", "b"} {
		model["ann "+k+" press-7 192.168.10.2 80"] = true
		model["ann "+k+" press-7 192.168.10.2 443"] = true
		model["ann "+k+" press-8 192.168.10.2 5000"] = true
	}
	model["bob c press-7 192.168.10.3 102"] = true
	for _, u := range []string{"ann", "bob", "eve", ""} {
		for _, k := range []string{"a", "b", "c", "d"} {
			for _, g := range []string{"press-7", "press-8", "press-9", ""} {
				for _, a := range []string{"192.168.10.2", "192.168.10.3", "10.0.0.1"} {
					for _, port := range []int{0, 80, 102, 443, 5000, 65535} {
						err := Decide(p, Flow{u, hash(k), g, netip.MustParseAddr(a), port}, now())
						if q := fmt.Sprintf("%s %s %s %s %d", u, k, g, a, port); model[q] != (err == nil) {
							t.Errorf("%s: %v", q, err)
						}
					}
				}
			}
		}
	}
}

func TestSees(t *testing.T) {
	p := good()
	for _, c := range []struct {
		user, key, gateway string
		want               bool
	}{{"ann", "a", "press-7", true}, {"ann", "c", "press-7", false}, {"bob", "c", "press-8", false}, {"bob", "c", "press-7", true}, {"eve", "a", "press-7", false}, {"ann", "a", "", false}} {
		if got := p.Sees(c.user, hash(c.key), c.gateway, now()); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
	if p.Sees("ann", hash("a"), "press-7", now().AddDate(5, 0, 0)) {
		t.Error("an expired policy shows gateways")
	}
}

func TestCheckNewer(t *testing.T) {
	p := good()
	h, err := p.Hash()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		version int64
		hash    string
		ok      bool
	}{{0, "", true}, {2, hash("0"), true}, {3, h, true}, {3, hash("0"), false}, {4, h, false}} {
		if err := p.CheckNewer(c.version, c.hash); c.ok != (err == nil) || err != nil && fault.ClassOf(err) != fault.Policy {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestSignRefusesWhatVerifyWould(t *testing.T) {
	p := good()
	p.Users[0].Keys = nil
	if _, err := Sign(p, signer(t)); err == nil {
		t.Error("signed a user without keys")
	}
	p = good()
	p.Rules[0], p.Rules[2] = p.Rules[2], p.Rules[0]
	if p.Check() == nil {
		t.Error("unsorted rules taken")
	}
	p.Sort()
	if err := p.Check(); err != nil {
		t.Error(err)
	}
	wrong, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(good(), wrong); err == nil {
		t.Error("signed with P-384")
	}
}

type vector struct {
	name, comment, expect string
	change                func(*Policy)
}

// Changes that a policy key could sign and that no reader may take.
func hostile() []vector {
	return []vector{
		{"valid", "two users, two gateways, three devices", "ok", func(p *Policy) {}},
		{"no-rules", "permits nothing, which is legal", "ok", func(p *Policy) { p.Rules = []Rule{} }},
		{"other-world", "the live world", "policy", func(p *Policy) { p.World = world.Live }},
		{"other-account", "another account with the same key", "policy", func(p *Policy) { p.Account = "globex" }},
		{"user-without-keys", "an empty selector must not mean any key", "verify", func(p *Policy) { p.Users[0].Keys = []string{} }},
		{"user-null-keys", "null must not mean any key", "verify", func(p *Policy) { p.Users[0].Keys = nil }},
		{"user-empty-name", "an empty name must not mean any user", "verify", func(p *Policy) { p.Users[0].Name = "" }},
		{"rule-empty-device", "an empty name must not mean any device", "verify", func(p *Policy) { p.Rules[0].Device = "" }},
		{"rule-empty-user", "an empty name must not mean any user", "verify", func(p *Policy) { p.Rules[0].User = "" }},
		{"rule-star", "a star is no name", "verify", func(p *Policy) { p.Rules[0].User = "*" }},
		{"rule-unknown-user", "rule for a user that does not exist", "verify", func(p *Policy) { p.Rules[0].User = "abe" }},
		{"rule-repeated", "the same rule twice", "verify", func(p *Policy) { p.Rules[1] = p.Rules[0] }},
		{"rules-null", "a missing list", "verify", func(p *Policy) { p.Rules = nil }},
		{"device-no-ports", "no port list must not mean all ports", "verify", func(p *Policy) { p.Devices[0].Ports = []Ports{} }},
		{"device-port-0", "port 0", "verify", func(p *Policy) { p.Devices[0].Ports[0].First = 0 }},
		{"device-port-high", "port 65536", "verify", func(p *Policy) { p.Devices[0].Ports[1].Last = 65536 }},
		{"device-ports-overlap", "overlapping ranges", "verify", func(p *Policy) { p.Devices[0].Ports[0].Last = 443 }},
		{"device-ports-reversed", "a range that ends before it starts", "verify", func(p *Policy) { p.Devices[0].Ports[1].Last = 442 }},
		{"device-loopback", "the gateway's loopback as equipment", "verify", func(p *Policy) { p.Devices[0].Addr = "127.0.0.1" }},
		{"device-metadata", "a link-local address", "verify", func(p *Policy) { p.Devices[0].Addr = "169.254.169.254" }},
		{"device-any-address", "no address must not mean any", "verify", func(p *Policy) { p.Devices[0].Addr = "" }},
		{"device-prefix", "a network is no host", "verify", func(p *Policy) { p.Devices[0].Addr = "192.168.10.0/24" }},
		{"device-unknown-gateway", "a device behind no gateway of the policy", "verify", func(p *Policy) { p.Devices[0].Gateway = "press-9" }},
		{"gateway-same-key", "one birth key for two gateways", "verify", func(p *Policy) { p.Gateways[1].SPKI = p.Gateways[0].SPKI }},
		{"key-of-two-users", "one client key for two users", "verify", func(p *Policy) { p.Users[1].Keys[0] = hash("a") }},
		{"key-upper-case", "a thumbprint in upper case", "verify", func(p *Policy) { p.Users[0].Keys[0] = hash("A") }},
		{"version-0", "version 0", "verify", func(p *Policy) { p.Version = 0 }},
		{"version-high", "a version that a JSON number cannot hold exactly", "verify", func(p *Policy) { p.Version = 1 << 53 }},
		{"never-in-force", "ends as it starts", "verify", func(p *Policy) { p.NotAfter = p.NotBefore }},
		{"for-ever", "longer than 400 days", "verify", func(p *Policy) { p.NotAfter = "2036-11-22T00:00:00Z" }},
		{"time-offset", "a time with an offset", "verify", func(p *Policy) { p.NotBefore = "2026-11-22T00:00:00+00:00" }},
		{"format", "another format", "verify", func(p *Policy) { p.Format = "keyrite/policy/v2" }},
	}
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	files, err := filepath.Glob(vectorDir + "/*.txt")
	if err != nil || len(files) < len(hostile()) {
		t.Fatal("vectors are missing", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		head, body, _ := bytes.Cut(b, []byte("\n\n"))
		_, want, _ := strings.Cut(string(head), "expect: ")
		got := "ok"
		if _, err = Verify(bytes.TrimSuffix(body, []byte("\n")), signer(t).Public(), testWorld, "acme"); err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != want {
			t.Errorf("%s: got %s (%v), want %s", filepath.Base(f), got, err, want)
		}
	}
}

// writeVectors signs each change as it is, past Sign's own check.
func writeVectors(t *testing.T) {
	k := signer(t)
	put := func(name, comment, expect string, body []byte) {
		text := fmt.Sprintf("comment: %s\nexpect: %s\n\n%s\n", comment, expect, body)
		if err := os.WriteFile(filepath.Join(vectorDir, name+".txt"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seal := func(typ string, payload []byte, by ...crypto.Signer) []byte {
		e, err := envelope.Sign(typ, payload, by...)
		if err != nil {
			t.Fatal(err)
		}
		b, err := e.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	plain, err := jcs.Marshal(good())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range hostile() {
		p := good()
		v.change(p)
		payload, err := jcs.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		put(v.name, v.comment, v.expect, seal(PayloadType, payload, k))
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	put("other-key", "signed by another key", "verify", seal(PayloadType, plain, other))
	put("two-signatures", "a second signature by an unknown key", "verify", seal(PayloadType, plain, k, other))
	put("payload-type", "signed as a charter statement", "verify", seal("application/vnd.keyrite.charter.v1+json", plain, k))
	put("unknown-member", "a member that version 1 does not have", "verify", seal(PayloadType, bytes.Replace(plain, []byte(`{"account"`), []byte(`{"a":1,"account"`), 1), k))
	put("duplicate-member", "the version twice", "verify", seal(PayloadType, bytes.Replace(plain, []byte(`"version":3`), []byte(`"version":3,"version":9`), 1), k))
	put("not-canonical", "white space in the payload", "verify", seal(PayloadType, append([]byte(" "), plain...), k))
	sealed := seal(PayloadType, plain, k)
	put("trailing", "a second value after the envelope", "verify", append(bytes.Clone(sealed), "{}"...))
	put("cut", "cut in half", "verify", sealed[:len(sealed)/2])
}

func FuzzVerify(f *testing.F) {
	files, err := filepath.Glob(vectorDir + "/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		_, body, _ := bytes.Cut(b, []byte("\n\n"))
		f.Add(bytes.TrimSuffix(body, []byte("\n")))
		if env, err := envelope.Parse(bytes.TrimSuffix(body, []byte("\n"))); err == nil {
			f.Add(env.Payload)
		}
	}
	pub := signer(f).Public()
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = Verify(b, pub, testWorld, "acme")
		p, err := Parse(b)
		if err != nil {
			return
		}
		again, err := jcs.Marshal(p)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q read as %q, %v", b, again, err)
		}
		if Decide(p, Flow{}, now()) == nil {
			t.Errorf("%q permits the empty flow", b)
		}
	})
}
