// Package clitest runs the script tests (testdata/*.txtar) of a program: real
// processes, with their streams, exit codes and the files they leave behind.
//
// Beside what testscript knows, a script has "exits N command…", which fails
// unless the command ends with exit code N. Only tests may import it.
package clitest

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// Main is the TestMain of a program's tests: the test binary stands in for each
// of the programs when a script calls it by name.
func Main(m *testing.M, programs map[string]func() int) {
	commands := map[string]func(){}
	for name, run := range programs {
		commands[name] = func() { os.Exit(run()) }
	}
	testscript.Main(m, commands)
}

// Run runs every script in folder dir. setup, if not nil, puts files into the
// folder of each script before it starts.
func Run(t *testing.T, dir string, setup func(workDir string) error) {
	t.Helper()
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			if setup == nil {
				return nil
			}
			return setup(e.WorkDir)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// Await asks f every few milliseconds until it says true, and reports whether it
// did within limit. It is for what other processes do, which have no channel to
// wait on.
func Await(limit time.Duration, f func() bool) bool {
	tick, end := time.NewTicker(2*time.Millisecond), time.After(limit)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-end:
			return false
		}
	}
	return true
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	if err != nil {
		ts.Fatalf("exits: %q is no exit code", args[0])
	}
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("exits: %v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}
