package openrequest_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/envelope"
	"keyrite/artifact/fault"
	"keyrite/artifact/jcs"
	"keyrite/artifact/openrequest"
	"keyrite/artifact/share"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectorDir = "../../testdata/vectors/open-request"

// asked is a world with a dealt safe, a host, and a one-time key. master5 has a card.
type asked struct {
	*artifacttest.World
	shares map[string][]byte
	keys   map[string]ed25519.PrivateKey
	once   *age.X25519Identity
}

func newAsked(t testing.TB) *asked {
	t.Helper()
	a := &asked{World: artifacttest.New(t, "master5"), shares: map[string][]byte{}, keys: map[string]ed25519.PrivateKey{}}
	a.AddHost("vault1")
	a.AddHost("vault2")
	a.deal(1)
	var err error
	if a.once, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *asked) deal(epoch int) { a.dealSafe("work", epoch) }

// dealSafe deals a safe, whose token has its name; shares and keys are those from then on.
func (a *asked) dealSafe(safe string, epoch int) {
	e := charter.Epoch{Epoch: epoch, Need: 3, Safe: safe, Token: tokenOf(safe)}
	for i, n := range []string{"master1", "master2", "master3", "master4", "master5"} {
		raw := make([]byte, share.Bytes)
		rand.Read(raw)
		k, _ := share.Key(raw, share.Place{Epoch: epoch, Holder: n, Index: i + 1, Safe: safe, Vault: a.State.Vault, World: a.World.World})
		a.shares[n], a.keys[n] = raw, k
		pub, _ := k.Public().(ed25519.PublicKey)
		e.Shares = append(e.Shares, charter.Share{Holder: n, Index: i + 1, Public: pub})
	}
	a.Approve(charter.TypeEpoch, e)
}

func tokenOf(safe string) anchor.Token { return anchor.Token{Label: safe, Serial: "1"} }

func (a *asked) request(t testing.TB, edit func(*openrequest.Request)) *openrequest.Request {
	t.Helper()
	r, err := openrequest.New(a.State, openrequest.Ask{Host: "vault1", Operation: openrequest.Unseal, Safe: "work", Recipient: a.once.Recipient().String(), Valid: 15 * time.Minute}, artifacttest.Now())
	if err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(r)
	}
	return r
}

func (a *asked) signed(t testing.TB, r *openrequest.Request, by ...crypto.Signer) []byte {
	t.Helper()
	if len(by) == 0 {
		by = []crypto.Signer{a.Keys["vault1"]}
	}
	env, err := envelope.SignJSON(openrequest.PayloadType, r, by...)
	if err != nil {
		t.Fatal(err)
	}
	b, err := env.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// given is who signs an answer and with what; the zero values are the honest ones.
type given struct {
	holder, shareOf, person string
	typ                     string
	edit                    func(*share.Opening)
}

func (a *asked) answer(t testing.TB, r *openrequest.Request, g given) []byte {
	t.Helper()
	or := func(s string) string {
		if s == "" {
			return g.holder
		}
		return s
	}
	e, err := a.State.EpochAt(r.Safe, r.Epoch)
	if err != nil {
		t.Fatal(err)
	}
	place, _, err := share.PlaceIn(a.State, &e, g.holder)
	if err != nil {
		t.Fatal(err)
	}
	hash, _, err := r.Hash()
	if err != nil {
		t.Fatal(err)
	}
	o := share.Opening{Format: share.OpeningFormat, Nonce: r.Attempt, Operation: hash, Place: place}
	if g.edit != nil {
		g.edit(&o)
	}
	typ := g.typ
	if typ == "" {
		typ = share.OpeningType
	}
	env, err := envelope.SignJSON(typ, o, a.keys[or(g.shareOf)], a.People[or(g.person)].Signer())
	if err != nil {
		t.Fatal(err)
	}
	file, err := share.Seal(a.shares[g.holder], place, r.Recipient)
	if err != nil {
		t.Fatal(err)
	}
	b, err := jcs.Marshal(openrequest.Answer{Format: openrequest.AnswerFormat, Opening: *env, Share: file, World: a.World.World})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func verify(data []byte, r *openrequest.Request, s *charter.State) (share.Place, error) {
	a, err := openrequest.ParseAnswer(data)
	if err != nil {
		return share.Place{}, err
	}
	return a.Verify(r, s)
}

func TestRequestAndAnswer(t *testing.T) {
	a := newAsked(t)
	r := a.request(t, nil)
	got, err := openrequest.Open(a.signed(t, r), a.State, artifacttest.Now().Add(14*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	lines, err := got.Lines()
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(lines, "\n")
	for _, want := range []string{"Host vault1 asks", "safe work, epoch 1", "UNSEAL", "until 2026-11-22T02:15:00Z", string(a.World.World), "words: "} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not shown in\n%s", want, text)
		}
	}
	for _, holder := range []string{"master1", "master5"} {
		data := a.answer(t, r, given{holder: holder})
		place, err := verify(data, got, a.State)
		if err != nil || place.Holder != holder {
			t.Errorf("%s: %+v, %v", holder, place, err)
		}
		ans, err := openrequest.ParseAnswer(data)
		if err != nil {
			t.Fatal(err)
		}
		if !ans.For(r.Attempt) || ans.For(make([]byte, 32)) || ans.For(nil) || ans.Holder() != holder {
			t.Errorf("%s: it does not say which attempt it is for, or whose it is", holder)
		}
		// What is encrypted is the share, for the one-time key alone.
		want, pub, _ := share.PlaceOf(a.State, "work", holder)
		if raw, _, err := share.Open(ans.Share, a.once, want, pub); err != nil || !bytes.Equal(raw, a.shares[holder]) {
			t.Errorf("%s: %v", holder, err)
		}
	}
}

// Shares of an epoch before are asked for by carry, and by nothing else.
func TestCarry(t *testing.T) {
	a := newAsked(t)
	old, keys := a.shares["master1"], a.keys["master1"]
	a.deal(2)
	now := artifacttest.Now()
	ask := openrequest.Ask{Host: "vault1", Operation: openrequest.Carry, Safe: "work", Recipient: a.once.Recipient().String(), Epoch: 1, Valid: time.Minute}
	r, err := openrequest.New(a.State, ask, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openrequest.Open(a.signed(t, r), a.State, now); err != nil {
		t.Error(err)
	}
	e, err := a.State.EpochAt("work", 1)
	if err != nil {
		t.Fatal(err)
	}
	place, _, err := share.PlaceIn(a.State, &e, "master1")
	if err != nil || place.Epoch != 1 {
		t.Fatalf("%+v %v", place, err)
	}
	for name, c := range map[string]struct {
		place share.Place
		key   ed25519.PrivateKey
		want  string
	}{
		"the old share":           {place, keys, "ok"},
		"the new one":             {func() share.Place { p := place; p.Epoch = 2; return p }(), a.keys["master1"], "verify"},
		"the new one, as the old": {place, a.keys["master1"], "verify"},
	} {
		hash, _, _ := r.Hash()
		env, err := envelope.SignJSON(share.OpeningType, share.Opening{Format: share.OpeningFormat, Nonce: r.Attempt, Operation: hash, Place: c.place}, c.key, a.People["master1"].Signer())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := openrequest.NewAnswer(r, a.State, env, old); class(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, bad := range []int{0, 2, 3, -1} {
		ask.Epoch = bad
		if _, err := openrequest.New(a.State, ask, now); err == nil {
			t.Errorf("epoch %d is carried", bad)
		}
	}
	r.Operation = openrequest.Unseal
	if _, err := openrequest.Open(a.signed(t, r), a.State, now); fault.ClassOf(err) != fault.Policy {
		t.Errorf("unseal with an epoch of before: %v", err)
	}
	for _, bad := range []int{0, 3} {
		if _, err := a.State.EpochAt("work", bad); fault.ClassOf(err) != fault.Policy {
			t.Errorf("epoch %d: %v", bad, err)
		}
	}
}

// requests that may not be answered, with the class of each refusal.
func (a *asked) badRequests(t testing.TB) []artifacttest.Vector {
	edit := func(f func(*openrequest.Request)) []byte { return a.signed(t, a.request(t, f)) }
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other := newAsked(t)
	card := a.People["master5"].Public().Recipient
	good := a.request(t, nil)
	wrongType, err := envelope.SignJSON(share.ProofType, good, a.Keys["vault1"])
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := wrongType.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return []artifacttest.Vector{
		{Name: "stranger", Expect: "verify", Body: a.signed(t, good, stranger)},
		{Name: "by-an-approver", Expect: "verify", Body: a.signed(t, good, a.People["approver1"].Signer())},
		{Name: "by-another-host", Expect: "verify", Body: a.signed(t, good, a.Keys["vault2"])},
		{Name: "two-hosts", Expect: "verify", Body: a.signed(t, good, a.Keys["vault1"], a.Keys["vault2"])},
		{Name: "payload-type", Expect: "verify", Body: wrong},
		{Name: "other-world", Expect: "policy", Body: other.signed(t, other.request(t, nil))},
		{Name: "other-vault", Expect: "policy", Body: edit(func(r *openrequest.Request) { r.Vault = strings.Repeat("0", 64) })},
		{Name: "other-epoch", Expect: "policy", Body: edit(func(r *openrequest.Request) { r.Epoch = 2 })},
		{Name: "carry-in-force", Expect: "policy", Body: edit(func(r *openrequest.Request) { r.Operation = openrequest.Carry })},
		{Name: "epoch-0", Expect: "verify", Body: edit(func(r *openrequest.Request) { r.Operation, r.Epoch = openrequest.Carry, 0 })},
		{Name: "other-safe", Expect: "policy", Body: edit(func(r *openrequest.Request) { r.Safe = "root" })},
		{Name: "expired", Expect: "policy", Body: edit(func(r *openrequest.Request) {
			r.Issued, r.Expires = "2026-11-22T01:00:00Z", "2026-11-22T01:15:00Z"
		})},
		{Name: "future", Expect: "policy", Body: edit(func(r *openrequest.Request) {
			r.Issued, r.Expires = "2026-11-22T03:00:00Z", "2026-11-22T03:15:00Z"
		})},
		{Name: "for-ever", Expect: "verify", Body: edit(func(r *openrequest.Request) { r.Expires = "2036-11-22T02:00:00Z" })},
		{Name: "ends-before-it-begins", Expect: "verify", Body: edit(func(r *openrequest.Request) { r.Expires = r.Issued })},
		{Name: "no-operation", Expect: "verify", Body: edit(func(r *openrequest.Request) { r.Operation = "" })},
		{Name: "unknown-operation", Expect: "verify", Body: edit(func(r *openrequest.Request) { r.Operation = "destroy" })},
		{Name: "escape-in-operation", Expect: "verify", Body: edit(func(r *openrequest.Request) { r.Operation = "unseal\x1b[2J" })},
		{Name: "short-attempt", Expect: "verify", Body: edit(func(r *openrequest.Request) { r.Attempt = r.Attempt[:31] })},
		{Name: "zero-attempt", Expect: "verify", Body: edit(func(r *openrequest.Request) { r.Attempt = make([]byte, 32) })},
		{Name: "no-recipient", Expect: "verify", Body: edit(func(r *openrequest.Request) { r.Recipient = "" })},
		{Name: "recipient-of-a-card", Expect: "verify", Body: edit(func(r *openrequest.Request) { r.Recipient = card })},
		{Name: "recipient-in-capitals", Expect: "verify", Body: edit(func(r *openrequest.Request) { r.Recipient = strings.ToUpper(r.Recipient) })},
		{Name: "older-charter", Expect: "policy", Body: edit(func(r *openrequest.Request) { r.Charter.Size-- })},
		{Name: "newer-charter", Expect: "policy", Body: edit(func(r *openrequest.Request) { r.Charter.Size++ })},
		{Name: "forked-charter", Expect: "verify", Body: edit(func(r *openrequest.Request) { r.Charter.Head = strings.Repeat("a", 64) })},
		{Name: "other-format", Expect: "verify", Body: edit(func(r *openrequest.Request) { r.Format = "keyrite/open-request/v2" })},
		{Name: "empty", Expect: "verify", Body: []byte("{}")},
	}
}

// badAnswers are answers to r that do not hold.
func (a *asked) badAnswers(t testing.TB, r *openrequest.Request) []artifacttest.Vector {
	again := a.request(t, nil)
	opening := func(f func(*share.Opening)) []byte { return a.answer(t, r, given{holder: "master1", edit: f}) }
	reworded := *r
	reworded.Operation = openrequest.Create
	return []artifacttest.Vector{
		{Name: "answer-share-of-another", Expect: "verify", Body: a.answer(t, r, given{holder: "master1", shareOf: "master2"})},
		{Name: "answer-person-of-another", Expect: "verify", Body: a.answer(t, r, given{holder: "master1", person: "master2"})},
		{Name: "answer-to-another-attempt", Expect: "verify", Body: a.answer(t, again, given{holder: "master1"})},
		{Name: "answer-to-another-operation", Expect: "verify", Body: a.answer(t, &reworded, given{holder: "master1"})},
		{Name: "answer-of-a-witness", Expect: "policy", Body: opening(func(o *share.Opening) { o.Place.Holder = "witness1" })},
		{Name: "answer-other-index", Expect: "verify", Body: opening(func(o *share.Opening) { o.Place.Index = 2 })},
		{Name: "answer-other-epoch", Expect: "verify", Body: opening(func(o *share.Opening) { o.Place.Epoch = 2 })},
		{Name: "answer-is-a-proof", Expect: "verify", Body: a.answer(t, r, given{holder: "master1", typ: share.ProofType})},
	}
}

func class(err error) string {
	if err == nil {
		return "ok"
	}
	return string(fault.ClassOf(err))
}

func TestRequestsThatAreNotAnswered(t *testing.T) {
	a := newAsked(t)
	for _, v := range a.badRequests(t) {
		if _, err := openrequest.Open(v.Body, a.State, artifacttest.Now()); class(err) != v.Expect {
			t.Errorf("%s: %s (%v), want %s", v.Name, class(err), err, v.Expect)
		}
	}
	// A host that ended asks nobody any more, and neither does one of before a change
	// of the charter.
	r := a.request(t, nil)
	data := a.signed(t, r)
	a.Approve(charter.TypeAccessEnded, charter.AccessEnded{ID: "vault1", Type: charter.TypeHost})
	if _, err := openrequest.Open(data, a.State, artifacttest.Now()); fault.ClassOf(err) != fault.Verify {
		t.Errorf("a host that ended: %v", err)
	}
	for _, bad := range []openrequest.Ask{
		{Host: "vault2", Operation: openrequest.Unseal, Safe: "work", Recipient: a.once.Recipient().String()},
		{Host: "vault2", Operation: openrequest.Unseal, Safe: "work", Recipient: a.once.Recipient().String(), Valid: 25 * time.Hour},
		{Host: "vault1", Operation: openrequest.Unseal, Safe: "work", Recipient: a.once.Recipient().String(), Valid: time.Hour},
		{Host: "vault2", Operation: openrequest.Unseal, Safe: "none", Recipient: a.once.Recipient().String(), Valid: time.Hour},
		{Host: "vault2", Safe: "work", Recipient: a.once.Recipient().String(), Valid: time.Hour},
		{},
	} {
		if _, err := openrequest.New(a.State, bad, artifacttest.Now()); err == nil {
			t.Errorf("made: %+v", bad)
		}
	}
	if ops := openrequest.Operations(); !slices.IsSorted(ops) || len(ops) != 5 {
		t.Errorf("operations %v", ops)
	}
}

func TestAnswersThatDoNotHold(t *testing.T) {
	a := newAsked(t)
	r := a.request(t, nil)
	for _, v := range a.badAnswers(t, r) {
		if _, err := verify(v.Body, r, a.State); class(err) != v.Expect {
			t.Errorf("%s: %s (%v), want %s", v.Name, class(err), err, v.Expect)
		}
	}
	env, err := openrequest.ParseAnswer(a.answer(t, r, given{holder: "master1"}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openrequest.NewAnswer(r, a.State, &env.Opening, env.Share); err != nil {
		t.Error(err)
	}
	env.Opening.Signatures = env.Opening.Signatures[:1]
	if _, err := openrequest.NewAnswer(r, a.State, &env.Opening, env.Share); err == nil {
		t.Error("an answer that the share key alone signed was made")
	}
	good := a.answer(t, r, given{holder: "master1"})
	a.deal(2)
	if _, err := verify(good, r, a.State); fault.ClassOf(err) != fault.Policy || !errors.Is(err, openrequest.ErrRequest) {
		t.Errorf("after a reshare: %v", err)
	}
}

func TestEveryFlippedByteIsRefused(t *testing.T) {
	a := newAsked(t)
	r := a.request(t, nil)
	good := a.signed(t, r)
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 7)
		if _, err := openrequest.Open(bad, a.State, artifacttest.Now()); err == nil {
			t.Errorf("byte %d of the request", i)
		}
	}
	ans := a.answer(t, r, given{holder: "master5"})
	want, pub, _ := share.PlaceOf(a.State, "work", "master5")
	for i := range ans {
		bad := bytes.Clone(ans)
		bad[i] ^= 1 << (i % 7)
		x, err := openrequest.ParseAnswer(bad)
		if err == nil {
			_, err = x.Verify(r, a.State)
		}
		if err == nil { // in what is encrypted: found when it is opened
			_, _, err = share.Open(x.Share, a.once, want, pub)
		}
		if err == nil {
			t.Errorf("byte %d of the answer", i)
		}
	}
}

func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	judge(t, vectorDir)
}

// judge takes the vectors of a folder; those whose names begin with "answer" answer the
// request in "valid".
func judge(t *testing.T, dir string) {
	t.Helper()
	_, s := artifacttest.Load(t, dir)
	all := artifacttest.Vectors(t, dir)
	i := slices.IndexFunc(all, func(v artifacttest.Vector) bool { return v.Name == "valid" })
	if i < 0 {
		t.Fatal("no valid request")
	}
	r, err := openrequest.Open(all[i].Body, s, artifacttest.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range all {
		if strings.HasPrefix(v.Name, "answer") {
			_, err = verify(v.Body, r, s)
		} else {
			_, err = openrequest.Open(v.Body, s, artifacttest.Now())
		}
		if class(err) != v.Expect {
			t.Errorf("%s: %s (%v), want %s", v.Name, class(err), err, v.Expect)
		}
	}
}

func writeVectors(t *testing.T) {
	t.Helper()
	a := newAsked(t)
	a.Save(vectorDir)
	r := a.request(t, nil)
	put := func(v artifacttest.Vector) {
		artifacttest.WriteVector(t, vectorDir, v, strings.ReplaceAll(v.Name, "-", " "))
	}
	put(artifacttest.Vector{Name: "valid", Expect: "ok", Body: a.signed(t, r)})
	put(artifacttest.Vector{Name: "valid-create", Expect: "ok", Body: a.signed(t, a.request(t, func(r *openrequest.Request) { r.Operation = openrequest.Create }))})
	put(artifacttest.Vector{Name: "answer-valid-file", Expect: "ok", Body: a.answer(t, r, given{holder: "master1"})})
	put(artifacttest.Vector{Name: "answer-valid-card", Expect: "ok", Body: a.answer(t, r, given{holder: "master5"})})
	for _, v := range append(a.badRequests(t), a.badAnswers(t, r)...) {
		put(v)
	}
}

func FuzzOpen(f *testing.F) {
	_, s := artifacttest.Load(f, vectorDir)
	for _, v := range artifacttest.Vectors(f, vectorDir) {
		f.Add(v.Body)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := openrequest.Open(data, s, artifacttest.Now()); err == nil {
			if _, err := r.Lines(); err != nil || r.Vault != s.Vault {
				t.Errorf("taken and not shown: %v", err)
			}
		}
		a, err := openrequest.ParseAnswer(data)
		if err != nil {
			return
		}
		again, err := jcs.Marshal(a)
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("re-encodes to %q", again)
		}
	})
}
