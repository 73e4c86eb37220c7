package password_test

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
	"keyrite/vault/engine/password"
	"keyrite/vault/seal"
)

func TestMain(m *testing.M) { enginetest.Main(m, rotateUntilKilled) }

func policy(name string, edit func(*charter.PasswordPolicy)) charter.PasswordPolicy {
	p := charter.PasswordPolicy{
		Alphabets: []charter.Alphabet{{Characters: "23456789", Min: 1}, {Characters: "abcdefghijkmnopqrstuvwxyz", Min: 1}},
		History:   2, Length: 20, Mount: "pw", Name: name, Version: 1,
	}
	if edit != nil {
		edit(&p)
	}
	return p
}

func bench(t testing.TB, policies ...charter.PasswordPolicy) (*enginetest.Bench, *password.Engine) {
	b := enginetest.New(t, "password", "pw")
	b.Now = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	if len(policies) == 0 {
		policies = []charter.PasswordPolicy{policy("plc", nil)}
	}
	for _, p := range policies {
		b.World.Approve(charter.TypePasswordPolicy, p)
	}
	return b, password.New(b.Host)
}

// got is what a client reads of a password.
type got struct {
	Password string
	Policy   string
	Version  int
	Restored int    `json:"restored_from"`
	Due      string `json:"rotate_time"`
}

func read(t *testing.T, b *enginetest.Bench, e *password.Engine, path, body string) got {
	t.Helper()
	var g got
	if err := json.Unmarshal([]byte(b.Must(e, engine.Read, path, body)), &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// A password is made, read, rotated and rolled back; who changes it sees nothing of it
// (R-CER-19).
func TestLifeOfAPassword(t *testing.T) {
	b, e := bench(t)
	made := `{"policy":"plc","rotate_time":"","version":1}`
	if out := b.Must(e, engine.Write, "pw/password/line1/plc", `{"policy":"plc"}`); out != made {
		t.Errorf("made: %s", out)
	}
	all := []got{read(t, b, e, "pw/password/line1/plc", "")}
	if again := read(t, b, e, "pw/password/line1/plc", ""); again != all[0] || len(again.Password) != 20 {
		t.Errorf("read twice: %+v, %+v", all[0], again)
	}
	for i := range 3 {
		if out := b.Must(e, engine.Write, "pw/rotate/line1/plc", ""); !strings.Contains(out, fmt.Sprintf(`"version":%d`, i+2)) || strings.Contains(out, "password") {
			t.Errorf("rotated: %s", out)
		}
		all = append(all, read(t, b, e, "pw/password/line1/plc", ""))
	}
	for n := 1; n <= 4; n++ {
		a, err := b.Call(e, engine.Read, "pw/history/line1/plc", fmt.Sprintf(`{"version":"%d"}`, n))
		if kept := n == 2 || n == 3; kept != (err == nil) || err != nil && !errors.Is(err, engine.ErrNotThere) {
			t.Errorf("version %d in the history: %v", n, err)
		} else if kept && !strings.Contains(enginetest.JSON(t, a.Data), all[n-1].Password) {
			t.Errorf("version %d is another", n)
		}
	}
	if out := b.Must(e, engine.Read, "pw/history/line1/plc", ""); strings.Contains(out, "password") || !strings.Contains(out, `"version":4`) {
		t.Errorf("the list of versions: %s", out)
	}
	b.Must(e, engine.Write, "pw/rollback/line1/plc", `{"version":3,"cas":4}`)
	if back := read(t, b, e, "pw/password/line1/plc", ""); back.Password != all[2].Password || back.Version != 5 || back.Restored != 3 {
		t.Errorf("rolled back: %+v", back)
	}
	b.Must(e, engine.Write, "pw/password/line1/hmi", `{"policy":"plc"}`)
	if out := b.Must(e, engine.List, "pw/password", ""); out != `{"keys":["line1/"]}` {
		t.Errorf("list: %s", out)
	}
	b.Must(e, engine.Delete, "pw/password/line1/plc", "")
	if out := b.Must(e, engine.List, "pw/password/line1", ""); out != `{"keys":["hmi"]}` {
		t.Errorf("list after the end: %s", out)
	}
	err := b.Store.View(func(v *seal.View) error {
		if k := v.Keys("password-value/pw", ""); len(k) != 1 {
			t.Errorf("in the store are %v", k)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if out := b.Must(e, engine.Read, "pw/policy/plc", ""); !strings.Contains(out, `"length":20`) || !strings.Contains(out, `"bits":100`) {
		t.Errorf("the policy: %s", out)
	}
	once := read(t, b, e, "pw/policy/plc/generate", "").Password
	if len(once) != 20 || once == read(t, b, e, "pw/policy/plc/generate", "").Password {
		t.Errorf("generated %q", once)
	}
	raw, err := os.ReadFile(filepath.Join(b.Dir, "store", seal.FileName))
	if err != nil {
		t.Fatal(err)
	}
	for where, text := range map[string]string{"audit": b.Audit(), "file": string(raw)} {
		for _, g := range append(all, got{Password: once}) {
			if strings.Contains(text, g.Password) {
				t.Errorf("a password stands in the %s", where)
			}
		}
	}
}

// To rotate needs the right to update, to make one the right to create, and the history
// has a path that a policy can deny.
func TestRights(t *testing.T) {
	b, e := bench(t)
	only := func(path string, can ...access.Capability) {
		b.Rules = []access.Rule{{Path: "pw/*", Can: can}, {Path: "pw/history/*", Can: []access.Capability{access.Deny}}}
		if path != "" {
			b.Rules = []access.Rule{{Path: path, Can: can}}
		}
	}
	try := func(m engine.Method, path, body string, ok bool) {
		t.Helper()
		if _, err := b.Call(e, m, path, body); ok && err != nil || !ok && !errors.Is(err, access.ErrDenied) {
			t.Errorf("%s: %v", path, err)
		}
	}
	only("", access.Delete, access.List, access.Read, access.Update)
	try(engine.Write, "pw/password/a", `{"policy":"plc"}`, false)
	only("", access.Create, access.Delete, access.List, access.Read)
	try(engine.Write, "pw/password/a", `{"policy":"plc"}`, true)
	try(engine.Write, "pw/rotate/a", "", false)
	only("pw/rotate/+", access.Update)
	try(engine.Write, "pw/rotate/a", "", true)
	try(engine.Read, "pw/password/a", "", false)
	try(engine.Write, "pw/rollback/a", `{"version":1}`, false)
	only("", access.Create, access.Delete, access.List, access.Read, access.Update)
	try(engine.Read, "pw/password/a", "", true)
	try(engine.Read, "pw/history/a", "", false)
	try(engine.Read, "pw/history/a", `{"version":1}`, false)
}

// A password that is due is rotated when it is read, once; before that it stays.
func TestDue(t *testing.T) {
	b, e := bench(t, policy("hour", func(p *charter.PasswordPolicy) { p.RotateAfter = 3600 }))
	if out := b.Must(e, engine.Write, "pw/password/a", `{"policy":"hour"}`); !strings.Contains(out, `"rotate_time":"2026-11-22T13:00:00Z"`) {
		t.Errorf("made: %s", out)
	}
	first := read(t, b, e, "pw/password/a", "")
	b.Now = b.Now.Add(time.Hour - time.Second)
	if g := read(t, b, e, "pw/password/a", ""); g != first || g.Due != "2026-11-22T13:00:00Z" {
		t.Errorf("rotated early: %+v", g)
	}
	b.Now = b.Now.Add(time.Second)
	second := read(t, b, e, "pw/password/a", "")
	if second.Version != 2 || second.Password == first.Password || second.Due != "2026-11-22T14:00:00Z" {
		t.Errorf("due: %+v", second)
	}
	if g := read(t, b, e, "pw/history/a", `{"version":1}`); g.Password != first.Password {
		t.Errorf("the one before it is not kept: %+v", g)
	}
	b.Now = b.Now.Add(2 * time.Hour)
	b.Must(e, engine.Read, "pw/history/a", "") // looks, and changes nothing
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if _, err := b.Call(e, engine.Read, "pw/password/a", ""); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if g := read(t, b, e, "pw/password/a", ""); g.Version != 3 {
		t.Errorf("16 who read what was due left version %d", g.Version)
	}
	if n := strings.Count(b.Audit(), `"rotated":true`); n != 2 {
		t.Errorf("the trail tells of %d rotations by reading", n)
	}
	// An ended policy rotates nothing, and takes nothing away.
	b.Now = b.Now.Add(24 * time.Hour)
	b.World.Approve(charter.TypeAccessEnded, charter.AccessEnded{ID: "pw/hour", Type: charter.TypePasswordPolicy})
	if g := read(t, b, e, "pw/password/a", ""); g.Version != 3 || g.Due != "" {
		t.Errorf("after the end of its policy: %+v", g)
	}
	if _, err := b.Call(e, engine.Write, "pw/rotate/a", ""); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("rotated without a policy: %v", err)
	}
	b.Must(e, engine.Write, "pw/rollback/a", `{"version":2}`)
	b.Must(e, engine.Read, "pw/history/a", `{"version":2}`)
}

// Of many who follow the same version one rotates.
func TestRotationRace(t *testing.T) {
	b, e := bench(t)
	b.Must(e, engine.Write, "pw/password/a", `{"policy":"plc"}`)
	var won, made atomic.Int64
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			switch _, err := b.Call(e, engine.Write, "pw/rotate/a", `{"cas":1}`); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, engine.ErrConflict):
				t.Error(err)
			}
			switch _, err := b.Call(e, engine.Write, "pw/password/b", `{"policy":"plc"}`); {
			case err == nil:
				made.Add(1)
			case !errors.Is(err, engine.ErrConflict):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 || made.Load() != 1 || read(t, b, e, "pw/password/a", "").Version != 2 {
		t.Errorf("%d rotated, %d made", won.Load(), made.Load())
	}
}

// A later policy counts from the next rotation; a rotation may name another one.
func TestPolicyChanges(t *testing.T) {
	b, e := bench(t, policy("plc", nil), policy("long", func(p *charter.PasswordPolicy) { p.Length, p.History = 40, 0 }))
	b.Must(e, engine.Write, "pw/password/a", `{"policy":"plc"}`)
	b.World.Approve(charter.TypePasswordPolicy, policy("plc", func(p *charter.PasswordPolicy) { p.Version, p.Length = 2, 30 }))
	if n := len(read(t, b, e, "pw/password/a", "").Password); n != 20 {
		t.Errorf("a later policy changed a password: it has %d characters", n)
	}
	b.Must(e, engine.Write, "pw/rotate/a", "")
	if n := len(read(t, b, e, "pw/password/a", "").Password); n != 30 {
		t.Errorf("by the later policy it has %d characters", n)
	}
	b.Must(e, engine.Write, "pw/rotate/a", `{"policy":"long"}`)
	if g := read(t, b, e, "pw/password/a", ""); len(g.Password) != 40 || g.Policy != "long" {
		t.Errorf("by another policy it is %+v", g)
	}
	if _, err := b.Call(e, engine.Read, "pw/history/a", `{"version":2}`); !errors.Is(err, engine.ErrNotThere) {
		t.Errorf("a policy without history keeps one: %v", err)
	}
}

func TestRefused(t *testing.T) {
	b, e := bench(t)
	b.Must(e, engine.Write, "pw/password/a", `{"policy":"plc"}`)
	b.Must(e, engine.Write, "pw/rotate/a", "")
	size := b.Store.Head().Size
	type call struct {
		m          engine.Method
		path, body string
	}
	for name, c := range map[string]call{
		"a password of one's own":  {engine.Write, "pw/password/b", `{"policy":"plc","password":"hunter22"}`},
		"policy as number":         {engine.Write, "pw/password/b", `{"policy":5}`},
		"made again":               {engine.Write, "pw/password/a", `{"policy":"plc"}`},
		"rotate to a value":        {engine.Write, "pw/rotate/a", `{"password":"hunter22"}`},
		"rotate another version":   {engine.Write, "pw/rotate/a", `{"cas":1}`},
		"rotate version 0":         {engine.Write, "pw/rotate/a", `{"cas":0}`},
		"roll back to nothing":     {engine.Write, "pw/rollback/a", `{}`},
		"roll back to version 0":   {engine.Write, "pw/rollback/a", `{"version":0}`},
		"roll back to a word":      {engine.Write, "pw/rollback/a", `{"version":"first"}`},
		"roll back, other version": {engine.Write, "pw/rollback/a", `{"version":1,"cas":1}`},
		"history of a word":        {engine.Read, "pw/history/a", `{"version":"all"}`},
		"read of a version":        {engine.Read, "pw/password/a", `{"version":1}`},
		"generate longer":          {engine.Read, "pw/policy/plc/generate", `{"length":64}`},
	} {
		if _, err := b.Call(e, c.m, c.path, c.body); fault.ClassOf(err) != fault.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]call{
		"no policy":             {engine.Write, "pw/password/b", ``},
		"unknown policy":        {engine.Write, "pw/password/b", `{"policy":"other"}`},
		"unknown password":      {engine.Read, "pw/password/b", ``},
		"rotate nothing":        {engine.Write, "pw/rotate/b", ``},
		"rotate to no policy":   {engine.Write, "pw/rotate/a", `{"policy":"other"}`},
		"roll back nothing":     {engine.Write, "pw/rollback/b", `{"version":1}`},
		"roll back to unknown":  {engine.Write, "pw/rollback/a", `{"version":9}`},
		"roll back to the same": {engine.Write, "pw/rollback/a", `{"version":2}`},
		"newest as history":     {engine.Read, "pw/history/a", `{"version":2}`},
		"generate by nothing":   {engine.Read, "pw/policy/other/generate", ``},
		"list of nothing":       {engine.List, "pw/password/none", ``},
	} {
		if _, err := b.Call(e, c.m, c.path, c.body); !errors.Is(err, engine.ErrNotThere) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, m := range []engine.Method{engine.Write, engine.Patch, engine.Delete} {
		if _, err := b.Call(e, m, "pw/policy/plc", `{"length":8}`); !errors.Is(err, engine.ErrByCharter) || !strings.Contains(fault.HintOf(err), "password-policy") {
			t.Errorf("configuration by a client: %v", err)
		}
	}
	for _, path := range []string{"pw", "pw/rotate", "pw/rollback", "pw/history", "pw/policy/plc/other", "pw/policy/plc/generate/x", "pw/generate/plc"} {
		for m := engine.Read; m <= engine.Delete; m++ {
			if _, err := b.Call(e, m, path, ""); !errors.Is(err, engine.ErrNoPath) {
				t.Errorf("%d %s: %v", m, path, err)
			}
		}
	}
	if n := b.Store.Head().Size; n != size {
		t.Errorf("%d entries of calls that were refused", n-size)
	}
}

func FuzzPlan(f *testing.F) {
	b, e := bench(f)
	for m := engine.Read; m <= engine.Delete; m++ {
		for _, path := range []string{"pw/password/a", "pw/rotate/a", "pw/rollback/a", "pw/history/a", "pw/policy/plc", "pw/policy/plc/generate", "pw/password"} {
			f.Add(int(m), path, `{"policy":"plc","version":1,"cas":1}`)
		}
	}
	f.Fuzz(func(t *testing.T, m int, path, body string) {
		p, err := access.ParsePath(path)
		var params engine.Params
		if err != nil || body != "" && json.Unmarshal([]byte(body), &params) != nil {
			return
		}
		plan, err := e.Plan(&engine.Request{Method: engine.Method(m), Path: p, Rest: strings.Split(path, "/")[1:], Params: params, Now: b.Now})
		rest := strings.Split(path, "/")[1:]
		changes := len(rest) > 0 && (rest[0] == "rotate" || rest[0] == "rollback")
		switch {
		case err != nil && fault.ClassOf(err) == fault.Unexpected:
			t.Errorf("%d %s %s: %v", m, path, body, err)
		case err == nil && (plan.Needs == "" || plan.Apply == nil || changes && plan.Needs != access.Update):
			t.Errorf("%d %s %s: needs %q", m, path, body, plan.Needs)
		}
	})
}

// Where the policy was ended, and with it what it says of history, a password is rolled
// back as often as somebody likes and does not grow for ever.
func TestHistoryIsBoundedWithoutAPolicy(t *testing.T) {
	b, e := bench(t)
	b.Must(e, engine.Write, "pw/password/a", `{"policy":"plc"}`)
	b.Must(e, engine.Write, "pw/rotate/a", "")
	b.World.Approve(charter.TypeAccessEnded, charter.AccessEnded{ID: "pw/plc", Type: charter.TypePasswordPolicy})
	for n := range charter.MaxPasswordHistory + 20 {
		b.Must(e, engine.Write, "pw/rollback/a", fmt.Sprintf(`{"version":%d}`, n+1))
	}
	var g struct{ Versions []any }
	if err := json.Unmarshal([]byte(b.Must(e, engine.Read, "pw/history/a", "")), &g); err != nil || len(g.Versions) != charter.MaxPasswordHistory+1 {
		t.Errorf("%d versions are kept: %v", len(g.Versions), err)
	}
}
