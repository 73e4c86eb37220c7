package quorum

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"keyrite/artifact/anchor"
	"keyrite/artifact/artifacttest"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/artifact/share"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ChildCommand {
		if err := Child(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		syscall.Exit(0) // os.Exit waits a second under the race detector, and a ceremony starts a hundred children
	}
	os.Exit(m.Run())
}

// dealt is a world whose safe "work" is dealt 3 of 5.
type dealt struct {
	*artifacttest.World
	conf  Config
	files map[string][]byte
	keys  map[string][]byte // NAME.key under passphrase "pass NAME"
	pins  []byte            // frames given after the deal
}

func deal(t testing.TB) *dealt { return dealFor(t) }

// dealFor deals in a world where cards name the people who have one.
func dealFor(t testing.TB, cards ...string) *dealt {
	t.Helper()
	w := artifacttest.New(t, cards...)
	conf, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	d := &dealt{World: w, conf: conf, keys: map[string][]byte{}}
	random := make([]byte, 32)
	rand.Read(random)
	r, wr := pipe(t)
	g := w.State.Genesis
	dealing, err := conf.Deal(context.Background(), DealParams{Vault: w.State.Vault, World: w.World, Safe: g.Safes[1], Epoch: 1, Token: "test-work", HSMRandom: random, Roster: g.Roster}, wr)
	if err != nil {
		t.Fatal(err)
	}
	_ = wr.Close()
	if err := dealing.GivePINs(); err != nil {
		t.Fatal(err)
	}
	if d.pins, err = io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	d.files = dealing.Files
	w.Approve(charter.TypeEpoch, charter.Epoch{Epoch: 1, Need: 3, Safe: "work", Shares: dealing.Shares, Token: anchor.Token{Label: "test-work", Serial: "1"}})
	for n := range dealing.Files {
		if w.People[n].OnCard() {
			continue
		}
		if d.keys[n], err = w.People[n].Seal([]byte("pass " + n)); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

func pipe(t testing.TB) (*os.File, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	return r, w
}

func (d *dealt) open(t testing.TB, passphrases string, names ...string) ([]byte, *Opened, error) {
	t.Helper()
	pr, pw := pipe(t)
	_, _ = io.WriteString(pw, passphrases)
	_ = pw.Close()
	r, w := pipe(t)
	p := OpenParams{State: d.State, Safe: "work", Operation: strings.Repeat("ab", 32), Nonce: make([]byte, 32), Passphrases: pr}
	for _, n := range names {
		p.Openers = append(p.Openers, Opener{Key: d.keys[n], Share: d.files[n]})
	}
	o, err := d.conf.Open(context.Background(), p, w)
	_ = w.Close()
	pins, _ := io.ReadAll(r)
	return pins, o, err
}

func phrases(names ...string) string {
	var b strings.Builder
	for _, n := range names {
		fmt.Fprintf(&b, "pass %s\n", n)
	}
	return b.String()
}

// Any three of five open, any two do not (R-CER-5, R-CER-6, R-CER-9).
func TestQuorumOpens(t *testing.T) {
	d := deal(t)
	if len(d.pins) != 2*(2+32) {
		t.Fatalf("%d bytes of PIN frames", len(d.pins))
	}
	if d.pins[0] != 'S' || d.pins[34] != 'U' {
		t.Fatalf("frames of roles %c and %c", d.pins[0], d.pins[34])
	}
	user := d.pins[34:]
	names := d.State.People.Safes[1].Openers.Members
	err := eachSubset(5, 3, func(pick []int) error {
		who := []string{names[pick[2]], names[pick[0]], names[pick[1]]}
		pins, o, err := d.open(t, phrases(who...), who...)
		if err != nil {
			return err
		}
		if pins[0] != 'u' || !bytes.Equal(pins[1:], user[1:]) {
			t.Errorf("%v: another PIN", who)
		}
		if strings.Join(o.Holders, " ") != strings.Join(who, " ") {
			t.Errorf("holders %v", o.Holders)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if pins, _, err := d.open(t, phrases("master1", "master2"), "master1", "master2"); fault.ClassOf(err) != fault.Quorum || len(pins) != 0 {
		t.Errorf("two of five: %v, %d bytes of PIN", err, len(pins))
	}
}

func TestWhatDoesNotOpen(t *testing.T) {
	d, other := deal(t), deal(t)
	three := []string{"master1", "master2", "master3"}
	tests := []struct {
		name  string
		edit  func(d *dealt)
		pass  string
		who   []string
		class fault.Class
		text  string
	}{
		{"same share twice", nil, phrases("master1", "master2", "master2"), []string{"master1", "master2", "master2"}, fault.Quorum, "master2 was given twice"},
		{"wrong passphrase", nil, phrases("master1", "master2", "master4"), three, fault.Token, "key file 3"},
		{"changed byte", func(d *dealt) { d.files["master2"][len(d.files["master2"])-9] ^= 1 }, "", three, fault.Verify, "share of master2 for safe work"},
		{"share of another", func(d *dealt) { d.files["master2"] = d.files["master3"] }, "", three, fault.Verify, "share of master2"},
		{"other ceremony", func(d *dealt) {
			raw, _, err := share.Open(other.files["master2"], other.People["master2"].Identity(), otherPlace(t, other), other.State.Epochs["work"].Shares[1].Public)
			if err != nil {
				t.Fatal(err)
			}
			p := otherPlace(t, other)
			if d.files["master2"], err = share.Seal(raw, p, d.People["master2"].Public().Recipient); err != nil {
				t.Fatal(err)
			}
		}, "", three, fault.Verify, "another safe or ceremony"},
		{"stranger", func(d *dealt) {
			k, err := d.People["approver1"].Seal([]byte("pass master2"))
			if err != nil {
				t.Fatal(err)
			}
			d.keys["master2"] = k
		}, "", three, fault.Policy, "approver1 holds no share"},
		{"no passphrase", nil, "pass master1\n", three, fault.Usage, "empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := *d
			c.files, c.keys = clone(d.files), clone(d.keys)
			if tt.edit != nil {
				tt.edit(&c)
			}
			if tt.pass == "" {
				tt.pass = phrases(tt.who...)
			}
			pins, _, err := c.open(t, tt.pass, tt.who...)
			if fault.ClassOf(err) != tt.class || err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v (%s)", err, fault.ClassOf(err))
			}
			if len(pins) != 0 {
				t.Errorf("%d bytes of PIN", len(pins))
			}
		})
	}
}

func otherPlace(t testing.TB, d *dealt) share.Place {
	t.Helper()
	p, _, err := share.PlaceOf(d.State, "work", "master2")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func clone(m map[string][]byte) map[string][]byte {
	out := map[string][]byte{}
	for k, v := range m {
		out[k] = bytes.Clone(v)
	}
	return out
}

func TestReceiptIsSignedByShareAndPerson(t *testing.T) {
	d := deal(t)
	pr, pw := pipe(t)
	_, _ = io.WriteString(pw, "pass master4\n")
	_ = pw.Close()
	env, err := d.conf.Receipt(context.Background(), d.State, d.State.Epochs["work"], Opener{Key: d.keys["master4"], Share: d.files["master4"]}, pr)
	if err != nil {
		t.Fatal(err)
	}
	p, pub, _ := share.PlaceOf(d.State, "work", "master4")
	if _, err := share.VerifyReceipt(env, p, pub, d.People["master4"].Public().PublicKey()); err != nil {
		t.Error(err)
	}
}

// An abandoned deal gives no PIN (R-CER-15).
func TestAbandonedDealGivesNoPIN(t *testing.T) {
	w := artifacttest.New(t)
	conf, _ := Self()
	r, wr := pipe(t)
	g := w.State.Genesis
	d, err := conf.Deal(context.Background(), DealParams{Vault: w.State.Vault, World: w.World, Safe: g.Safes[0], Epoch: 1, Token: "t", HSMRandom: make([]byte, 32), Roster: g.Roster}, wr)
	if err != nil {
		t.Fatal(err)
	}
	_ = wr.Close()
	d.Abandon()
	if got, _ := io.ReadAll(r); len(got) != 0 {
		t.Errorf("%d bytes", len(got))
	}
	if d.GivePINs() == nil {
		t.Error("an abandoned deal went on")
	}
}

// The library detects no bad share by itself, which is why share keys exist.
func TestLibraryHasNoIntegrity(t *testing.T) {
	secret := bytes.Repeat([]byte{7}, 32)
	shares, err := split(secret, 5, 3)
	if err != nil {
		t.Fatal(err)
	}
	got, err := combine(shares)
	if err != nil || !bytes.Equal(got, secret) {
		t.Errorf("all five: %v", err)
	}
	shares[1][4] ^= 1
	got, err = combine(shares[:3])
	if err != nil || bytes.Equal(got, secret) {
		t.Errorf("the library noticed a bad share (%v): the design may be simplified", err)
	}
	if _, err := split(secret, 5, 1); fault.ClassOf(err) != fault.Usage {
		t.Errorf("threshold 1: %v", err)
	}
}
