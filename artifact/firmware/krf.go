package firmware

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"keyrite/artifact/fault"
)

// Suffixes of the files beside an image, and of the members of a .krf.
const (
	BundleSuffix = ".sigstore.json"
	ProofSuffix  = ".tlog-proof"
	KRFSuffix    = ".krf"
)

// block is the unit of a USTAR archive (POSIX.1-1988).
const block = 512

// WriteKRF writes a .krf: bundle, log proof and image, in this order, so that a
// reader has checked the signature before the first byte of the image arrives.
// The image is streamed and checked against the statement on the way; on any
// error the output must be thrown away.
func WriteKRF(w io.Writer, bundleFile, proof []byte, image io.Reader, t *Trust) error {
	s, err := Open(bundleFile, t)
	if err != nil {
		return err
	}
	if _, err := CheckProof(proof, bundleFile, t); err != nil {
		return err
	}
	name := s.Image().Name
	var head bytes.Buffer
	addMember(&head, name+BundleSuffix, bundleFile)
	addMember(&head, name+ProofSuffix, proof)
	head.Write(header(name, s.Predicate.Size))
	if _, err := w.Write(head.Bytes()); err != nil {
		return fault.Errorf(fault.Storage, "write .krf: %w", err)
	}
	if err := s.copyImage(w, image); err != nil {
		return err
	}
	if _, err := w.Write(make([]byte, padding(s.Predicate.Size)+2*block)); err != nil {
		return fault.Errorf(fault.Storage, "write .krf: %w", err)
	}
	return nil
}

func addMember(b *bytes.Buffer, name string, data []byte) {
	b.Write(header(name, int64(len(data))))
	b.Write(data)
	b.Write(make([]byte, padding(int64(len(data)))))
}

func padding(size int64) int64 { return (block - size%block) % block }

// header returns the one header that we write for a member: a plain file of
// mode 0644 of user and group 0 at time 0. Offsets are those of struct
// posix_header.
func header(name string, size int64) []byte {
	h := make([]byte, block)
	copy(h, name)                             // 0 name[100]
	copy(h[100:], "0000644\x00")              // mode
	copy(h[108:], "0000000\x00")              // uid
	copy(h[116:], "0000000\x00")              // gid
	copy(h[124:], fmt.Sprintf("%011o", size)) // size, zero-terminated
	copy(h[136:], "00000000000\x00")          // mtime
	copy(h[148:], "        ")                 // checksum, counted as blanks
	h[156] = '0'                              // type: plain file
	copy(h[257:], "ustar\x0000")              // magic and version
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return h
}

// parseHeader reads name and size and accepts only what header writes for them.
func parseHeader(h []byte) (string, int64, error) {
	name, _, _ := strings.Cut(string(h[:100]), "\x00")
	size, err := strconv.ParseInt(string(h[124:135]), 8, 64)
	if err != nil || !bytes.Equal(header(name, size), h) {
		return "", 0, fault.Errorf(fault.Verify, "%w: member header", ErrKRF)
	}
	return name, size, nil
}

// KRF is a .krf whose bundle and log proof have been checked; the image follows.
type KRF struct {
	Statement *Statement
	Bundle    []byte
	Proof     []byte
	Index     int64 // place in the release log

	r    io.Reader
	done bool
}

// OpenKRF reads and checks bundle and proof. The image is taken with CopyTo,
// once.
func OpenKRF(r io.Reader, t *Trust) (*KRF, error) {
	bundleName, bundleFile, err := readMember(r, MaxBundleBytes)
	if err != nil {
		return nil, err
	}
	s, err := Open(bundleFile, t)
	if err != nil {
		return nil, err
	}
	proofName, proof, err := readMember(r, MaxProofBytes)
	if err != nil {
		return nil, err
	}
	p, err := CheckProof(proof, bundleFile, t)
	if err != nil {
		return nil, err
	}
	name, size, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	if want := s.Image().Name; name != want || bundleName != want+BundleSuffix || proofName != want+ProofSuffix {
		return nil, fault.Errorf(fault.Verify, "%w: members are not named after the image %s", ErrKRF, want)
	}
	if size != s.Predicate.Size {
		return nil, fault.Errorf(fault.Verify, "%w: member of %d bytes, statement of %d", ErrKRF, size, s.Predicate.Size)
	}
	return &KRF{Statement: s, Bundle: bundleFile, Proof: proof, Index: p.Index, r: r}, nil
}

// CopyTo streams the image to w and checks it and the rest of the file. Until it
// returns nil, nothing that was written may be used. It works once.
func (k *KRF) CopyTo(w io.Writer) error {
	if k.done {
		return fault.New(fault.Unexpected, "image of a .krf read twice")
	}
	k.done = true
	size := k.Statement.Predicate.Size
	if err := k.Statement.copyImage(w, io.LimitReader(k.r, size)); err != nil {
		return err
	}
	tail := make([]byte, padding(size)+2*block+1)
	n, err := io.ReadFull(k.r, tail)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return fault.Errorf(readClass(err), "read .krf: %w", err)
	}
	if n != len(tail)-1 || len(bytes.Trim(tail, "\x00")) != 0 {
		return fault.Errorf(fault.Verify, "%w: end of file", ErrKRF)
	}
	return nil
}

// VerifyKRF checks a whole .krf and keeps no byte of the image.
func VerifyKRF(r io.Reader, t *Trust) (*KRF, error) {
	k, err := OpenKRF(r, t)
	if err != nil {
		return nil, err
	}
	return k, k.CopyTo(nil)
}

func readHeader(r io.Reader) (string, int64, error) {
	var h [block]byte
	if err := readFull(r, h[:]); err != nil {
		return "", 0, err
	}
	return parseHeader(h[:])
}

func readMember(r io.Reader, limit int64) (string, []byte, error) {
	name, size, err := readHeader(r)
	if err != nil {
		return "", nil, err
	}
	if size < 1 || size > limit {
		return "", nil, fault.Errorf(fault.Verify, "%w: member of %d bytes", ErrKRF, size)
	}
	data := make([]byte, size+padding(size))
	if err := readFull(r, data); err != nil {
		return "", nil, err
	}
	if len(bytes.Trim(data[size:], "\x00")) != 0 {
		return "", nil, fault.Errorf(fault.Verify, "%w: padding", ErrKRF)
	}
	return name, data[:size], nil
}

func readFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fault.Errorf(fault.Verify, "%w: it is cut off", ErrKRF)
	case err != nil:
		return fault.Errorf(readClass(err), "read .krf: %w", err)
	}
	return nil
}
