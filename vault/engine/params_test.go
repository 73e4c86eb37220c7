package engine_test

import (
	"encoding/json"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/vault/engine"
)

func params(t *testing.T, body string) engine.Params {
	t.Helper()
	var p engine.Params
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestParams: numbers, truth values and durations are read in both spellings that
// clients use, and nothing else is.
func TestParams(t *testing.T) {
	p := params(t, `{"n":7,"s":"7","yes":true,"no":"false","ttl":"1h","sec":90,"b":"AQI=","nul":null,"o":{"cas":1}}`)
	for _, name := range []string{"n", "s"} {
		if n, err := p.Int(name); n != 7 || err != nil {
			t.Errorf("Int(%s) = %d, %v", name, n, err)
		}
	}
	if y, err := p.Bool("yes"); !y || err != nil {
		t.Errorf("Bool(yes) = %v, %v", y, err)
	}
	if n, err := p.Bool("no"); n || err != nil {
		t.Errorf("Bool(no) = %v, %v", n, err)
	}
	for name, want := range map[string]time.Duration{"ttl": time.Hour, "sec": 90 * time.Second, "none": 0} {
		if d, err := p.Duration(name); d != want || err != nil {
			t.Errorf("Duration(%s) = %v, %v", name, d, err)
		}
	}
	if b, err := p.Bytes("b"); string(b) != "\x01\x02" || err != nil {
		t.Errorf("Bytes(b) = %x, %v", b, err)
	}
	if p.Has("nul") || p.Has("none") || !p.Has("n") {
		t.Error("null, or nothing, counts as given")
	}
}

// TestParamsRefused: what is of another kind, or not known, is an error of the
// caller.
func TestParamsRefused(t *testing.T) {
	p := params(t, `{"n":"7x","f":1.5,"big":99999999999999999999,"t":"yes","d":"-1s","s":5,"b":"AQI","bn":"A\nQI=","o":{"cas":1,"x":2}}`)
	var o struct {
		CAS int `json:"cas"`
	}
	for name, err := range map[string]error{
		"a number with a tail": second(p.Int("n")),
		"a broken number":      second(p.Int("f")),
		"a number too big":     second(p.Int("big")),
		"another truth":        second(p.Bool("t")),
		"a negative duration":  second(p.Duration("d")),
		"a number as text":     second(p.String("s")),
		"base64 unpadded":      second(p.Bytes("b")),
		"base64 in lines":      second(p.Bytes("bn")),
		"an unknown member":    p.Into("o", &o),
		"an unknown parameter": p.Only("n", "f"),
	} {
		if fault.ClassOf(err) != fault.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
