package frame

// Certificates answers OpCertificates.
type Certificates struct {
	Certificates [][]byte `json:"certificates"` // DER as the token has it, nothing checked
}

// Bounds of the answer: 32 certificates of 8 KiB, in base64, fit into a frame.
const (
	MaxCertificates     = 32
	MaxCertificateBytes = 8 << 10
)
