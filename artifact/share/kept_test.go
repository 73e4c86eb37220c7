package share_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/share"
)

const ledgerDir = "../../testdata/vectors/share-ledger"

// book is a ledger in which holders proved their shares.
func (d *dealt) book(t testing.TB, at time.Time, holders ...string) []byte {
	t.Helper()
	l, err := share.ReadLedger(nil)
	if err != nil {
		t.Fatal(err)
	}
	ch := d.challenge(t, at)
	line, err := l.Issue(ch)
	if err != nil {
		t.Fatal(err)
	}
	out := append(line, '\n')
	for _, h := range holders {
		p, err := share.VerifyProof(d.proofBy(t, h, h, h, ch, nil), d.State, at)
		if err != nil {
			t.Fatal(err)
		}
		if line, err = l.Accept(p, at); err != nil {
			t.Fatal(err)
		}
		out = append(append(out, line...), '\n')
	}
	return out
}

// rewrite changes the last line of a ledger.
func rewrite(t testing.TB, book []byte, edit func(line map[string]any)) []byte {
	t.Helper()
	i := bytes.LastIndexByte(book[:len(book)-1], '\n') + 1
	var line map[string]any
	if err := jcs.Unmarshal(book[i:len(book)-1], &line); err != nil {
		t.Fatal(err)
	}
	edit(line)
	out, err := jcs.Marshal(line)
	if err != nil {
		t.Fatal(err)
	}
	return append(append(bytes.Clone(book[:i]), out...), '\n')
}

// handWritten is a line that nobody proved anything for.
func (d *dealt) handWritten(t testing.TB, holder string) []byte {
	t.Helper()
	p, _, err := share.PlaceOf(d.State, "work", holder)
	if err != nil {
		t.Fatal(err)
	}
	line, err := jcs.Marshal(map[string]any{"event": "accepted", "format": share.LedgerFormat, "id": strings.Repeat("0", 64), "place": p, "time": charter.FormatTime(artifacttest.Now())})
	if err != nil {
		t.Fatal(err)
	}
	return append(line, '\n')
}

func writeLedgerVectors(t *testing.T) {
	t.Helper()
	d := dealtWorld(t)
	now := artifacttest.Now()
	good := d.book(t, now, "master1", "master5")
	another := d.book(t, now, "master2")
	var stranger map[string]any
	rewrite(t, another, func(l map[string]any) { stranger, _ = l["proof"].(map[string]any) })
	d.Save(ledgerDir)
	put := func(name, expect, comment string, body []byte) {
		artifacttest.WriteVector(t, ledgerDir, artifacttest.Vector{Name: name, Expect: expect, Body: bytes.TrimSuffix(body, []byte("\n"))}, comment)
	}
	edit := func(name, expect, comment string, f func(l map[string]any)) {
		put(name, expect, comment, rewrite(t, good, f))
	}
	put("valid", "ok", "two proofs, of a key file and of a card", good)
	edit("told", "verify", "a line of before proofs were kept", func(l map[string]any) { delete(l, "proof") })
	put("hand-written", "verify", "a line that somebody wrote by hand", append(bytes.Clone(good), d.handWritten(t, "master2")...))
	edit("anothers-proof", "verify", "a line with the proof of another", func(l map[string]any) { l["proof"] = stranger })
	edit("anothers-place", "verify", "a line that says it is another's", func(l map[string]any) {
		p, _ := l["place"].(map[string]any)
		p["holder"] = "master2"
	})
	edit("anothers-challenge", "verify", "a line about another challenge", func(l map[string]any) { l["id"] = strings.Repeat("0", 64) })
	edit("altered", "verify", "a proof of other words", func(l map[string]any) {
		p, _ := l["proof"].(map[string]any)
		p["payload"] = stranger["payload"]
	})
	edit("late", "policy", "accepted when the challenge had expired", func(l map[string]any) { l["time"] = charter.FormatTime(now.Add(share.MaxChallenge + time.Second)) })
	i := bytes.LastIndexByte(good[:len(good)-1], '\n') + 1
	put("twice", "verify", "one proof twice", append(bytes.Clone(good), good[i:]...))
	put("other-vault", "policy", "proofs of another vault", dealtWorld(t).book(t, now, "master1"))
}

func TestLedgerVectors(t *testing.T) {
	if *update {
		writeLedgerVectors(t)
	}
	lines, err := os.ReadFile(filepath.Join(ledgerDir, "charter.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range artifacttest.Vectors(t, ledgerDir) {
		l, err := share.ParseLedger(append(v.Body, '\n'))
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
			continue
		}
		kept, err := l.Check(lines)
		got := "ok"
		if err != nil {
			got = string(fault.ClassOf(err))
		}
		if got != v.Expect {
			t.Errorf("%s: %s (%v), want %s", v.Name, got, err, v.Expect)
		}
		if told := errors.Is(err, share.ErrTold); (kept != nil) != (told || err == nil) || told && (!kept[0].Proved || kept[len(kept)-1].Proved) {
			t.Errorf("%s: %+v, %v", v.Name, kept, err)
		}
	}
}

// Proofs hold when the shares were dealt anew since, for those that they were made with.
func TestLedgerOfBefore(t *testing.T) {
	d := dealtWorld(t)
	now := artifacttest.Now()
	book := d.book(t, now, "master1", "master2")
	d.deal(2)
	book = append(book, d.book(t, now, "master1")...)
	l, err := share.ParseLedger(append(book, `{"event":"acc`...))
	if err != nil {
		t.Fatal(err)
	}
	kept, err := l.Check(d.Charter)
	if err != nil || len(kept) != 3 || kept[0].Place.Epoch != 1 || kept[2].Place.Epoch != 2 || kept[2].Purpose != "test" || !kept[2].At.Equal(now) {
		t.Errorf("%+v, %v", kept, err)
	}
	// By share and person key, and both: never by one of them.
	for _, keep := range []int{0, 1} {
		half := rewrite(t, book, func(line map[string]any) {
			p, _ := line["proof"].(map[string]any)
			s, _ := p["signatures"].([]any)
			p["signatures"] = s[keep : keep+1]
		})
		if l, err = share.ParseLedger(half); err != nil {
			t.Fatal(err)
		}
		if kept, err := l.Check(d.Charter); err == nil || kept != nil || !errors.Is(err, envelope.ErrQuorum) {
			t.Errorf("%+v, %v", kept, err)
		}
	}
}
