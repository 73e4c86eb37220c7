package main

import (
	"bytes"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"keyrite/artifact/fault"
	"keyrite/artifact/person"
	"keyrite/artifact/record"
	"keyrite/artifact/signrequest"
	"keyrite/internal/cli"
	"keyrite/internal/durable"
	"keyrite/internal/intake"
)

// requestValidity is how long a cosignature may be on its way.
const requestValidity = 24 * time.Hour

func (o *cosignOptions) check() error {
	switch {
	case o.key != "" && o.requestFor == "" && o.request == "" && o.answer == "":
	case o.key == "" && o.request != "" && (o.requestFor != "") != (o.answer != ""):
	default:
		return cli.Usagef("--key is missing: your own key file; or else --request with --request-for or --signature")
	}
	return nil
}

// ask writes a request for the cosignature of a person who was there.
func (o *cosignOptions) ask(c *cobra.Command, v *record.Verified) error {
	p := v.People[o.requestFor]
	if p == nil {
		return fault.Errorf(fault.Policy, "%s did not take part in this ceremony", cli.Escape(o.requestFor))
	}
	var r *signrequest.Request
	now := time.Now()
	k, err := signrequest.Elsewhere(p, func(msg []byte) ([]byte, error) {
		var err error
		if r, err = signrequest.New(p, "keyrite-verify cosign", msg, now, requestValidity); err != nil {
			return nil, err
		}
		return nil, errAsked
	}, nil)
	if err != nil {
		return err
	}
	if _, err := record.Cosign(v, k, now); r == nil {
		return err
	}
	data, err := r.Marshal()
	if err != nil {
		return err
	}
	if err := durable.WriteNew(o.request, data, 0o644); err != nil {
		return err
	}
	digest, words := r.Digest()
	res := struct {
		Schema  string `json:"schema"`
		Request string `json:"request"`
		Name    string `json:"name"`
		Digest  string `json:"digest"`
	}{"keyrite/cosign-request/v1", o.request, p.Name, digest}
	return cli.Print(c, res, func(w io.Writer) {
		fmt.Fprintf(w, "%s asks %s to cosign; digest in words:\n  %s\n", cli.Escape(res.Request), res.Name, words)
	})
}

// errAsked says that the signature comes later.
var errAsked = fault.New(fault.Unexpected, "asked")

// signer is who cosigns, and when: the key file now, or the answer at the time that
// its request names.
func (o *cosignOptions) signer(v *record.Verified) (*person.Key, time.Time, error) {
	if o.key != "" {
		k, err := openPerson(o)
		return k, time.Now(), err
	}
	var at time.Time
	data, err := intake.Read(o.request, signrequest.MaxBytes)
	if err != nil {
		return nil, at, err
	}
	r, err := signrequest.Parse(data)
	if err != nil {
		return nil, at, fault.Errorf(fault.ClassOf(err), "request %q: %w", o.request, err)
	}
	shown, err := r.Show()
	if err != nil {
		return nil, at, err
	}
	p := v.People[r.Name]
	if p == nil || shown.Purpose != signrequest.Cosign {
		return nil, at, fault.Errorf(fault.Policy, "request %q is not for a cosignature of this record", o.request)
	}
	answer, err := intake.Read(o.answer, signrequest.MaxBytes)
	if err != nil {
		return nil, at, err
	}
	sig, err := signrequest.Verify(answer, r, p)
	if err != nil {
		return nil, at, err
	}
	k, err := signrequest.Elsewhere(p, func(msg []byte) ([]byte, error) {
		if !bytes.Equal(msg, r.Message) {
			return nil, fault.Errorf(fault.Verify, "the record was another one when %s signed", p.Name)
		}
		return sig, nil
	}, nil)
	return k, shown.At, err
}
