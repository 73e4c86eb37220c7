// Command longrecord makes a record with many entries, reads it as a verifier does,
// and hashes the same lines as a floor. It is for scripts/bench record.
package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"keyrite/artifact/fault"
	"keyrite/artifact/record"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "longrecord:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: longrecord make DIR ENTRIES | read DIR | hash DIR")
	}
	switch args[0] {
	case "make":
		n, err := strconv.Atoi(args[len(args)-1])
		if err != nil {
			return err
		}
		return build(args[1], n)
	case "read":
		return read(args[1])
	}
	return hash(args[1])
}

const script = "format: keyrite/script/v1\nkind: genesis\nsummon:\n  - {id: \"1.1\", do: environment.check, title: a}\n"

// build writes a ceremony that was left in its first step after many misses.
func build(dir string, n int) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, record.ScriptFile), []byte(script), 0o600); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, record.TranscriptFile))
	if err != nil {
		return err
	}
	out, tr, start := bufio.NewWriter(f), record.NewTranscript(), time.Now()
	sum := sha256.Sum256([]byte(script))
	add := func(step string, d record.Data) error {
		at := time.Duration(tr.Size()) * time.Millisecond
		line, err := tr.Next(step, d, start.Add(at), at)
		if err == nil {
			_, _, err = tr.Take(line)
		}
		if err == nil {
			_, err = out.Write(append(line, '\n'))
		}
		return err
	}
	list := []record.Data{
		&record.Open{
			Attempt: "0000000000000000", BindHash: hex.EncodeToString(sum[:]), Environment: map[string]string{}, Format: record.Format, Kind: "genesis", Mode: "rehearsal",
			Programs: []record.Program{}, Record: "0123456789abcdef", ScriptHash: hex.EncodeToString(sum[:]), Title: "long", World: "rehearsal:abcdefgh",
		},
		&record.State{State: "LINTED"}, &record.State{State: "SUMMONED"},
	}
	for _, d := range list {
		if err := add("", d); err != nil {
			return err
		}
	}
	if err := add("1.1", &record.Begin{Do: "environment.check", Title: "a"}); err != nil {
		return err
	}
	for i := range n - len(list) - 1 {
		var d record.Data = &record.Miss{Of: 3, Try: 1, What: "passphrase", Who: "master1"}
		if i%2 == 1 {
			d = &record.Confirm{Answer: "yes", Prompt: "Begin step 1.1?", Who: "conductor"}
		}
		if err := add("1.1", d); err != nil {
			return err
		}
	}
	return errors.Join(out.Flush(), f.Close())
}

// read replays the record and checks its files; it is void, as every record that
// did not close.
func read(dir string) error {
	v, err := record.Read(os.DirFS(dir))
	if v == nil || fault.ClassOf(err) != fault.Void {
		return err
	}
	fmt.Fprintln(os.Stdout, v.Entries, v.Root)
	return nil
}

// hash takes the SHA-256 of every line.
func hash(dir string) error {
	f, err := os.Open(filepath.Join(dir, record.TranscriptFile))
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	var all byte
	for in.Scan() {
		sum := sha256.Sum256(in.Bytes())
		all ^= sum[0]
	}
	fmt.Fprintln(os.Stdout, all)
	return in.Err()
}
