package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"

	"keyrite/internal/cli"
)

// typedLines are the lines that somebody types. A read from a terminal cannot be
// cancelled; it ends with the program.
func typedLines(in io.Reader) <-chan string {
	out := make(chan string)
	go func() {
		sc := bufio.NewScanner(in)
		for sc.Scan() {
			out <- sc.Text()
		}
		close(out)
	}()
	return out
}

// nextLine waits for the next one. Its end, and Ctrl-C, are of class interrupted.
func nextLine(ctx context.Context, in <-chan string) (string, error) {
	select {
	case text, ok := <-in:
		if !ok {
			return "", &cli.Error{Class: "interrupted", Err: errors.New("it was not answered to the end, and nothing was written")}
		}
		return strings.TrimSpace(text), nil
	case <-ctx.Done():
		return "", &cli.Error{Class: "interrupted", Err: errors.New("interrupted, and nothing was written")}
	}
}
