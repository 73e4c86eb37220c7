package station_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyrite/artifact/fault"
	"keyrite/hsm/hsmtest"
	"keyrite/provisioning/station"
)

// TestSandboxOfTheModule sets a station up over a module that needs a folder which
// nothing but the sandbox names. What may be used is kept, and can be replaced later.
func TestSandboxOfTheModule(t *testing.T) {
	e := hsmtest.NewStore(t)
	module := e.Faults(t).Module
	dir, counters := filepath.Join(t.TempDir(), "station"), filepath.Join(t.TempDir(), "pins")
	o := station.SetupOptions{Module: module, HSMD: hsmtest.HSMD(t), Factory: "factory1", Station: "station1"}
	if err := station.Setup(t.Context(), filepath.Join(t.TempDir(), "station"), o); err == nil || !strings.Contains(err.Error(), "no list of its functions") {
		t.Fatalf("without the folder: %v", err)
	}
	o.Sandbox = station.Sandbox{Folders: []string{e.Dir}, PINCounters: counters}
	if err := station.Setup(t.Context(), dir, o); err != nil {
		t.Fatal(err)
	}
	open := func() *station.Station {
		t.Helper()
		s, err := station.Open(dir, station.Options{Clock: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	signs := func(set station.Settings) error {
		k, err := station.OpenToken(t.Context(), dir, hsmtest.HSMD(t), set)
		if err != nil {
			return err
		}
		defer k.Close()
		_, err = k.Signer(t.Context(), station.KeyReport)
		return err
	}
	s := open()
	if !slices.Equal(s.Settings.Sandbox.Folders, []string{e.Dir}) || s.Settings.Sandbox.PINCounters != counters {
		t.Errorf("kept %+v", s.Settings.Sandbox)
	}
	if err := signs(s.Settings); err != nil {
		t.Error(err)
	}
	for _, bad := range []station.Sandbox{
		{Folders: []string{"relative"}}, {Folders: []string{"/"}}, {Sockets: []string{"tcp:0"}}, {Sockets: []string{"udp"}}, {PINCounters: "pins"},
	} {
		if err := s.SetSandbox(bad); fault.ClassOf(err) != fault.Usage {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	if err := s.SetSandbox(station.Sandbox{Sockets: []string{"tcp:1500"}, PINCounters: counters}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open()
	defer s.Close()
	if !slices.Equal(s.Settings.Sandbox.Sockets, []string{"tcp:1500"}) || len(s.Settings.Sandbox.Folders) != 0 {
		t.Errorf("kept %+v", s.Settings.Sandbox)
	}
	if err := signs(s.Settings); err == nil {
		t.Error("a module opened a folder that was taken away from it")
	}
}
