package artifacttest

import (
	"crypto"

	"keyrite/artifact/anchor"
	"keyrite/artifact/birthcert"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/succession"
)

// Succession is the statement, signed by one of the succession keys, by which the
// twins of ids take over; before is the statement that it follows, nil for none.
func (w *World) Succession(by string, before []byte, ids ...string) []byte {
	w.t.Helper()
	var prev *succession.Statement
	if before != nil {
		prev = w.verified(before)
	}
	var list []succession.Entry
	for _, id := range ids {
		list = append(list, succession.Entry{From: succession.Hash(w.SPKI(id)), ID: id, Reason: "compromised", To: *w.Anchors.Dormant(id)})
	}
	s := succession.New(w.Anchors, prev, list, nil, "keyrite/record/0011223344556677", Now())
	return w.must(s.Sign(w.Anchors, []crypto.Signer{w.Keys[by]}...))
}

func (w *World) verified(statement []byte) *succession.Statement {
	w.t.Helper()
	s, err := succession.Verify(statement, w.Anchors)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// Under are the anchors in force under a statement.
func (w *World) Under(statement []byte) *anchor.Anchors {
	w.t.Helper()
	a, err := succession.Apply(w.Anchors, w.verified(statement))
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// SecondFactory puts factory2 in the charter, with a CA of the same key under the
// root key by, for serials 1001 to 2000, and station2 with the same report key. It
// returns the payload of its first bundle, with the numbers from 1001.
func (w *World) SecondFactory(by string) *bundle.Bundle {
	w.t.Helper()
	root := w.Anchors.Certificates[by]
	ca := w.Certificate(birthcert.Template{
		Profile: birthcert.FactoryCA, SPKI: w.SPKI("factory-ca"), Issuer: birthcert.IssuerOf(w.Parsed(root)),
		Grant: birthcert.Grant{Factory: "factory2", Product: "gw100", SerialFrom: 1001, SerialTo: 2000},
	}, by)
	w.Approve(charter.TypeFactory, charter.Factory{CA: ca, Evidence: "test", ID: "factory2", Product: "gw100", SerialFrom: 1001, SerialTo: 2000})
	w.Approve(charter.TypeStation, charter.Station{Factory: "factory2", ID: "station2", ReportKey: w.SPKI("report")})
	b := w.Bundle()
	b.Factory, b.Stations, b.CAChain, b.Ranges = "factory2", []string{"station2"}, [][]byte{ca, root}, []bundle.Range{{From: 1001, To: 1010}}
	return b
}
