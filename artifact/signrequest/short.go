package signrequest

import (
	"bytes"
	"encoding/hex"

	"keyrite/artifact/fault"
	"keyrite/artifact/lines"
)

// shortID is how many bytes of the request's hash stand in a short answer: enough
// to tell an answer to another request from a misread one.
const shortID = 8

// looksWritten says whether data is one of the two files as it is, not in lines.
func looksWritten(data []byte) bool { return bytes.HasPrefix(data, []byte("{")) }

// Read reads a request from its file, or from the lines that were typed or scanned
// of it.
func Read(data []byte) (*Request, error) {
	if !looksWritten(data) {
		file, err := lines.Parse(string(data))
		if err != nil {
			return nil, err
		}
		data = file
	}
	return Parse(data)
}

// Lines writes an answer so short that it can be typed: what who asked knows
// already is left out.
func (a *Answer) Lines() ([]string, error) {
	short, err := a.short()
	if err != nil {
		return nil, err
	}
	return lines.Of(short)
}

// Code writes the same as one text for a QR code.
func (a *Answer) Code() (string, error) {
	short, err := a.short()
	if err != nil {
		return "", err
	}
	return lines.Code(short)
}

func (a *Answer) short() ([]byte, error) {
	id, err := hex.DecodeString(a.Request)
	if err != nil || len(id) < shortID {
		return nil, fault.New(fault.Verify, "answer names no request")
	}
	return append(id[:shortID:shortID], a.Signature...), nil
}

// answerTo reads an answer to r from its file or its lines. The signature is not
// checked.
func answerTo(data []byte, r *Request) (*Answer, error) {
	if looksWritten(data) {
		return ParseAnswer(data)
	}
	short, err := lines.Parse(string(data))
	if err != nil {
		return nil, err
	}
	return FromShort(short, r)
}

// FromShort takes an answer to r out of what its lines are of. It checks no
// signature.
func FromShort(short []byte, r *Request) (*Answer, error) {
	id, err := r.ID()
	if err != nil {
		return nil, err
	}
	a := &Answer{Format: AnswerFormat, Name: r.Name, Request: id, World: r.World}
	if len(short) <= shortID || hex.EncodeToString(short[:shortID]) != id[:2*shortID] {
		return nil, fault.Errorf(fault.Verify, "%w: the lines are good, and answer another one", ErrAnswer)
	}
	a.Signature = bytes.Clone(short[shortID:])
	return a, nil
}
