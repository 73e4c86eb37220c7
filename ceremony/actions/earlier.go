package actions

import (
	"os"
	"path/filepath"
	"slices"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
)

// earlier is the record of a ceremony before this one, or why it does not count.
type earlier struct {
	*record.Verified
	dir string // of the record
	err error  // names the folder; nil: it holds and is of this vault
}

// besideBind is where the record of a genesis lies that the binding does not name.
const besideBind = "record"

// earlier verifies the records that the binding names, in its order. Without trusted
// anchors each is verified with its own: its charter must be the beginning of state
// all the same.
func (b *Bind) earlier(state *charter.State, trusted *anchor.Anchors) []earlier {
	var dirs []string
	for _, dir := range b.Records {
		dirs = append(dirs, b.Path(dir))
	}
	return verifyAll(dirs, state, trusted)
}

// earlier are the records that the binding names, verified once for all steps.
func (a *Actions) earlier() []earlier {
	if a.records == nil {
		a.records = a.bind.earlier(&a.vault.state, a.vault.anchors)
	}
	return slices.Clip(a.records)
}

// nearby are those of the folders near by that are records, and the one beside the
// binding, if it names neither records nor reports.
func (b *Bind) nearby(near []string) []string {
	if len(b.Records) > 0 || len(b.Admissions) > 0 {
		return nil
	}
	var out []string
	for _, dir := range append(slices.Clone(near), b.Path(besideBind)) {
		if st, err := os.Stat(filepath.Join(dir, record.TranscriptFile)); err == nil && st.Mode().IsRegular() && !slices.Contains(out, dir) {
			out = append(out, dir)
		}
	}
	return out
}

func verifyAll(dirs []string, state *charter.State, trusted *anchor.Anchors) []earlier {
	var out []earlier
	for _, dir := range dirs {
		v, err := verifyEarlier(dir, state, trusted)
		if err != nil {
			err = fault.Errorf(fault.ClassOf(err), "record %q: %w", dir, err)
		}
		out = append(out, earlier{v, dir, err})
	}
	return out
}

// verifyEarlier verifies a record that is part of this vault: its people are those
// of a charter that ours continues, and it is signed by them.
func verifyEarlier(dir string, state *charter.State, trusted *anchor.Anchors) (*record.Verified, error) {
	var v *record.Verified
	var err error
	if trusted == nil {
		v, err = record.VerifyOwn(os.DirFS(dir))
	} else {
		v, err = record.Verify(os.DirFS(dir), trusted)
	}
	if err != nil {
		return nil, err
	}
	if v.Charter.Vault != state.Vault {
		return nil, fault.New(fault.Verify, "it is of another vault")
	}
	if v.Charter.Size() > state.Size() {
		return nil, fault.Hint(fault.New(fault.Policy, "it knows more of the charter than the charter given"), "give the charter that left the newest ceremony")
	}
	return v, state.CheckHead(v.Charter.Size(), v.Charter.Head())
}
