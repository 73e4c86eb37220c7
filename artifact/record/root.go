package record

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"keyrite/artifact/updateroot"
)

var rootRE = regexp.MustCompile(`^[1-9][0-9]{0,8}\.root\.json$`)

// checkRoot verifies the update root that was signed here against the charter, and
// against the root before it, which stands among the outputs too: those who trust
// that one must take the new one. Without a step update.root there is none.
func (c *checker) checkRoot() error {
	var versions []int64
	for path := range c.outputs {
		if c.ofVoid(path) {
			continue // of another ceremony, which is void
		}
		name := strings.TrimPrefix(path, OutputsDir+"/")
		if !strings.HasSuffix(name, ".root.json") {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(name, ".root.json"), 10, 64)
		if err != nil || !rootRE.MatchString(name) {
			return bad("%w: %.80q is no update root", ErrRecord, path)
		}
		versions = append(versions, n)
	}
	slices.Sort(versions)
	signed := slices.ContainsFunc(c.follow.ends, func(x stepEnd) bool { return x.step.Do == "update.root" })
	want := 0
	if signed {
		want = 1
		if c.base != nil {
			want = 2
		}
	}
	if len(versions) != want || c.base == nil && signed && versions[0] != 1 {
		return bad("%w: it has %d update roots, and signed %d after those before", ErrRecord, len(versions), min(want, 1))
	}
	if !signed {
		return nil
	}
	next, err := c.readRoot(versions[len(versions)-1])
	if err != nil {
		return err
	}
	if err := next.Check(c.Charter); err != nil {
		return bad("%w: its update root: %w", ErrRecord, err)
	}
	if c.base == nil {
		return nil
	}
	before, err := c.readRoot(versions[0])
	if err != nil {
		return err
	}
	if err := before.Next(next, c.base); err != nil {
		return bad("%w: its update root: %w", ErrRecord, err)
	}
	return nil
}

func (c *checker) readRoot(version int64) (*updateroot.Root, error) {
	path := OutputsDir + "/" + strconv.FormatInt(version, 10) + ".root.json"
	data, err := readFile(c.fsys, path, updateroot.MaxBytes)
	if err != nil {
		return nil, err
	}
	r, err := updateroot.Parse(data)
	if err == nil && r.Version() != version {
		err = bad("%w: it is version %d", updateroot.ErrRoot, r.Version())
	}
	if err != nil {
		return nil, bad("%w: %s: %w", ErrRecord, path, err)
	}
	return r, nil
}
