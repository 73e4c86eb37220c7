package paper

import (
	"encoding/json"
	"slices"
	"strings"

	"keyrite/artifact/record"
)

// tables sorts entries into the parts of the report. It goes by the name of an
// entry's type and its members, so that a kind which this page does not know yet
// still shows what it has.
type tables struct{ list []*table }

func newTables() *tables {
	entry := []string{"Entry", "Time (UTC)", "Step"}
	head := func(h ...string) []string { return slices.Concat(entry, h) }
	return &tables{[]*table{
		{ID: "incident", Title: "Incidents", Text: "Whoever calls one ends the ceremony.", Head: head("By", "What", "Signed")},
		{ID: "contingency", Title: "Contingencies", Text: "What the script foresaw, and what it was taken for.", Head: head("Which", "On", "What happened")},
		{ID: "miss", Title: "Misses", Text: "Planned: a wrong passphrase or answer that could be given again.", Head: head("Who", "What", "Try")},
		{ID: "present", Title: "Breaks", Text: "Who was there before and after.", Head: head("When", "Who")},
		{ID: "opening", Title: "Openings", Text: "Who gave his share, for which safe. Each is signed by share and person for this one operation.", Head: head("Holder", "Safe")},
		{ID: "receipt", Title: "Receipts", Text: "Who read his share back from its medium.", Head: head("Holder", "Safe")},
		{ID: "medium", Title: "Media", Text: "What went into the drive and out of it.", Head: head("Medium", "Direction", "Label", "SHA-256")},
		{ID: "statement", Title: "Statements of the charter", Text: "What was decided, and who signed it.", Head: head("Statement", "Signed by")},
		{ID: "retired", Title: "Keys retired", Text: "They are refused from now on.", Head: head("What")},
		{ID: "transferred", Title: "Keys moved to another token", Text: "Wrapped all the way; both ends signed for it.", Head: head("Key", "From", "To", "Wrapped (SHA-256)")},
		{ID: "removed", Title: "Objects destroyed for good", Text: "A fresh process searched for each afterwards.", Head: head("Key", "Safe", "Token", "Left")},
		{ID: "repin", Title: "Tokens under new PINs", Text: "The PINs of the old shares were tried once and refused.", Head: head("Safe", "Token")},
		{ID: "succession", Title: "Successions", Text: "Which key takes the place of which.", Head: head("What")},
		{ID: "crl", Title: "Revocation lists", Text: "", Head: head("What")},
		{ID: "possession", Title: "Proofs of possession", Text: "Each key signed once, as it lies in the token.", Head: head("Key")},
		{ID: "admission", Title: "Attacks on the tokens", Text: "With throw-away keys. One success would have ended the ceremony.", Head: head("What")},
		{ID: "output", Title: "Public outputs", Text: "", Head: head("File", "SHA-256", "Bytes")},
	}}
}

// columns are the members of an entry that fill a table, in its order; none
// means one column with everything.
func columns(id string) []string {
	return map[string][]string{
		"incident": {"by", "reason", "envelope"}, "contingency": {"id", "on", "reason"}, "miss": {"who", "what", "try"}, "present": {"when", "names"},
		"opening": {"holder", "safe"}, "receipt": {"holder", "safe"}, "medium": {"name", "direction", "label", "sha256"}, "statement": {"type", "signers"},
		"transferred": {"key", "from", "to", "wrapped"}, "removed": {"key", "safe", "token", "left"}, "repin": {"safe", "token"},
		"possession": {"key"}, "output": {"path", "sha256", "size"},
	}[id]
}

// tableOf is the part of the report that an entry belongs to, by its type. Of the
// intents only new PINs are told: what the others announce has entries of its own.
func tableOf(l *record.Line) string {
	if i, ok := l.Data.(*record.Intent); ok && i.Effect == "repin" {
		return "repin"
	}
	return l.Type
}

func (t *tables) add(l *record.Line) {
	id := tableOf(l)
	for _, x := range t.list {
		if x.ID != id {
			continue
		}
		if len(x.Rows) >= maxRows {
			x.LeftOut++
			return
		}
		row := []string{fact(float64(l.Seq)), l.Time, l.Step}
		names := columns(x.ID)
		if names == nil {
			x.Rows = append(x.Rows, append(row, summary(l)))
			return
		}
		var m map[string]any
		if json.Unmarshal(l.Entry.Data, &m) != nil {
			return
		}
		for _, n := range names {
			row = append(row, cell(n, m[n]))
		}
		x.Rows = append(x.Rows, row)
		return
	}
}

// cell writes one member; a hash is whole, for it is there to be compared.
func cell(name string, v any) string {
	switch x := v.(type) {
	case nil:
		if name == "envelope" {
			return "not signed"
		}
		return ""
	case string:
		return short(x, 1000)
	case []any:
		return strings.ReplaceAll(fact(v), " ", ", ")
	}
	return fact(v)
}

func (t *tables) filled() []table {
	var out []table
	for _, x := range t.list {
		if len(x.Rows) > 0 {
			out = append(out, *x)
		}
	}
	return out
}

// count is how many rows a table has in all.
func (r *report) count(id string) int {
	for _, t := range r.Tables {
		if t.ID == id {
			return len(t.Rows) + t.LeftOut
		}
	}
	return 0
}
