package kv_test

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"keyrite/artifact/access"
	"keyrite/artifact/fault"
	"keyrite/vault/engine"
	"keyrite/vault/engine/enginetest"
)

// model is what a secret should be: what each version holds, by its number.
type model struct {
	versions map[int]*modelVersion
	current  int
}

type modelVersion struct {
	n                  int // the value
	deleted, destroyed bool
}

const modelKeeps = 4

func (m *model) write(n int) {
	m.current++
	m.versions[m.current] = &modelVersion{n: n}
	delete(m.versions, m.current-modelKeeps)
}

// step does something at random in the vault and in the model.
func (m *model) step(t *testing.T, b *enginetest.Bench, call func(engine.Method, string, string) *engine.Answer, r []byte) {
	t.Helper()
	v := max(1, m.current-int(r[1]%6)) // mostly one that is there, or was
	x := m.versions[v]
	list := fmt.Sprintf(`{"versions":[%d]}`, v)
	switch r[0] % 8 {
	case 0, 1:
		call(engine.Write, "kv/data/s", fmt.Sprintf(`{"data":{"n":%d},"options":{"cas":%d}}`, r[2], m.current))
		m.write(int(r[2]))
	case 2:
		newest := m.versions[m.current]
		a := call(engine.Patch, "kv/data/s", fmt.Sprintf(`{"data":{"n":%d}}`, r[2]))
		if a != nil && !a.Gone {
			m.write(int(r[2]))
		}
		if alive := newest != nil && !newest.deleted && !newest.destroyed; alive != (a != nil && !a.Gone) {
			t.Fatalf("a patch of version %d (%+v): %+v", m.current, newest, a)
		}
	case 3:
		call(engine.Delete, "kv/data/s", "")
		if x := m.versions[m.current]; x != nil {
			x.deleted = x.deleted || !x.destroyed
		}
	case 4:
		call(engine.Write, "kv/delete/s", list)
		if x != nil {
			x.deleted = true
		}
	case 5:
		call(engine.Write, "kv/undelete/s", list)
		if x != nil {
			x.deleted = false
		}
	case 6:
		call(engine.Write, "kv/destroy/s", list)
		if x != nil {
			x.destroyed = true
		}
	case 7:
		if r[1] < 16 {
			call(engine.Delete, "kv/metadata/s", "")
			m.versions, m.current = map[int]*modelVersion{}, 0
		}
	}
}

// Whatever is done in whatever order, the secret reads as a simple model of it says.
func TestAgainstAModel(t *testing.T) {
	b, e := bench(t)
	m := &model{versions: map[int]*modelVersion{}}
	call := func(method engine.Method, path, body string) *engine.Answer {
		a, err := b.Call(e, method, path, body)
		if err != nil && !errors.Is(err, engine.ErrNotThere) {
			t.Fatalf("%s %s: %v", path, body, err)
		}
		return a
	}
	reset := func() {
		if m.current == 0 {
			call(engine.Write, "kv/metadata/s", fmt.Sprintf(`{"max_versions":%d}`, modelKeeps))
		}
	}
	for i := range 600 {
		reset()
		r := make([]byte, 3)
		rand.Read(r)
		m.step(t, b, call, r)
		for v := m.current; v > max(0, m.current-modelKeeps-1); v-- {
			a, err := b.Look(e, "kv/data/s", fmt.Sprintf(`{"version":%d}`, v))
			if err != nil && !errors.Is(err, engine.ErrNotThere) {
				t.Fatal(err)
			}
			x := m.versions[v]
			if x == nil {
				if a != nil {
					t.Fatalf("step %d %v: version %d is there", i, r, v)
				}
				continue
			}
			var got struct {
				Data     *struct{ N int }
				Metadata struct{ Destroyed bool }
			}
			if a == nil || json.Unmarshal([]byte(enginetest.JSON(t, a.Data)), &got) != nil {
				t.Fatalf("step %d %v: version %d is not there", i, r, v)
			}
			if readable := !x.deleted && !x.destroyed; a.Gone == readable || readable && got.Data.N != x.n || got.Metadata.Destroyed != x.destroyed {
				t.Fatalf("step %d %v: version %d is %s, should be %+v", i, r, v, enginetest.JSON(t, a.Data), x)
			}
		}
	}
}

// No request makes a plan that decides on nothing, or crashes the engine.
func FuzzPlan(f *testing.F) {
	b, e := bench(f)
	for _, s := range []struct{ path, body string }{
		{"kv/data/a", `{"data":{"a":1},"options":{"cas":0}}`},
		{"kv/metadata/a", `{"custom_metadata":{"a":"b"},"max_versions":1,"delete_version_after":"1h"}`},
		{"kv/destroy/a", `{"versions":[1,"2"]}`},
		{"kv/subkeys/a", `{"version":1,"depth":2}`},
		{"kv/config", `{}`},
	} {
		for m := engine.Read; m <= engine.Delete; m++ {
			f.Add(int(m), s.path, s.body)
		}
	}
	f.Fuzz(func(t *testing.T, m int, path, body string) {
		p, err := access.ParsePath(path)
		var params engine.Params
		if err != nil || body != "" && json.Unmarshal([]byte(body), &params) != nil {
			return
		}
		r := &engine.Request{Method: engine.Method(m), Path: p, Rest: strings.Split(path, "/")[1:], Params: params, Now: b.Now}
		plan, err := e.Plan(r)
		if err != nil {
			if fault.ClassOf(err) == fault.Unexpected {
				t.Errorf("%d %s %s: %v", m, path, body, err)
			}
			return
		}
		if plan.Needs == "" || plan.Needs == access.Deny || plan.Apply == nil {
			t.Errorf("%d %s %s: needs %q", m, path, body, plan.Needs)
		}
		for _, v := range plan.Shown {
			switch v.(type) {
			case int, []int:
			default:
				t.Errorf("%d %s %s: shows %T", m, path, body, v)
			}
		}
	})
}
