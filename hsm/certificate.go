package hsm

import (
	"context"

	"keyrite/hsm/internal/frame"
)

// Certificates are the certificate objects that the module shows, each as it is and
// unverified: where a module offers attestations of its keys, they are among them
// (an attestation certificate of each key, and that of the device). What they are
// worth is for artifact/attestation to say.
func (x *Access) Certificates(ctx context.Context) ([][]byte, error) {
	a, err := x.ask(ctx, frame.Request{Op: frame.OpCertificates}, "")
	if err != nil {
		return nil, err
	}
	var out frame.Certificates
	return out.Certificates, frame.Decode(a.Body, &out)
}
