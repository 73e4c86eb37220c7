package tunnel

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"io"
	"net"
)

const (
	exporterLabel = "EXPORTER-keyrite-flow-v1"
	exporterBytes = 32
)

// Thumbprint is the lower-case hex SHA-256 of a certificate's public key.
func Thumbprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// UserEnd runs the inner handshake of a flow whose open message was accepted
// (outer answer), at the user's side: id is the client key, gatewayKey the
// thumbprint that the account policy lists for the gateway. It returns when the
// gateway has connected to the equipment; what goes through the connection then
// only these two ends can read. On an error s is closed.
func UserEnd(ctx context.Context, s net.Conn, open []byte, id tls.Certificate, gatewayKey string) (*tls.Conn, error) {
	c := tls.Server(s, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{InnerALPN}, Certificates: []tls.Certificate{id},
		ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
		VerifyConnection: checkKey(func(thumb string) error {
			if subtle.ConstantTimeCompare([]byte(thumb), []byte(gatewayKey)) != 1 {
				return &Error{ClassPeer, ErrKey}
			}
			return nil
		}),
	})
	err := bind(ctx, c, s, open)
	if err == nil {
		err = awaitInner(ctx, c, s)
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	return c, nil
}

// GatewayEnd is the counterpart at the gateway: id is the birth key with its
// certificate; allow decides on the user's key thumbprint and runs inside the
// handshake. The gateway takes the TLS client's role, so that a birth key never
// authenticates a server. The caller then connects to the equipment, sends the
// inner answer with Answer, and splices. On an error s is closed.
func GatewayEnd(ctx context.Context, s net.Conn, open []byte, id tls.Certificate, allow func(thumb string) error) (*tls.Conn, error) {
	c := tls.Client(s, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{InnerALPN},
		// Always this certificate: the other side names no issuer it would take.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id, nil },
		InsecureSkipVerify:   true, //nolint:gosec // the key is looked up in the account policy instead of a chain
		VerifyConnection:     checkKey(allow),
	})
	if err := bind(ctx, c, s, open); err != nil {
		_ = s.Close()
		return nil, err
	}
	return c, nil
}

func checkKey(allow func(string) error) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		if cs.NegotiatedProtocol != InnerALPN || len(cs.PeerCertificates) == 0 {
			return &Error{ClassPeer, ErrKey}
		}
		return allow(Thumbprint(cs.PeerCertificates[0]))
	}
}

// bind shakes hands and compares the exporter values of both ends.
func bind(ctx context.Context, c *tls.Conn, s net.Conn, open []byte) error {
	defer deadline(ctx, s, HandshakeTimeout)()
	if err := c.HandshakeContext(ctx); err != nil {
		return wrapTLS("end-to-end handshake", err)
	}
	sum := sha256.Sum256(open)
	cs := c.ConnectionState()
	mine, err := cs.ExportKeyingMaterial(exporterLabel, sum[:], exporterBytes)
	if err != nil {
		return errorf(ClassUnexpected, "bind flow: %w", err)
	}
	if _, err := c.Write(mine); err != nil {
		return wrapTLS("bind flow", err)
	}
	theirs := make([]byte, exporterBytes)
	if _, err := io.ReadFull(c, theirs); err != nil {
		return wrapTLS("bind flow", err)
	}
	if subtle.ConstantTimeCompare(mine, theirs) != 1 {
		return errorf(ClassPeer, "bind flow: %w", ErrBinding)
	}
	return nil
}

func awaitInner(ctx context.Context, c *tls.Conn, s net.Conn) error {
	defer deadline(ctx, s, AnswerTimeout)()
	a, err := ReadAnswer(c)
	if err != nil {
		return err
	}
	return a.Err()
}

// wrapTLS keeps the class of our own checks, calls an alert of the other side
// and a certificate fault "peer", and the rest "unreachable".
func wrapTLS(doing string, err error) error {
	class := ClassUnreachable
	var own interface{ FaultClass() string }
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &own):
		class = own.FaultClass()
	case errors.As(err, &op) && op.Op == "remote error", errors.As(err, &cert):
		class = ClassPeer
	}
	return errorf(class, "%s: %w", doing, err)
}
