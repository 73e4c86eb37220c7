package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyrite/artifact/charter"
	"keyrite/artifact/record"
	"keyrite/artifact/share"
	"keyrite/vault/quorum"
)

// No secret stands in the record, in what is printed, or in the arguments and
// environment of any process while the ceremony runs (R-CER-4, R-CER-13).
func TestNoSecretShows(t *testing.T) {
	h := newHouse(t)
	cmd := h.command(h.attempt(t, "one", "answers.yaml")...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var seen map[string]bool
	var wg sync.WaitGroup
	wg.Go(func() { seen = watch(h.dir, stop) })
	err := cmd.Wait()
	close(stop)
	wg.Wait()
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if len(seen) < 4 {
		t.Fatalf("only %d process pages were seen", len(seen))
	}
	places := map[string][]byte{"what is printed": out.Bytes()}
	for s := range seen {
		places["a process: "+s] = []byte(s)
	}
	err = filepath.WalkDir(h.path("record-one"), func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			places[p], err = os.ReadFile(p)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	secrets := h.secrets(t, "one")
	if len(secrets) != 10+10+20+4 {
		t.Fatalf("%d secrets", len(secrets))
	}
	search(t, places, secrets)
	// The search finds what is there: the names of the files with passphrases.
	if !bytes.Contains(places["what is printed"], []byte("conductor")) {
		t.Error("the search is broken")
	}
}

// watch collects arguments and environment of every process below dir.
func watch(dir string, stop <-chan struct{}) map[string]bool {
	seen := map[string]bool{}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return seen
		case <-tick.C:
		}
		links, _ := filepath.Glob("/proc/[0-9]*/exe")
		for _, l := range links {
			if exe, err := os.Readlink(l); err != nil || !strings.HasPrefix(exe, dir) {
				continue
			}
			for _, f := range []string{"cmdline", "environ"} {
				if data, err := os.ReadFile(filepath.Join(filepath.Dir(l), f)); err == nil {
					seen[f+" "+string(data)] = true
				}
			}
		}
	}
}

// secrets are all that the closed ceremony had: passphrases, seeds, shares, PINs.
func (h *house) secrets(t *testing.T, label string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	for n, k := range h.people {
		out["passphrase of "+n] = []byte(phrase(n))
		seed, ok := k.Signer().(interface{ Seed() []byte })
		if !ok {
			t.Fatalf("signer of type %T", k.Signer())
		}
		out["seed of "+n] = seed.Seed()
	}
	lines, err := os.ReadFile(h.path("record-" + label + "/outputs/charter.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	v, err := record.VerifyOwn(os.DirFS(h.path("record-" + label)))
	if v == nil {
		t.Fatal(err)
	}
	state, err := charter.Fold(lines, v.Charter.World, v.Charter.Vault)
	if err != nil {
		t.Fatal(err)
	}
	for _, safe := range []string{"root", "work", "root2", "work2"} {
		p := quorum.OpenParams{State: state, Safe: safe, Operation: strings.Repeat("ab", 32), Nonce: make([]byte, 32)}
		var pass string
		for _, e := range state.Epochs[safe].Shares {
			data, err := os.ReadFile(h.path("shares-" + label + "/" + safe + "/" + e.Holder + ".share"))
			if err != nil {
				t.Fatal(err)
			}
			place, pub, err := share.PlaceOf(state, safe, e.Holder)
			if err != nil {
				t.Fatal(err)
			}
			raw, _, err := share.Open(data, h.people[e.Holder].Identity(), place, pub)
			if err != nil {
				t.Fatal(err)
			}
			out["share of "+e.Holder+" for "+safe] = raw
			key, err := os.ReadFile(h.path(e.Holder + ".key"))
			if err != nil {
				t.Fatal(err)
			}
			p.Openers = append(p.Openers, quorum.Opener{Key: key, Share: data})
			pass += phrase(e.Holder) + "\n"
		}
		out["PIN of "+safe] = h.pin(t, p, pass)
	}
	return out
}

func (h *house) pin(t *testing.T, p quorum.OpenParams, pass string) []byte {
	t.Helper()
	h.write(t, "pass", pass)
	f, err := os.Open(h.path("pass"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p.Passphrases = f
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = quorum.Config{Executable: h.program}.Open(context.Background(), p, w)
	_ = w.Close()
	if err != nil {
		t.Fatal(err)
	}
	frame, err := io.ReadAll(r)
	if err != nil || len(frame) < 2+16 {
		t.Fatalf("%d bytes of PIN, %v", len(frame), err)
	}
	return frame[2:]
}
