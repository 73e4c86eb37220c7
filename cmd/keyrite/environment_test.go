package main

import (
	"bytes"
	"os"
	"strings"
	"syscall"
	"testing"

	"keyrite/artifact/record"
)

// A script that wants the network down runs where no interface is up, and is
// refused where one is, in a network namespace of its own; a clock that is not in
// UTC is refused, too. The record says what was found.
func TestComputerAsTheScriptWants(t *testing.T) {
	h := newHouse(t)
	// Ended before ARMED by an incident, once the computer was examined.
	h.write(t, "answers-early.yaml", h.answers()+"incident: {step: \"1.2\", by: conductor, reason: enough}\n")
	const strict = "network: down\n  swap: any\n  core_dumps: off\n  clock: utc"
	for _, tt := range []struct {
		label, up, tz string
		code          int
		text          string
	}{
		{"down", "", "UTC", 11, "incident called by conductor: enough"},
		{"up", "ip link add up0 type veth peer name up1 && ip link set up0 up && ", "UTC", 13, "the script wants the network down, but network is up0"},
		{"zone", "", "Europe/Vienna", 13, "the script wants the clock in UTC, but clock is CET +01:00"},
	} {
		t.Run(tt.label, func(t *testing.T) {
			args := h.attempt(t, tt.label, "answers-early.yaml")
			script, err := os.ReadFile(h.path(tt.label + ".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			text := strings.Replace(string(script), "network: any\n  swap: any\n  core_dumps: any\n  clock: any", strict, 1)
			if text == string(script) {
				t.Fatal("the script demands nothing to replace")
			}
			h.write(t, tt.label+".yaml", text)
			cmd := h.command(args...)
			var errs bytes.Buffer
			cmd.Stderr = &errs
			cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", tt.up + `exec "$@"`, "sh", h.program}, args...)
			cmd.Env = append(cmd.Env, "TZ="+tt.tz, "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
			cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
			_ = cmd.Run() // the exit code is looked at
			if code := cmd.ProcessState.ExitCode(); code != tt.code || !strings.Contains(errs.String(), tt.text) {
				t.Errorf("exit %d, %s", code, errs.String())
			}
			v, err := record.Read(os.DirFS(h.path("record-" + tt.label)))
			if v == nil {
				t.Fatal(err)
			}
			if got := v.Open.Environment; (got["network"] == "none") != (tt.label != "up") || got["core_dumps"] != "none" {
				t.Errorf("the record says %v", got)
			}
		})
	}
}
