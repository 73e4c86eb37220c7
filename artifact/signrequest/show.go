package signrequest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyrite/artifact/admission"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/record"
	"keyrite/artifact/tlog"
	"keyrite/artifact/words"
	"keyrite/artifact/world"
)

// Purposes, the closed set.
const (
	Cosign     = "cosign"      // a record's checkpoint, as a cosigner
	Checkpoint = "checkpoint"  // a record's checkpoint, as its conductor
	Charter    = "charter"     // a statement of the charter
	Admission  = "admission"   // what a token withstood
	Documents  = "documents"   // which identity documents were seen
	Incident   = "incident"    // an incident of a ceremony
	Births     = "births"      // keys that were seen to be born
	UpdateRoot = "update-root" // root metadata of the update repository
)

// Shown is what a message says.
type Shown struct {
	Purpose string
	World   world.World
	Lines   []string  // in words, for the holder; nothing in them is trusted markup
	At      time.Time // of a cosignature
}

// Show reads the message itself. One that is of no known kind, or not in its one
// canonical form, may not be signed.
func (r *Request) Show() (*Shown, error) {
	if c, at, err := tlog.ParseSigned(r.Message); err == nil {
		return showCheckpoint(c, at), nil
	}
	if typ, payload, ok := parsePAE(r.Message); ok {
		switch typ {
		case charter.PayloadType:
			return showCharter(payload)
		case admission.PayloadType:
			return showAdmission(payload)
		case record.DocumentsType:
			return showDocuments(payload)
		case record.IncidentType:
			return showIncident(payload)
		case record.WatchedType:
			return showBirths(payload)
		}
		return nil, fault.Errorf(fault.Policy, "%w: payload type %.80q is none that is signed this way", ErrRequest, typ)
	}
	return showRoot(r.Message)
}

// parsePAE is the inverse of the DSSE pre-authentication encoding.
func parsePAE(msg []byte) (string, []byte, bool) {
	rest, ok := bytes.CutPrefix(msg, []byte("DSSEv1 "))
	if !ok {
		return "", nil, false
	}
	typ, rest, ok := cutField(rest)
	if !ok || len(rest) == 0 || rest[0] != ' ' {
		return "", nil, false
	}
	payload, rest, ok := cutField(rest[1:])
	return string(typ), payload, ok && len(rest) == 0 && bytes.Equal(envelope.PAE(string(typ), payload), msg)
}

func cutField(b []byte) ([]byte, []byte, bool) {
	digits, rest, ok := bytes.Cut(b, []byte(" "))
	n, err := strconv.Atoi(string(digits))
	if !ok || err != nil || n < 0 || n > len(rest) {
		return nil, nil, false
	}
	return rest[:n], rest[n:], true
}

func showCheckpoint(c tlog.Checkpoint, at time.Time) *Shown {
	s := &Shown{Purpose: Checkpoint, World: c.World, At: at}
	what := "You close the log " + c.Origin + " as its conductor: every entry up to here is what happened."
	if !at.IsZero() {
		s.Purpose = Cosign
		what = "You cosign the log " + c.Origin + ": you were there, and every entry is what happened."
	}
	s.Lines = []string{what, fmt.Sprintf("%d entries, root %s", c.Size, tlog.Hex(c.Root)), "root in words: " + words.Of(c.Root[:16])}
	if !at.IsZero() {
		s.Lines = append(s.Lines, "at "+charter.FormatTime(at))
	}
	return s
}

// Describe says in words all that a statement of the charter says, for whoever is
// to approve it.
func Describe(payload []byte) ([]string, error) {
	s, err := showCharter(payload)
	if err != nil {
		return nil, err
	}
	return s.Lines, nil
}

func showCharter(payload []byte) (*Shown, error) {
	var st charter.Statement
	if err := jcs.Unmarshal(payload, &st); err != nil {
		return nil, err
	}
	if st.Format != charter.Format {
		return nil, fault.Errorf(fault.Verify, "statement has format %.60q", st.Format)
	}
	if _, err := charter.ParseTime(st.Time); err != nil {
		return nil, err
	}
	s := &Shown{Purpose: Charter, World: st.World, Lines: []string{
		fmt.Sprintf("You approve statement %d of the charter, of type %s, in vault %.16s….", st.Seq, st.Type, st.Vault),
		"time " + st.Time + ", after the log with root " + st.Prev,
	}}
	lines, err := fields(st.Body)
	s.Lines = append(s.Lines, lines...)
	return s, err
}

// maxFields bounds what is shown of a statement; more is cut, and said to be.
const maxFields = 400

// fields lists every leaf of a JSON value with its path, so that nothing in it is
// signed unseen.
func fields(body json.RawMessage) ([]string, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fault.Errorf(fault.Verify, "statement body: %w", err)
	}
	var out []string
	walk("", v, &out)
	return cut(out), nil
}

func cut(lines []string) []string {
	if len(lines) <= maxFields {
		return lines
	}
	return append(lines[:maxFields], fmt.Sprintf("… and %d lines more: compare the digest", len(lines)-maxFields))
}

var plainName = regexp.MustCompile(`^[0-9A-Za-z_-]+$`)

func walk(path string, v any, out *[]string) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			*out = append(*out, path+" = {}")
		}
		for _, k := range slices.Sorted(maps.Keys(v)) {
			name := k
			if !plainName.MatchString(k) {
				name = strconv.Quote(k) // "a.b" is not b of a
			}
			walk(strings.TrimPrefix(path+"."+name, "."), v[k], out)
		}
	case []any:
		if len(v) == 0 {
			*out = append(*out, path+" = []")
		}
		for i, x := range v {
			walk(path+"["+strconv.Itoa(i+1)+"]", x, out)
		}
	default:
		*out = append(*out, fmt.Sprintf("%s = %v", path, v))
	}
}

func showAdmission(payload []byte) (*Shown, error) {
	var r admission.Report
	if err := jcs.Unmarshal(payload, &r); err != nil {
		return nil, err
	}
	if r.Format != admission.Format {
		return nil, fault.Errorf(fault.Verify, "admission has format %.60q", r.Format)
	}
	s := &Shown{Purpose: Admission, World: r.World, Lines: []string{
		fmt.Sprintf("You say that token %.40q with serial %.40q was attacked with throw-away keys, and what came of it: %d cases, admitted for %d algorithms.", r.Token.Label, r.Token.Serial, len(r.Cases), len(r.Algorithms)),
		fmt.Sprintf("made %.40q, behind the module with SHA-256 %.64q. All of it:", r.Made, r.Module.SHA256),
	}}
	lines, err := fields(payload)
	s.Lines = append(s.Lines, lines...)
	return s, err
}

func showDocuments(payload []byte) (*Shown, error) {
	var d record.DocumentsSeen
	if err := jcs.Unmarshal(payload, &d); err != nil {
		return nil, err
	}
	if d.Format != "keyrite/documents-seen/v1" {
		return nil, fault.Errorf(fault.Verify, "documents have format %.60q", d.Format)
	}
	s := &Shown{Purpose: Documents, World: d.World, Lines: []string{"You say that in ceremony " + d.Record + " you saw these identity documents:"}}
	for _, n := range slices.Sorted(maps.Keys(d.Seen)) {
		s.Lines = append(s.Lines, n+": "+d.Seen[n])
	}
	return s, nil
}

func showBirths(payload []byte) (*Shown, error) {
	var w record.BirthsWatched
	if err := jcs.Unmarshal(payload, &w); err != nil {
		return nil, err
	}
	if w.Format != record.BirthsFormat {
		return nil, fault.Errorf(fault.Verify, "births have format %.60q", w.Format)
	}
	s := &Shown{Purpose: Births, World: w.World, Lines: []string{
		fmt.Sprintf("You say that in ceremony %s you watched these keys being born, up to entry %d with root %s:", w.Record, w.Size, w.Root),
	}}
	for _, k := range w.Keys {
		s.Lines = append(s.Lines, fmt.Sprintf("key %s in token %s serial %s, public key %s", k.ID, k.Token.Label, k.Token.Serial, k.SHA256))
	}
	s.Lines = cut(s.Lines)
	return s, nil
}

func showIncident(payload []byte) (*Shown, error) {
	var i record.IncidentCall
	if err := jcs.Unmarshal(payload, &i); err != nil {
		return nil, err
	}
	if i.Format != "keyrite/incident/v1" {
		return nil, fault.Errorf(fault.Verify, "incident has format %.60q", i.Format)
	}
	return &Shown{Purpose: Incident, World: i.World, Lines: []string{
		"You call an INCIDENT in ceremony " + i.Record + ": the whole ceremony becomes void.", "reason: " + i.Reason, "transcript root " + i.Root,
	}}, nil
}

// showRoot reads root metadata in OLPC canonical JSON, which differs from RFC 8785
// only in the line breaks of PEM, which stand in it as they are. Every member is
// read by its exact name and shown: decoding into a struct would take "roleſ" for
// roles, and a key of another role is as much signed as one of root's.
func showRoot(msg []byte) (*Shown, error) {
	unknown := fault.Errorf(fault.Policy, "%w: the message is of no known kind", ErrRequest)
	plain := bytes.ReplaceAll(msg, []byte("\n"), []byte(`\n`))
	var f map[string]any
	dec := json.NewDecoder(bytes.NewReader(plain))
	dec.UseNumber()
	if err := dec.Decode(&f); err != nil {
		return nil, unknown
	}
	again, err := jcs.Marshal(f)
	if err != nil || !bytes.Equal(again, plain) {
		return nil, unknown
	}
	name, _ := f["x-keyrite-world"].(string)
	w := world.World(name)
	keys, isKeys := f["keys"].(map[string]any)
	roles, isRoles := f["roles"].(map[string]any)
	root, isRoot := roles["root"].(map[string]any)
	ids, isIDs := root["keyids"].([]any)
	if f["_type"] != "root" || w.Check() != nil || !isKeys || !isRoles || !isRoot || !isIDs {
		return nil, unknown
	}
	s := &Shown{Purpose: UpdateRoot, World: w, Lines: []string{
		fmt.Sprintf("You sign root %v of the update repository, good until %v.", f["version"], f["expires"]),
		fmt.Sprintf("%d keys in all; the next root needs %v of %d. All of it:", len(keys), root["threshold"], len(ids)),
	}}
	walk("", f, &s.Lines)
	s.Lines = cut(s.Lines)
	return s, nil
}
