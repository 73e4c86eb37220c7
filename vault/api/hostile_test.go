package api_test

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestWrappingIsRefused: whoever asks for an answer to be wrapped gets a refusal, in
// whatever way the header is written, and never what he asked for in the clear.
func TestWrappingIsRefused(t *testing.T) {
	r := newRig(t)
	if p := r.put("kv/data/line1/pin", `{"data":{"pin":"not-to-be-seen"}}`); p.status != 200 {
		t.Fatal(p.status)
	}
	size := r.node.Status().Store.Size
	asked := 0
	for _, name := range []string{"X-Vault-Wrap-TTL", "x-vault-wrap-ttl", "X-VAULT-WRAP-TTL"} {
		for _, lines := range [][]string{{"60"}, {"0"}, {"5m"}, {" 60 "}, {"", "60"}, {"60", ""}, {"", "", "1h"}, {"nonsense"}} {
			for _, at := range [][2]string{{"GET", "kv/data/line1/pin"}, {"POST", "auth/cert/login"}} {
				req, err := http.NewRequestWithContext(t.Context(), at[0], "https://"+r.addr+"/v1/"+at[1], nil)
				r.ok(err)
				req.Header[name] = lines // as it stands on the wire
				resp, err := r.client.Do(req)
				r.ok(err)
				var got bytes.Buffer
				_, err = got.ReadFrom(resp.Body)
				r.ok(err)
				_ = resp.Body.Close()
				asked++
				if resp.StatusCode != 403 || strings.Contains(got.String(), "not-to-be-seen") || strings.Contains(got.String(), "client_token") {
					t.Errorf("%s %q of %s: %d %s", name, lines, at[1], resp.StatusCode, &got)
				}
			}
		}
	}
	if n := r.node.Status().Store.Size - size; n != int64(asked) {
		t.Errorf("%d refusals have %d entries", asked, n)
	}
	if p := r.put("sys/wrapping/wrap", `{"a":"b"}`); p.status != 403 {
		t.Errorf("sys/wrapping/wrap: %d %s", p.status, p.raw)
	}
}

// TestFirstWritesRace: of many who write a secret for the first time at once each makes
// a version of its own; with cas=0 exactly one does.
func TestFirstWritesRace(t *testing.T) {
	r := newRig(t)
	const writers = 8
	for round := range 10 {
		for _, c := range []struct {
			options string
			made    int
		}{{"", writers}, {`,"options":{"cas":0}`, 1}} {
			path := fmt.Sprintf("kv/data/line1/race%d-%d", round, c.made)
			var mu sync.Mutex
			var versions []float64
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					p := r.put(path, `{"data":{"a":1}`+c.options+`}`)
					mu.Lock()
					defer mu.Unlock()
					switch {
					case p.status == 200:
						versions = append(versions, p.data("version").(float64))
					case p.status != 400 || c.options == "" || !strings.Contains(string(p.raw), "check-and-set"):
						t.Errorf("%s: %d %s", path, p.status, p.raw)
					}
				})
			}
			wg.Wait()
			slices.Sort(versions)
			if len(versions) != c.made || len(slices.Compact(versions)) != c.made {
				t.Errorf("%s: versions %v, want %d", path, versions, c.made)
			}
		}
	}
}

// TestStrangersHearClasses: what is wrong with the head, and where it is kept, is told to
// those who may ask for the status, and to nobody else.
func TestStrangersHearClasses(t *testing.T) {
	r := newRig(t)
	head := filepath.Join(r.Dir, "head")
	r.ok(os.Rename(head, head+".away"))
	r.ok(os.Mkdir(head, 0o700))
	if p := r.put("kv/data/line1/x", `{"data":{"a":1}}`); p.status != 200 {
		t.Fatal(p.status)
	}
	for deadline := time.Now().Add(time.Minute); ; {
		if st := r.node.Status().Store; st.Keeper != nil && st.Behind > 1500*time.Millisecond || time.Now().After(deadline) {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	stranger := r.as(nil)
	for _, path := range []string{"sys/health", "sys/seal-status"} {
		p := r.ask(stranger, "GET", path, "")
		if k, _ := p.body["keyrite"].(map[string]any); k["behind"] == nil || strings.Contains(fmt.Sprint(k["behind"]), " ") {
			t.Errorf("%s: %s", path, p.raw)
		}
		if strings.Contains(string(p.raw), r.Dir) {
			t.Errorf("%s tells a stranger where the head is: %s", path, p.raw)
		}
	}
	for _, at := range [][2]string{{"POST", "auth/jwt/login"}, {"GET", "kv/data/line1/x"}} {
		p := r.ask(stranger, at[0], at[1], "")
		if p.status != 503 || strings.Contains(string(p.raw), r.Dir) || !strings.Contains(string(p.raw), "head of the store is behind") {
			t.Errorf("%s: %d %s", at[1], p.status, p.raw)
		}
	}
	r.ok(os.Remove(head))
	r.ok(os.Rename(head+".away", head))
}

// TestForeignPagesDoNotFillTheLog: what a web page of another origin has somebody's
// browser ask is refused with an entry each only as far as refusals of strangers are.
func TestForeignPagesDoNotFillTheLog(t *testing.T) {
	r := newRig(t)
	before := r.node.Status()
	const flood = 200
	for range flood {
		if p := r.ask(r.client, "GET", "kv/data/line1/x", "", "Sec-Fetch-Site", "cross-site"); p.status != 403 {
			t.Fatalf("%d %s", p.status, p.raw)
		}
	}
	after := r.node.Status()
	written, left := after.Store.Size-before.Store.Size, after.LeftOut-before.LeftOut
	if written > flood/2 || uint64(written)+left != flood {
		t.Errorf("%d entries of %d refusals, %d left out", written, flood, left)
	}
}
