package page

import (
	"fmt"
	"net/http"
	"slices"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/share"
	"keyrite/internal/cli"
	"keyrite/vault/proof"
)

const (
	sharesPath     = "keyrite/shares"
	challengesPath = "keyrite/shares/challenges"
)

// sharesPage is who proved a share, and when.
type sharesPage struct {
	Days  int `json:"alive_days"`
	Safes []aliveSafe
	now   time.Time
}

// Past shows a time to people, with how long ago it was.
func (p *sharesPage) Past(s string) string {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return s
	}
	return when(s) + ", " + cli.Ago(p.now.Sub(t))
}

// aliveSafe is a safe with its level in words.
type aliveSafe struct{ proof.Safe }

// Verdict says how the safe stands, so that it can be heard as well as seen.
func (s aliveSafe) Verdict() string {
	spare := s.Alive - s.Need
	switch {
	case spare < 0:
		return fmt.Sprintf("Red: only %d of %d shares are proven, and %d open it. If the others are lost, nothing opens this safe again.", s.Alive, s.Of, s.Need)
	case spare == 0:
		return fmt.Sprintf("Red: %d of %d shares are alive, and all of these are needed. One more lost share ends the safe.", s.Alive, s.Of)
	case s.Level == share.Warning && s.Alive == s.Of:
		return fmt.Sprintf("Warning: all %d shares are alive, but one lost share leaves none to spare.", s.Of)
	case s.Level == share.Warning:
		return fmt.Sprintf("Warning: %d of %d shares are alive; one more lost share leaves none to spare.", s.Alive, s.Of)
	}
	return fmt.Sprintf("Good: %d of %d shares are alive; it opens with %d.", s.Alive, s.Of, s.Need)
}

// Class is the style of the verdict.
func (s aliveSafe) Class() string {
	return map[share.Level]string{share.Good: "good", share.Warning: "wait", share.Red: "bad"}[s.Level]
}

// howProven says in words what proved a share.
func howProven(how string) string {
	return map[string]string{
		proof.ByChallenge: "answered a challenge", proof.ByOpening: "opened the vault", proof.ByDealing: "signed for it when it was dealt",
	}[how]
}

// People are the key masters of a safe as the page tells of them.
func (s aliveSafe) People() []holder {
	out := make([]holder, len(s.Holders))
	for i, h := range s.Holders {
		out[i] = holder{h, howProven(h.How)}
	}
	return out
}

// holder is a key master with what proved his share, in words.
type holder struct {
	proof.Holder
	Proof string
}

func showShares(x *look) (any, error) {
	if err := x.only(); err != nil {
		return nil, err
	}
	p := sharesPage{now: x.s.cfg.Now()}
	return &p, x.read(sharesPath, nil, &p)
}

// challengesPage are the challenges that wait for answers.
type challengesPage struct{ Challenges []proof.Open }

func showChallenges(x *look) (any, error) {
	if err := x.only(); err != nil {
		return nil, err
	}
	var p challengesPage
	return &p, x.read(challengesPath, nil, &p)
}

// showChallenge answers one challenge as the file that holders answer.
func showChallenge(x *look) (any, error) {
	if err := x.only("id"); err != nil {
		return nil, err
	}
	var p challengesPage
	if err := x.read(challengesPath, nil, &p); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(p.Challenges, func(c proof.Open) bool { return c.ID == x.query.Get("id") })
	if i < 0 {
		return nil, fault.Errorf(fault.Usage, "no challenge with this id waits for answers")
	}
	x.write(http.StatusOK, "text/plain; charset=utf-8", p.Challenges[i].Challenge)
	return nil, nil //nolint:nilnil // the answer is written
}
