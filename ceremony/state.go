package ceremony

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
	"keyrite/artifact/tlog"
)

// Status is what a record folder says of its attempt.
type Status struct {
	Record, Attempt, Title, Kind, World string
	State                               string
	Step                                string // the last one begun, "" if none is open
	StepDo, StepTitle                   string // its verb and title
	Met                                 string // the contingency whose steps are being taken, "" if none
	Cause                               string
	Entries                             int64
	Root                                string
	ScriptHash                          string
	Module                              string // hex SHA-256 of the PKCS#11 module that ran, "" if it names none
	Ended                               bool
	Tokens                              []record.TokenReady // initialised in this attempt
	Begun                               []record.Intent     // initialisations that were announced
	PINsChanged                         map[string]bool     // safes whose PINs come from shares
	Dealt                               map[string]record.Dealt
	Base                                *record.Base             // the vault that it continues, nil for a genesis
	Opened                              []record.Intent          // safes of that vault, announced to be opened
	Repinned                            map[string]record.Intent // of these, whose PINs were announced to change
	Announced                           map[string]bool          // safes in which keys were announced
	Moves                               []record.Intent          // keys announced to arrive
	Leaving                             map[string]bool          // objects announced to be destroyed where they left
	Exposed                             []string                 // epochs of which shares were combined, by the clean-up
	InForce                             map[string]string        // by safe: the epoch, "safe/epoch", that opens a token whose PINs were changing, by the last clean-up
	Stated                              map[string]bool          // hex SHA-256 of charter statements made in it
	From                                map[string]string        // by key: the safe that it left in a transfer
	Kept                                map[string][]string      // by safe: keys that a transfer left there, "key object", by the last clean-up
	Called                              []string                 // people whose signed incidents are in it
}

// ReadState reads the transcript of a record folder, as far as it is whole. The
// transcript is replayed but signatures are not checked: this is for the owner,
// keyrite-verify is for everybody else.
func ReadState(dir string) (*Status, error) {
	data, err := os.ReadFile(filepath.Join(dir, record.TranscriptFile))
	if err != nil {
		return nil, fault.Errorf(fault.Usage, "read record: %w", err)
	}
	if n := len(data); n > 0 && data[n-1] != '\n' { // the rest of a write that was never acknowledged
		for n > 0 && data[n-1] != '\n' {
			n--
		}
		data = data[:n]
	}
	tr := record.NewTranscript()
	s := &Status{State: "DRAFT", PINsChanged: map[string]bool{}, Dealt: map[string]record.Dealt{}, Repinned: map[string]record.Intent{}, Announced: map[string]bool{}, Leaving: map[string]bool{}, InForce: map[string]string{}, Kept: map[string][]string{}, From: map[string]string{}, Stated: map[string]bool{}}
	err = tr.Read(bytes.NewReader(data), func(e *record.Entry, d record.Data) error {
		s.take(e, d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.Entries, s.Root = tr.Size(), rootHex(tr)
	return s, nil
}

func (s *Status) take(e *record.Entry, d record.Data) {
	switch d := d.(type) {
	case *record.Open:
		s.Record, s.Attempt, s.Title, s.Kind, s.World, s.ScriptHash = d.Record, d.Attempt, d.Title, d.Kind, string(d.World), d.ScriptHash
		s.Base = d.Base
		for _, p := range d.Programs {
			if p.Name == "module" {
				s.Module = p.SHA256
			}
		}
	case *record.State:
		s.State, s.Ended = d.State, false
		if d.Cause != "" {
			s.Cause = d.Cause
		}
	case *record.Begin:
		s.Step, s.StepDo, s.StepTitle = e.Step, d.Do, d.Title
		if e.Step != "" && e.Step[0] <= '9' { // those of a contingency begin with a letter
			s.Met = ""
		}
	case *record.Contingency:
		s.Met = d.ID
	case *record.Done:
		s.Step, s.StepDo, s.StepTitle = "", "", ""
	case *record.Intent:
		switch d.Effect {
		case "init-token":
			s.Begun = append(s.Begun, *d)
		case "open":
			s.Opened = append(s.Opened, *d)
		case "repin":
			s.Repinned[d.Safe] = *d
		case "generate", "store", "receiver":
			s.Announced[d.Safe] = true
		case "transfer":
			s.Announced[d.Safe] = true
			s.Moves = append(s.Moves, *d)
		case "destroy":
			s.Leaving[d.Object] = true
		}
	case *record.Statement:
		s.Stated[d.LineHash] = true
	case *record.Incident:
		if d.Envelope != nil {
			s.Called = append(s.Called, d.By)
		}
	case *record.Transferred:
		s.From[d.Key.ID] = d.From.Safe
	case *record.Cleanup:
		s.Exposed = append(s.Exposed, d.Exposed...)
		s.InForce[d.Safe], s.Kept[d.Safe] = d.InForce, d.Kept
	case *record.TokenReady:
		s.Tokens = append(s.Tokens, *d)
	case *record.Dealt:
		s.Dealt[d.Epoch.Safe] = *d
	case *record.PINsChanged:
		s.PINsChanged[d.Safe] = true
	case *record.End:
		s.Ended = true
	}
}

// armed says whether an incident would have counted.
func (s *Status) armed() bool {
	return !slices.Contains([]string{"DRAFT", "LINTED", "REHEARSED", "SUMMONED"}, s.State)
}

// Ref is how the next attempt names this one.
func (s *Status) Ref() *record.Ref { return &record.Ref{Record: s.Record, Root: s.Root} }

func rootHex(tr *record.Transcript) string {
	return tlog.Hex(tr.Root())
}
