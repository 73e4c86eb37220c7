// Command lintscript measures how long it takes to parse and lint a ceremony
// script of 200 steps with planned contingencies, and to read the same bytes as
// YAML alone. It prints the medians in milliseconds and the number of steps:
//
//	lintscript
package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"keyrite/ceremony/script"
)

const (
	steps = 200
	runs  = 15
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "lintscript:", err)
		os.Exit(1)
	}
}

func run() error {
	text := []byte(enrolment())
	var reads, lints []float64
	count := 0
	for range runs {
		start := time.Now()
		var tree yaml.Node
		if err := yaml.Unmarshal(text, &tree); err != nil {
			return fmt.Errorf("read the script as YAML: %w", err)
		}
		reads = append(reads, ms(start))
		start = time.Now()
		s, err := script.Parse("bench.yaml", text)
		if err == nil {
			err = s.Lint()
		}
		if err != nil {
			return err
		}
		lints = append(lints, ms(start))
		count = len(s.Summon) + len(s.Run) + len(s.Seal)
	}
	slices.Sort(reads)
	slices.Sort(lints)
	fmt.Fprintf(os.Stdout, "%.3f %.3f %d\n", reads[runs/2], lints[runs/2], count)
	return nil
}

func ms(start time.Time) float64 { return float64(time.Since(start).Microseconds()) / 1000 }

// enrolment is an enrolment in which every printed page may fail to print, with
// one of two printers in one of three trays.
func enrolment() string {
	hash := strings.Repeat("ab", 32)
	var b strings.Builder
	fmt.Fprintf(&b, `format: keyrite/script/v1
kind: enrol
title: Bench
purpose: Measure.
pins: {keyrite: %[1]s, hsmd: %[1]s, module: %[1]s}
environment: {network: down, swap: off}
roles: {conductor: 1, conductor_operates: true, key_masters: {need: 3, of: 5}, witnesses: 2, approvers: {need: 2, of: 3}}
pipelines: [{id: p, products: [gw], key: p}]
model: {printer: [first, second], tray: [one, two, three]}
contingencies:
  - id: printer
    on: printer
    then: again
    steps: [{id: A.1, do: break, title: Other printer, limit: 10m, sets: {printer: second}}]
  - id: late
    on: late
    then: again
    steps: [{id: B.1, do: break, title: Wait, limit: 10m, sets: {tray: two}}]
summon:
  - {id: "1.1", do: environment.check, title: Computer, limit: 10m}
  - {id: "1.2", do: people.identify, title: People, limit: 10m, planned: [late]}
  - {id: "1.3", do: vault.load, title: Vault, limit: 10m}
run:
  - {id: "2.1", do: charter.append, title: Charter, limit: 10m}
`, hash)
	for i := range steps - 6 {
		plan := "printer"
		do := "paper.print"
		if i%2 == 1 {
			plan, do = "late", "break"
		}
		fmt.Fprintf(&b, "  - {id: \"%d.%d\", do: %s, title: Page, limit: 10m, tries: 10, planned: [%s]}\n", 100+i/90, i%90+1, do, plan)
	}
	b.WriteString("seal:\n  - {id: \"9.1\", do: outputs.write, title: Outputs, limit: 10m}\n  - {id: \"9.2\", do: read.aloud, title: Words, limit: 10m}\n")
	return b.String()
}
