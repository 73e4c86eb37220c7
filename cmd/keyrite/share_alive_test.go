package main

import (
	"strings"
	"testing"
	"time"

	"keyrite/artifact/share"
)

func TestAliveWarnsInTime(t *testing.T) {
	now := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	holders := []string{"master1", "master2", "master3", "master4", "master5"}
	for _, tt := range []struct {
		proven, of int
		want, not  string
	}{
		{5, 5, "5 of 5 shares alive, last 12 days ago; 3 open it", "WARNING"},
		{4, 5, "WARNING: only master1, master2, master3, master4", ""},
		{4, 4, "WARNING: all are alive", ""},
		{3, 5, "WARNING: only", ""},
		{2, 5, "nothing opens this safe again", ""},
		{0, 5, "nothing opens this safe again", "last"},
	} {
		a := share.Alive{Safe: "work", Epoch: 1, Need: 3, Of: tt.of, Proven: holders[:tt.proven]}
		if tt.proven > 0 {
			a.Last = now.Add(-12 * 24 * time.Hour)
		}
		var b strings.Builder
		printAlive(&b, []share.Alive{a}, now)
		if !strings.Contains(b.String(), tt.want) || tt.not != "" && strings.Contains(b.String(), tt.not) {
			t.Errorf("%d of %d: %s", tt.proven, tt.of, b.String())
		}
	}
}
