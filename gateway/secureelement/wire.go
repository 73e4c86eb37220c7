package secureelement

import (
	"keyrite/artifact/fault"
	"keyrite/internal/tpm"
)

// wire is the connection to the element. That it does not answer has the class that
// a token has which is not there.
type wire struct{ *tpm.Wire }

func dial(addr string) (*wire, error) {
	w, err := tpm.Dial(addr)
	if err != nil {
		return nil, fault.Errorf(fault.Token, "%w: %w", ErrAbsent, err)
	}
	return &wire{w}, nil
}

// Send implements go-tpm's transport.
func (w *wire) Send(command []byte) ([]byte, error) {
	answer, err := w.Wire.Send(command)
	if err != nil {
		return nil, fault.Errorf(fault.Token, "%w: %w", ErrAbsent, err)
	}
	return answer, nil
}
