package watch

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/internal/intake"
	"keyrite/vault/duty"
)

const (
	// maxFileBytes bounds a file; a list of a large CA has some megabytes.
	maxFileBytes = 16 << 20
	// maxFolder bounds the files of a folder that are looked at.
	maxFolder = 10_000
)

// der reads a file in DER, or the first block of that type in PEM.
func der(path, block string) ([]byte, error) {
	data, err := intake.Read(path, maxFileBytes)
	if err != nil {
		return nil, err
	}
	if b, _ := pem.Decode(data); b != nil {
		if b.Type != block {
			return nil, fault.Errorf(fault.Verify, "it begins with a %.40q, not a %s", b.Type, block)
		}
		return b.Bytes, nil
	}
	return data, nil
}

func (w *Watch) certificate(kind, what, path string) []duty.Thing {
	about := what + " " + path
	raw, err := der(path, "CERTIFICATE")
	if err != nil {
		return []duty.Thing{unreadable(kind, path, about, err)}
	}
	return []duty.Thing{duty.OfCertificate(kind, path, about, raw)}
}

func (w *Watch) crl(path string) []duty.Thing {
	t := duty.Thing{Kind: duty.WatchedCRL, Name: path, About: "list of what was revoked " + path}
	raw, err := der(path, "X509 CRL")
	if err != nil {
		return []duty.Thing{unreadable(t.Kind, t.Name, t.About, err)}
	}
	l, err := x509.ParseRevocationList(raw)
	if err == nil && l.NextUpdate.IsZero() {
		err = fault.New(fault.Verify, "it does not say when the next one comes")
	}
	if err != nil {
		return []duty.Thing{unreadable(t.Kind, t.Name, t.About, err)}
	}
	t.From, t.Ends = l.ThisUpdate, l.NextUpdate
	return []duty.Thing{t}
}

func (w *Watch) bundle(path string) []duty.Thing {
	t := duty.Thing{Kind: duty.Bundle, Name: path, About: "bundle " + path}
	data, err := intake.Read(path, maxFileBytes)
	if err != nil {
		return []duty.Thing{unreadable(t.Kind, t.Name, t.About, err)}
	}
	b, _, err := bundle.Parse(data)
	if err == nil {
		t.About = "bundle " + path + " of factory " + b.Factory + ", number " + strconv.Itoa(b.Seq)
		if t.From, err = charter.ParseTime(b.NotBefore); err == nil {
			t.Ends, err = charter.ParseTime(b.NotAfter)
		}
	}
	if err != nil {
		return []duty.Thing{unreadable(t.Kind, t.Name, t.About, err)}
	}
	return []duty.Thing{t}
}

// tufNameRE are the names of metadata (TUF specification 1.0.31, section 6).
var tufNameRE = regexp.MustCompile(`^(?:([1-9][0-9]{0,17})\.)?(root|targets|snapshot|timestamp)\.json$`)

// tufKinds are the roles in the order in which they are told of.
func tufKinds() []struct{ role, kind string } {
	return []struct{ role, kind string }{{"root", duty.TUFRoot}, {"targets", duty.TUFTargets}, {"snapshot", duty.TUFSnapshot}, {"timestamp", duty.TUFTimestamp}}
}

// tuf reads of each role the newest metadata in a folder.
func (w *Watch) tuf(dir string) []duty.Thing {
	newest := map[string]string{}
	version := map[string]int64{}
	entries, err := readDir(dir)
	for _, e := range entries {
		m := tufNameRE.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		n, _ := strconv.ParseInt(m[1], 10, 64) // a name without a number is the oldest
		if newest[m[2]] == "" || n > version[m[2]] {
			newest[m[2]], version[m[2]] = e.Name(), n
		}
	}
	var out []duty.Thing
	for _, k := range tufKinds() {
		t := duty.Thing{Kind: k.kind, Name: dir, About: "update repository " + dir + ": " + k.role}
		why := err
		if why == nil && newest[k.role] == "" {
			why = fault.New(fault.Usage, "there is none")
		}
		if why == nil {
			t.Ends, why = tufEnds(filepath.Join(dir, newest[k.role]), k.role)
		}
		if why != nil {
			t = unreadable(t.Kind, t.Name, t.About, why)
		}
		out = append(out, t)
	}
	return out
}

func readDir(dir string) ([]fs.DirEntry, error) {
	// A pipe in its place is refused and not waited for.
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "open the folder: %w", err)
	}
	defer f.Close()
	entries, err := f.ReadDir(maxFolder + 1)
	if err != nil && !errors.Is(err, io.EOF) { // io.EOF: it is empty
		return nil, fault.Errorf(fault.Usage, "read the folder: %w", err)
	}
	if len(entries) > maxFolder {
		return nil, fault.Errorf(fault.Usage, "the folder has more than %d entries, and which is the newest is not known", maxFolder)
	}
	return entries, nil
}

func tufEnds(path, role string) (time.Time, error) {
	data, err := intake.Read(path, maxFileBytes)
	if err != nil {
		return time.Time{}, err
	}
	return parseTUF(data, role)
}

// parseTUF reads until when metadata of a role holds. Nothing else of it is looked at.
func parseTUF(data []byte, role string) (time.Time, error) {
	var m struct {
		Signed struct {
			Type    string `json:"_type"`
			Expires string `json:"expires"`
		} `json:"signed"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return time.Time{}, fault.Errorf(fault.Verify, "read TUF metadata: %w", err)
	}
	if m.Signed.Type != role {
		return time.Time{}, fault.Errorf(fault.Verify, "it is of role %.20q", m.Signed.Type)
	}
	at, err := time.Parse(time.RFC3339, m.Signed.Expires)
	if err != nil {
		return time.Time{}, fault.Errorf(fault.Verify, "it does not say when it expires")
	}
	return at.UTC(), nil
}

// seenRecord is what a record said when its files were of that size and time.
type seenRecord struct {
	stamp string
	began time.Time // zero if it is no closed rehearsal
	title string
	err   error
}

// rehearsals tells of the newest closed rehearsal: of the record in that folder, or of
// the records in the folders below it.
func (w *Watch) rehearsals(dir string) []duty.Thing {
	t := duty.Thing{Kind: duty.Rehearsal, Name: dir, About: "rehearsal " + dir}
	dirs := []string{dir}
	if _, err := os.Stat(filepath.Join(dir, record.TranscriptFile)); err != nil {
		entries, err := readDir(dir)
		if err != nil {
			return []duty.Thing{unreadable(t.Kind, t.Name, t.About, err)}
		}
		dirs = nil
		for _, e := range entries {
			if e.IsDir() {
				dirs = append(dirs, filepath.Join(dir, e.Name()))
			}
		}
	}
	var newest seenRecord
	err := error(fault.New(fault.Usage, "there is no closed rehearsal"))
	for _, d := range dirs {
		r := w.record(d)
		if r.err != nil && len(dirs) == 1 {
			err = r.err
		}
		if r.began.After(newest.began) {
			newest = r
		}
	}
	if newest.began.IsZero() {
		return []duty.Thing{unreadable(t.Kind, t.Name, t.About, err)}
	}
	t.About = "rehearsal of " + newest.title + " in " + dir
	t.From, t.Ends = newest.began, newest.began.Add(record.RehearsalCounts)
	return []duty.Thing{t}
}

// record reads a record, unless its transcript and checkpoint are those of the last time.
func (w *Watch) record(dir string) seenRecord {
	var stamp strings.Builder
	for _, name := range []string{record.TranscriptFile, record.CheckpointFile} {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return seenRecord{err: fault.Errorf(fault.Usage, "read the record: %w", err)}
		}
		stamp.WriteString(strconv.FormatInt(st.Size(), 10) + " " + st.ModTime().String() + "\n")
	}
	if r, ok := w.records[dir]; ok && r.stamp == stamp.String() {
		return r
	}
	r := seenRecord{stamp: stamp.String()}
	v, err := record.VerifyOwn(os.DirFS(dir))
	switch {
	case v == nil || err != nil && fault.ClassOf(err) != fault.Quorum: // not all have cosigned: it counts
		r.err = err
	case v.State != "CLOSED" || v.Open.Mode != "rehearsal":
		r.err = fault.New(fault.Policy, "it is no closed rehearsal")
	default:
		r.title = v.Open.Title
		if len(v.Timeline) > 0 {
			r.began, r.err = time.Parse(time.RFC3339, v.Timeline[0].Time)
		}
	}
	w.records[dir] = r
	return r
}
