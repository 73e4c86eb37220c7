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
