package frame

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"testing"
	"testing/iotest"

	"keyrite/hsm/keyspec"
)

func compactRequest(kind byte, input int) []byte {
	b := []byte{kind}
	b = binary.BigEndian.AppendUint64(b, 7)
	b = append(b, bytes.Repeat([]byte{0xab}, keyBytes)...)
	b = append(b, make([]byte, input)...)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// TestStreamRoundTrip sends both forms through one socket, byte by byte and with a
// message that no buffer holds.
func TestStreamRoundTrip(t *testing.T) {
	key := keyspec.KeyID{1, 15: 2}
	asked := []Request{
		{ID: 1, Op: OpSign, Key: &key, Input: []byte("digest")},
		{ID: 2, Op: OpObjects},
		{ID: 3, Op: OpMAC, Key: &key, Input: make([]byte, MaxMessage)},
		{ID: 4, Op: OpSign, Key: &key, Input: []byte("digest"), Body: json.RawMessage(`1`)},
		{ID: 5, Op: OpEncrypt, Key: &key, Input: []byte("secret"), AAD: []byte("epoch 1")},
		{ID: 6, Op: OpDecrypt, Key: &key, Input: []byte("sealed")},
		{ID: 7, Op: OpSign, Key: &key, Input: []byte("digest"), AAD: []byte("for nothing")},
	}
	answered := []Response{
		{ID: 1, Data: []byte("signature")},
		{ID: 2, Body: json.RawMessage(`[]`)},
		{ID: 3, Data: make([]byte, MaxMessage)},
		{ID: 4, Fault: &Fault{Op: "sign", Kind: KindUsage, Class: "usage", Text: "no"}},
		{ID: 5},
	}
	var out []byte
	var err error
	for i := range asked {
		if out, err = AppendRequest(out, &asked[i]); err != nil {
			t.Fatal(err)
		}
	}
	r := NewStream(iotest.OneByteReader(bytes.NewReader(out)))
	for i := range asked {
		var got Request
		if err := r.Request(&got); err != nil || !reflect.DeepEqual(got, asked[i]) {
			t.Errorf("request %d: got %.80v, %v", i, got, err)
		}
	}
	if err := r.Request(&Request{}); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	out = nil
	for i := range answered {
		if out, err = AppendResponse(out, &answered[i]); err != nil {
			t.Fatal(err)
		}
	}
	r = NewStream(bytes.NewReader(out))
	for i := range answered {
		var got Response
		if err := r.Response(&got); err != nil || !reflect.DeepEqual(got, answered[i]) {
			t.Errorf("response %d: got %.80v, %v", i, got, err)
		}
		if last := i == len(answered)-1; (i == 0 || last) && r.Buffered() == last {
			t.Errorf("after response %d: buffered is %v", i, r.Buffered())
		}
	}
}

// TestStreamWipes shows that a frame is gone from the buffers when the next one is
// read, also where what came after it was moved, or it was larger than the buffer.
func TestStreamWipes(t *testing.T) {
	key := keyspec.KeyID{1, 15: 2}
	for _, size := range []int{40, 5000, 3 * streamBytes} {
		var in []byte
		for id := range uint64(30) {
			var err error
			if in, err = AppendRequest(in, &Request{ID: id, Op: OpEncrypt, Key: &key, Input: bytes.Repeat([]byte{0x77}, size)}); err != nil {
				t.Fatal(err)
			}
		}
		end, err := AppendRequest(nil, &Request{ID: 30, Op: OpObjects})
		if err != nil {
			t.Fatal(err)
		}
		s := NewStream(io.MultiReader(bytes.NewReader(in), bytes.NewReader(end)))
		var big []byte
		for range 31 {
			if err := s.Request(&Request{}); err != nil {
				t.Fatal(err)
			}
			if s.big != nil {
				big = s.big
			}
		}
		if bytes.Contains(s.buf, bytes.Repeat([]byte{0x77}, 20)) || bytes.Contains(big, bytes.Repeat([]byte{0x77}, 20)) {
			t.Errorf("frames of %d bytes are still there", size)
		}
	}
	old := append(make([]byte, 0, 32), "secret"...)
	if got := grow(old, 64); string(got) != "secret" || string(old) != "\x00\x00\x00\x00\x00\x00" {
		t.Errorf("grown %q, left %q", got, old)
	}
}

// TestStreamRefuses what is not the one form of a message.
func TestStreamRefuses(t *testing.T) {
	whole := compactRequest(compactSign, 32)
	for name, in := range map[string][]byte{
		"short head":           {0, 0},
		"empty frame":          {0, 0, 0, 0},
		"giant":                {0xff, 0xff, 0xff, 0xff, 1},
		"cut":                  whole[:len(whole)-1],
		"cut in the key":       whole[:20],
		"no input":             compactRequest(compactSign, 0),
		"no key":               {0, 0, 0, 9, compactSign, 0, 0, 0, 0, 0, 0, 0, 1},
		"kind alone":           {0, 0, 0, 1, compactSign},
		"long input":           compactRequest(compactSign, MaxMessage+1),
		"answer as request":    {0, 0, 0, 10, compactData, 0, 0, 0, 0, 0, 0, 0, 1, 1},
		"unknown kind":         compactRequest(0x06, 32),
		"no length of data":    compactRequest(compactEncrypt, 3),
		"no input after data":  compactRequest(compactEncrypt, 4),
		"data longer than all": bytes.Replace(compactRequest(compactDecrypt, 8), make([]byte, 8), []byte{0, 0, 0, 5, 1, 2, 3, 4}, 1),
		"too much data":        bytes.Replace(compactRequest(compactDecrypt, 8), make([]byte, 8), []byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4}, 1),
		"a secret in JSON":     framed(`{"id":1,"op":"encrypt","key":"ab000000000000cd0000000000000102","input":"AAAA","aad":"AAAA"}`),
		"kind 0":               compactRequest(0x00, 32),
		"a signature in JSON":  framed(`{"id":1,"op":"sign","key":"ab000000000000cd0000000000000102","input":"AAAA"}`),
		"a MAC in JSON":        framed(`{"id":1,"op":"mac","key":"ab000000000000cd0000000000000102","input":"AAAA"}`),
		"JSON, then more":      framed(`{"id":1,"op":"random"}{}`),
		"JSON, unknown member": framed(`{"id":1,"op":"random","pin":"1"}`),
	} {
		t.Run(name, func(t *testing.T) {
			if err := NewStream(bytes.NewReader(in)).Request(&Request{}); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("got %v", err)
			}
		})
	}
	for name, in := range map[string][]byte{
		"no data":            {0, 0, 0, 9, compactData, 0, 0, 0, 0, 0, 0, 0, 1},
		"request as answer":  whole,
		"data in JSON":       framed(`{"id":1,"data":"AAAA"}`),
		"data and a request": framed(`{"id":1,"data":"AAAA","op":"sign"}`),
	} {
		t.Run(name, func(t *testing.T) {
			if err := NewStream(bytes.NewReader(in)).Response(&Response{}); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("got %v", err)
			}
		})
	}
	if _, err := AppendResponse(nil, &Response{Data: make([]byte, MaxData)}); err == nil {
		t.Error("a frame that nobody reads was made")
	}
}

// FuzzStream feeds a data socket from either end: no panic, and a compact message
// that is accepted is written as the same bytes.
func FuzzStream(f *testing.F) {
	f.Add(compactRequest(compactSign, 32))
	f.Add(compactRequest(compactMAC, 1))
	f.Add(compactRequest(compactEncrypt, 40))
	f.Add(bytes.Replace(compactRequest(compactDecrypt, 8), make([]byte, 8), []byte{0, 0, 0, 3, 1, 2, 3, 4}, 1))
	f.Add([]byte{0, 0, 0, 11, compactData, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xfe})
	f.Add(framed(`{"id":1,"op":"sign","key":"ab000000000000cd0000000000000102","input":"AAAA"}`))
	f.Add(framed(`{"id":1,"data":"AAAA"}`))
	f.Add(framed(`{"id":2,"body":{"a":null}}`))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		var q, q2 Request
		if NewStream(bytes.NewReader(in)).Request(&q) == nil {
			out, err := AppendRequest(nil, &q)
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := q.compact(); ok && !bytes.HasPrefix(in, out) {
				t.Errorf("%x was read from %x", out, in)
			}
			if err := NewStream(bytes.NewReader(out)).Request(&q2); err != nil || q2.ID != q.ID || q2.Op != q.Op {
				t.Errorf("%+v, then %+v, %v", q, q2, err)
			}
		}
		var a, a2 Response
		if NewStream(bytes.NewReader(in)).Response(&a) == nil {
			out, err := AppendResponse(nil, &a)
			if err != nil {
				t.Fatal(err)
			}
			if a.compact() && !bytes.HasPrefix(in, out) {
				t.Errorf("%x was read from %x", out, in)
			}
			if err := NewStream(bytes.NewReader(out)).Response(&a2); err != nil || a2.ID != a.ID || !bytes.Equal(a2.Data, a.Data) {
				t.Errorf("%+v, then %+v, %v", a, a2, err)
			}
		}
	})
}
