package duty

import (
	"crypto/x509"
	"fmt"
	"maps"
	"slices"
	"strings"

	"keyrite/artifact/charter"
)

// OfCharter are the things that end of which the charter itself says when.
func OfCharter(st *charter.State) []Thing {
	if st == nil {
		return nil
	}
	var out []Thing
	for _, id := range slices.Sorted(maps.Keys(st.Access.Mounts)) {
		if names := st.PKIRolesAt(id); len(names) > 0 {
			r := st.PKIRoles[charter.At(id, names[0])]
			out = append(out, OfCertificate(Issuer, id, "CA of the mount "+id, r.Issuer))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(st.Access.Identities)) {
		if c := st.Access.Identities[id].Certificate; c != nil {
			out = append(out, OfCertificate(ClientCA, id, "CA of the client certificates of identity "+id, c.CA))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(st.Relays)) {
		out = append(out, OfCertificate(RelayCert, id, "certificate of relay "+id, st.Relays[id].Certificate))
	}
	for _, id := range slices.Sorted(maps.Keys(st.Factories)) {
		out = append(out, OfCertificate(FactoryCA, id, "CA of factory "+id, st.Factories[id].CA))
	}
	for _, id := range slices.Sorted(maps.Keys(st.VendorRoots)) {
		out = append(out, OfCertificate(VendorRoot, id, "vendor root "+id, st.VendorRoots[id].Certificate))
	}
	for _, id := range slices.Sorted(maps.Keys(st.Grants.Delegations)) {
		d := st.Grants.Delegations[id]
		out = append(out, Thing{Kind: Delegation, Name: id, About: fmt.Sprintf("delegation %s: %s may %s %s", id, d.Identity, d.Can, d.Path), Ends: d.Ends()})
	}
	for _, host := range slices.Sorted(maps.Keys(st.Grants.Unattended)) {
		u := st.Grants.Unattended[host]
		out = append(out, Thing{Kind: Unattended, Name: host, About: "unattended " + u.ID + ": host " + host + " opens the vault by itself after a restart", Ends: u.Ends()})
	}
	return out
}

// unvouched are what the charter gives for a while, to a vault that has no time from
// outside: refused for ever, without a word at the call.
func unvouched(st *charter.State) []Thing {
	if st == nil {
		return nil
	}
	const fault = "it is never used, since the head of this vault is kept where nobody vouches for a time"
	var out []Thing
	for _, id := range slices.Sorted(maps.Keys(st.Grants.Delegations)) {
		d := st.Grants.Delegations[id]
		out = append(out, Thing{Kind: Unvouched, Name: charter.TypeDelegation + "/" + id, About: "delegation " + id + " to " + d.Identity, Ends: d.Ends(), Fault: fault})
	}
	for _, id := range slices.Sorted(maps.Keys(st.Grants.BreakGlass)) {
		out = append(out, Thing{Kind: Unvouched, Name: charter.TypeBreakGlass + "/" + id, About: "break-glass " + id, Fault: fault})
	}
	return out
}

// OfCertificate is a certificate as a thing that ends.
func OfCertificate(kind, name, about string, der []byte) Thing {
	t := Thing{Kind: kind, Name: name, About: about}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fault = strings.ToValidUTF8(err.Error(), "")
		return t
	}
	t.From, t.Ends = c.NotBefore, c.NotAfter
	return t
}
