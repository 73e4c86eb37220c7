package node

import (
	"crypto/x509"
	"net/netip"
)

// Peer is the other end of the connection.
type Peer struct {
	// Certificates are those that TLS showed, leaf first; possession is proven, the
	// chain is not judged.
	Certificates []*x509.Certificate
	Remote       netip.Addr
	UID          int // -1 if it is no Unix socket
}
