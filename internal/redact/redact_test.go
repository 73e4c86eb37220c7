package redact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestSecretNeverShows(t *testing.T) {
	s := New([]byte("hunter22"))
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", slog.Any("pin", s))
	js, err := json.Marshal(map[string]any{"pin": s})
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, s), log.String(), string(js)} {
		if strings.Contains(got, "hunter22") || !strings.Contains(got, shown) {
			t.Errorf("shown: %s", got)
		}
	}
}

// Where it is an unexported field, no method of it is asked.
func TestSecretNeverShowsWithinOthers(t *testing.T) {
	type holder struct{ s *Secret }
	h := holder{New([]byte("hunter22"))}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		for _, v := range []any{h.s, h, &h, []holder{h}} {
			got := fmt.Sprintf(verb, v)
			for _, bad := range []string{"hunter22", fmt.Sprintf("%x", "hunter22"), "104 117 110", "0x68, 0x75"} {
				if strings.Contains(got, bad) {
					t.Errorf("%s of %T shows it: %.200q", verb, v, got)
				}
			}
		}
	}
}

func TestZeroWipes(t *testing.T) {
	b := []byte("hunter22")
	s := New(b)
	s.Zero()
	if !bytes.Equal(b, make([]byte, 8)) || s.Len() != 0 {
		t.Errorf("left: %q", b)
	}
	var none *Secret
	none.Zero()
	if none.Len() != 0 {
		t.Error("nil secret has a length")
	}
}
