package charter_test

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
)

func plantRole(v *vault, f func(*charter.PKIRole)) charter.PKIRole {
	r := charter.PKIRole{
		DNS: []string{".line1.example.com", "mes.example.com"}, IPs: []string{"10.0.0.0/8"}, Issuer: v.Anchors.Certificates["relay-ca"], Key: "relay-ca",
		KeyTypes: []string{"ecdsa-p256"}, MaxLive: 10, MaxTTL: 3600, Mount: "pki", Name: "plant", URIs: []string{"spiffe://example.com/line1/"},
		Usages: []string{"client", "server"}, Version: 1,
	}
	f(&r)
	return r
}

func TestPKIRoleThatFailsClosed(t *testing.T) {
	v := newVault(t)
	v.decide(charter.TypeMount, charter.Mount{Engine: "kv", ID: "kv"})
	v.decide(charter.TypeMount, charter.Mount{Engine: "pki", ID: "pki"})
	v.decide(charter.TypeMount, charter.Mount{Engine: "pki", ID: "pki2"})
	v.decide(charter.TypePKIRole, plantRole(v, func(*charter.PKIRole) {}))
	v.decide(charter.TypePKIRole, plantRole(v, func(r *charter.PKIRole) { r.Name = "gone" }))
	v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "pki/gone", Type: charter.TypePKIRole})
	v.Later("relay-b", "x509", "")
	other := v.SelfSigned("birth-root")
	bad := map[string]func(*charter.PKIRole){
		"no mount":                 func(r *charter.PKIRole) { r.Mount = "" },
		"another engine":           func(r *charter.PKIRole) { r.Mount = "kv" },
		"no name":                  func(r *charter.PKIRole) { r.Name = "" },
		"a path":                   func(r *charter.PKIRole) { r.Name = "a/b" },
		"ended":                    func(r *charter.PKIRole) { r.Name = "gone" },
		"no version":               func(r *charter.PKIRole) { r.Version = 0 },
		"a version again":          func(r *charter.PKIRole) { r.Name, r.Version = "plant", 1 },
		"a version left out":       func(r *charter.PKIRole) { r.Version = 2 },
		"no end":                   func(r *charter.PKIRole) { r.MaxTTL = 0 },
		"31 days":                  func(r *charter.PKIRole) { r.MaxTTL = charter.MaxPKITTL + 1 },
		"no limit":                 func(r *charter.PKIRole) { r.MaxLive = 0 },
		"too many":                 func(r *charter.PKIRole) { r.MaxLive = charter.MaxPKILive + 1 },
		"no names":                 func(r *charter.PKIRole) { r.DNS, r.URIs, r.IPs = nil, nil, nil },
		"names unsorted":           func(r *charter.PKIRole) { slices.Reverse(r.DNS) },
		"a name twice":             func(r *charter.PKIRole) { r.DNS = []string{"a.b", "a.b"} },
		"every name":               func(r *charter.PKIRole) { r.DNS = []string{"."} },
		"every name of the world":  func(r *charter.PKIRole) { r.DNS = []string{".com"} },
		"a wildcard":               func(r *charter.PKIRole) { r.DNS = []string{"*.example.com"} },
		"capitals":                 func(r *charter.PKIRole) { r.DNS = []string{"MES.example.com"} },
		"an address as a name":     func(r *charter.PKIRole) { r.DNS = []string{"10.0.0.1"} },
		"a long name":              func(r *charter.PKIRole) { r.DNS = []string{strings.Repeat("a.", 127) + "a"} },
		"a URI of everything":      func(r *charter.PKIRole) { r.URIs = []string{"spiffe:///"} },
		"a path as a URI":          func(r *charter.PKIRole) { r.URIs = []string{"/line1/"} },
		"a URI with dots":          func(r *charter.PKIRole) { r.URIs = []string{"spiffe://example.com/../"} },
		"a URI with percent":       func(r *charter.PKIRole) { r.URIs = []string{"spiffe://example.com/%2e/"} },
		"all addresses":            func(r *charter.PKIRole) { r.IPs = []string{"0.0.0.0/0"} },
		"all of IPv6":              func(r *charter.PKIRole) { r.IPs = []string{"::/0"} },
		"IPv4 in IPv6":             func(r *charter.PKIRole) { r.IPs = []string{"::ffff:10.0.0.0/104"} },
		"an odd block":             func(r *charter.PKIRole) { r.IPs = []string{"10.0.0.1/8"} },
		"no types of keys":         func(r *charter.PKIRole) { r.KeyTypes = nil },
		"another type":             func(r *charter.PKIRole) { r.KeyTypes = []string{"rsa-2048"} },
		"no usages":                func(r *charter.PKIRole) { r.Usages = nil },
		"any usage":                func(r *charter.PKIRole) { r.Usages = []string{"any"} },
		"code signing":             func(r *charter.PKIRole) { r.Usages = []string{"client", "code-signing"} },
		"no issuer":                func(r *charter.PKIRole) { r.Issuer = nil },
		"a broken issuer":          func(r *charter.PKIRole) { r.Issuer = r.Issuer[:len(r.Issuer)-1] },
		"an issuer of another key": func(r *charter.PKIRole) { r.Mount, r.Issuer = "pki2", other },
		"no key":                   func(r *charter.PKIRole) { r.Key = "" },
		"a key of another domain":  func(r *charter.PKIRole) { r.Key = "firmware" },
		"another issuer":           func(r *charter.PKIRole) { r.Key, r.Issuer = "birth-root", other },
		"an issuer without":        func(r *charter.PKIRole) { r.Mount, r.Key = "pki2", "relay-b" },
		"a relay of no role":       func(r *charter.PKIRole) { r.Relay, r.Usages, r.URIs = "root", []string{"server"}, nil },
		"a relay that is a client": func(r *charter.PKIRole) { r.Relay, r.URIs = "vpn", nil },
		"a place of no URL":        func(r *charter.PKIRole) { r.CRL = "plant/crl" },
		"a place in LDAP":          func(r *charter.PKIRole) { r.CRL = "ldap://example.com/crl" },
		"a place in a file":        func(r *charter.PKIRole) { r.OCSP = "file:///etc/passwd" },
		"a place with a user":      func(r *charter.PKIRole) { r.OCSP = "http://a:b@example.com/ocsp" },
		"a place with a query":     func(r *charter.PKIRole) { r.CRL = "http://example.com/crl?x=y" },
		"a place with a fragment":  func(r *charter.PKIRole) { r.CRL = "http://example.com/crl#x" },
		"a place with dots":        func(r *charter.PKIRole) { r.CRL = "http://example.com/../crl" },
		"a place with percent":     func(r *charter.PKIRole) { r.CRL = "http://example.com/%2e/crl" },
		"a place in capitals":      func(r *charter.PKIRole) { r.OCSP = "HTTP://example.com/ocsp" },
		"a place of no port":       func(r *charter.PKIRole) { r.OCSP = "http://example.com:65536/ocsp" },
		"a long place":             func(r *charter.PKIRole) { r.CRL = "http://example.com/" + strings.Repeat("a", 256) },
		"a relay with a place": func(r *charter.PKIRole) {
			r.Relay, r.Usages, r.URIs, r.CRL = "vpn", []string{"server"}, nil, "http://example.com/crl"
		},
		"a relay with URIs": func(r *charter.PKIRole) { r.Relay, r.Usages = "vpn", []string{"server"} },
	}
	roles := map[string]charter.PKIRole{}
	for what, f := range bad {
		roles[what] = plantRole(v, func(r *charter.PKIRole) { r.Name = "new"; f(r) })
	}
	good, chains := chained(v)
	maps.Copy(roles, chains)
	maps.Copy(good, map[string]charter.PKIRole{
		"new": plantRole(v, func(r *charter.PKIRole) { r.Name = "new" }),
		"places": plantRole(v, func(r *charter.PKIRole) {
			r.Name, r.CRL, r.OCSP = "new", "http://pki.example.com:8080/v1/pki/crl", "https://pki.example.com/v1/pki/ocsp"
		}),
		"public": plantRole(v, func(r *charter.PKIRole) { r.Name, r.Public = "new", true }), "next": plantRole(v, func(r *charter.PKIRole) { r.Version, r.MaxTTL = 2, 60 }),
		"relay": plantRole(v, func(r *charter.PKIRole) {
			r.Name, r.Relay, r.URIs, r.Usages = "vpn", "vpn", nil, []string{"server"}
		}),
	})
	saveVectors(v, "pki", charter.TypePKIRole, roles, good)
	for what, r := range roles {
		if err := v.propose(charter.TypePKIRole, r); fault.ClassOf(err) != fault.Verify {
			t.Errorf("%s: %v", what, err)
		}
	}
	v.decide(charter.TypePKIRole, plantRole(v, func(r *charter.PKIRole) {
		r.Name, r.Relay, r.URIs, r.Usages = "vpn", "vpn", nil, []string{"server"}
	}))
	v.decide(charter.TypePKIRole, plantRole(v, func(r *charter.PKIRole) { r.Version, r.MaxTTL = 2, 60 }))
	if err := v.propose(charter.TypeAccessEnded, charter.AccessEnded{ID: "pki", Type: charter.TypeMount}); err == nil {
		t.Error("a mount ended that has roles")
	}
	// The issuer of a mount stays, also when all its roles are gone.
	for _, n := range []string{"plant", "vpn"} {
		v.decide(charter.TypeAccessEnded, charter.AccessEnded{ID: "pki/" + n, Type: charter.TypePKIRole})
	}
	if err := v.propose(charter.TypePKIRole, plantRole(v, func(r *charter.PKIRole) { r.Name, r.Key, r.Issuer = "new", "birth-root", other })); fault.ClassOf(err) != fault.Verify {
		t.Errorf("another issuer in an empty mount: %v", err)
	}
	v.decide(charter.TypeKeyRetired, charter.KeyRetired{ID: "relay-ca", Reason: charter.ReasonCompromised, Record: "x"})
	if err := v.propose(charter.TypePKIRole, plantRole(v, func(r *charter.PKIRole) { r.Name = "late" })); fault.ClassOf(err) != fault.Verify {
		t.Errorf("a retired key: %v", err)
	}
}

// TestPKINames: what a pattern stands for, and what it does not.
func TestPKINames(t *testing.T) {
	r := charter.PKIRole{Name: "x", DNS: []string{".line1.example.com", "mes.example.com"}, URIs: []string{"spiffe://example.com/a", "spiffe://example.com/line1/"}, IPs: []string{"10.1.0.0/16", "2001:db8::/32"}}
	for name, want := range map[string]bool{
		"mes.example.com": true, "plc1.line1.example.com": true, "a.b.line1.example.com": true,
		"line1.example.com": false, "xline1.example.com": false, "x.mes.example.com": false, ".line1.example.com": false, "": false, "plc1.line1.example.com.": false,
		"PLC1.line1.example.com": false, "*.line1.example.com": false, "plc1..line1.example.com": false, "-a.line1.example.com": false, "a_b.line1.example.com": false,
	} {
		if err := r.AllowsDNS(name); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
	for uri, want := range map[string]bool{
		"spiffe://example.com/a": true, "spiffe://example.com/line1/plc1": true, "spiffe://example.com/line1/x/y": true,
		"spiffe://example.com/line1/": false, "spiffe://example.com/line1": false, "spiffe://example.com/a/b": false, "spiffe://example.com/line1/../a": false,
		"spiffe://example.com/line1//x": false, "spiffe://example.com/line1/.x": false, "spiffe://example.com/line1/x?y": false, "https://example.com/line1/x": false, "": false,
	} {
		if err := r.AllowsURI(uri); (err == nil) != want {
			t.Errorf("%q: %v", uri, err)
		}
	}
	for ip, want := range map[string]bool{"10.1.2.3": true, "10.2.0.1": false, "2001:db8::1": true, "2001:db9::1": false, "::ffff:10.1.2.3": false, "2001:db8::1%eth0": false} {
		if err := r.AllowsIP(netip.MustParseAddr(ip)); (err == nil) != want {
			t.Errorf("%s: %v", ip, err)
		}
	}
	if r.AllowsIP(netip.Addr{}) == nil {
		t.Error("no address is allowed")
	}
}

// FuzzPKINames: whatever is allowed is a name of the pattern, letter by letter.
func FuzzPKINames(f *testing.F) {
	r := charter.PKIRole{DNS: []string{".line1.example.com"}, URIs: []string{"spiffe://example.com/line1/"}}
	for _, s := range []string{"a.line1.example.com", "spiffe://example.com/line1/a", "a\x00.line1.example.com", "spiffe://example.com/line1/%2e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if r.AllowsDNS(s) == nil && (!strings.HasSuffix(s, ".line1.example.com") || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-.") != "" || strings.Contains(s, "..")) {
			t.Errorf("the name %q is allowed", s)
		}
		if r.AllowsURI(s) == nil && (!strings.HasPrefix(s, "spiffe://example.com/line1/") || strings.ContainsAny(s, "%?#@\\ ") || strings.Contains(s, "/..")) {
			t.Errorf("the URI %q is allowed", s)
		}
	})
}
