package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"keyrite/artifact/artifacttest"
	"keyrite/artifact/bundle"
	"keyrite/artifact/charter"
	"keyrite/artifact/report"
	"keyrite/internal/clitest"
	"keyrite/provisioning/station"
)

func TestMain(m *testing.M) {
	clitest.Main(m, map[string]func() int{"keyrite-station": run})
}

// The commands that sign nothing, on a station whose keys are of the test; those
// that sign are tried with a real token in e2e and scripts/demo.
func TestScripts(t *testing.T) {
	w, other := artifacttest.New(t), artifacttest.New(t)
	w.AddSuccessors()
	w.FoundFactory()
	other.FoundFactory()
	valid := func(from, to time.Duration) *bundle.Bundle {
		b := w.Bundle()
		b.NotBefore, b.NotAfter = charter.FormatTime(time.Now().Add(from)), charter.FormatTime(time.Now().Add(to))
		b.TimeFloor = charter.FormatTime(artifacttest.Now())
		return b
	}
	clitest.Run(t, "testdata", func(dir string) error {
		elsewhere := valid(-time.Hour, time.Hour)
		elsewhere.Stations = []string{"station2"}
		one := w.Succession("succession", nil, "log")
		files := map[string][]byte{
			"one.json": one, "two.json": w.Succession("succession", one, "firmware"),
			"charter.jsonl": w.Charter, "bundle.json": w.SignBundle(valid(-time.Hour, time.Hour)), "expired.json": w.SignBundle(valid(-2*time.Hour, -time.Hour)),
			"elsewhere.json": w.SignBundle(elsewhere), "other-bundle.json": other.SignBundle(other.Bundle()),
		}
		for name, of := range map[string]*artifacttest.World{"anchors.json": w, "other-anchors.json": other} {
			data, err := of.Anchors.Marshal()
			if err != nil {
				return err
			}
			files[name] = data
		}
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				return err
			}
		}
		return makeStations(dir, w, files)
	})
}

// makeStations makes one empty station, and one with a unit under way.
func makeStations(dir string, w *artifacttest.World, files map[string][]byte) error {
	for _, name := range []string{"station", "busy"} {
		set := station.Settings{CA: w.SPKI("factory-ca"), Factory: "factory1", Module: "/nonexistent/module.so", Report: w.SPKI("report"), Station: "station1"}
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
		s, err := station.New(filepath.Join(dir, name), set, station.Options{Clock: time.Now})
		if err != nil {
			return err
		}
		if name == "busy" {
			_, err = s.Import(files["bundle.json"], station.Files{Anchors: files["anchors.json"], Charter: files["charter.jsonl"]})
			if err == nil {
				_, err = s.Reserve(report.Element{ChipID: "00112233445566778899aabbccddeeff", Kind: "tpm2"})
			}
		}
		if err = errors.Join(err, s.Close()); err != nil {
			return err
		}
	}
	return nil
}
