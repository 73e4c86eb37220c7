// Package config reads the one form of configuration: a YAML file, strictly.
//
// Unknown keys, repeated keys, a second document and an empty file are errors.
// There is no search path, no merging and no environment. The struct that is
// read into documents every key. It must never be used for a file that crosses
// a trust boundary, the ceremony script excepted, which people read and review.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"keyrite/internal/intake"
)

// MaxBytes bounds a configuration file.
const MaxBytes = 1 << 20

// Error is a fault in a file, of class usage.
type Error struct {
	Path string
	Err  error
}

func (e *Error) Error() string { return fmt.Sprintf("read %q: %v", e.Path, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// FaultClass is usage: nothing was done yet.
func (e *Error) FaultClass() string { return "usage" }

// Load reads the file at path into v and returns its exact bytes.
func Load(path string, v any) ([]byte, error) {
	data, err := intake.Read(path, MaxBytes)
	if err != nil {
		return nil, err
	}
	return data, Parse(path, data, v)
}

var (
	unknownRE = regexp.MustCompile(`field (\S+) not found in type \S+`)
	wrongRE   = regexp.MustCompile("cannot unmarshal !!(\\w+) (`[^`]*` )?into \\S+")
)

// plain says what a decoder found without the names of Go types, on one line.
func plain(err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	text = strings.TrimPrefix(text, "unmarshal errors:\n")
	text = unknownRE.ReplaceAllString(text, `unknown member "$1"`)
	text = wrongRE.ReplaceAllString(text, "a value of another kind is wanted than $1 $2")
	var lines []string
	for l := range strings.Lines(text) {
		lines = append(lines, strings.TrimSpace(l))
	}
	return errors.New(strings.Join(lines, "; "))
}

// Parse reads data into v; path names it in errors.
func Parse(path string, data []byte, v any) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the file is empty")
		}
		return &Error{path, plain(err)}
	}
	if err := dec.Decode(new(any)); !errors.Is(err, io.EOF) {
		return &Error{path, errors.New("a second document follows the first")}
	}
	return nil
}

// Faults are all that is wrong with the values of a file, so that they are mended in one
// go. The zero value is a file without fault.
type Faults struct{ list []string }

// If notes a fault where bad is true.
func (f *Faults) If(bad bool, format string, args ...any) {
	if bad {
		f.list = append(f.list, fmt.Sprintf(format, args...))
	}
}

// Err is nil without faults, else an Error that has them all on one line.
func (f *Faults) Err(path string) error {
	if f.list == nil {
		return nil
	}
	return &Error{path, errors.New(strings.Join(f.list, "; "))}
}
