package lease_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/trail"
	"keyrite/artifact/world"
	"keyrite/vault/audit"
	"keyrite/vault/engine"
	"keyrite/vault/lease"
	"keyrite/vault/seal"
)

// TestMain is also the process that is killed while it gives out leases.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "lease-until-killed" {
		fmt.Fprintln(os.Stdout, "failed", leaseUntilKilled(os.Args[2], world.World(os.Args[3]), os.Args[4]))
		syscall.Exit(3) // not os.Exit: under the race detector it waits a second
	}
	os.Exit(m.Run())
}

// notSecret wraps the data key of the killed store.
const notSecret = "a secret of a safe that is NOT SECRET"

// opened is a store, its book and the charter, as a process opens them.
type opened struct {
	store  *seal.Store
	book   *lease.Book
	tokens *tokens
}

func openAgain(dir string, w world.World, vault string) (*opened, error) {
	line, err := os.ReadFile(filepath.Join(dir, "charter"))
	if err != nil {
		return nil, err
	}
	state, err := charter.Fold(line, w, vault)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "wrapped"))
	if err != nil {
		return nil, err
	}
	wrapped, err := hex.DecodeString(string(text))
	if err != nil {
		return nil, err
	}
	c, err := storeConfig(filepath.Join(dir, "store"), w)
	if err != nil {
		return nil, err
	}
	k, err := seal.Unwrap(wrapped, []byte(notSecret), c.Place)
	if err != nil {
		return nil, err
	}
	o := &opened{tokens: &tokens{}}
	if o.store, err = seal.Open(context.Background(), c, k); err != nil {
		return nil, err
	}
	e := &things{}
	o.book, err = lease.New(lease.Config{
		Charter: func() *charter.State { return state }, View: o.store.View, Journal: audit.NewJournal(o.store), Now: time.Now, Tokens: o.tokens,
		Engine: func(string) engine.Engine { return e },
	})
	return o, err
}

func (o *opened) do(effect func(*seal.Tx) error) error {
	_, err := audit.NewJournal(o.store).Do(context.Background(), seal.Durable, &audit.Entry{Kind: audit.Request, Operation: "update", Time: trail.FormatTime(time.Now())}, effect)
	return err
}

// leaseUntilKilled gives things out, renews and revokes them and ends tokens as fast as
// it can, and says which things it gave out.
func leaseUntilKilled(dir string, w world.World, vault string) error {
	o, err := openAgain(dir, w, vault)
	if err != nil {
		return err
	}
	go o.book.Run(context.Background())
	failed := make(chan error)
	for worker := range 4 {
		go func() {
			for i := 0; ; i++ {
				if err := o.oneLease(fmt.Sprintf("%d-%d-%d", os.Getpid(), worker, i), i); err != nil {
					failed <- err
				}
			}
		}()
	}
	return <-failed
}

func (o *opened) oneLease(object string, i int) error {
	token := "token-" + object
	o.tokens.set(token, time.Minute)
	l := &engine.Lease{TTL: time.Second + time.Duration(i%5)*100*time.Millisecond, Renewable: true, Object: object}
	p, err := access.ParsePath("thing/a")
	if err != nil {
		return err
	}
	c := job(token)
	if err := o.do(func(tx *seal.Tx) error {
		if err := tx.Put("given", object, []byte{}); err != nil {
			return err
		}
		return o.book.Issue(tx, c, p, l)
	}); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, "gave", object)
	switch i % 4 {
	case 1:
		return o.made(o.book.Own(c, lease.Renew, engine.Params{"lease_id": []byte(`"` + l.ID + `"`)}))
	case 2:
		return o.made(o.book.Own(c, lease.Revoke, engine.Params{"lease_id": []byte(`"` + l.ID + `"`)}))
	case 3:
		err := o.do(func(tx *seal.Tx) error { return o.book.EndToken(tx, token, time.Now()) })
		o.tokens.revoke(token)
		return err
	}
	return nil
}

func (o *opened) made(plan *engine.Plan, err error) error {
	if err != nil {
		return err
	}
	err = o.do(func(tx *seal.Tx) error { _, err := plan.Apply(tx); return err })
	if errors.Is(err, engine.ErrNotThere) {
		return nil // its time was over meanwhile
	}
	return err
}

// TestKilledLeases: however often the process is killed, every thing that was given out
// ends exactly once, and none is out without a lease (R-CER-18).
func TestKilledLeases(t *testing.T) { killedLeases(t, 12) }

func TestLongKilledLeases(t *testing.T) {
	if os.Getenv("KEYRITE_TEST_LONG") == "" {
		t.Skip("long: 300 kills")
	}
	killedLeases(t, 300)
}

func killedLeases(t *testing.T, kills int) {
	t.Helper()
	w, _ := founded(t)
	dir := t.TempDir()
	k, err := seal.NewDataKey()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Wipe)
	c, err := storeConfig(filepath.Join(dir, "store"), w.World)
	if err != nil {
		t.Fatal(err)
	}
	wrapped, err := k.Wrap([]byte(notSecret), c.Place)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"charter": w.Charter, "wrapped": []byte(hex.EncodeToString(wrapped))} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(c.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := seal.Create(t.Context(), c, k, map[string]string{"did": "create"}); err != nil {
		t.Fatal(err)
	}
	gave := map[string]bool{}
	for range kills {
		for _, object := range runKilled(t, dir, w.World, w.Anchors.Vault) {
			gave[object] = true
		}
		checkKilled(t, dir, w.World, w.Anchors.Vault, gave, false)
	}
	checkKilled(t, dir, w.World, w.Anchors.Vault, gave, true)
	if len(gave) < kills {
		t.Errorf("only %d things in %d lives", len(gave), kills)
	}
}

// runKilled lets a process live for up to half a second after its first lease.
func runKilled(t *testing.T, dir string, w world.World, vault string) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "lease-until-killed", dir, string(w), vault)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var gave []string
	for sc := bufio.NewScanner(out); sc.Scan(); {
		object, ok := strings.CutPrefix(sc.Text(), "gave ")
		if !ok {
			t.Errorf("the process says %q", sc.Text())
			break
		}
		if len(gave) == 0 {
			n, err := rand.Int(rand.Reader, big.NewInt(int64(500*time.Millisecond)))
			if err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(time.Duration(n.Int64()), func() { _ = cmd.Process.Kill() })
		}
		gave = append(gave, object)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	return gave
}

// checkKilled opens the store as the next process would. In the end it lets all leases
// run out.
func checkKilled(t *testing.T, dir string, w world.World, vault string, gave map[string]bool, end bool) {
	t.Helper()
	o, err := openAgain(dir, w, vault)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := o.store.Close(); err != nil {
			t.Error(err)
		}
	}()
	if end {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go o.book.Run(ctx)
		for limit := time.Now().Add(time.Minute); o.book.Count() > 0 && time.Now().Before(limit); {
			<-time.After(50 * time.Millisecond)
		}
	}
	err = o.store.View(func(v *seal.View) error {
		leased := map[string]bool{}
		for _, id := range v.Keys("lease", "") {
			raw, err := v.Get("lease", id)
			if err != nil {
				return err
			}
			_, rest, _ := strings.Cut(string(raw), `"object":"`)
			object, _, _ := strings.Cut(rest, `"`)
			leased[object] = true
		}
		there := map[string]bool{}
		for _, object := range v.Keys("given", "") {
			there[object] = true
			n, err := count(v, object)
			if err != nil {
				return err
			}
			if want := 1; leased[object] && n != 0 || !leased[object] && n != want || end && n != want {
				t.Errorf("%s was ended %d times, leased: %v", object, n, leased[object])
			}
		}
		for object := range gave {
			if !there[object] {
				t.Errorf("%s was given out and is not there", object)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
