package actions

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/ceremony"
	"keyrite/ceremony/script"
)

// rest is a break: the roll is called before everybody leaves and after.
func (a *Actions) rest(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	if err := a.roll(ctx, r, st, "before"); err != nil {
		return err
	}
	r.Console.Say("", "nobody touches the computer until everybody is back")
	return a.roll(ctx, r, st, "after")
}

func (a *Actions) roll(ctx context.Context, r *ceremony.Run, st *script.Step, when string) error {
	names := sorted(allNames(r.People))
	for i, n := range names {
		r.Console.Count(ceremony.Count{What: "people", Done: names[:i], Need: len(names), Of: len(names)})
		if err := r.Report(ctx, st, n, "Are you here, "+when+" the break?", "here", ceremony.CauseLate); err != nil {
			return err
		}
	}
	return r.Record(&record.Present{Names: names, When: when})
}

// plans says whether st plans for a cause.
func plans(s *script.Script, st *script.Step, cause string) bool {
	return slices.ContainsFunc(s.Contingencies, func(c script.Contingency) bool {
		return c.On == cause && slices.Contains(st.Planned, c.ID)
	})
}

// mediumIn takes a medium that the script lists into the drive.
func (a *Actions) mediumIn(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	path, err := a.medium(st.Medium)
	if err != nil {
		return err
	}
	m := a.listed(st.Medium)
	if err := r.Report(ctx, st, r.Names(charter.RoleConductor)[0], "Is the medium "+m.Label+" in the drive?", "in", ceremony.CauseMedium); err != nil {
		return err
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return &ceremony.Contingency{Cause: ceremony.CauseMedium, Err: fault.Errorf(fault.Storage, "medium %s is not at %q", m.Label, path)}
	}
	e := &record.Medium{Direction: "in", Name: m.Name}
	if e.Label, err = volumeLabel(path); err != nil {
		return err
	}
	if m.ReadOnly {
		if e.SHA256, err = hashTree(path); err != nil {
			return &ceremony.Contingency{Cause: ceremony.CauseMedium, Err: err}
		}
		r.Console.Say("", "medium "+m.Label+": "+e.SHA256)
	}
	return r.Record(e)
}

// mediumOut waits until the medium is out of the drive.
func (a *Actions) mediumOut(ctx context.Context, r *ceremony.Run, st *script.Step) error {
	path, err := a.medium(st.Medium)
	if err != nil {
		return err
	}
	m := a.listed(st.Medium)
	label, err := volumeLabel(path)
	if err != nil {
		return err
	}
	if err := r.Report(ctx, st, r.Names(charter.RoleConductor)[0], "Is the medium "+m.Label+" out of the drive?", "out", ceremony.CauseMedium); err != nil {
		return err
	}
	mounts, err := mounted()
	if err != nil {
		return err
	}
	if slices.ContainsFunc(mounts, func(x mount) bool { return x.point == path }) {
		return &ceremony.Contingency{Cause: ceremony.CauseMedium, Err: fault.Errorf(fault.Storage, "medium %s is still mounted at %q", m.Label, path)}
	}
	return r.Record(&record.Medium{Direction: "out", Label: label, Name: m.Name})
}

// medium is where the binding says that a medium will be.
func (a *Actions) medium(name string) (string, error) {
	path, ok := a.bind.Media[name]
	if !ok {
		return "", fault.Errorf(fault.Usage, "the binding names no folder for the medium %s", name)
	}
	path, err := filepath.Abs(a.bind.Path(path))
	if err != nil {
		return "", fault.Errorf(fault.Unexpected, "find medium: %w", err)
	}
	return path, nil
}

func (a *Actions) listed(name string) script.Medium {
	for _, m := range a.script.Media {
		if m.Name == name {
			return m
		}
	}
	return script.Medium{Name: name, Label: name}
}

// hashTree is the hex SHA-256 over "PATH SHA-256\n" of every file below dir, in the
// order of their paths. Anything that is no regular file or folder is an error.
func hashTree(dir string) (string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", fault.Errorf(fault.Storage, "read medium: %w", err)
	}
	defer root.Close()
	all := sha256.New()
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%q is no regular file", p)
		}
		f, err := root.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		one := sha256.New()
		if _, err := io.Copy(one, f); err != nil {
			return err
		}
		fmt.Fprintf(all, "%s %x\n", p, one.Sum(nil))
		return nil
	})
	if err != nil {
		return "", fault.Errorf(fault.Storage, "read medium: %w", err)
	}
	return hex.EncodeToString(all.Sum(nil)), nil
}
