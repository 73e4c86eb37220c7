package kv_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"keyrite/artifact/access"
	"keyrite/artifact/charter"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
	"keyrite/vault/engine/kv"
	"keyrite/vault/seal"
)

func TestMain(m *testing.M) { enginetest.Main(m, writeUntilKilled) }

func bench(t testing.TB) (*enginetest.Bench, *kv.Engine) {
	b := enginetest.New(t, "kv", "kv")
	b.Now = began()
	return b, kv.New(b.Host)
}

func began() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

// The shapes are those that clients of HashiCorp Vault read.
func TestShapes(t *testing.T) {
	b, e := bench(t)
	const at, later = "2026-11-22T12:00:00Z", "2026-11-22T12:01:00Z"
	want(t, "first write", b.Must(e, engine.Write, "kv/data/line1/plc", `{"data":{"pin":"1234","n":1.50}}`),
		`{"created_time":"`+at+`","custom_metadata":null,"deletion_time":"","destroyed":false,"version":1}`)
	want(t, "read", b.Must(e, engine.Read, "kv/data/line1/plc", ""),
		`{"data":{"n":1.50,"pin":"1234"},"metadata":{"created_time":"`+at+`","custom_metadata":null,"deletion_time":"","destroyed":false,"version":1}}`)
	b.Now = b.Now.Add(time.Minute)
	b.Must(e, engine.Write, "kv/data/line1/plc", `{"data":{"pin":"5678"},"options":{}}`)
	b.Must(e, engine.Write, "kv/metadata/line1/plc", `{"custom_metadata":{"owner":"line1"},"delete_version_after":"1h","max_versions":5,"cas_required":true}`)
	want(t, "metadata", b.Must(e, engine.Read, "kv/metadata/line1/plc", ""),
		`{"cas_required":true,"created_time":"`+at+`","current_version":2,"custom_metadata":{"owner":"line1"},"delete_version_after":"1h0m0s","max_versions":5,"oldest_version":0,"updated_time":"`+later+`",`+
			`"versions":{"1":{"created_time":"`+at+`","deletion_time":"","destroyed":false},"2":{"created_time":"`+later+`","deletion_time":"","destroyed":false}}}`)
	want(t, "old version", b.Must(e, engine.Read, "kv/data/line1/plc", `{"version":"1"}`),
		`{"data":{"n":1.50,"pin":"1234"},"metadata":{"created_time":"`+at+`","custom_metadata":{"owner":"line1"},"deletion_time":"","destroyed":false,"version":1}}`)
	b.Must(e, engine.Write, "kv/data/line1/hmi", `{"data":{}}`)
	b.Must(e, engine.Write, "kv/data/line1", `{"data":{"a":null}}`)
	b.Must(e, engine.Write, "kv/data/line1.old", `{"data":{}}`)
	want(t, "list", b.Must(e, engine.List, "kv/metadata", ""), `{"keys":["line1","line1.old","line1/"]}`)
	want(t, "list below", b.Must(e, engine.List, "kv/metadata/line1", ""), `{"keys":["hmi","plc"]}`)
	want(t, "config", b.Must(e, engine.Read, "kv/config", ""), `{"cas_required":false,"delete_version_after":"0s","max_versions":10}`)
	want(t, "delete", b.Must(e, engine.Delete, "kv/data/line1/plc", ""), "")
}

// gone reads a version that is not readable any more.
func gone(t *testing.T, b *enginetest.Bench, e *kv.Engine, path, params string) string {
	t.Helper()
	a, err := b.Call(e, engine.Read, path, params)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Gone {
		t.Errorf("%s %s is readable", path, params)
	}
	return enginetest.JSON(t, a.Data)
}

func TestDeleteUndeleteDestroy(t *testing.T) {
	b, e := bench(t)
	for i := range 3 {
		b.Must(e, engine.Write, "kv/data/a", fmt.Sprintf(`{"data":{"n":%d}}`, i+1))
	}
	b.Must(e, engine.Delete, "kv/data/a", "")
	deleted := `{"data":null,"metadata":{"created_time":"2026-11-22T12:00:00Z","custom_metadata":null,"deletion_time":"2026-11-22T12:00:00Z","destroyed":false,"version":3}}`
	want(t, "deleted", gone(t, b, e, "kv/data/a", ""), deleted)
	b.Now = b.Now.Add(time.Hour)
	b.Must(e, engine.Delete, "kv/data/a", "")
	want(t, "deleted again", gone(t, b, e, "kv/data/a", ""), deleted)
	b.Must(e, engine.Write, "kv/undelete/a", `{"versions":[3]}`)
	if got := b.Must(e, engine.Read, "kv/data/a", ""); !strings.Contains(got, `"data":{"n":3}`) {
		t.Errorf("undeleted: %s", got)
	}
	b.Must(e, engine.Write, "kv/delete/a", `{"versions":["1",2,77]}`)
	gone(t, b, e, "kv/data/a", `{"version":1}`)
	b.Must(e, engine.Write, "kv/destroy/a", `{"versions":[2,3]}`)
	b.Must(e, engine.Write, "kv/undelete/a", `{"versions":[1,2,3]}`)
	b.Must(e, engine.Read, "kv/data/a", `{"version":1}`)
	if got := gone(t, b, e, "kv/data/a", `{"version":2}`); !strings.Contains(got, `"destroyed":true`) {
		t.Errorf("destroyed: %s", got)
	}
	b.Must(e, engine.Delete, "kv/metadata/a", "")
	for _, path := range []string{"kv/data/a", "kv/metadata/a", "kv/subkeys/a", "kv/data/never"} {
		if _, err := b.Call(e, engine.Read, path, ""); !errors.Is(err, engine.ErrNotThere) {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, op := range []string{"delete", "undelete", "destroy"} {
		b.Must(e, engine.Write, "kv/"+op+"/never", `{"versions":[1]}`)
	}
	b.Must(e, engine.Delete, "kv/data/never", "")
	b.Must(e, engine.Delete, "kv/metadata/never", "")
	// The number of a deleted secret begins anew, and what it was is not there.
	b.Must(e, engine.Write, "kv/data/a", `{"data":{}}`)
	if _, err := b.Call(e, engine.Read, "kv/data/a", `{"version":3}`); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("an old version of a secret that was made anew: %v", err)
	}
}

// What was destroyed, pruned or deleted with its metadata is in no value of the
// store, under whatever name.
func TestDestroyedIsGone(t *testing.T) {
	b, e := bench(t)
	write := func(path, word string) { b.Must(e, engine.Write, path, `{"data":{"word":"`+word+`"}}`) }
	has := func(word string) bool {
		found := false
		err := b.Store.View(func(v *seal.View) error {
			for _, bucket := range []string{"kv-value/kv", "kv-record/kv"} {
				for _, k := range v.Keys(bucket, "") {
					raw, err := v.Get(bucket, k)
					if err != nil {
						return err
					}
					found = found || strings.Contains(string(raw), word)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	write("kv/data/a", "canary-one")
	write("kv/data/a", "canary-two")
	write("kv/data/ab", "canary-other") // its name begins like the other's
	b.Must(e, engine.Write, "kv/metadata/p", `{"max_versions":2}`)
	for _, w := range []string{"canary-p1", "canary-p2", "canary-p3"} {
		write("kv/data/p", w)
	}
	for _, w := range []string{"canary-one", "canary-two", "canary-other", "canary-p2", "canary-p3"} {
		if !has(w) {
			t.Errorf("%s is not there", w)
		}
	}
	if has("canary-p1") {
		t.Error("a pruned version is there")
	}
	if got := b.Must(e, engine.Read, "kv/metadata/p", ""); !strings.Contains(got, `"oldest_version":2`) {
		t.Errorf("after pruning: %s", got)
	}
	b.Must(e, engine.Write, "kv/destroy/a", `{"versions":[1]}`)
	if has("canary-one") || !has("canary-two") {
		t.Error("destroy took out another version than it was told")
	}
	b.Must(e, engine.Delete, "kv/metadata/a", "")
	if has("canary-two") || !has("canary-other") {
		t.Error("a deleted secret is there, or another one is not")
	}
	b.Reopen()
	if has("canary-one") || has("canary-two") || has("canary-p1") {
		t.Error("it came back")
	}
	raw, err := os.ReadFile(filepath.Join(b.Dir, "store", seal.FileName))
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"audit": b.Audit(), "file": string(raw)} {
		for _, never := range []string{"canary", `"word"`} {
			if strings.Contains(text, never) {
				t.Errorf("the %s has %s", where, never)
			}
		}
	}
}

// Who may only create cannot overwrite, and who may only update cannot make
// something new (R-CER-17).
func TestCreateIsNotUpdate(t *testing.T) {
	b, e := bench(t)
	only := func(c access.Capability) {
		b.Rules = []access.Rule{{Path: "kv/*", Can: []access.Capability{c}}}
	}
	try := func(m engine.Method, path string, ok bool) {
		t.Helper()
		_, err := b.Call(e, m, path, map[bool]string{true: `{"data":{}}`, false: `{}`}[strings.HasPrefix(path, "kv/data/")])
		if ok && err != nil || !ok && !errors.Is(err, access.ErrDenied) {
			t.Errorf("%s: %v", path, err)
		}
	}
	only(access.Update)
	try(engine.Write, "kv/data/a", false)
	try(engine.Write, "kv/metadata/a", false)
	only(access.Create)
	try(engine.Write, "kv/metadata/a", true)
	try(engine.Write, "kv/metadata/a", false)
	try(engine.Write, "kv/data/a", true) // it has no version yet
	try(engine.Write, "kv/data/a", false)
	try(engine.Patch, "kv/data/a", false)
	only(access.Update)
	try(engine.Write, "kv/data/a", true)
	try(engine.Patch, "kv/data/a", true)
}

// A secret that comes between the decision and the transaction is not overwritten.
func TestCameMeanwhile(t *testing.T) {
	b, e := bench(t)
	create := b.Whole(engine.Write, "kv/data/a", `{"data":{"by":"first"}}`)
	p, err := e.Plan(create)
	if err != nil || p.Needs != access.Create {
		t.Fatalf("needs %s, %v", p.Needs, err)
	}
	b.Must(e, engine.Write, "kv/data/a", `{"data":{"by":"second"}}`)
	apply := func(p *engine.Plan) error {
		_, err := b.Store.Update(t.Context(), seal.Durable, func(tx *seal.Tx) (any, error) {
			_, err := p.Apply(tx)
			return "x", err
		})
		return err
	}
	if err := apply(p); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("overwritten: %v", err)
	}
	update, err := e.Plan(create)
	if err != nil || update.Needs != access.Update {
		t.Fatalf("needs %s, %v", update.Needs, err)
	}
	b.Must(e, engine.Delete, "kv/metadata/a", "")
	if err := apply(update); !errors.Is(err, engine.ErrConflict) {
		t.Errorf("made anew: %v", err)
	}
}

func TestCheckAndSet(t *testing.T) {
	b, e := bench(t)
	write := func(cas string) error {
		_, err := b.Call(e, engine.Write, "kv/data/a", `{"data":{},"options":{"cas":`+cas+`}}`)
		return err
	}
	for i, c := range []struct {
		cas string
		ok  bool
	}{{"1", false}, {"0", true}, {"0", false}, {`"1"`, true}, {"1", false}, {"2", true}} {
		if err := write(c.cas); c.ok != (err == nil) || err != nil && (!errors.Is(err, engine.ErrConflict) || !strings.Contains(err.Error(), "did not match the current version")) {
			t.Errorf("step %d, cas %s: %v", i, c.cas, err)
		}
	}
	b.Must(e, engine.Write, "kv/metadata/a", `{"cas_required":true}`)
	if _, err := b.Call(e, engine.Write, "kv/data/a", `{"data":{}}`); err == nil || !strings.Contains(err.Error(), "check-and-set parameter required") {
		t.Errorf("without cas: %v", err)
	}
	b.Must(e, engine.Write, "kv/metadata/a", `{"cas_required":false}`)
	b.World.Approve(charter.TypeKVConfig, charter.KVConfig{CASRequired: true, MaxVersions: 2, Mount: "kv", Version: 1})
	if _, err := b.Call(e, engine.Write, "kv/data/a", `{"data":{}}`); err == nil || !strings.Contains(err.Error(), "required") {
		t.Errorf("without cas, by the charter: %v", err)
	}
	if err := write("3"); err != nil {
		t.Fatal(err)
	}
	if got := b.Must(e, engine.Read, "kv/metadata/a", ""); !strings.Contains(got, `"oldest_version":3`) {
		t.Errorf("the charter keeps two versions: %s", got)
	}
}

// Of many who write with the same cas exactly one does; without cas all do, and
// each gets a version of its own.
func TestRaces(t *testing.T) {
	b, e := bench(t)
	b.Must(e, engine.Write, "kv/data/a", `{"data":{}}`)
	b.Must(e, engine.Write, "kv/metadata/b", `{"max_versions":200}`)
	b.Must(e, engine.Write, "kv/data/b", `{"data":{}}`)
	var won, other atomic.Int64
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			_, err := b.Call(e, engine.Write, "kv/data/a", fmt.Sprintf(`{"data":{"by":%d},"options":{"cas":1}}`, i))
			switch {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, engine.ErrConflict):
				other.Add(1)
			}
			if _, err := b.Call(e, engine.Patch, "kv/data/b", fmt.Sprintf(`{"data":{"m%d":true}}`, i)); err != nil {
				other.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || other.Load() != 0 {
		t.Errorf("%d won, %d had other errors", won.Load(), other.Load())
	}
	// No patch was lost: each was made of the version before it.
	var got struct {
		Data     map[string]bool
		Metadata struct{ Version int }
	}
	if err := json.Unmarshal([]byte(b.Must(e, engine.Read, "kv/data/b", "")), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Data) != 32 || got.Metadata.Version != 33 {
		t.Errorf("%d members in version %d", len(got.Data), got.Metadata.Version)
	}
}

// A version ceases to be readable by itself; the shorter time counts.
func TestVersionsExpire(t *testing.T) {
	b, e := bench(t)
	b.Must(e, engine.Write, "kv/metadata/a", `{"delete_version_after":"90s"}`)
	if got := b.Must(e, engine.Write, "kv/data/a", `{"data":{}}`); !strings.Contains(got, `"deletion_time":"2026-11-22T12:01:30Z"`) {
		t.Errorf("written: %s", got)
	}
	b.Now = began().Add(89 * time.Second)
	b.Must(e, engine.Read, "kv/data/a", "")
	b.Now = began().Add(90 * time.Second)
	gone(t, b, e, "kv/data/a", "")
	if a, err := b.Call(e, engine.Patch, "kv/data/a", `{"data":{"x":1}}`); err != nil || !a.Gone {
		t.Errorf("a patch of what is gone: %+v, %v", a, err)
	}
	b.World.Approve(charter.TypeKVConfig, charter.KVConfig{DeleteVersionAfter: 60, MaxVersions: 2, Mount: "kv", Version: 1})
	if got := b.Must(e, engine.Write, "kv/data/a", `{"data":{}}`); !strings.Contains(got, `"deletion_time":"2026-11-22T12:02:30Z"`) {
		t.Errorf("the mount's time is shorter: %s", got)
	}
	if got := b.Must(e, engine.Write, "kv/data/c", `{"data":{}}`); !strings.Contains(got, `"deletion_time":"2026-11-22T12:02:30Z"`) {
		t.Errorf("the mount's time alone: %s", got)
	}
}

func TestMetadataPatch(t *testing.T) {
	b, e := bench(t)
	if _, err := b.Call(e, engine.Patch, "kv/metadata/a", `{"max_versions":3}`); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("a patch of nothing: %v", err)
	}
	b.Must(e, engine.Write, "kv/metadata/a", `{"custom_metadata":{"a":"1","b":"2"},"max_versions":3,"cas_required":"true"}`)
	custom := func() string {
		var got struct {
			Custom json.RawMessage `json:"custom_metadata"`
			Max    int             `json:"max_versions"`
			CAS    bool            `json:"cas_required"`
		}
		if err := json.Unmarshal([]byte(b.Must(e, engine.Read, "kv/metadata/a", "")), &got); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%s %d %v", got.Custom, got.Max, got.CAS)
	}
	for i, s := range []struct{ patch, then string }{
		{`{"custom_metadata":{"a":null,"c":"3"}}`, `{"b":"2","c":"3"} 3 true`},
		{`{"max_versions":null,"cas_required":false}`, `{"b":"2","c":"3"} 0 false`},
		{`{"custom_metadata":null}`, `null 0 false`},
	} {
		b.Must(e, engine.Patch, "kv/metadata/a", s.patch)
		want(t, fmt.Sprint("patch ", i), custom(), s.then)
	}
	b.Must(e, engine.Write, "kv/metadata/a", `{"custom_metadata":{"x":"9"}}`)
	b.Must(e, engine.Write, "kv/metadata/a", `{"custom_metadata":{"y":"8"}}`)
	want(t, "a write replaces", custom(), `{"y":"8"} 0 false`)
	// Whatever a text may hold is read back out of the store as it was.
	b.Must(e, engine.Write, "kv/metadata/a", `{"custom_metadata":{"\u0000<\u2028é":"\u2029&>\"\\😀"}}`)
	b.Must(e, engine.Patch, "kv/metadata/a", `{"custom_metadata":{"z":""}}`)
	var odd struct {
		Custom map[string]string `json:"custom_metadata"`
	}
	if err := json.Unmarshal([]byte(b.Must(e, engine.Read, "kv/metadata/a", "")), &odd); err != nil || len(odd.Custom) != 2 || odd.Custom["\x00<\u2028é"] != "\u2029&>\"\\😀" {
		t.Errorf("odd texts became %q (%v)", odd.Custom, err)
	}
}

// What is not understood wholly is refused, and nothing of it is done.
func TestRefused(t *testing.T) {
	b, e := bench(t)
	b.Must(e, engine.Write, "kv/data/a", `{"data":{"k":"canary"}}`)
	size := b.Store.Head().Size
	deep := strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65)
	type call struct {
		m          engine.Method
		path, body string
	}
	for name, c := range map[string]call{
		"unknown parameter":       {engine.Write, "kv/data/a", `{"data":{},"ttl":"1h"}`},
		"unknown option":          {engine.Write, "kv/data/a", `{"data":{},"options":{"force":true}}`},
		"option twice":            {engine.Write, "kv/data/a", `{"data":{},"options":{"cas":1,"cas":2}}`},
		"options as text":         {engine.Write, "kv/data/a", `{"data":{},"options":"cas=1"}`},
		"negative cas":            {engine.Write, "kv/data/a", `{"data":{},"options":{"cas":-1}}`},
		"cas out of range":        {engine.Write, "kv/data/a", `{"data":{},"options":{"cas":9007199254740993}}`},
		"no data":                 {engine.Write, "kv/data/a", `{}`},
		"null data":               {engine.Write, "kv/data/a", `{"data":null}`},
		"data as list":            {engine.Write, "kv/data/a", `{"data":[1]}`},
		"data as text":            {engine.Write, "kv/data/a", `{"data":"x"}`},
		"member twice":            {engine.Write, "kv/data/a", `{"data":{"a":1,"a":2}}`},
		"member twice by escape":  {engine.Write, "kv/data/a", `{"data":{"a":1,"\u0061":2}}`},
		"member twice, deep":      {engine.Write, "kv/data/a", `{"data":{"x":[{"a":1,"a":2}]}}`},
		"half a surrogate pair":   {engine.Write, "kv/data/a", `{"data":{"a":"\ud800"}}`},
		"the other half":          {engine.Write, "kv/data/a", `{"data":{"a":"\udc00"}}`},
		"no UTF-8":                {engine.Write, "kv/data/a", "{\"data\":{\"a\":\"\xff\"}}"},
		"too deep":                {engine.Write, "kv/data/a", `{"data":` + deep + `}`},
		"too deep, lists":         {engine.Write, "kv/data/a", `{"data":{"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}}`},
		"too big":                 {engine.Write, "kv/data/a", `{"data":{"a":"` + strings.Repeat("x", kv.MaxValueBytes) + `"}}`},
		"too big by patch":        {engine.Patch, "kv/data/a", `{"data":{"a":"` + strings.Repeat("x", kv.MaxValueBytes-8) + `"}}`},
		"version as word":         {engine.Read, "kv/data/a", `{"version":"latest"}`},
		"negative version":        {engine.Read, "kv/data/a", `{"version":-1}`},
		"parameter of a read":     {engine.Read, "kv/data/a", `{"list":"true"}`},
		"no versions":             {engine.Write, "kv/destroy/a", `{"versions":[]}`},
		"versions missing":        {engine.Write, "kv/destroy/a", `{}`},
		"version 0":               {engine.Write, "kv/destroy/a", `{"versions":[0]}`},
		"versions as text":        {engine.Write, "kv/destroy/a", `{"versions":"1"}`},
		"versions in a list":      {engine.Write, "kv/destroy/a", `{"versions":[[1]]}`},
		"too many versions":       {engine.Write, "kv/destroy/a", `{"versions":[` + strings.Repeat("1,", 1000) + `1]}`},
		"too many kept":           {engine.Write, "kv/metadata/a", `{"max_versions":1001}`},
		"fraction of a second":    {engine.Write, "kv/metadata/a", `{"delete_version_after":"1500ms"}`},
		"custom metadata nested":  {engine.Write, "kv/metadata/a", `{"custom_metadata":{"a":{}}}`},
		"custom metadata null":    {engine.Write, "kv/metadata/a", `{"custom_metadata":{"a":null}}`},
		"custom metadata twice":   {engine.Write, "kv/metadata/a", `{"custom_metadata":{"a":"1","a":"2"}}`},
		"custom metadata no name": {engine.Write, "kv/metadata/a", `{"custom_metadata":{"":"1"}}`},
		"custom metadata too big": {engine.Write, "kv/metadata/a", `{"custom_metadata":{"a":"` + strings.Repeat("x", 513) + `"}}`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := b.Run(e, b.Whole(c.m, c.path, c.body))
			if fault.ClassOf(err) != fault.Usage {
				t.Errorf("class %s: %v", fault.ClassOf(err), err)
			}
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("the error quotes a secret: %v", err)
			}
		})
	}
	for _, path := range []string{"kv", "kv/data", "kv/metadata", "kv/other/a", "kv/config/a", "kv/delete", "kv/DATA/a"} {
		for m := engine.Read; m <= engine.Delete; m++ {
			if m == engine.List && path == "kv/metadata" {
				continue
			}
			if _, err := b.Run(e, b.Whole(m, path, "")); !errors.Is(err, engine.ErrNoPath) {
				t.Errorf("%d %s: %v", m, path, err)
			}
		}
	}
	for _, m := range []engine.Method{engine.Write, engine.Patch, engine.Delete} {
		_, err := b.Run(e, b.Whole(m, "kv/config", `{"max_versions":5}`))
		if !errors.Is(err, engine.ErrByCharter) || !strings.Contains(fault.HintOf(err), "keyrite charter propose kv-config") {
			t.Errorf("configuration by a client: %v, hint %q", err, fault.HintOf(err))
		}
	}
	if got := b.Must(e, engine.Read, "kv/data/a", ""); !strings.Contains(got, "canary") || !strings.Contains(got, `"version":1`) {
		t.Errorf("something of it was done: %s", got)
	}
	if n := b.Store.Head().Size; n != size+1 {
		t.Errorf("%d entries more than the one read", n-size-1)
	}
}

// Two mounts do not see each other, whatever they are called.
func TestMountsAreApart(t *testing.T) {
	b, e := bench(t)
	other := kv.New(b.Mount("kv", "kv2"))
	b.Must(e, engine.Write, "kv/data/a", `{"data":{}}`)
	if _, err := b.Call(other, engine.Read, "kv2/data/a", ""); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("seen in the other mount: %v", err)
	}
	if _, err := b.Call(other, engine.List, "kv2/metadata", ""); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("listed in the other mount: %v", err)
	}
}

func TestSubkeys(t *testing.T) {
	b, e := bench(t)
	b.Must(e, engine.Write, "kv/data/a", `{"data":{"x":{"y":{"z":"canary"},"e":{}},"l":["canary"],"s":"canary"}}`)
	for depth, names := range map[string]string{
		`{}`: `{"l":null,"s":null,"x":{"e":null,"y":{"z":null}}}`, `{"depth":1}`: `{"l":null,"s":null,"x":null}`, `{"depth":"2"}`: `{"l":null,"s":null,"x":{"e":null,"y":null}}`,
	} {
		if got := b.Must(e, engine.Read, "kv/subkeys/a", depth); !strings.HasSuffix(got, `"subkeys":`+names+`}`) {
			t.Errorf("depth %s: %s", depth, got)
		}
	}
}
