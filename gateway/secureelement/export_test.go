package secureelement

import "github.com/google/go-tpm/tpm2/transport"

// Raw lends the connection to a test that plays the attacker on the box.
func (e *Element) Raw(use func(transport.TPM)) {
	defer e.enter()()
	use(e.t)
}

// RawAt speaks to a TPM that no Element was opened on.
func RawAt(addr string, use func(transport.TPM)) error {
	w, err := dial(addr)
	if err != nil {
		return err
	}
	use(w)
	return w.Close()
}
