package console

import (
	"bytes"
	"context"
	"maps"
	"path/filepath"
	"slices"

	"keyrite/artifact/fault"
	"keyrite/ceremony"
	"keyrite/internal/cli"
	"keyrite/internal/config"
	"keyrite/internal/intake"
	"keyrite/internal/redact"
)

// AnswersFormat names the answers file.
const AnswersFormat = "keyrite/answers/v1"

// answersFile is the file.
type answersFile struct {
	Format      string            `yaml:"format"`
	Passphrases map[string]string `yaml:"passphrases"` // name → file with the passphrase, beside this file
	Yes         []string          `yaml:"yes"`         // who answers yes to every question; "all" is everybody
	Documents   map[string]string `yaml:"documents"`   // name → kind; "all" for everybody
	Elsewhere   []string          `yaml:"elsewhere"`   // who cosigns on another machine
	Incident    *Incident         `yaml:"incident"`    // spoils the rehearsal on purpose
}

// Answers are a rehearsal's prepared answers. A live ceremony refuses them.
type Answers struct {
	ceremony.Console
	file answersFile
	dir  string
}

// Incident is an incident that somebody calls when asked in a step.
type Incident struct {
	Step   string `yaml:"step"`
	By     string `yaml:"by"`
	Reason string `yaml:"reason"`
}

// LoadAnswers reads an answers file; what it lacks is asked at room.
func LoadAnswers(path string, room ceremony.Console) (*Answers, error) {
	a := &Answers{dir: filepath.Dir(path), Console: room}
	if _, err := config.Load(path, &a.file); err != nil {
		return nil, err
	}
	if a.file.Format != AnswersFormat {
		return nil, fault.Errorf(fault.Usage, "answers %q have format %q, not %q", path, a.file.Format, AnswersFormat)
	}
	return a, nil
}

// complete says whether nothing is left to ask of these people.
func (a *Answers) complete(names []string) bool {
	for _, n := range names {
		if !a.says(a.file.Yes, n) || a.file.Passphrases[n] == "" || a.file.Documents[n] == "" && a.file.Documents["all"] == "" {
			return false
		}
	}
	return true
}

func (a *Answers) says(list []string, who string) bool {
	return slices.Contains(list, "all") || slices.Contains(list, who)
}

// Ask answers for those who are prepared, and calls the prepared incident.
func (a *Answers) Ask(ctx context.Context, p ceremony.Prompt) (string, *ceremony.Call, error) {
	if i := a.file.Incident; i != nil && p.Step == i.Step && p.Who == i.By {
		a.Say("bad", i.By+" calls an incident: "+i.Reason)
		return "", &ceremony.Call{By: i.By, Reason: i.Reason}, nil
	}
	if p.Role != "" && a.says(a.file.Yes, p.Who) {
		a.Say("", p.Who+": "+p.Text+" "+p.Want[0])
		return p.Want[0], nil, nil
	}
	return a.Console.Ask(ctx, p)
}

// Secret reads a prepared passphrase.
func (a *Answers) Secret(ctx context.Context, who string) (*redact.Secret, error) {
	path, ok := a.file.Passphrases[who]
	if !ok {
		return a.Console.Secret(ctx, who)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(a.dir, path)
	}
	data, err := intake.Read(path, cli.MaxSecretBytes)
	if err != nil {
		return nil, err
	}
	return redact.New(bytes.TrimRight(data, "\r\n")), nil
}

// Elsewhere says who is prepared to cosign elsewhere.
func (a *Answers) Elsewhere(who string) bool { return slices.Contains(a.file.Elsewhere, who) }

// Documents answers for those who are prepared.
func (a *Answers) Documents(ctx context.Context, names []string) (map[string]string, error) {
	seen, missing := map[string]string{}, []string{}
	for _, n := range names {
		switch {
		case a.file.Documents[n] != "":
			seen[n] = a.file.Documents[n]
		case a.file.Documents["all"] != "":
			seen[n] = a.file.Documents["all"]
		default:
			missing = append(missing, n)
		}
	}
	if len(missing) == 0 {
		return seen, nil
	}
	more, err := a.Console.Documents(ctx, missing)
	maps.Copy(seen, more)
	return seen, err
}
