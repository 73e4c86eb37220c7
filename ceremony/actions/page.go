package actions

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"keyrite/artifact/anchor"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/paper"
	"keyrite/ceremony/script"
)

// print writes what the room knows so far as pages, and waits until they are on
// paper: plain text, which every printer takes, and, once the anchors are among
// the outputs, the sheets with their words that people take home. The record
// names the pages; no command is run.
func (a *Actions) print(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	words, err := anchorWords(r.Dir)
	if err != nil {
		return err
	}
	pages := map[string][]byte{".txt": textPage(r, st, words)}
	if words != "" {
		if pages[".html"], err = paper.AnchorsSheet(r.Script.Title, string(r.World), r.ID, words, allNames(r.People)); err != nil {
			return err
		}
	}
	for _, kind := range []string{".txt", ".html"} {
		path := record.OutputsDir + "/page-" + st.ID + kind
		file := filepath.Join(r.Dir, filepath.FromSlash(path))
		if pages[kind] == nil {
			continue
		}
		// A printer that failed gets the same page again.
		if _, err := os.Lstat(file); errors.Is(err, os.ErrNotExist) {
			if err := r.Output(path, pages[kind]); err != nil {
				return err
			}
		}
		r.Console.Say("", "print "+file)
	}
	return r.Report(ctx, st, r.Names(charter.RoleConductor)[0], "Is the page printed?", "printed", ceremony.CausePrinter)
}

// anchorWords are those of the anchors among the outputs, "" before there are any.
func anchorWords(dir string) (string, error) {
	data, err := os.ReadFile(filepath.Join(dir, record.OutputsDir, "anchors.json"))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fault.Errorf(fault.Storage, "read anchors: %w", err)
	}
	all, err := anchor.Parse(data)
	if err != nil {
		return "", err
	}
	return all.Words()
}

func textPage(r *ceremony.Run, st *script.Step, words string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s, step %s: %s\n\nworld          %s\nscript         %s\nentries so far %d\nrunning hash   %s\n\n",
		r.Script.Title, record.Origin(r.ID), st.ID, st.Title, r.World, r.Script.Hash(), r.Size(), r.Root())
	if words != "" {
		b.WriteString("words of the anchors:\n")
		for i, w := range strings.Fields(words) {
			fmt.Fprintf(&b, "%2d %-13s", i+1, w)
			if i%4 == 3 {
				b.WriteByte('\n')
			}
		}
		b.WriteByte('\n')
	}
	for _, p := range r.People {
		fmt.Fprintf(&b, "%-12s %-32s ______________________________\n", p.Role, p.Person.Name)
	}
	return []byte(b.String())
}
