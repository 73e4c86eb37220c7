package secureelement

import "github.com/google/go-tpm/tpm2/transport"

// Raw lends the connection to a test that plays the attacker on the box.
func (e *Element) Raw(use func(transport.TPM)) {
	defer e.enter()()
	use(e.t)
}

// RoundTrip is the framing, for the fuzzer.
var RoundTrip = roundTrip
