// Package problem is the error body of the relay's HTTP answers: problem+json
// (RFC 9457) with the class word of the exit table, so that a program at the
// other end exits as if the refusal had been its own.
//
// Servers call Write, clients Parse. It must never carry more than the class
// and a fixed sentence: details of a refusal stay in the server's audit trail,
// because they help whoever guesses.
package problem

import (
	"errors"
	"net/http"
	"regexp"

	"keyrite/wire/strict"
)

// MediaType of the body.
const MediaType = "application/problem+json"

// MaxBytes bounds the body.
const MaxBytes = 2048

// Problem is a refusal.
type Problem struct {
	Class  string `json:"class"`  // word of the exit table
	Detail string `json:"detail"` // one sentence, printable ASCII
	Status int    `json:"status"`
	Title  string `json:"title"` // the status in words
	Type   string `json:"type"`  // always about:blank
}

var (
	classRE  = regexp.MustCompile(`^[a-z]{1,20}$`)
	detailRE = regexp.MustCompile(`^[ -~]{1,300}$`)

	errBody = errors.New("error body is not a problem of ours")
)

func (p *Problem) Error() string { return "the server refuses: " + p.Detail }

// FaultClass is the class for the exit table.
func (p *Problem) FaultClass() string { return p.Class }

// StatusOf maps a class to an HTTP status.
func StatusOf(class string) int {
	switch class {
	case "usage", "verify":
		return http.StatusBadRequest
	case "peer", "token":
		return http.StatusUnauthorized
	case "policy":
		return http.StatusForbidden
	case "exists", "sealed":
		return http.StatusConflict
	case "quota":
		return http.StatusTooManyRequests
	case "unreachable":
		return http.StatusBadGateway
	case "storage":
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// Write answers with a problem.
func Write(w http.ResponseWriter, class, detail string) {
	if !classRE.MatchString(class) {
		class = "unexpected"
	}
	if !detailRE.MatchString(detail) {
		detail = "refused"
	}
	status := StatusOf(class)
	b, err := strict.Marshal(&Problem{Class: class, Detail: detail, Status: status, Title: http.StatusText(status), Type: "about:blank"})
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", MediaType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the peer has its status
}

// Parse reads a problem; the text is checked, so it is safe to show.
func Parse(b []byte) (*Problem, error) {
	var p Problem
	if len(b) > MaxBytes {
		return nil, errBody
	}
	if err := strict.Unmarshal(b, &p); err != nil {
		return nil, err
	}
	if !classRE.MatchString(p.Class) || !detailRE.MatchString(p.Detail) || p.Type != "about:blank" {
		return nil, errBody
	}
	return &p, nil
}
