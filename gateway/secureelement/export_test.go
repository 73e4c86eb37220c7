package secureelement

import "github.com/google/go-tpm/tpm2/transport"

// Raw lends the connection to a test that plays the attacker on the box.
func (e *Element) Raw(use func(transport.TPM)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	use(e.t)
}

// RoundTrip is the framing, for the fuzzer.
var RoundTrip = roundTrip
