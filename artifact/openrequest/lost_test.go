package openrequest_test

import (
	"crypto/ed25519"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/openrequest"
	"keyrite/artifact/share"
)

const lostDir = "../../testdata/vectors/open-request-lost"

// newLost is a world whose safe work was lost and gave way to work2; the safe root is in
// force and took nothing over. Shares and keys are those of work.
func newLost(t testing.TB) *asked {
	t.Helper()
	a := newAsked(t)
	shares, keys := a.shares, a.keys
	people := a.State.People
	work, _ := people.Safe("work")
	people.Safes = append(slices.Clone(people.Safes), charter.Safe{Name: "work2", Openers: work.Openers})
	a.Approve(charter.TypePeople, people)
	for _, safe := range []string{"root", "work2"} {
		a.shares, a.keys = map[string][]byte{}, map[string]ed25519.PrivateKey{}
		a.dealSafe(safe, 1)
	}
	a.shares, a.keys = shares, keys
	image := a.State.Keys["firmware"]
	image.ID, image.Public, image.Token = "image", a.SPKI("vault1"), tokenOf("work")
	a.Approve(charter.TypeKey, image)
	image.ID, image.Public, image.Token, image.SuccessorOf = "image-2", a.SPKI("vault2"), tokenOf("work2"), "image"
	a.Approve(charter.TypeKey, image)
	const record = "keyrite/record/0123456789abcdef"
	a.Approve(charter.TypeKeyRetired, charter.KeyRetired{ID: "image", Reason: charter.ReasonLost, Record: record})
	a.Approve(charter.TypeSuccessor, charter.Successor{ID: "image", Record: record, Successor: "image-2"})
	a.Approve(charter.TypeSafeRetired, charter.SafeRetired{Reason: charter.ReasonLost, Record: record, Safe: "work"})
	return a
}

// over is a request by which work2 takes over from work: carry asks those of work for
// their shares, reseal and rehead those of work2.
func (a *asked) over(t testing.TB, operation string, edit func(*openrequest.Request)) *openrequest.Request {
	t.Helper()
	q := openrequest.Ask{Host: "vault1", Operation: operation, Recipient: a.once.Recipient().String(), Valid: 15 * time.Minute}
	if operation == openrequest.Carry {
		q.Safe, q.Epoch, q.Into = "work", 1, "work2"
	} else {
		q.Safe, q.From = "work2", "work"
	}
	r, err := openrequest.New(a.State, q, artifacttest.Now())
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(r)
	}
	return r
}

// lostRequests are requests that may not be answered, with the class of each refusal.
func (a *asked) lostRequests(t testing.TB) []artifacttest.Vector {
	bad := func(name, operation string, edit func(*openrequest.Request)) artifacttest.Vector {
		return artifacttest.Vector{Name: name, Expect: "policy", Body: a.signed(t, a.over(t, operation, edit))}
	}
	const carry, reseal = openrequest.Carry, openrequest.Reseal
	return []artifacttest.Vector{
		bad("carry-from-a-safe-that-is-not-retired", carry, func(r *openrequest.Request) { r.Safe = "root" }),
		bad("carry-from-an-unknown-safe", carry, func(r *openrequest.Request) { r.Safe = "cellar" }),
		bad("carry-into-itself", carry, func(r *openrequest.Request) { r.Into = "work" }),
		bad("carry-from-the-safe-in-force-into-itself", carry, func(r *openrequest.Request) { r.Safe = "work2" }),
		bad("carry-into-an-unknown-safe", carry, func(r *openrequest.Request) { r.Into = "cellar" }),
		bad("carry-into-a-safe-that-took-nothing-over", carry, func(r *openrequest.Request) { r.Into = "root" }),
		bad("carry-into-none", carry, func(r *openrequest.Request) { r.Into = "" }),
		bad("carry-of-an-unknown-epoch", carry, func(r *openrequest.Request) { r.Epoch = 2 }),
		bad("carry-that-says-from", carry, func(r *openrequest.Request) { r.From = "work" }),
		bad("reseal-from-a-safe-that-is-not-retired", reseal, func(r *openrequest.Request) { r.From = "root" }),
		bad("reseal-from-an-unknown-safe", reseal, func(r *openrequest.Request) { r.From = "cellar" }),
		bad("reseal-from-itself", reseal, func(r *openrequest.Request) { r.From = "work2" }),
		bad("reseal-for-a-safe-that-took-nothing-over", reseal, func(r *openrequest.Request) { r.Safe = "root" }),
		bad("reseal-for-a-retired-safe", reseal, func(r *openrequest.Request) { r.Safe = "work" }),
		bad("reseal-that-says-into", reseal, func(r *openrequest.Request) { r.Into = "work2" }),
		bad("rehead-from-a-safe-that-is-not-retired", openrequest.Rehead, func(r *openrequest.Request) { r.From = "root" }),
		bad("rehead-for-a-safe-that-took-nothing-over", openrequest.Rehead, func(r *openrequest.Request) { r.Safe = "root" }),
		bad("create-that-says-from", reseal, func(r *openrequest.Request) { r.Operation = openrequest.Create }),
		bad("unseal-that-says-from", reseal, func(r *openrequest.Request) { r.Operation = openrequest.Unseal }),
		bad("unseal-that-says-into", carry, func(r *openrequest.Request) { r.Operation = openrequest.Unseal }),
		bad("unseal-of-a-retired-safe", carry, func(r *openrequest.Request) { r.Operation, r.Into = openrequest.Unseal, "" }),
	}
}

// lostAnswers are answers to r, a carry, that do not hold.
func (a *asked) lostAnswers(t testing.TB, r *openrequest.Request) []artifacttest.Vector {
	reworded := *r
	reworded.Into = "root"
	place := func(f func(*share.Place)) []byte {
		return a.answer(t, r, given{holder: "master1", edit: func(o *share.Opening) { f(&o.Place) }})
	}
	return []artifacttest.Vector{
		{Name: "answer-to-a-carry-into-another-safe", Expect: "verify", Body: a.answer(t, &reworded, given{holder: "master1"})},
		{Name: "answer-with-the-place-in-the-other-safe", Expect: "verify", Body: place(func(p *share.Place) { p.Safe = "work2" })},
		{Name: "answer-with-the-place-in-another-epoch", Expect: "verify", Body: place(func(p *share.Place) { p.Epoch = 2 })},
	}
}

// Shares of a retired safe are asked for by carry alone, and only for the safe that took
// over from it; both requests name both safes, in what is signed and in what is shown.
func TestCarryFromARetiredSafe(t *testing.T) {
	if *update {
		writeLost(t)
	}
	judge(t, lostDir)
	a := newLost(t)
	for operation, want := range map[string]string{
		openrequest.Carry:  "safe work was retired, and safe work2 took over",
		openrequest.Reseal: "RESEAL: the vault's store was under safe work, which was retired",
		openrequest.Rehead: "REHEAD: the vault's store was under safe work, which was retired",
	} {
		lines, err := a.over(t, operation, nil).Lines()
		if err != nil || !strings.Contains(strings.Join(lines, "\n"), want) {
			t.Errorf("%s is shown as %q, %v", operation, lines, err)
		}
	}
	for _, v := range a.lostRequests(t) {
		if _, err := openrequest.Open(v.Body, a.State, artifacttest.Now()); class(err) != v.Expect {
			t.Errorf("%s: %s (%v), want %s", v.Name, class(err), err, v.Expect)
		}
	}
}

func writeLost(t *testing.T) {
	t.Helper()
	a := newLost(t)
	a.Save(lostDir)
	r := a.over(t, openrequest.Carry, nil)
	for _, v := range slices.Concat([]artifacttest.Vector{
		{Name: "valid", Expect: "ok", Body: a.signed(t, r)},
		{Name: "valid-reseal", Expect: "ok", Body: a.signed(t, a.over(t, openrequest.Reseal, nil))},
		{Name: "valid-rehead", Expect: "ok", Body: a.signed(t, a.over(t, openrequest.Rehead, nil))},
		{Name: "answer-valid", Expect: "ok", Body: a.answer(t, r, given{holder: "master1"})},
	}, a.lostRequests(t), a.lostAnswers(t, r)) {
		artifacttest.WriteVector(t, lostDir, v, strings.ReplaceAll(v.Name, "-", " "))
	}
}
